"""`Decoded`: the distribution over canvases that a decoder gives for each z.

    p(x|z) = p(height|z) p(width|z) p(cells inside|z, height, width)

so that every canvas drawn from it is a rectangle of colours with padding around it. With a palette the cells are
p(slots|z) p(colours of the slots|z); the classical decoder (dense) codes the padding's cells besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.vae.metrics import modal_colours
from utils.vae.palette import UNUSED, distinct, factor

IMPOSSIBLE = -100.0  # log of a probability that is 0 by construction; finite, so that 0 times it is 0


class Terms(NamedTuple):
    """-log p(x|z) of each grid in nats (B,), by what it is spent on; and how many cells inside came out right."""

    size: Tensor
    colours: Tensor
    """which colours the slots have; 0 without a palette"""
    cells: Tensor
    """the cells inside"""
    padding: Tensor
    """the cells outside; 0 where the size says them"""
    right: Tensor
    """cells inside whose likeliest value is the true one, given the true size"""
    foreground: Tensor
    """those of them that differ from the grid's most frequent colour"""
    foreground_cells: Tensor
    """how many such cells there are"""
    shape: Tensor
    """1 where the likeliest size is the true one"""

    @property
    def total(self) -> Tensor:
        return self.size + self.colours + self.cells + self.padding


class Decoded:
    """p(x|z) for B latents. The cells are computed when they are asked for, at the sizes they are asked for."""

    def __init__(self, draw: Callable[[Tensor, Tensor], Tensor], sizes: Tensor, palette: Tensor | None = None):
        """`draw(heights, widths)` gives logits (B, 30, 30, 10 or 11); `sizes` (B, 60) and `palette` are logits."""
        self._draw = draw
        self.heights, self.widths = (
            sizes.float().view(-1, 2, SIDE).log_softmax(2).unbind(1)
        )  # (B, 30): sides of 1 to 30
        self.palette = None if palette is None else palette.float().log_softmax(2)  # (B, 10, 10): slot by colour

    def likeliest_sizes(self) -> tuple[Tensor, Tensor]:
        """Heights and widths (B,), 1 to 30."""
        return self.heights.argmax(1) + 1, self.widths.argmax(1) + 1

    def terms(self, grids: Tensor, heights: Tensor, widths: Tensor) -> Terms:
        """-log p(x|z) of the b-th grid under the b-th z. `grids` (B, 30, 30)."""
        size = -(_picked(self.heights, heights - 1) + _picked(self.widths, widths - 1))
        logits = self._draw(heights, widths).float()  # (B, 30, 30, 10 or 11)
        cells, colours, likeliest = grids.long(), torch.zeros_like(size), logits[..., :COLOURS].argmax(-1)
        if self.palette is not None:
            cells, palette = factor(grids)
            used = palette != UNUSED
            colours = -(self.palette.gather(2, palette.clamp(min=0)[..., None])[..., 0] * used).sum(1)
            likeliest = self.palette.argmax(2).gather(1, likeliest.flatten(1)).view_as(cells)
        inside = cells != OUTSIDE
        modal = modal_colours(grids)[:, None, None]
        right, foreground = (likeliest == grids) & inside, (grids != modal) & inside
        nll = F.cross_entropy(
            logits.flatten(0, 2),
            cells.flatten() if logits.shape[-1] > COLOURS else torch.where(inside, cells, -100).flatten(),
            reduction="none",
        ).view(cells.shape)
        return Terms(
            size=size,
            colours=colours,
            cells=(nll * inside).sum((1, 2)),
            padding=(nll * ~inside).sum((1, 2)),
            shape=((self.heights.argmax(1) == heights - 1) & (self.widths.argmax(1) == widths - 1)).float(),
            right=right.sum((1, 2)).float(),
            foreground=(right & foreground).sum((1, 2)).float(),
            foreground_cells=foreground.sum((1, 2)).float(),
        )

    def log_prob(self, grids: Tensor) -> Tensor:
        """log p(x|z) in nats (B,) of canvases (B, 30, 30)."""
        return -self.terms(grids, *sizes_of(grids)).total

    @property
    def mode(self) -> Tensor:
        """The likeliest canvases (B, 30, 30) uint8: likeliest size, slots given it, and colours, none used twice."""
        heights, widths = self.likeliest_sizes()
        inside = rectangles(heights, widths)
        cells = self._draw(heights, widths)[..., :COLOURS].argmax(-1)  # (B, 30, 30)
        if self.palette is not None:
            shown = F.one_hot(torch.where(inside, cells, COLOURS).flatten(1), COLOURS + 1)[..., :COLOURS].any(1)
            cells = distinct(self.palette, shown).gather(1, cells.flatten(1)).view_as(cells)
        return torch.where(inside, cells, OUTSIDE).to(torch.uint8)

    def cells(self, heights: Tensor | None = None, widths: Tensor | None = None) -> Tensor:
        """log-probability (B, 11, 30, 30) of each cell's value, at given sizes or the likeliest ones."""
        if heights is None or widths is None:
            heights, widths = self.likeliest_sizes()
        inside = rectangles(heights, widths)
        values = self._draw(heights, widths)[..., :COLOURS].float().log_softmax(-1)  # (B, 30, 30, 10)
        if self.palette is not None:
            values = (values.flatten(1, 2).exp() @ self.palette.exp()).log().view_as(values)
        values = torch.where(inside[..., None], values, IMPOSSIBLE)
        outside = torch.where(inside, IMPOSSIBLE, 0.0)
        return torch.cat((values, outside[..., None]), -1).permute(0, 3, 1, 2)


def sizes_of(grids: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths (B,) of canvases (B, 30, 30)."""
    inside = grids != OUTSIDE
    return inside[:, :, 0].sum(1), inside[:, 0, :].sum(1)


def rectangles(heights: Tensor, widths: Tensor) -> Tensor:
    """Which cells are inside: (B, 30, 30)."""
    place = torch.arange(SIDE, device=heights.device)
    return (place < heights[:, None])[:, :, None] & (place < widths[:, None])[:, None, :]


def _picked(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, None])[:, 0]
