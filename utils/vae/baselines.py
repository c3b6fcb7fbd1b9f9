"""What needs no model: predictions of canvases from the true size or from the training grids alone.

A number of a model means something only beside these. Leaves out the autoencoder with beta 0: it is trained like any
other model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.arc.grids import OUTSIDE, SIDE
from utils.vae.metrics import modal_colours

MODAL = "modal colour at true size"
CELLS = SIDE * SIDE
FIRST = 64  # of the training canvases that could be nearest, compared at once


def predictions(
    grids: np.ndarray, train: np.ndarray | None = None, *, neighbours: bool = True
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and canvases (N, 30, 30) of every baseline; those that know training grids where `train` is given."""
    yield MODAL, modal_colour_at_true_size(grids)
    if train is not None:
        yield "modal image", np.repeat(modal_image(train)[None], len(grids), 0)
        if neighbours:
            yield "nearest training grid", train[nearest(grids, train).index]


def modal_colour_at_true_size(grids: np.ndarray) -> np.ndarray:
    """Each grid (N, 30, 30) filled with its own most frequent colour: knows size and background, sees nothing."""
    colours = modal_colours(grids).numpy()[:, None, None]
    return np.where(grids == OUTSIDE, OUTSIDE, colours).astype(np.uint8)


def modal_image(train: np.ndarray) -> np.ndarray:
    """The most frequent of the 11 values at each cell of the training canvases, as one (30, 30) canvas."""
    found = np.stack([(train == value).sum(0) for value in range(OUTSIDE + 1)])  # (11, 30, 30)
    return found.argmax(0).astype(np.uint8)


@dataclass(frozen=True)
class Nearest:
    """For each query the training grid with fewest different cells: (N,) each."""

    index: np.ndarray
    """row of the training canvases; the first of several that are equally near"""
    distance: np.ndarray
    """cells of the canvas that differ; 0: the very same grid"""


def nearest(grids: np.ndarray, train: np.ndarray) -> Nearest:
    """Pixel nearest neighbour of each canvas (N, 30, 30) among the training canvases (M, 30, 30), exactly.

    Two canvases share at most, of each value, as many cells as the one with fewer has. Only the training canvases which
    that leaves a chance are compared cell by cell: about 2% of an ARC corpus, 4 ms a canvas among 100,000.
    """
    if len(train) == 0:
        raise ValueError("No training grid to be near to.")
    known = train.reshape(len(train), CELLS)
    of_each = _histograms(known)  # (11, M)
    index, distance = np.empty(len(grids), int), np.empty(len(grids), int)
    for row, (query, asked) in enumerate(zip(grids.reshape(len(grids), CELLS), _histograms(grids).T)):
        least = np.full(len(train), CELLS, np.int16)  # cells that differ at least
        for value in np.flatnonzero(asked):
            least -= np.minimum(of_each[value], asked[value])
        first = np.argpartition(least, FIRST)[:FIRST] if len(train) > FIRST else np.arange(len(train))
        chance = np.flatnonzero(least <= (known[first] != query).sum(1).min())
        apart = (known[chance] != query).sum(1)
        index[row], distance[row] = chance[apart.argmin()], apart.min()
    return Nearest(index, distance)


def _histograms(canvases: np.ndarray) -> np.ndarray:
    """How many cells of each canvas have each value: (11, N)."""
    flat = canvases.reshape(len(canvases), CELLS)
    return np.stack([(flat == value).sum(1, dtype=np.int16) for value in range(OUTSIDE + 1)])
