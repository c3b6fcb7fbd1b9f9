"""Models beside the one of a recipe: alike but for beta, and trained for a few steps. Rate against distortion.

The one with beta 0 is the autoencoder among the baselines. Each is a run of its own, so that none is trained twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas
from torch import nn

from utils.core.run import Run
from utils.training.evaluate import evaluate
from utils.training.runs import train_model
from utils.vae.model import BetaVAE
from utils.vae.objective import make_elbo
from utils.vae.recipes import VAERecipe, build_model, objective_of, open_trained

if TYPE_CHECKING:
    from utils.vae.data import GridData

MEASURED = ("kl", "nll", "non_padding", "exact")


@dataclass(frozen=True)
class Betas:
    """Models by their beta, all trained for `steps`, and how each does on the validation split."""

    models: dict[float, BetaVAE]
    table: pandas.DataFrame
    """a row a model: beta, steps, kl (rate) and nll (distortion) in nats a grid, non_padding, exact"""
    steps: int

    @property
    def baselines(self) -> dict[str, BetaVAE]:
        """The autoencoder, by a name that says how long it was trained; empty where there is none."""
        return {autoencoder(self.steps): self.models[0.0]} if 0.0 in self.models else {}


def train_betas(recipe: VAERecipe, data: GridData, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Betas:
    """Train a model at each of `recipe.betas` under `root`, or take up those that are there."""
    models, rows = {}, []
    for beta in recipe.betas:
        beside = recipe_at(recipe, beta)
        result = train_model(
            beside.train,
            prepare=lambda: data,
            build=lambda data, beside=beside: (build_model(beside), objective_of(beside, data)),
            take_run=lambda data, beside=beside: Run.start(root, beside.name, beside, resume=resume),
        )
        models[beta] = open_trained(result.run.path).model
        rows.append(rate_row(models[beta], beside, data, result.progress.step))
    return Betas(models, pandas.DataFrame(rows, columns=["beta", "steps", *MEASURED]), recipe.beta_steps)


def kept_baselines(recipe: VAERecipe, root: Path) -> dict[str, BetaVAE]:
    """The autoencoder of `Betas.baselines`, if `train_betas` has finished it under `root`; nothing is trained."""
    beside = recipe_at(recipe, 0.0)
    runs = [run for run in Run.all(root) if run.stamp["identity"] == beside.identity() and len(run.metrics())]
    done = [run for run in runs if run.metrics().index[-1] == recipe.beta_steps]
    return {autoencoder(recipe.beta_steps): open_trained(done[-1].path).model} if done else {}


def autoencoder(steps: int) -> str:
    return f"autoencoder (beta 0, {steps:,} steps)"


def recipe_at(recipe: VAERecipe, beta: float) -> VAERecipe:
    """The recipe with another beta and `beta_steps` of training."""
    steps = recipe.beta_steps
    train = {
        "max_steps": steps,
        "max_epochs": None,
        "warmup_steps": min(recipe.train.warmup_steps, steps // 10),
        "eval_every": steps,
    }
    return recipe.replace(name=f"{recipe.name}-beta-{beta:g}", model={"beta": beta}, train=train)


def rate_row(model: nn.Module, recipe: VAERecipe, data: GridData, steps: int) -> dict[str, float]:
    """A row of `Betas.table` for a model and its recipe."""
    found = evaluate(model, make_elbo(recipe.model, 1), data.validation, recipe.train.replace(eval_batches=None))
    return {"beta": recipe.model.beta, "steps": steps, **{name: found[name] for name in MEASURED}}
