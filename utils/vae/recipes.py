"""Recipes of a beta-VAE: a YAML file that names corpus, model and training; and the steps from one to a judged run.

The notebook takes the steps one by one, the command line takes them all with `train` and `finish`. Leaves out what is
shared with recipes of other kinds (`training.runs`) and the models beside it at other betas (`vae.betas`).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from utils.core import repro
from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.config import ConfigError, digest, flatten, parse_overrides
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.data.text import CorpusError
from utils.training.config import TrainConfig
from utils.training.families import FamilyRecipe, as_meant
from utils.training.objectives import Objective
from utils.training.result import Result
from utils.training.runs import best_checkpoint, find_recipe, newest_checkpoint, substituted, taken_up, train_model
from utils.vae.config import VAEConfig, readable
from utils.vae.corpus import CorpusConfig, build_corpus, find_built
from utils.vae.data import GridData
from utils.vae.evaluate import EvaluationConfig
from utils.vae.live import live_curves
from utils.vae.model import BetaVAE
from utils.vae.objective import make_elbo
from utils.vae.sampler import SamplerConfig

log = logging.getLogger(__name__)
SCALES = {"smoke": "vae_smoke", "standard": "vae", "full": "vae_full"}


class VAERecipe(FamilyRecipe):
    """Everything that decides a run. What decides its weights is its `identity`."""

    family: ClassVar[str] = "VAE"

    name: str = "vae"
    """first part of the run folder's name"""
    corpus: CorpusConfig = CorpusConfig()
    """what to learn from"""
    model: VAEConfig = VAEConfig()
    """what learns, and for what"""
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(max_steps=6000, batch_size=128))
    """how it is trained"""
    evaluation: EvaluationConfig = EvaluationConfig()
    """how it is judged"""
    sampler: SamplerConfig = SamplerConfig()
    """what new grids are drawn from"""
    betas: tuple[float, ...] = (0.0, 0.2, 1.0)
    """betas of the models trained beside it for comparison; 0 is the autoencoder among the baselines"""
    beta_steps: int = Field(600, ge=1)
    """training steps of each of those models"""

    @model_validator(mode="after")
    def _consistent(self):
        if self.sampler.kind == "autoregressive" and "map" not in self.model.groups:
            raise ValueError(
                f"sampler.kind autoregressive draws a map of latents, and architecture {self.model.architecture} has"
                " none; drop it, or take mixture"
            )
        return self

    def identity(self) -> str:
        return digest([self.name, self.corpus.fingerprint(), self.model.arithmetic(), self.train.arithmetic()])


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> VAERecipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides.

    Where an override takes another architecture or schedule, those of the file's settings that it does not read are
    left out, and that is said; such a setting among the overrides is refused.
    """
    file, overrides = find_recipe(path, VAERecipe.family), list(overrides)
    given = parse_overrides(overrides).get("model")
    choices = ("architecture", "schedule") if isinstance(given, dict) else ()
    chosen = {name: given[name] for name in choices if name in given}
    if not chosen:
        return VAERecipe.load(file, overrides)
    values = VAERecipe.load(file).model_dump(mode="json", exclude_unset=True)
    model = values.get("model", {})
    values["model"] = readable(model | chosen)
    dropped = ", ".join(name for name in model if name not in values["model"])
    if dropped:
        by = ", ".join(f"{name}={value}" for name, value in chosen.items())
        log.info("Left out of %s, since %s does not read them: %s.", file.name, by, dropped)
    own = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flatten(values)]
    return VAERecipe.load(None, [*own, *overrides, *as_meant(values, overrides)])


def recipe_from_form(form: Settings) -> VAERecipe:
    """The recipe of the form's scale, changed by the fields that are filled in, then by its overrides."""
    if form.scale not in SCALES:
        raise ConfigError(f"scale={form.scale!r}: expected one of {', '.join(SCALES)}.")
    changes = {
        "corpus.source": form.corpus,
        "model.architecture": form.architecture,
        "model.beta": form.beta,  # text: 0 is a beta
        "train.max_steps": form.max_steps,
        "train.lr": form.learning_rate,
        "train.seed": form.seed,
    }
    filled = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value or key == "train.seed"]
    return load_recipe(SCALES[form.scale], [*filled, *shlex.split(form.overrides, posix=os.name == "posix")])


def prepare(recipe: VAERecipe, root: Path) -> GridData:
    """The recipe's corpus under `root`, built if it is not there."""
    return build_corpus(recipe.corpus, root / "data")


def build_model(recipe: VAERecipe) -> BetaVAE:
    """The recipe's model with weights drawn from its seed."""
    repro.seed_everything(recipe.train.seed)
    return BetaVAE(recipe.model)


