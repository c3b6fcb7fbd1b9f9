"""What moves in a notebook: curves while a beta-VAE trains, and sliders on its latents afterwards.

Where they cannot be had they become still: a line of text, a picture, the reason. Leaves out the figures themselves
(`vae.plots`, `vae.latent_plots`).
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from utils.arc.grids import GridError, from_canvas, to_canvas
from utils.core.plots import plot_grid
from utils.training.callbacks import Sampler
from utils.vae.explore import ends, parse_grid, traverse
from utils.vae.filling import as_split
from utils.vae.latent_plots import plot_traversals
from utils.vae.latents import place
from utils.vae.plots import plot_history

if TYPE_CHECKING:
    from torch import nn

    from utils.core.run import Run
    from utils.vae.data import GridSplit


def live_curves(run: Run) -> Sampler:
    """A sampler for `fit` that says how validation stands, and in a notebook draws the curves anew in one place."""
    shown: list[Any] = []

    def sample(model: nn.Module, step: int) -> str:
        if _in_notebook():
            from IPython.display import display

            figure = plot_history(run)
            if shown:
                shown[0].update(figure)
            else:
                shown.append(display(figure, display_id=True))
        return standing(run)

    return sample


def standing(run: Run) -> str:
    """The last evaluation in a line: `validation: 91.2% of the cells inside (at the true size), ...`."""
    metrics = run.metrics()
    if "validation/loss" not in metrics:
        return "not evaluated yet"
    last = metrics.loc[metrics["validation/loss"].last_valid_index()]
    return (
        f"validation: {last['validation/non_padding']:.1%} of the cells inside (at the true size),"
        f" {last['validation/exact']:.1%} of the grids exact, KL {last['validation/kl']:.0f} nats a grid"
    )


def slide_latents(model: nn.Module, split: GridSplit, row: int = 0, *, count: int = 6) -> Any:
    """A slider for each of the latents with most KL of one grid, and what is decoded; a picture without ipywidgets."""
    if importlib.util.find_spec("ipywidgets") is None:
        return plot_traversals(model, split, row, count=count)
    import ipywidgets
    from IPython.display import display

    moved = traverse(model, split.grids[row], count=count)
    sliders = {
        label: ipywidgets.FloatSlider(at, min=ends(at)[0], max=ends(at)[1], step=0.1, description=label)
        for label, at in zip(moved.labels, moved.own.tolist())
    }

    def show(**values: float) -> None:
        numbers = dict(zip(moved.dimensions, (values[label] for label in moved.labels)))
        display(plot_grid(decoded_at(model, moved.grid, numbers)))

    return ipywidgets.VBox([*sliders.values(), ipywidgets.interactive_output(show, sliders)])


def drawn(text: str) -> GridSplit | None:
    """A split of the one grid of the form's field `drawing`, in rows of digits; None where the field is empty.

    Raises `GridError`, naming the field, for what is no grid.
    """
    if not text.strip():
        return None
    try:
        grid = parse_grid(text)
    except GridError as error:
        raise GridError(f"drawing: {error}. Correct the field `drawing` of the form, or leave it empty.") from None
    return as_split(to_canvas(grid)[None], np.array(["drawn"]), "drawn")


@torch.no_grad()
def decoded_at(model: nn.Module, canvas: np.ndarray, values: dict[int, float]) -> np.ndarray:
    """The grid (h, w) decoded from the latents of a canvas (30, 30) with some dimensions set to values."""
    z, _ = model.encode(torch.from_numpy(canvas)[None].to(place(model)))
    for dimension, value in values.items():
        z[0, dimension] = float(value)
    return from_canvas(model.decode(z).mode[0].cpu().numpy())


def _in_notebook() -> bool:
    """Whether a front end shows what is displayed; a plain terminal shows figures as their names only."""
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(ipython, "kernel", None) is not None
