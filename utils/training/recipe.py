"""`Recipe`: a YAML file that names task, data, model and training; and how it is read, or made from a notebook's form.

Leaves out the steps from a recipe to a trained run (`training.recipes`).
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from utils.core.config import ConfigError, digest
from utils.core.notebook import Settings
from utils.data.loaders import DataConfig
from utils.data.task import Task, TaskDataConfig
from utils.models.blocks import TransformerConfig
from utils.models.generate import SamplingConfig
from utils.training.config import TrainConfig
from utils.training.families import FamilyRecipe
from utils.training.runs import find_recipe
from utils.training.sourced import SourceConfig

SCALES = {"smoke": "minimal_test", "standard": "char_lm_cpu", "full": "char_lm"}
RECIPES = ("gpt_wikitext", "bert_mlm", "t5_seq2seq", "classifier")  # each with a smoke recipe of its own
SIZES = {
    "tiny": {"num_layers": 4, "num_heads": 4, "width": 128},
    "small": {"num_layers": 6, "num_heads": 6, "width": 384},
    "base": {"num_layers": 12, "num_heads": 12, "width": 768},
}


class Recipe(FamilyRecipe):
    """Everything that decides a run. What decides its weights is its `identity`."""

    family: ClassVar[str] = "language model"

    name: str = "lm"
    """first part of the run folder's name"""
    task: Task = "causal_lm"
    """what is learned: the next token, masked tokens, a text from a text, or a class"""
    data: DataConfig = DataConfig()
    """causal_lm: the text to learn from, where `rows` are not given"""
    rows: TaskDataConfig | None = None
    """rows to learn from, with their columns and splits; every other task needs them"""
    model: TransformerConfig = TransformerConfig()
    """what learns: our GPT of this shape, where `source` names no other model"""
    source: SourceConfig = SourceConfig()
    """a model from elsewhere, or one of our examples"""
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(max_steps=2000))
    """how it is trained"""
    sample: SamplingConfig = SamplingConfig()
    """how text is sampled from it"""
    prompt: str = ""
    """what samples begin with; empty: the first tokens of the validation text"""

    @model_validator(mode="after")
    def _fits(self):
        if self.task != "causal_lm" and self.rows is None:
            raise ValueError(f"task={self.task} learns from rows; give rows.source, and leave data out")
        if self.rows is not None and self.data != DataConfig():
            raise ValueError("both data and rows are given; leave data out, or drop rows")
        if self.task != "causal_lm" and not self.source.name:
            example = {"masked_lm": "bert", "seq2seq": "t5", "classifier": "classifier"}[self.task]
            raise ValueError(f"task={self.task} needs source.name, such as example:{example}; `model` is our GPT alone")
        context = self.model.context_length
        if not self.source.name and context is not None and context < self.longest:
            setting = "rows.block_size or rows.max_length" if self.rows else "data.block_size"
            raise ValueError(
                f"{setting} {self.longest} exceeds model.context_length {context}; lower the one or raise the other"
            )
        return self

    @property
    def longest(self) -> int:
        """Tokens of a row at most."""
        return self.data.block_size if self.rows is None else self.rows.longest(self.task)

    def identity(self) -> str:
        decided = [self.name, self.data.fingerprint(), self.model.fingerprint(), self.train.arithmetic()]
        if self.rows is not None or self.source.name:
            rows = None if self.rows is None else self.rows.fingerprint()
            decided += [self.task, rows, self.source.fingerprint()]
        return digest(decided)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides."""
    return Recipe.load(find_recipe(path), overrides)


def recipe_from_form(form: Settings) -> Recipe:
    """The recipe of the form, changed by the fields that are filled in, then by its overrides."""
    base, changes = _base(form), {"train.max_steps": form.max_steps, "train.lr": form.learning_rate}
    rows = load_recipe(base).rows is not None
    if form.source:
        changes |= {"source.name": form.source, "source.trust_code": form.trust_code}
    if rows:
        changes["rows.source"] = form.corpus
        tokenizer = "rows.tokenizer"
    else:
        changes["data.corpus"] = form.corpus
        tokenizer = "data.tokenizer"
    if form.tokenizer in ("", "char", "bpe", "wordpiece", "t5"):
        changes[f"{tokenizer}.kind"] = form.tokenizer
    else:
        changes |= {f"{tokenizer}.kind": "hf", f"{tokenizer}.name": form.tokenizer}
    if form.model_size and form.model_size not in SIZES:
        raise ConfigError(f"model_size={form.model_size!r}: expected one of {', '.join(SIZES)}, or nothing.")
    shape = "source.config" if rows else "model"
    changes |= {f"{shape}.{name}": value for name, value in SIZES.get(form.model_size, {}).items()}
    if form.trackers:
        changes["train.trackers"] = form.trackers.replace(" ", "").split(",")
    filled = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value]
    filled.append(f"train.seed={form.seed}")
    if form.max_hours:
        filled.append(f"train.max_hours={form.max_hours}")
    return load_recipe(base, [*filled, *shlex.split(form.overrides, posix=os.name == "posix")])


def _base(form: Settings) -> str:
    """The name of the recipe that a form starts from."""
    if form.scale not in SCALES:
        raise ConfigError(f"scale={form.scale!r}: expected one of {', '.join(SCALES)}.")
    if not form.recipe:
        return SCALES[form.scale]
    if form.recipe in RECIPES:
        return f"{form.recipe}_smoke" if form.scale == "smoke" else form.recipe
    return form.recipe
