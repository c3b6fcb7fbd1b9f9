"""Recipes: a YAML file that names data, model and training; and the steps from one to a trained run.

The notebook takes the steps one by one, the command line takes them all with `train`.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from utils.core import repro
from utils.core.checkpoints import Checkpoint
from utils.core.config import ConfigError, digest
from utils.core.device import choose, make_fabric
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.data.loaders import DataConfig, TextData, prepare
from utils.data.tokenizers import Tokenizer, load_tokenizer
from utils.models.blocks import TransformerConfig
from utils.models.generate import SamplingConfig, sample_temperatures
from utils.models.transformer import GPT
from utils.training.callbacks import Sampler, text_sampler
from utils.training.config import TrainConfig
from utils.training.evaluate import evaluate
from utils.training.families import FamilyRecipe
from utils.training.objectives import next_token
from utils.training.report import write_report
from utils.training.result import Result
from utils.training.runs import best_checkpoint, find_recipe, taken_up, train_model

if TYPE_CHECKING:
    import pandas
    from lightning_fabric import Fabric

SCALES = {"smoke": "minimal_test", "standard": "char_lm_cpu", "full": "char_lm"}
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
    data: DataConfig = DataConfig()
    """what to learn from"""
    model: TransformerConfig = TransformerConfig()
    """what learns"""
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(max_steps=2000))
    """how it is trained"""
    sample: SamplingConfig = SamplingConfig()
    """how text is sampled from it"""
    prompt: str = ""
    """what samples begin with; empty: the first tokens of the validation text"""

    @model_validator(mode="after")
    def _fits(self):
        context = self.model.context_length
        if context is not None and context < self.data.block_size:
            raise ValueError(
                f"data.block_size {self.data.block_size} exceeds model.context_length {context};"
                " lower the one or raise the other"
            )
        return self

    def identity(self) -> str:
        return digest([self.name, self.data.fingerprint(), self.model.fingerprint(), self.train.arithmetic()])


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides."""
    return Recipe.load(find_recipe(path), overrides)


def recipe_from_form(form: Settings) -> Recipe:
    """The recipe of the form's scale, changed by the fields that are filled in, then by its overrides."""
    if form.scale not in SCALES:
        raise ConfigError(f"scale={form.scale!r}: expected one of {', '.join(SCALES)}.")
    if form.model_size and form.model_size not in SIZES:
        raise ConfigError(f"model_size={form.model_size!r}: expected one of {', '.join(SIZES)}, or nothing.")
    sizes = SIZES.get(form.model_size, {})
    changes = {f"model.{name}": value for name, value in sizes.items()}
    if form.tokenizer in ("", "char", "bpe"):
        changes["data.tokenizer.kind"] = form.tokenizer
    else:
        changes |= {"data.tokenizer.kind": "hf", "data.tokenizer.name": form.tokenizer}
    changes |= {
        "data.corpus": form.corpus,
        "train.max_steps": form.max_steps,
        "train.lr": form.learning_rate,
        "train.seed": form.seed,
    }
    filled = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value or key == "train.seed"]
    return load_recipe(SCALES[form.scale], [*filled, *shlex.split(form.overrides, posix=os.name == "posix")])


def build_model(recipe: Recipe, data: TextData) -> GPT:
    """The recipe's model with weights drawn from its seed, sized to the data's vocabulary and blocks."""
    needed = data.tokenizer.vocab_size
    config = recipe.model
    if config.vocab_size is not None and config.vocab_size < needed:
        raise ConfigError(
            f"model.vocab_size {config.vocab_size} is less than the tokenizer's {needed}; raise it or leave it out."
        )
    repro.seed_everything(recipe.train.seed)
    return GPT(_sized(recipe, needed))


def prompt_of(recipe: Recipe, data: TextData) -> str:
    """What samples begin with: the recipe's prompt, or the first 32 tokens of the validation text."""
    return recipe.prompt or data.tokenizer.decode(data.validation.tokens[:32])


