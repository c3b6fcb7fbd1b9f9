"""How many directions the token embedding uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.steady import Effort, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.1
CHUNK = 4096


def singular_values(matrix: Tensor) -> np.ndarray:
    """Of (V, C), largest first: roots of the eigenvalues of the smaller Gram matrix, summed in float64.

    Values under 1e-8 of the largest are lost to that root.
    """
    rows = matrix.detach()
    if rows.device.type == "mps":  # has no float64
        rows = rows.cpu()
    if rows.shape[0] < rows.shape[1]:
        rows = rows.T
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.split(CHUNK):
        gram += part.double().T @ part.double()
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0).cpu().numpy()


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of the singular values, scaled to sum to one (Roy and Vetterli 2007)."""
    shares = values[values > 0] / values.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def mean_cosine(matrix: Tensor) -> float:
    """The mean cosine of all pairs of different rows, those of zeros left out."""
    rows = matrix.detach().float()
    lengths = rows.norm(dim=1, keepdim=True)
    rows = (rows / lengths)[lengths[:, 0] > 0]
    number = len(rows)
    total = float(rows.sum(0).square().sum())
    return (total - number) / (number * (number - 1)) if number > 1 else math.nan


def embedding_spectrum(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Singular values of the token embedding (V, C), its effective rank, and the mean cosine of two tokens.

    Warns where the effective rank is under 10% of min(V, C), or all rows are equal: tokens then lie in a few directions
    and a linear head cannot tell them apart, which is the degeneration of Gao et al. 2019 ("Representation Degeneration
    Problem in Training Natural Language Generation Models"). Independent random rows have over 80%.
    """
    name = "embedding spectrum"
    if adapter.embedding is None:
        reason = "no nn.Embedding takes the ids" if adapter.text else "images have no token embedding"
        return Check(name, "skip", reason, critical=False)
    with untouched(adapter, seed=seed):
        weight = adapter.embedding.weight.detach()
        if not weight.isfinite().all():
            return Check(name, "warn", "the embedding has entries that are not finite", critical=False)
        equal = bool((weight == weight[0]).all()) and len(weight) > 1
        values, cosine = singular_values(weight), mean_cosine(weight)
    if not values.any():
        return Check(name, "warn", "every entry of the embedding is zero", critical=False)
    rank, most = effective_rank(values), min(weight.shape)
    top = float(values[0] ** 2 / (values**2).sum())
    table = pd.DataFrame(
        {
            "what": ["tokens", "width", "effective rank", "of the largest possible", "variance on the top direction",
                     "mean cosine of two tokens", "largest singular value", "smallest singular value"],
            "value": [*map(float, weight.shape), rank, rank / most, top, cosine, float(values[0]), float(values[-1])],
        }
    )  # fmt: skip
    text = (
        f"the {weight.shape[0]:,} x {weight.shape[1]} embedding has an effective rank of {rank:.0f} of {most} "
        f"({rank / most:.0%}), {top:.0%} of its variance on one direction, and a mean cosine of {cosine:.2g}"
    )
    bad = equal or rank < LEAST * most
    if equal:
        text = f"all tokens have the same embedding; {text}"
    elif bad:
        text = f"tokens share a few directions: {text}"
    return Check(name, "warn" if bad else "pass", text, table, plot_spectrum(values), critical=False)


def plot_spectrum(values: np.ndarray, ax: Any = None) -> Figure:
    """Singular values over the largest, with the effective rank."""
    rank = effective_rank(values)
    with canvas(ax) as ax:
        ax.plot(range(1, len(values) + 1), np.maximum(values / values[0], 1e-8))
        ax.axvline(rank, color="0.4", linestyle="--", label=f"effective rank {rank:.0f}")
        ax.set(yscale="log", xlabel="direction", ylabel="singular value, over the largest")
        ax.set_title("Spectrum of the token embedding")
        ax.legend()
        return ax.figure
