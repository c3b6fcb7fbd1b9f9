"""`Exportable`: what the export formats need to know of a trained model, whatever family it comes from.

Each family makes it from a run (`training.exportable`, `vae.exportable`, `rl.exportable`); `publish` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from utils.core.run import Run


@dataclass(frozen=True)
class Part:
    """One graph: a module that takes tensors in the order of `inputs` and returns one tensor."""

    name: str
    """model; or encoder and decoder of a model that has both"""
    module: nn.Module
    """in eval mode, on the CPU, in fp32"""
    inputs: dict[str, Tensor]
    """what it is exported with, by name"""
    others: tuple[dict[str, Tensor], ...]
    """inputs of other batch sizes and lengths, on which parity is proven"""
    axes: dict[str, dict[int, str]]
    """of inputs and of the output: which axes vary, and their names (batch, length, decoder_length)"""
    output: str = "logits"


@dataclass(frozen=True)
class Exportable:
    """A trained model and what others must know to use it."""

    run: Run
    name: str
    family: str
    """of the recipe: language model, VAE or PPO"""
    kind: str
    """causal_lm, masked_lm, seq2seq, classifier or vae"""
    step: int
    """of the checkpoint whose weights these are: the best, unless `note` says otherwise"""
    model: nn.Module
    """the module whose state dict is published"""
    loader: Literal["ours", "transformers", "weights"]
    """how its weights become a model again: by our classes, by `from_pretrained`, or only by code that is not here"""
    parts: tuple[Part, ...]
    builds: str = ""
    """for "ours": module:class, such as utils.models.transformer:GPT"""
    config: dict[str, Any] = field(default_factory=dict)
    """what that class is built with; plain values"""
    origin: str = ""
    """for models from elsewhere: the source that was named, with its revision"""
    tokenizer: Path | None = None
    """the folder that `data.tokenizers.load_tokenizer` reads"""
    classes: tuple[str, ...] = ()
    """names of a classifier's outputs"""
    metrics: dict[str, float | dict[str, float]] = field(default_factory=dict)
    """of these weights, on the split that the name says: validation/loss ...; measured with a 95% interval, as value,
    low and high"""
    note: str = ""
    """why these are not the best weights, or not those that training left; empty where they are"""
    data: str = ""
    """fingerprint of the data that it was trained on, where opening it asks for that (the VAE)"""
    start: dict[str, Tensor] = field(default_factory=dict)
    """weights that training began with, where judging compares with them (PPO)"""
    license: str = ""
    """of the weights, as an SPDX identifier; empty: not stated"""