def _sized(recipe: Recipe, vocab_size: int) -> TransformerConfig:
    """The model's config with what it leaves to the tokenizer and the data filled in."""
    config = recipe.model
    sizes = {
        "vocab_size": config.vocab_size or vocab_size,
        "context_length": config.context_length or recipe.data.block_size,
    }
    return config.model_copy(update=sizes)


def start_run(recipe: Recipe, data: TextData, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Run:
    """The run of this recipe under `root`, taken up or made new, with its tokenizer inside."""
    return _with_tokenizer(Run.start(root, recipe.name, recipe, resume=resume), data)


def train(recipe: Recipe, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Result:
    """Recipe in, trained run out: prepare, build, `fit`. Works alike in one process and under torch.distributed.run."""
    return _train(recipe, root, lambda data: start_run(recipe, data, root, resume=resume))


def go_on(run: Run, recipe: Recipe) -> Result:
    """Take up `run` where it stopped; or, where `recipe` would change its weights, a branch of it."""
    take_run, parent = taken_up(run, recipe)
    return _train(recipe, run.path.parent, lambda data: _with_tokenizer(take_run(), data) if parent else run, parent)


def _train(recipe: Recipe, root: Path, take_run: Callable[[TextData], Run], parent: Checkpoint | None = None) -> Result:
    def sampler(run: Run, data: TextData) -> Sampler:
        return text_sampler(run, data.tokenizer, recipe.sample, prompt_of(recipe, data))

    return train_model(
        recipe.train,
        prepare=lambda: prepare(recipe.data, root / "data"),
        build=lambda data: (build_model(recipe, data), next_token),
        take_run=take_run,
        sampler=sampler,
        parent=parent,
    )


def _with_tokenizer(run: Run, data: TextData) -> Run:
    folder = run.path / "tokenizer"
    folder.mkdir(exist_ok=True)
    data.tokenizer.save(folder)
    return run


def final_metrics(model: GPT, data: TextData, config: TrainConfig, *, fabric: Fabric | None = None) -> pandas.DataFrame:
    """The metrics of a model on validation and test (where there is one): a row a metric, a column a split."""
    import pandas

    splits = {"validation": data.validation, "test": data.test}
    config = config.replace(eval_batches=None)  # whole splits
    return pandas.DataFrame(
        {
            name: evaluate(model, next_token, split, config, fabric=fabric)
            for name, split in splits.items()
            if split.targets
        }
    )


def finish(run: Run) -> Path:
    """Evaluate a run's best weights, sample from them, write report.md. Several processes share the evaluation."""
    trained = open_trained(run.path)
    train = trained.recipe.train
    fabric = make_fabric(choose(train.device, train.precision))
    data = trained.data()
    metrics = final_metrics(trained.model, data, train, fabric=fabric)
    if not fabric.is_global_zero:
        return run.path / "report.md"
    samples = sample_temperatures(
        trained.model, trained.tokenizer, prompt_of(trained.recipe, data), trained.recipe.sample
    )
    return write_report(run, metrics, samples)


@dataclass(frozen=True)
class Trained:
    """A run's model with its best weights, its recipe and its tokenizer."""

    run: Run
    recipe: Recipe
    model: GPT
    tokenizer: Tokenizer
    step: int

    def data(self) -> TextData:
        """The run's data, prepared again if it is no longer there."""
        return prepare(self.recipe.data, self.run.path.parent / "data")


def open_trained(path: str | Path) -> Trained:
    """The model of a run folder: the weights of its best checkpoint, or its newest where none was evaluated."""
    run = Run.open(path)
    recipe = Recipe.load(run.path / "config.yaml")
    tokenizer = load_tokenizer(run.path / "tokenizer")
    checkpoint = best_checkpoint(run)
    model = GPT(_sized(recipe, tokenizer.vocab_size))
    model.load_state_dict(checkpoint.load()["model"])
    return Trained(run, recipe, model.eval(), tokenizer, checkpoint.step)