def objective_of(recipe: VAERecipe, data: GridData) -> Objective:
    """The ELBO, its beta scheduled over the recipe's training on this data."""
    train = recipe.train
    steps = train.max_steps or train.max_epochs * data.train.num_batches(train.batch_size)
    return make_elbo(recipe.model, steps)


def start_run(recipe: VAERecipe, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Run:
    """The run of this recipe under `root`, taken up or made new."""
    return Run.start(root, recipe.name, recipe, resume=resume)


def train(recipe: VAERecipe, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Result:
    """Recipe in, trained run out: prepare, build, `fit`. Works alike in one process and under torch.distributed.run."""
    return _train(recipe, root, lambda: start_run(recipe, root, resume=resume))


def go_on(run: Run, recipe: VAERecipe) -> Result:
    """Take up `run` where it stopped; or, where `recipe` would change its weights, a branch of it.

    Raises `ConfigError` for another split of the corpus: tasks held out of a branch would be some it has learned.
    """
    saved = VAERecipe.load(run.path / "config.yaml").corpus
    changed = [
        f"corpus.{name} was {getattr(saved, name)}, now {getattr(recipe.corpus, name)}"
        for name in ("source", "splits", "merge_cells", "seed")
        if getattr(saved, name) != getattr(recipe.corpus, name)
    ]
    if changed:
        raise ConfigError(
            f"A branch takes over weights that have seen the tasks its run was trained on, and {'; '.join(changed)}"
            " would hold out some of those. Leave it out, or start a new run: python -m utils vae train."
        )
    return _train(recipe, run.path.parent, *taken_up(run, recipe))


def _train(recipe: VAERecipe, root: Path, take_run: Callable[[], Run], parent: Checkpoint | None = None) -> Result:
    return train_model(
        recipe.train,
        prepare=lambda: prepare(recipe, root),
        build=lambda data: (build_model(recipe), objective_of(recipe, data)),
        take_run=lambda data: take_run(),
        sampler=lambda run, data: live_curves(run),
        parent=parent,
    )


@dataclass(frozen=True)
class Trained:
    """A run's model with the weights of one checkpoint, on the CPU, and its recipe."""

    run: Run
    recipe: VAERecipe
    model: BetaVAE
    step: int
    fingerprint: str
    """of the data it was trained on; empty where a published run did not say"""
    note: str = ""
    """why these weights are not those that training left; empty where they are"""

    def data(self) -> GridData:
        """The corpus it was trained on: as built beside the run, whatever became of its source; else built again.

        Raises `CorpusError` where that gives another one, whose held-out tasks may have been trained on.
        """
        root = self.run.path.parent
        if not self.fingerprint:
            log.warning(
                "%s does not say which corpus it was trained on: tasks held out of %r may have been trained on.",
                self.run.path.name,
                self.recipe.corpus.source,
            )
            return prepare(self.recipe, root)
        built = find_built(self.fingerprint, root / "data", self.recipe.corpus.online)
        data = prepare(self.recipe, root) if built is None else built
        if data.fingerprint != self.fingerprint:
            raise CorpusError(
                f"{self.run.path} was trained on corpus {self.fingerprint}, and {self.recipe.corpus.source!r} now gives"
                f" {data.fingerprint} ({data.folder}): tasks held out of it may have been trained on. Bring the source"
                " back as it was, or train a new run."
            )
        return data


def open_trained(path: str | Path, step: int | None = None) -> Trained:
    """The model of a run folder: the weights of `step`, or those that training leaves: its best, or its last."""
    run = Run.open(path)
    recipe = VAERecipe.load(run.path / "config.yaml")
    chosen = best_checkpoint if recipe.train.restore_best else newest_checkpoint
    checkpoint = chosen(run) if step is None else _checkpoint_at(run, step)
    note = substituted(run, checkpoint, by_loss=recipe.train.restore_best) if step is None else ""
    if note:
        log.warning(note)
    model, state = BetaVAE(recipe.model), checkpoint.load()
    model.load_state_dict(state["model"])
    return Trained(run, recipe, model.eval(), checkpoint.step, state.get("data", ""), note)


def _checkpoint_at(run: Run, step: int) -> Checkpoint:
    there = {one.step: one for one in Checkpoints(run.path / "checkpoints").all()}
    if step not in there:
        steps = ", ".join(map(str, there)) or "none"
        raise ConfigError(
            f"{run.path} has no checkpoint of step {step}; it has: {steps}. Leave --step out for the best."
        )
    return there[step]
