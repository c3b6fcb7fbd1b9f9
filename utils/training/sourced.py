"""Models of a recipe that come from elsewhere, or are one of our examples: found, sized, loaded, checked for the task.

Leaves out our own GPT of a recipe's `model` (`training.recipes`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import field_validator
from torch import nn

from utils.core.config import Config, ConfigError
from utils.data.fitting import fit_embeddings
from utils.data.tokenizer import Tokenizer
from utils.models import source
from utils.models.adapter import Adapter, adapt
from utils.models.build import seeded
from utils.models.called import Called
from utils.models.facts import CONTEXT, VOCABULARY
from utils.models.found import Source
from utils.models.model import Model

log = logging.getLogger(__name__)


class SourceConfig(Config):
    """Where a model comes from; see `models.source` for what can be named."""

    name: str = ""
    """example:gpt, gist:ID, a .py file or a folder, or a Hugging Face id; empty: our GPT, as `model` says"""
    revision: str = ""
    """of a Gist or a Hugging Face model: branch, tag or commit"""
    trust_code: bool = False
    """let code from elsewhere run here; read it first"""
    config: dict[str, Any] = {}
    """settings laid over the model's own config, such as num_layers: 2; null: none"""
    resize_embeddings: bool = False
    """give the model's embeddings as many rows as the tokenizer has ids, where they have fewer"""

    @field_validator("config", mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return {} if value is None else value


@dataclass(frozen=True)
class Needs:
    """What data and task ask of a model."""

    kind: str
    """causal_lm, masked_lm, seq2seq or classifier"""
    length: int
    """tokens of the longest row"""
    vocab_size: int
    """ids of the tokenizer"""
    classes: int | None = None


def build_sourced(config: SourceConfig, needs: Needs, tokenizer: Tokenizer, *, seed: int) -> nn.Module:
    """The model, called by the keys of our batches, with new weights drawn from `seed` where it has none.

    Sizes that its config leaves to us are filled in, which the log says. Raises `ConfigError` where it is of another
    kind than the task, or too small for the data: before anything is trained.
    """
    found = source.find(config.name, revision=config.revision)
    filled = {name: value for name, value in _sizes(found, needs).items() if name not in config.config}
    if filled:
        log.info("%s is built with %s.", found.name, ", ".join(f"{name}={value}" for name, value in filled.items()))
    loaded = source.load(
        found, trust_code=config.trust_code, overrides={**filled, **config.config}, kind=needs.kind, seed=seed
    )
    adapter = adapt(
        loaded.model, kind=needs.kind, config=loaded.config, build=loaded.build, pretrained=loaded.pretrained
    )
    with seeded(seed):
        _check(found, adapter, needs, tokenizer, resize=config.resize_embeddings)
    return loaded.model if isinstance(loaded.model, Model) else Called(adapter)


def _sizes(found: Source, needs: Needs) -> dict[str, Any]:
    """What of its config the data decide: all sizes of our examples, of others the classes and their vocabulary."""
    if found.where == "example":
        sizes = {"vocab_size": needs.vocab_size, "context_length": needs.length}
        return {**sizes, "num_classes": needs.classes} if needs.classes else sizes
    if found.where == "hf":
        return {"num_labels": needs.classes} if needs.classes else {}
    named = [next((name for name in names if name in found.config), None) for names in (VOCABULARY, CONTEXT)]
    sizes = {}
    if named[0] and found.config[named[0]] != needs.vocab_size:
        sizes[named[0]] = needs.vocab_size
    if named[1] and isinstance(found.config[named[1]], int) and found.config[named[1]] < needs.length:
        sizes[named[1]] = needs.length
    return sizes


def _check(found: Source, adapter: Adapter, needs: Needs, tokenizer: Tokenizer, *, resize: bool) -> None:
    if adapter.kind != needs.kind:
        raise ConfigError(f"{found.name} is a {adapter.kind}, and the task needs a {needs.kind}; change one of them.")
    if adapter.usable_ids < needs.vocab_size:
        fit_embeddings(adapter.model, tokenizer, resize=resize)
        log.info("%s: embeddings resized from %d to %d ids.", found.name, adapter.usable_ids, needs.vocab_size)
    elif adapter.language and adapter.labels < needs.vocab_size:
        raise ConfigError(
            f"{found.name} gives logits for {adapter.labels:,} ids, and the tokenizer has {needs.vocab_size:,}."
        )
    if adapter.limit is not None and adapter.limit < needs.length:
        raise ConfigError(
            f"Rows have up to {needs.length} tokens, and {found.name} takes {adapter.limit}: lower data.block_size, or"
            " for rows rows.block_size and rows.max_length."
        )
    if needs.classes and adapter.outputs != needs.classes:
        raise ConfigError(
            f"{found.name} tells {adapter.outputs} classes apart, and the data have {needs.classes}: set the number in"
            " source.config, under the name that the model has for it."
        )
