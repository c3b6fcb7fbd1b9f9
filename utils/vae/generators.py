"""Procedural grids in six kinds, a batch at a time: objects, noise, symmetric, tiled, lines, frames.

Each kind draws slots (0 the background, 1 and up the inks) on whole canvases; a random palette colours them. Sizes come
from the caller. Leaves out what may be kept: the corpus drops repeats and whatever equals a held-out grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.arc.grids import COLOURS, OUTSIDE, SIDE

ROW, COLUMN = np.arange(SIDE)[None, :, None], np.arange(SIDE)[None, None, :]
SPRITE = 5  # the longest side of an object
INKS = 5  # the most colours beside the background
BLACK = 0.8  # share of grids whose background is black


def generate(kind: str, heights: np.ndarray, widths: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Canvases (n, 30, 30) uint8 of one kind, of the given heights and widths (n,)."""
    count = len(heights)
    height, width = heights.astype(np.int64), widths.astype(np.int64)
    inks = rng.integers(1, INKS + 1, count)
    slots = KINDS[kind](rng, height, width, inks)
    palettes = rng.permuted(np.tile(np.arange(COLOURS, dtype=np.uint8), (count, 1)), axis=1)
    black = np.flatnonzero(rng.random(count) < BLACK)
    palettes[black, palettes[black].argmin(1)] = palettes[black, 0]
    palettes[black, 0] = 0
    coloured = np.take_along_axis(palettes, slots.reshape(count, SIDE * SIDE).astype(np.int64), 1).reshape(slots.shape)
    inside = (height[:, None, None] > ROW) & (width[:, None, None] > COLUMN)
    return np.where(inside, coloured, np.uint8(OUTSIDE))


