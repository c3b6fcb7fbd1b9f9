"""Recipes: a YAML file that names data, model and training; and the steps from one to a trained run.

The notebook takes the steps one by one, the command line takes them all with `train`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from utils.core import repro
from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.config import Config, ConfigError
from utils.core.device import choose, make_fabric
from utils.core.notebook import ROOT, Settings
from utils.core.run import Run
from utils.data.loaders import DataConfig, TextData, prepare
from utils.data.tokenizers import Tokenizer, load_tokenizer
from utils.models.blocks import TransformerConfig
from utils.models.generate import SamplingConfig
from utils.models.transformer import GPT
from utils.training.callbacks import text_sampler
from utils.training.config import TrainConfig
from utils.training.fit import Result, fit
from utils.training.objectives import next_token

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CONFIGS = ROOT / "configs"
SCALES = {"smoke": "minimal_test", "standard": "char_lm_cpu", "full": "char_lm"}
SIZES = {
    "tiny": {"num_layers": 4, "num_heads": 4, "width": 128},
    "small": {"num_layers": 6, "num_heads": 6, "width": 384},
    "base": {"num_layers": 12, "num_heads": 12, "width": 768},
}


class Recipe(Config):
    """Everything that decides a run."""

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
    prompt: str = "\n"
    """what samples begin with"""

    @model_validator(mode="after")
    def _fits(self):
        context = self.model.context_length
        if context is not None and context < self.data.block_size:
            raise ValueError(
                f"data.block_size {self.data.block_size} exceeds model.context_length {context}; lower the one or raise the other"
            )
        return self


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides."""
    named = CONFIGS / f"{path}.yaml"
    return Recipe.load(named if named.is_file() else path, overrides)


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
    filled = [f"{key}={value}" for key, value in changes.items() if value != "" and (value or key == "train.seed")]
    return load_recipe(SCALES[form.scale], [*filled, *form.overrides.split()])


def build_model(recipe: Recipe, data: TextData) -> GPT:
    """The recipe's model with weights drawn from its seed, sized to the data's vocabulary and blocks."""
    needed = data.tokenizer.vocab_size
    config = recipe.model
    if config.vocab_size is not None and config.vocab_size < needed:
        raise ConfigError(f"model.vocab_size {config.vocab_size} is less than the tokenizer's {needed}; raise it or leave it out.")
    sizes = {"vocab_size": config.vocab_size or needed, "context_length": config.context_length or recipe.data.block_size}
    repro.seed_everything(recipe.train.seed)
    return GPT(config.model_copy(update=sizes))


def start_run(recipe: Recipe, data: TextData, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Run:
    """The run of this recipe under `root`, taken up or made new, with its tokenizer inside."""
    run = Run.start(root, recipe.name, recipe, resume=resume)
    save_tokenizer(run, data)
    return run


def save_tokenizer(run: Run, data: TextData) -> None:
    folder = run.path / "tokenizer"
    folder.mkdir(exist_ok=True)
    data.tokenizer.save(folder)


def train(recipe: Recipe, root: Path, *, resume: Literal["auto", "never"] = "auto", branch_of: Run | None = None) -> Result:
    """Recipe in, trained run out: prepare, build, `fit`. Works alike in one process and under torch.distributed.run.

    With `branch_of` the run is a branch: it starts from that run's newest checkpoint.
    """
    fabric = make_fabric(choose(recipe.train.device, recipe.train.precision))
    with fabric.rank_zero_first():
        data = prepare(recipe.data, root / "data")
    model = build_model(recipe, data)
    run = None
    if fabric.is_global_zero:
        run = start_run(recipe, data, root, resume=resume) if branch_of is None else branch_of.branch(recipe)
        save_tokenizer(run, data)
    run = Run.open(fabric.broadcast(str(run.path) if run else None))
    sampler = text_sampler(run, data.tokenizer, recipe.sample, recipe.prompt)
    parent = None if branch_of is None else newest_checkpoint(branch_of)
    return fit(model, next_token, data, run, recipe.train, sample=sampler, parent=parent, fabric=fabric)


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
    checkpoints = Checkpoints(run.path / "checkpoints")
    checkpoint = checkpoints.best() or newest_checkpoint(run)
    sizes = {
        "vocab_size": recipe.model.vocab_size or tokenizer.vocab_size,
        "context_length": recipe.model.context_length or recipe.data.block_size,
    }
    model = GPT(recipe.model.model_copy(update=sizes))
    model.load_state_dict(checkpoint.load()["model"])
    return Trained(run, recipe, model.eval(), tokenizer, checkpoint.step)


def newest_checkpoint(run: Run) -> Checkpoint:
    checkpoint = Checkpoints(run.path / "checkpoints").last()
    if checkpoint is None:
        raise ConfigError(f"{run.path} has no checkpoint yet; train it first with: python -m utils resume {run.path}")
    return checkpoint
