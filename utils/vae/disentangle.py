"""Disentanglement of latents by known factors: MIG, DCI and SAP, on the grids of `vae.factors`.

Each is 1 where every factor has a dimension of its own and near 0 where factors are spread evenly over all. Leaves out
training: the latents are the means `mu` that a trained encoder gives. The procedure of binning is that of Locatello et
al. 2019 ("Challenging Common Assumptions", appendix C): 20 bins of equal width for each dimension.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.vae.factors import NAMES_OF_KINDS, FactorSet

BINS = 20


@dataclass(frozen=True)
class Disentanglement:
    """Scores of one code, in [0, 1] each: the mean over factors, and by factor where there is such a thing."""

    mig: float
    disentanglement: float
    """DCI: whether each dimension serves one factor"""
    completeness: float
    """DCI: whether each factor is served by one dimension"""
    informativeness: float
    """DCI: how far the factors can be read off, 0 at chance"""
    sap: float
    mig_by_factor: Mapping[str, float]
    sap_by_factor: Mapping[str, float]

    def __str__(self) -> str:
        return (
            f"MIG {self.mig:.2f}, DCI {self.disentanglement:.2f} (dimensions) and {self.completeness:.2f} (factors),"
            f" SAP {self.sap:.2f}: each is 1 where every factor of a made-up grid (its size, colour, place, ...) has a"
            " dimension of its own, and near 0 where factors are spread over many. Nothing in this loss asks for that,"
            f" so it is no verdict. A linear map reads factors off all dimensions at {self.informativeness:.0%} of the"
            " way from chance to no error."
        )

    def _repr_html_(self) -> str:
        import pandas

        columns = {"MIG": self.mig_by_factor, "SAP": self.sap_by_factor}
        return f"<p>{html.escape(str(self))}</p>{pandas.DataFrame(columns).round(3).to_html()}"


def disentanglement(mu: Tensor | np.ndarray, data: FactorSet) -> Disentanglement:
    """All three scores of `mu` (N, D), the means of the grids of a factor set."""
    codes = np.asarray(mu.detach().cpu() if isinstance(mu, Tensor) else mu, float)
    if codes.ndim != 2 or len(codes) != len(data.factors) or codes.shape[1] < 2:
        raise ValueError(f"Latents are {codes.shape}; expected ({len(data.factors)}, 2 or more dimensions).")
    gaps, lone = mig(codes, data.factors), sap(codes, data.factors, data.names)
    importance, read = importances(codes, data.factors)
    by_code, by_factor = dci(importance)
    return Disentanglement(
        mig=float(gaps.mean()),
        disentanglement=by_code,
        completeness=by_factor,
        informativeness=float(read.mean()),
        sap=float(lone.mean()),
        mig_by_factor=dict(zip(data.names, gaps.tolist())),
        sap_by_factor=dict(zip(data.names, lone.tolist())),
    )


def mig(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Mutual information gap of each factor (K,): (most - second most I(z_j; v)) / H(v) (Chen et al. 2018, eq. 6)."""
    binned = _binned(codes)
    gaps = []
    for factor in factors.T:
        joint = _joint(binned, factor, int(factor.max()) + 1) / len(codes)  # (D, BINS, values)
        information = _entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.reshape(len(joint), -1))
        least, most = np.partition(information, -2)[-2:]
        entropy = _entropy(joint[0].sum(0))
        gaps.append((most - least) / entropy if entropy > 0 else 0.0)
    return np.array(gaps)


