"""A run judged and reported: results/metrics.json and report.md, from its best weights.

Leaves out how each number comes about (`vae.evaluate`, `vae.samples`, `vae.betas`).
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
from torch import nn

from utils.core.run import Run
from utils.training.report import markdown_table, write_page
from utils.vae.betas import Betas, train_betas
from utils.vae.evaluate import evaluate_vae
from utils.vae.evaluation import Evaluation, write_metrics
from utils.vae.grid_plots import plot_samples
from utils.vae.plots import plot_history
from utils.vae.recipes import VAERecipe, open_trained
from utils.vae.samples import NOTES, Samples, draw_samples
from utils.vae.sampling import samplers_of
from utils.vae.tables import bounds_table, metric_card, rates_table

if TYPE_CHECKING:
    from utils.vae.data import GridData


CURVES = "![Shares of cells and grids right, and KL beside beta, over the steps](figures/curves.png)"
SAMPLES = "![Ten grids from each sampler and temperature, with size and distance from training](figures/samples.png)"
log = logging.getLogger(__name__)


def judge(
    model: nn.Module,
    data: GridData,
    recipe: VAERecipe,
    *,
    splits: Sequence[str] = ("validation", "test"),
    others: Mapping[str, nn.Module] | None = None,
) -> dict[str, Evaluation]:
    """The evaluation of a model on each split, beside the baselines and `others`.

    What does not depend on the split (`evaluation.factor_grids`) is measured with the first.
    """
    later = recipe.evaluation.replace(factor_grids=0)
    return {
        name: evaluate_vae(
            model,
            getattr(data, name),
            later if number else recipe.evaluation,
            name=name,
            train=None if name == "train" else data.train,
            others=others,
            settings=recipe.model.model_dump(),
        )
        for number, name in enumerate(splits)
    }


def write_results(
    path: str | Path, evaluations: Mapping[str, Evaluation], recipe: VAERecipe, step: int, note: str = ""
) -> Path:
    """results/metrics.json: every evaluation, with the recipe, the step of the weights and the `note` on them."""
    checkpoint = {"step": step, **({"note": note} if note else {})}
    return write_metrics(path, list(evaluations.values()), recipe=recipe, checkpoint=checkpoint)


def finish(run: Run, recipe: VAERecipe | None = None) -> Path:
    """Compare, judge, sample and report a trained run; report.md. Several processes share the comparison's training.

    As `recipe` says, which may judge otherwise than the run was judged before; None: as it was.
    """
    trained = open_trained(run.path)
    recipe, data = recipe or trained.recipe, trained.data()
    betas = train_betas(recipe, data, run.path.parent)
    if int(os.environ.get("RANK", 0)):
        return run.path / "report.md"
    evaluations = judge(trained.model, data, recipe, others=betas.baselines)
    samplers = samplers_of(run, trained.step, trained.model, data, recipe.sampler)
    samples = draw_samples(trained.model, samplers, data)
    return write_report(run, recipe, trained.step, evaluations, samples, betas, note=trained.note)


def keep_settings(run: Run, recipe: VAERecipe) -> None:
    """Keep in the run what it was judged with; how it was trained stays as it is there."""
    file = run.path / "config.yaml"
    saved = VAERecipe.load(file)
    judged = {name: getattr(recipe, name) for name in ("evaluation", "sampler", "betas", "beta_steps")}
    if saved.model_copy(update=judged) != saved:
        saved.replace(**judged).save(file)
        log.info("%s is judged with other settings than before; its config.yaml has them now.", run.path.name)


def write_report(
    run: Run,
    recipe: VAERecipe,
    step: int,
    evaluations: Mapping[str, Evaluation],
    samples: Samples,
    betas: Betas,
    *,
    note: str = "",
) -> Path:
    """Write config.yaml, results/metrics.json, report.md and its figures into the run; the path of report.md."""
    keep_settings(run, recipe)
    write_results(run.path / "results" / "metrics.json", evaluations, recipe, step, note)
    run.save_figure(plot_history(run), "curves")
    run.save_figure(plot_samples(samples.canvases, samples.distances), "samples")
    card = metric_card(evaluations).reset_index()
    checks = pandas.DataFrame(
        {"split": name, "check": check.name, "status": check.status, "summary": check.summary}
        for name, evaluation in evaluations.items()
        for check in evaluation.checks
    )
    known = [str(one.disentanglement) for one in evaluations.values() if one.disentanglement]
    factors = known[0] if known else "Not measured: evaluation.factor_grids is 0."
    folder, root = shlex.quote(str(run.path)), shlex.quote(str(run.path.parent))
    results = [
        f"## Reconstruction\n\nShares in % of grids of tasks it never saw, each drawn at the size the model"
        f" predicts, with 95% intervals over tasks, at step {step:,}. The curves are over every validation grid at its"
        f" true size.{' ' + note if note else ''}\n\n{markdown_table(card)}\n\n{CURVES}",
        f"## Checks\n\n{markdown_table(checks)}",
        f"## Likelihood\n\nWith 95% intervals over tasks.\n\n{markdown_table(bounds_table(evaluations))}",
        f"## Samples\n\nThe first sampler is the recipe's.\n\n{NOTES}\n\n{markdown_table(samples.shown())}\n\n"
        f"{SAMPLES}",
        f"## Latents and factors\n\n{factors}",
        f"## Rate and distortion\n\n{_rates(betas)}",
    ]
    commands = [f"vae evaluate {folder}", f"vae sample {folder}", f"vae train {folder}/config.yaml --root {root}"]
    return write_page(run, results, commands)


def _rates(betas: Betas) -> str:
    if betas.table.empty:
        return "No model was trained at another beta: the recipe's `betas` are empty."
    return f"On the validation split, each grid at its true size.\n\n{markdown_table(rates_table(betas.table))}"
