"""`Recipe`: a YAML file that names task, data, model and training; and how it is read.

Leaves out recipes from a notebook's form (`training.form`), and the steps to a trained run (`training.recipes`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from utils.core.config import ConfigError, digest, parse_overrides
from utils.data.loaders import DataConfig
from utils.data.task import Task, TaskDataConfig
from utils.models.blocks import TransformerConfig
from utils.models.generate import SamplingConfig
from utils.training.config import TrainConfig
from utils.training.families import FamilyRecipe, content, mapping
from utils.training.runs import find_recipe
from utils.training.sourced import SourceConfig

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)


class Recipe(FamilyRecipe):
    """Everything that decides a run. What decides its weights is its `identity`."""

    family: ClassVar[str] = "language model"

    name: str = "lm"
    """first part of the run folder's name"""
    task: Task = "causal_lm"
    """what is learned: the next token, masked tokens, a text from a text, or a class"""
    data: DataConfig = DataConfig()
    """causal_lm: the text to learn from, where `rows` are not given; null: all of it as by default"""
    rows: TaskDataConfig | None = None
    """rows to learn from, with their columns and splits; every other task needs them"""
    model: TransformerConfig = TransformerConfig()
    """what learns: our GPT of this shape, where `source` names no other model; null: all of it as by default"""
    source: SourceConfig = SourceConfig()
    """a model from elsewhere, or one of our examples"""
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(max_steps=2000))
    """how it is trained"""
    sample: SamplingConfig = SamplingConfig()
    """how text is sampled from it"""
    prompt: str = ""
    """what samples begin with; empty: the first tokens of the validation text"""

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Iterable[str] = (), **keywords: Any) -> Self:
        """As `FamilyRecipe.load`; a source given to a file of another one puts aside what was meant for that one."""
        given = list(overrides)
        source = parse_overrides(given).get("corpus")
        if source is not None and path is not None and mapping(content(Path(path)).get("rows")):
            raise ConfigError(
                f"unknown setting 'corpus'; {path} learns from rows: did you mean 'rows.source={source}'?"
            )
        aside = [] if path is None else _aside(content(Path(path)), _source(given, keywords))
        if not aside:
            return super().load(path, given, **keywords)
        later = [one for one in given if one.startswith("source.config")]  # not to be merged with what the file has
        recipe = super().load(path, [*aside, *(one for one in given if one not in later)], **keywords)
        return super(Recipe, recipe).replace(later) if later else recipe

    def replace(self, overrides: Iterable[str] = (), **keywords: Any) -> Self:
        """As `Config.replace`; another source puts aside what was meant for the one before."""
        given = list(overrides)
        source = _source(given, keywords)
        aside = _aside(self.model_dump(), source)
        before = super().replace(aside, source={"name": source["name"]}) if aside else self
        return super(Recipe, before).replace(given, **keywords)

    @field_validator("data", "model", mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="after")
    def _used(self):
        """Settings that would do nothing, each refused by its own name (so that a search over it is, too)."""
        faults = []
        if self.source.name:
            told = f"our GPT is not what learns, source.name={self.source.name} is; set source.config, or model=null"
            plain = TransformerConfig()
            idle = {name: value for name, value in self.model if value != getattr(plain, name)}
            faults = [(("model", name), value, told) for name, value in idle.items()]
        else:
            told = "no source.name says which model this is of; give it, or set the shape of our GPT in model"
            faults = [(("source", "config", name), value, told) for name, value in self.source.config.items()]
            rest = {name: getattr(self.source, name) for name in ("revision", "resize_embeddings")}
            faults += [(("source", name), value, told) for name, value in rest.items() if value]
        if faults:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(type=PydanticCustomError("idle", told), loc=place, input=value)
                    for place, value, told in faults
                ],
            )
        return self

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
    return Recipe.load(find_recipe(path, Recipe.family), overrides)


def _aside(own: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    """What a recipe says of its own model where another source is given, put aside: overrides, said in the log."""
    before, name = mapping(own.get("source")), source.get("name")
    if not name or name == before.get("name"):
        return []
    plain = TransformerConfig().model_dump(mode="json")
    shaped = {key for key, value in mapping(own.get("model")).items() if value != plain.get(key)}
    aside = [key for key, values in {"model": shaped, "source.config": before.get("config")}.items() if values]
    for key in aside:
        log.info("source.name=%s takes the place of the recipe's model, and its %s is put aside.", name, key)
    return [f"{key}=null" for key in aside]


def _source(overrides: Iterable[str], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What overrides and keywords say of the source."""
    return {**mapping(parse_overrides(overrides).get("source")), **mapping(keywords.get("source"))}
