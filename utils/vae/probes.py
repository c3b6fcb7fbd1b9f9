"""Linear probes: what of a grid can be read off its latents by a linear map, beside what chance gives.

A property that no linear map finds may still be there, and a found one need not be used by the decoder (Alain and
Bengio 2017). Fit and scored on different tasks. Leaves out disentanglement (`vae.disentangle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.arc.grids import COLOURS, sizes
from utils.vae.metrics import modal_colours

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
STEPS = 30  # of L-BFGS
LEAST_TASKS = 4  # to fit, choose and score on different ones

Measure = Literal["R2", "accuracy"]


@dataclass(frozen=True)
class Probe:
    """The score of one property on tasks that the probe did not see, and the score of knowing nothing."""

    name: str
    measure: Measure
    score: float
    chance: float
    """of the mean (R2: 0 or a little under) or of the most frequent class, both of the tasks fitted on"""
    fitted: int
    """grids fitted on"""
    scored: int


def properties(canvases: np.ndarray) -> dict[str, tuple[Measure, np.ndarray]]:
    """Height, width, number of colours (as numbers); background colour and symmetry (as classes) of each grid (N,).

    The background is the modal colour; symmetric is a grid that some mirror or turn other than the identity leaves as
    it is.
    """
    heights, widths = sizes(canvases)
    numbers = {
        "height": heights,
        "width": widths,
        "colours": sum((canvases == colour).any((1, 2)).astype(int) for colour in range(COLOURS)),
    }
    classes = {"background": modal_colours(canvases).numpy(), "symmetric": symmetric(canvases)}
    return {
        **{name: ("R2", values) for name, values in numbers.items()},
        **{name: ("accuracy", values.astype(int)) for name, values in classes.items()},
    }


def symmetric(canvases: np.ndarray) -> np.ndarray:
    """Whether a mirror or turn other than the identity leaves each grid (N,) as it is."""
    found = np.zeros(len(canvases), bool)
    for row, (canvas, height, width) in enumerate(zip(canvases, *sizes(canvases))):
        grid = canvas[:height, :width]
        images = (grid[::-1], grid[:, ::-1], grid[::-1, ::-1])
        if grid.shape[0] == grid.shape[1]:
            turned = np.rot90(grid)
            images += (turned, grid.T, turned[::-1, ::-1], grid[::-1, ::-1].T)
        found[row] = any((image == grid).all() for image in images)
    return found


def probe_latents(mu: Tensor, canvases: np.ndarray, task_ids: Sequence, *, seed: int = 0) -> list[Probe]:
    """Probe every property of `properties` on `mu` (N, D); half of the tasks are fitted on, the other half scored."""
    return [
        probe(name, measure, mu, values, task_ids, seed=seed)
        for name, (measure, values) in properties(canvases).items()
    ]


def probe(
    name: str, measure: Measure, features: Tensor, values: np.ndarray, task_ids: Sequence, *, seed: int = 0
) -> Probe:
    """Ridge regression (R2) or multinomial logistic regression (accuracy) of `values` (N,) on `features` (N, D).

    Features are centred and all scaled by one number, so that dimensions which hardly move stay quiet. The penalty is
    the one that does best on a fifth of the tasks fitted on. Raises ValueError where there are under four tasks.
    """
    tasks, member = np.unique(np.asarray(task_ids), return_inverse=True)
    if len(tasks) < LEAST_TASKS:
        raise ValueError(
            f"{len(tasks)} tasks; a probe needs at least {LEAST_TASKS}, to fit and score on different ones."
        )
    place = np.random.default_rng(seed).permutation(len(tasks))[member] / len(tasks)  # of each grid's task, in [0, 1)
    scored, chosen_on = place >= 0.5, place < 0.1 + 0.5 / len(tasks)
    x = features.detach().double().cpu()
    x = x - x[~scored].mean(0)
    x = x / x[~scored].square().mean().sqrt().clamp(min=1e-6)
    labels = np.unique(values, return_inverse=True)[1] if measure == "accuracy" else values
    y = torch.as_tensor(np.asarray(labels), dtype=torch.float64 if measure == "R2" else torch.long)
    kept = torch.from_numpy(~scored & ~chosen_on), torch.from_numpy(chosen_on)
    fits = [_fit(measure, x, y, kept[0], penalty) for penalty in PENALTIES]
    scores = [_score(measure, predicted[kept[1]], y[kept[1]]) for predicted in fits]
    best = PENALTIES[int(np.nanargmax(scores)) if np.isfinite(scores).any() else -1]
    fit, score = torch.from_numpy(~scored), torch.from_numpy(scored)
    predicted = _fit(measure, x, y, fit, best)
    guess = y[fit].mean() if measure == "R2" else torch.bincount(y[fit]).argmax()
    chance = _score(measure, guess.expand(int(score.sum())), y[score])
    return Probe(name, measure, _score(measure, predicted[score], y[score]), chance, int(fit.sum()), int(score.sum()))


def probes_table(probes: Sequence[Probe]) -> pandas.DataFrame:
    return pandas.DataFrame([vars(one) for one in probes])


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """w (D,), b that make sum (x w + b - y)^2 + penalty * N * |w|^2 least, in closed form (dual where D > N)."""
    centre, middle = x.mean(0), y.mean()
    x, y = x - centre, y - middle
    if x.shape[1] > len(x):
        gram = x @ x.T
        w = x.T @ torch.linalg.solve(gram + penalty * len(x) * torch.eye(len(x), dtype=x.dtype), y)
    else:
        w = torch.linalg.solve(x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return w, middle - centre @ w


def logistic(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """W (D, K), b (K,) that make mean cross-entropy + penalty / 2 * |W|^2 least, by L-BFGS from zero."""
    classes = int(y.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + 0.5 * penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return weight.detach(), bias.detach()


def _fit(measure: Measure, x: Tensor, y: Tensor, rows: Tensor, penalty: float) -> Tensor:
    """Predictions of every row by what is fitted on `rows`."""
    if measure == "R2":
        w, b = ridge(x[rows], y[rows], penalty)
        return x @ w + b
    w, b = logistic(x[rows], y[rows], penalty)
    return (x @ w + b).argmax(1)


def _score(measure: Measure, predicted: Tensor, true: Tensor) -> float:
    """R2 against the mean of `true` (NaN where it never varies), or the share that is right."""
    if measure == "accuracy":
        return float((predicted == true).double().mean())
    spread = (true - true.mean()).square().sum()
    return float(1 - (predicted - true).square().sum() / spread) if spread > 0 else float("nan")
