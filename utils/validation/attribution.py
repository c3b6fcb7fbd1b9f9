"""Which inputs a prediction rests on: integrated gradients (Sundararajan et al. 2017), with how far they add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.inputs import logits_at, values_of
from utils.validation.steady import Effort, WithoutDropout, backward_in_eval, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (8, 16, 32, 64, 128)
GAP = 0.05


@dataclass(frozen=True)
class Attribution:
    """`values`, of the input's shape, sum to `change` = F(x) - F(baseline), a row, but for the `gap`."""

    values: Tensor
    change: Tensor
    steps: int
    gap: float
    """sum over rows of |sum of the values - change|, over that of |change|, or a tenth of that of |values| if larger"""


def integrated_gradients(
    function: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, *, steps: tuple[int, ...] = STEPS
) -> Attribution:
    """(x - baseline) times the mean gradient of `function` (B, ...) -> (B,) on the straight line between them.

    The mean is by Gauss-Legendre quadrature, at more and more points until the gap is under 5% or `steps` runs out.
    """
    with torch.no_grad():
        change = (function(x) - function(baseline)).cpu().double()
    for number in steps:
        places, shares = np.polynomial.legendre.leggauss(number)  # on [-1, 1], shares sum to 2
        total = torch.zeros_like(x, dtype=torch.float32)
        for place, share in zip((places + 1) / 2, shares / 2):
            point = (baseline + float(place) * (x - baseline)).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(function(point).sum(), point)
            total += float(share) * gradient.float()
        values = (total.cpu().double() * (x - baseline).detach().cpu().double()).float()
        missing = (values.double().flatten(1).sum(1) - change).abs().sum()
        whole = torch.maximum(change.abs().sum(), 0.1 * values.double().abs().sum())  # what cancels out is no change
        gap = float(missing / whole.clamp(min=1e-30))
        if gap < GAP:
            break
    return Attribution(values, change, number, gap)


def attribution(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """The share of each token (or pixel) in the logit of the likeliest class, at the last position of each row.

    The baseline is another random input: at embeddings of zero a norm divides by nothing, and the path from there is
    badly conditioned. Warns where the attributions are off the change of the logit, summed over the rows, by over 5%
    at 128 steps (the paper asks for 5%, and finds 20 to 300 steps enough): a jump or a kink that gradients do not
    see. That says nothing against the training of the model, but do not trust gradients to explain it.
    """
    name = "attribution"
    rows, length = min(effort.rows, 2), effort.length_for(adapter)
    batch, other = (adapter.batch(rows, length, seed=seed + offset) for offset in (0, 1))
    with untouched(adapter, seed=seed) as model, WithoutDropout(), backward_in_eval():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        x, baseline = values_of(adapter, batch), values_of(adapter, other)
        if x is None:
            reason = "no nn.Embedding takes the ids, so nothing can be moved between two inputs"
            return Check(name, "skip", reason, critical=False)
        logits = _last(logits_at(adapter, batch, x.detach().requires_grad_(True)))  # (B, V)
        differentiable, logits = logits.requires_grad, logits.detach()
        classes = logits.argmax(-1, keepdim=True)

        def function(values: Tensor) -> Tensor:
            return _last(logits_at(adapter, batch, values)).gather(1, classes).squeeze(1)

        if not logits.isfinite().all():
            return Check(name, "warn", "the logits of random inputs are not finite", critical=False)
        if not differentiable:
            return Check(name, "skip", "no gradient reaches the input: it is detached inside", critical=False)
        with torch.no_grad():
            moved = (logits.gather(1, classes).squeeze(1) - function(baseline)).abs().mean()
        if GAP * moved <= torch.finfo(x.dtype).eps * logits.abs().max():  # rounding alone would be a gap
            return Check(
                name, "skip", "the last prediction hardly depends on the input: nothing to attribute", critical=False
            )
        found = integrated_gradients(function, x, baseline)

    shares = found.values.sum(-1 if adapter.text else 1)  # (B, T), or (B, H, W)
    table = pd.DataFrame(
        {
            "row": range(rows),
            "class": classes.squeeze(1).tolist(),
            "logit": logits.gather(1, classes).squeeze(1).tolist(),
            "change from the baseline": found.change.tolist(),
            "sum of attributions": found.values.flatten(1).sum(1).tolist(),
        }
    )
    where = "the token" if adapter.text else "the pixel"
    biggest = shares.flatten(1).abs()
    largest = float((biggest.amax(1) / biggest.sum(1).clamp(min=1e-30)).mean())
    text = (
        f"integrated gradients account for the change of the logit within {found.gap:.1%} at {found.steps} steps; "
        f"{where} that matters most has {largest:.0%} of the attribution"
    )
    good = found.gap < GAP
    if not good:
        text += ": gradients do not explain this model"
    return Check(name, "pass" if good else "warn", text, table, plot_attribution(shares), critical=False)


def _last(logits: Tensor) -> Tensor:
    return logits[:, -1] if logits.dim() == 3 else logits


def plot_attribution(shares: Tensor, ax: Any = None) -> Figure:
    """Attributions (B, T): a row an input, a column a position; or those of the first of (B, H, W) images."""
    image = shares.dim() == 3
    grid = (shares[0] if image else shares).numpy()
    reach = float(np.abs(grid).max()) or 1.0
    size = (4.6, 3.8) if image else (6.0, 0.9 + 0.4 * len(grid))
    with canvas(ax, figsize=size) as ax:
        drawn = ax.imshow(
            grid, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="equal" if image else "auto", interpolation="nearest"
        )
        ax.grid(False)
        ax.set_title("Attribution to the logit of the likeliest class (red: for it)")
        if not image:
            ax.set(xlabel="position", ylabel="input", yticks=range(len(grid)))
        ax.figure.colorbar(drawn, ax=ax)
        return ax.figure
