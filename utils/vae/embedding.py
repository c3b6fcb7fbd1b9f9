"""Latents in two dimensions, by PCA and t-SNE. Leaves out drawing (`vae.latent_plots`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from utils.vae.data import GridSplit
from utils.vae.latents import encoded
from utils.vae.probes import properties

LEAST_GRIDS = 3  # to draw a plane through


@torch.no_grad()
def embed(
    model: nn.Module,
    split: GridSplit,
    *,
    methods: Sequence[str] = ("PCA", "t-SNE"),
    grids: int = 600,
    seed: int = 0,
) -> pandas.DataFrame:
    """Posterior means in two dimensions: method, x, y, task_id and the properties of `vae.probes`, a row a grid.

    At most so many grids, evenly spread over the split. t-SNE (van der Maaten and Hinton 2008) starts from the first 50
    principal components; distances between its clusters and their sizes mean nothing.
    """
    few = split.subset(split.spread(grids))
    mu, _ = encoded(model, few.batches(128))
    known = {name: values for name, (_, values) in properties(few.grids).items()}
    find = {"PCA": lambda mu: principal(mu, 2)[0], "t-SNE": lambda mu: neighbours(mu, seed=seed)}
    unknown = [method for method in methods if method not in find]
    if unknown or not methods:
        raise ValueError(f"methods are {list(methods)}; expected some of {', '.join(find)}.")
    tables = []
    for method in methods:
        points = find[method](mu)
        row = {"method": method, "x": points[:, 0], "y": points[:, 1], "task_id": few.task_ids}
        tables.append(pandas.DataFrame({**row, **known}))
    return pandas.concat(tables, ignore_index=True)


def principal(points: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components (N, count) of points (N, D), and each one's share of the variance.

    The sign is such that each direction's largest weight is positive.
    """
    if len(points) < LEAST_GRIDS:
        raise ValueError(f"{len(points)} grids; expected at least {LEAST_GRIDS} to draw a plane through.")
    points = points.double() - points.double().mean(0)
    u, s, v = torch.linalg.svd(points, full_matrices=False)
    largest = v.gather(1, v.abs().argmax(1, keepdim=True))[:, 0].sign()
    found = u * s * largest
    missing = max(0, count - found.shape[1])
    share = s.square() / s.square().sum().clamp(min=1e-12)
    return np.pad(found[:, :count].numpy(), ((0, 0), (0, missing))), np.pad(share[:count].numpy(), (0, missing))


def neighbours(points: Tensor, *, seed: int = 0) -> np.ndarray:
    """t-SNE of points (N, D) in the plane (N, 2), from their first 50 principal components. Equal points stay equal."""
    from sklearn.manifold import TSNE

    first, _ = principal(points, max(2, min(50, *points.shape)))
    if not first.any():  # all in one place, where t-SNE would divide by zero
        return first[:, :2]
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(first)