def sap(codes: np.ndarray, factors: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Separated attribute predictability of each factor (K,): best less second-best score of one dimension alone.

    The score of an amount is the squared correlation; that of a name is the balanced accuracy of thresholds on the
    dimension, set on every other row and scored on the rest, from 0 at chance to 1 (Kumar et al. 2018, section 3.1,
    where chance is left in).
    """
    binned, gaps = _binned(codes), []
    centred = codes - codes.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    for factor, name in zip(factors.T, names):
        if name in NAMES_OF_KINDS:
            score = _thresholds(binned, factor)
        else:
            apart = factor - factor.mean()
            scale = spread * np.sqrt((apart**2).sum())
            score = np.divide(apart @ centred, scale, out=np.zeros(len(spread)), where=scale > 1e-9) ** 2
        least, most = np.partition(score, -2)[-2:]
        gaps.append(most - least)
    return np.array(gaps)


def dci(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of importances (D, K) >= 0 (Eastwood and Williams 2018, section 2).

    One less the entropy of each dimension's importances over factors (each factor's over dimensions), in units of the
    largest possible, weighted by its share of all importance. Nothing important at all: 0 and 0.
    """
    total = importance.sum()
    if not total > 0:
        return 0.0, 0.0
    return tuple(float((_peaked(matrix) * matrix.sum(1)).sum() / total) for matrix in (importance, importance.T))


def importances(codes: np.ndarray, factors: np.ndarray, *, penalty: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Importance (D, K) of each dimension for each factor, and how well each factor is read off (K,), 0 at chance.

    From multinomial logistic regressions with an L1 penalty on standardised dimensions: the importance is the sum over
    a factor's values of |weight|. Fit on every other row, scored on the rest. (Eastwood and Williams use a lasso on
    amounts; here some factors are names.)
    """
    x = torch.from_numpy(codes)
    fit, rest = slice(0, None, 2), slice(1, None, 2)
    scale = x[fit].std(0, correction=0)
    x = torch.where(scale > 1e-6, (x - x[fit].mean(0)) / scale.clamp(min=1e-6), 0.0).float()
    columns, read = [], []
    for factor in factors.T:
        y = torch.from_numpy(np.unique(factor, return_inverse=True)[1])
        weight, bias = sparse_logistic(x[fit], y[fit], penalty)
        columns.append(weight.abs().sum(1))
        right = float(((x[rest] @ weight + bias).argmax(1) == y[rest]).double().mean())
        chance = float(torch.bincount(y[rest]).max() / len(y[rest]))
        read.append(max(0.0, (right - chance) / (1 - chance)) if chance < 1 else 0.0)
    return torch.stack(columns, 1).double().numpy(), np.array(read)


def sparse_logistic(x: Tensor, y: Tensor, penalty: float, *, steps: int = 200) -> tuple[Tensor, Tensor]:
    """W (D, K), b (K,) that make mean cross-entropy + penalty * sum |W| least, by FISTA (Beck and Teboulle 2009)."""
    x = torch.cat((x, torch.ones(len(x), 1, dtype=x.dtype)), 1)  # the last row of W is the bias, not penalised
    target = F.one_hot(y).to(x)
    rate = 2 * len(x) / float(torch.linalg.matrix_norm(x, 2) ** 2)  # 1 / Lipschitz: softmax's Hessian is at most 1/2
    weight = ahead = torch.zeros(x.shape[1], target.shape[1], dtype=x.dtype)
    momentum = 1.0
    for _ in range(steps):
        gradient = x.T @ ((x @ ahead).softmax(1) - target) / len(x)
        moved = ahead - rate * gradient
        moved[:-1] = F.softshrink(moved[:-1], rate * penalty)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        weight, momentum = moved, following
    return weight[:-1], weight[-1]


def _peaked(matrix: np.ndarray) -> np.ndarray:
    """One less the entropy of each row, scaled to sum to one, in units of ln(columns); 0 for a row of zeros."""
    whole = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, whole, out=np.full_like(matrix, 1 / matrix.shape[1]), where=whole > 0)
    return 1 - _entropy(share) / np.log(matrix.shape[1]) if matrix.shape[1] > 1 else np.ones(len(matrix))


def _binned(codes: np.ndarray) -> np.ndarray:
    """Each dimension in 20 bins of equal width between its least and its most, 0 to 19; (N, D)."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    return np.minimum((codes - low) / width * BINS, BINS - 1).astype(np.int64)


def _joint(binned: np.ndarray, factor: np.ndarray, values: int) -> np.ndarray:
    """How often each bin of each dimension meets each value of a factor: (D, BINS, values)."""
    dimensions = binned.shape[1]
    cells = (np.arange(dimensions) * BINS + binned) * values + factor[:, None]
    return np.bincount(cells.ravel(), minlength=dimensions * BINS * values).reshape(dimensions, BINS, values)


def _thresholds(binned: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Balanced accuracy (D,) of the most likely value in each bin, 0 at chance; values weigh alike."""
    factor = np.unique(factor, return_inverse=True)[1]
    values = int(factor.max()) + 1
    if values < 2:
        return np.zeros(binned.shape[1])
    learnt, met = (_shares(_joint(binned[at::2], factor[at::2], values)) for at in range(2))
    answer = learnt.argmax(2)[..., None]
    right = np.take_along_axis(met, answer, 2).sum((1, 2)) / values
    return np.maximum(0, (right - 1 / values) / (1 - 1 / values))


def _shares(joint: np.ndarray) -> np.ndarray:
    """Each value's counts scaled to sum to one over the bins of a dimension."""
    whole = joint.sum(1, keepdims=True)
    return np.divide(joint, whole, out=np.zeros(joint.shape), where=whole > 0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """In nats, of the last axis."""
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)
