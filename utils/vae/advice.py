"""What a model was to reach, whether it did, and what to do where it did not.

Leaves out collapse, which `vae.collapse` tells on its own and gives advice for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas

from utils.core.check import Check
from utils.vae.collapse import COLLAPSE
from utils.vae.evaluation import Evaluation
from utils.vae.metrics import TITLES
from utils.vae.recipes import VAERecipe

if TYPE_CHECKING:
    from utils.core.run import Run

TARGETS = {
    ("validation", "non_padding"): 0.96,
    ("validation", "exact"): 0.60,
    ("test", "non_padding"): 0.91,
    ("test", "exact"): 0.55,
}
"""shares by split and rate that the standard recipe is made for"""
GAP = 0.05  # of training above validation: more than this is learned by heart
SIZES = 0.97  # share of grids whose size should be right before anything else matters


def targets_check(evaluations: Mapping[str, Evaluation], recipe: VAERecipe, run: Run) -> Check:
    """Whether the targets are met, with what was reached and how far it is; and the first thing to change if not."""
    rows = [
        {
            "split": split,
            "rate": TITLES[rate],
            "target, %": 100 * target,
            "reached, %": 100 * evaluations[split].reconstruction[rate].value,
        }
        for (split, rate), target in TARGETS.items()
        if split in evaluations
    ]
    table = pandas.DataFrame(rows)
    table["short of it, points"] = (table["target, %"] - table["reached, %"]).clip(lower=0)
    short = table[table["short of it, points"] > 0]
    if short.empty:
        return Check("targets", "pass", f"all {len(table)} are met", table)
    missed = ", ".join(
        f"{split} {rate} {reached:.1f}% of {target:.0f}%"
        for split, rate, target, reached, _ in short.itertuples(index=False)
    )
    return Check("targets", "warn", f"below: {missed}. {advice(evaluations, recipe, run)}", table, critical=False)


def advice(evaluations: Mapping[str, Evaluation], recipe: VAERecipe, run: Run) -> str:
    """The first of these that applies: collapse, wrong sizes, training that was not done, learning by heart, size."""
    metrics, first = run.metrics(), next(iter(evaluations.values()))
    collapsed = [check.summary for check in first.checks if check.name == COLLAPSE and check.status == "fail"]
    if collapsed:
        return f"The latents are not used: {collapsed[0]}"
    if first.reconstruction["shape"].value < SIZES:
        dense = recipe.model.architecture == "dense"
        wrong = 1 - first.reconstruction["shape"].value
        return (
            f"{wrong:.0%} of the sizes are wrong, which spoils every cell of theirs: train longer"
            f" ({_longer(recipe)}){'' if dense else f', or raise model.overall (now {recipe.model.overall})'}."
        )
    losses = metrics["validation/loss"].dropna()
    if losses.idxmin() == losses.index[-1]:
        return f"The validation loss was still falling at the end: train longer, with {_longer(recipe)}."
    gap = metrics["train/non_padding"].dropna().tail(20).mean() - metrics["validation/non_padding"].dropna().iloc[-1]
    if gap > GAP:
        return (
            f"Training is {gap:.0%} ahead of validation, so it learns by heart: raise corpus.total (now"
            f" {recipe.corpus.total:,}), and keep corpus.online.d4 and corpus.online.colours on."
        )
    if recipe.model.architecture == "dense":
        more = f"raise model.latents (now {recipe.model.latents})"
        return f"It has learned what it can hold: take model.architecture=palette, or {more}."
    lower = f"lower model.beta (now {recipe.model.beta:g}), " if recipe.model.beta else ""
    return (
        f"It has learned what it can hold: {lower}raise model.channels (now {recipe.model.channels}) or model.widths"
        f" (now {recipe.model.widths}), and train again."
    )


def _longer(recipe: VAERecipe) -> str:
    train = recipe.train
    return f"train.max_steps={2 * train.max_steps}" if train.max_steps else f"train.max_epochs={2 * train.max_epochs}"