def objects(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Up to 12 sprites of up to 5x5 cells, in one style a grid: solid, hollow, random, or random and mirrored."""
    count = len(height)
    slots = np.zeros((count, SIDE, SIDE), np.uint8)
    number = 1 + _below(rng, np.clip(height * width // 12, 1, 12))
    style = rng.integers(4, size=count)[:, None, None]
    a, b = np.arange(SPRITE)[None, :, None], np.arange(SPRITE)[None, None, :]
    for at in range(number.max(initial=0)):
        tall, wide = (1 + _below(rng, np.minimum(side, SPRITE)) for side in (height, width))
        top, left = _below(rng, height - tall + 1), _below(rng, width - wide + 1)
        bottom, right = tall[:, None, None] - 1, wide[:, None, None] - 1
        spots = rng.random((count, SPRITE, SPRITE)) < 0.6
        mirrored = np.take_along_axis(spots, np.where(b > right, b, np.minimum(b, right - b)) + 0 * a, 2)
        edge = (a == 0) | (a == bottom) | (b == 0) | (b == right)
        drawn = np.select([style == 0, style == 1, style == 2], [np.ones_like(spots), edge, spots], mirrored)
        grid, i, j = np.nonzero(drawn & (a <= bottom) & (b <= right) & (at < number)[:, None, None])
        slots[grid, top[grid] + i, left[grid] + j] = (1 + _below(rng, inks))[grid]
    return slots


def noise(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Every cell drawn for itself, at a density of the grid's own."""
    shape = (len(height), SIDE, SIDE)
    density = rng.uniform(0.03, 0.95, (shape[0], 1, 1))
    ink = 1 + (rng.random(shape, np.float32) * inks[:, None, None]).astype(np.uint8)
    return np.where(rng.random(shape, np.float32) < density, ink, np.uint8(0))


def symmetric(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Objects or noise folded over: left to right, top to bottom, both, by a half turn, or over a square's diagonal."""
    slots, h, w = _mixed(rng, height, width, inks), height[:, None, None], width[:, None, None]
    fold = rng.integers(5, size=(len(height), 1, 1))
    fold = np.where((fold == 4) & (h != w), 0, fold)
    row = np.where((fold == 1) | (fold == 2), np.minimum(ROW, h - 1 - ROW), ROW + 0 * COLUMN)
    column = np.where((fold == 0) | (fold == 2), np.minimum(COLUMN, w - 1 - COLUMN), COLUMN)
    second = (fold == 3) & (ROW * w + COLUMN > (h * w - 1) // 2)
    row, column = np.where(second, h - 1 - ROW, row), np.where(second, w - 1 - COLUMN, column)
    below = (fold == 4) & (ROW > COLUMN)
    return _gather(slots, np.where(below, COLUMN, row), np.where(below, ROW, column))


def tiled(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """A tile of up to 8x8 cells repeated, half of them with lines between, half with every other one mirrored."""
    slots, count = _mixed(rng, height, width, inks), len(height)
    tall, wide = (1 + _below(rng, np.clip(side // 2, 1, 8))[:, None, None] for side in (height, width))
    gap, mirror = rng.integers(2, size=(2, count, 1, 1))
    row, column = ROW % (tall + gap), COLUMN % (wide + gap)
    between = (row == tall) | (column == wide)
    row = np.where((mirror == 1) & (ROW // (tall + gap) % 2 == 1), tall - 1 - row, row)
    column = np.where((mirror == 1) & (COLUMN // (wide + gap) % 2 == 1), wide - 1 - column, column)
    return np.where(between, inks[:, None, None].astype(np.uint8), _gather(slots, row, column))


def lines(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Up to 8 lines, level, upright or slanting, through the grid or from a point on."""
    count = len(height)
    slots = np.zeros((count, SIDE, SIDE), np.uint8)
    number = 1 + _below(rng, np.clip(np.minimum(height, width), 1, 8))
    steps = np.array([(0, 1), (1, 0), (1, 1), (1, -1)])
    along = np.arange(1 - SIDE, SIDE)
    for at in range(number.max(initial=0)):
        step = steps[rng.integers(4, size=count)] * rng.choice((1, -1), (count, 1))
        row = _below(rng, height)[:, None] + step[:, :1] * along  # (n, 59)
        column = _below(rng, width)[:, None] + step[:, 1:] * along
        whole = rng.random((count, 1)) < 0.6
        on = (whole | (along >= 0)) & (at < number)[:, None]
        on &= (row >= 0) & (row < height[:, None]) & (column >= 0) & (column < width[:, None])
        grid, i = np.nonzero(on)
        slots[grid, row[grid, i], column[grid, i]] = (1 + _below(rng, inks))[grid]
    return slots


def frames(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Up to 5 rectangles, outlined, some filled; or, in a quarter of the grids, rings inside one another."""
    count, h, w = len(height), height[:, None, None], width[:, None, None]
    slots = np.zeros((count, SIDE, SIDE), np.uint8)
    number = (1 + _below(rng, np.clip(height * width // 20, 1, 5)))[:, None, None]
    for at in range(int(number.max(initial=0))):
        (top, bottom), (left, right) = (
            np.sort((rng.random((2, count)) * side).astype(np.int64), axis=0)[:, :, None, None]
            for side in (height, width)
        )
        covered = (top <= ROW) & (bottom >= ROW) & (left <= COLUMN) & (right >= COLUMN) & (at < number)
        edge = (top == ROW) | (bottom == ROW) | (left == COLUMN) | (right == COLUMN)
        outline, inner = (1 + _below(rng, inks)[:, None, None].astype(np.uint8) for _ in range(2))
        slots = np.where(covered & edge, outline, slots)
        slots = np.where(covered & ~edge & (rng.random((count, 1, 1)) < 0.3), inner, slots)
    depth = np.minimum(np.minimum(ROW, h - 1 - ROW), np.minimum(COLUMN, w - 1 - COLUMN))
    ring = ((depth + rng.integers(2, size=(count, 1, 1))) % (inks[:, None, None] + 1)).astype(np.uint8)
    return np.where(rng.random((count, 1, 1)) < 0.25, ring, slots)


KINDS: dict[str, Callable[..., np.ndarray]] = {
    "objects": objects,
    "noise": noise,
    "symmetric": symmetric,
    "tiled": tiled,
    "lines": lines,
    "frames": frames,
}


def _mixed(rng: np.random.Generator, height: np.ndarray, width: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Objects in one half of the grids, noise in the other."""
    first = rng.random((len(height), 1, 1)) < 0.5
    return np.where(first, objects(rng, height, width, inks), noise(rng, height, width, inks))


def _below(rng: np.random.Generator, bound: np.ndarray) -> np.ndarray:
    """A whole number from 0 to bound - 1 for each bound."""
    return rng.integers(0, bound)


def _gather(slots: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """slots[n, row, column]; places beyond the grid (of cells outside it) are read as any."""
    place = np.clip(row, 0, SIDE - 1) * SIDE + np.clip(column, 0, SIDE - 1)
    flat = (len(slots), SIDE * SIDE)
    return np.take_along_axis(slots.reshape(flat), place.reshape(flat), 1).reshape(slots.shape)
