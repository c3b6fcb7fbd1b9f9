"""Sections of the notebook for which a corpus or a recipe may give nothing: what is there, or a skipped `Check`.

A recipe without `betas`, a split of two tasks, a grid of one cell: none of them stops a notebook, and each is said.
Leaves out the figures and tables themselves (`vae.plots`, `vae.latent_plots`, `vae.grid_plots`, `vae.probes`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from utils.arc.grids import OUTSIDE
from utils.core.check import Check
from utils.vae.completion import complete, hide_middle
from utils.vae.embedding import LEAST_GRIDS, embed
from utils.vae.grid_plots import plot_completion, plot_reconstructions
from utils.vae.latent_plots import plot_embedding, plot_palette
from utils.vae.plots import plot_rate_distortion
from utils.vae.probes import LEAST_TASKS, probes_table
from utils.vae.tables import rates_table

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.figure import Figure
    from torch import nn

    from utils.vae.betas import Betas
    from utils.vae.data import GridSplit
    from utils.vae.disentangle import Disentanglement
    from utils.vae.evaluation import Evaluation

log = logging.getLogger(__name__)
NO_BETAS = "no model was trained at another beta; betas=[0,0.2,1] among the overrides would train three"


def rows_shown(split: GridSplit, **rows: int) -> list[int]:
    """The rows of the validation split that pictures are of, given by the names of the form's fields.

    In place of one that the split does not have its nearest, with a warning.
    """
    shown = []
    for field, row in rows.items():
        shown.append(min(max(row, 0), len(split) - 1))
        if row != shown[-1]:
            log.warning(
                "%s is %d, and the validation split has rows 0 to %d: row %d is shown.",
                field, row, len(split) - 1, shown[-1],
            )  # fmt: skip
    return shown


def reconstructed(model: nn.Module, own: GridSplit | None) -> Figure | Check:
    """The grid of one's own, if there is one (`live.drawn`), beside what the model makes of it."""
    if own is None:
        return Check("your own grid", "skip", "the field `drawing` is empty; fill in rows of digits, such as 012 345")
    return plot_reconstructions(model, own, [0])


def compared(betas: Betas) -> pandas.DataFrame | Check:
    """How the models at other betas do."""
    return Check("other betas", "skip", NO_BETAS) if betas.table.empty else rates_table(betas.table)


def rate_distortion(betas: Betas) -> Figure | Check:
    """Their rate against their distortion."""
    return (
        Check("rate against distortion", "skip", NO_BETAS) if betas.table.empty else plot_rate_distortion(betas.table)
    )


def axes_of(evaluation: Evaluation) -> Disentanglement | Check:
    """How far single latents stand for single factors."""
    return evaluation.disentanglement or Check("disentanglement", "skip", "evaluation.factor_grids is 0")


def probed(evaluation: Evaluation) -> pandas.DataFrame | Check:
    """What can be read off the latents."""
    if evaluation.probes:
        return probes_table(evaluation.probes).round(3)
    tasks = evaluation.counts["tasks"]
    few = f"the split has {tasks} tasks; fitting on some and scoring on others takes at least {LEAST_TASKS}"
    return Check("linear probes", "skip", few if tasks < LEAST_TASKS else "evaluation.probes is off")


def plane(model: nn.Module, split: GridSplit) -> Figure | Check:
    """The latents of a split in two dimensions."""
    if len(split) < LEAST_GRIDS:
        few = f"the split has {len(split)} grids; a plane takes at least {LEAST_GRIDS}"
        return Check("latents in the plane", "skip", few)
    return plot_embedding(embed(model, split))


def palette_moved(model: nn.Module, split: GridSplit, row: int = 0) -> Figure | Check:
    """A grid with its palette's latents changed."""
    if model.config.architecture == "palette":
        return plot_palette(model, split, row)
    return Check("palette latents", "skip", f"architecture {model.config.architecture} has none; take palette")


def completed(model: nn.Module, canvas: np.ndarray) -> Figure | Check:
    """A canvas whose middle is hidden, filled in."""
    cells = int((canvas != OUTSIDE).sum())
    if cells < 2:
        return Check(
            "completion", "skip", f"the grid has {cells} cell: with it hidden nothing is seen; take another row"
        )
    return plot_completion(complete(model, canvas, hide_middle(canvas)))
