"""Completion of a grid some of whose cells are hidden: the latents that explain the cells that are seen, decoded.

    z* = argmin over z of  -log p(seen cells, size | z) + beta * |z|^2 / 2

With beta 1 that is the likeliest z given what is seen; another beta weighs the prior as the training did. The size of
the grid is known. The search starts from the encoding of the grid with its hidden cells in the most frequent colour
seen: what they hide is never read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from utils.arc.grids import COLOURS, OUTSIDE, SIDE, sizes
from utils.vae.decoded import sizes_of
from utils.vae.explore import as_canvas
from utils.vae.latents import place
from utils.vae.metrics import modal_colours

RATE = 0.1  # of Adam


@dataclass(frozen=True)
class Completion:
    """A canvas, what was hidden of it, and what was put there; all (30, 30)."""

    true: np.ndarray
    hidden: np.ndarray
    """truth values"""
    completed: np.ndarray
    """cells seen as they are, hidden ones in their likeliest colour"""
    confidence: np.ndarray
    """probability of the colour chosen in hidden cells; NaN elsewhere"""

    @property
    def wrong(self) -> np.ndarray:
        """Hidden cells whose colour is not the true one."""
        return self.hidden & (self.completed != self.true)


def hide_middle(grid: np.ndarray, share: float = 0.4) -> np.ndarray:
    """A mask (30, 30) of the middle of a grid: a box of this share of its sides, of at least one cell."""
    height, width = (int(side[0]) for side in sizes(as_canvas(grid)[None]))
    mask = np.zeros((SIDE, SIDE), bool)
    tall, wide = (max(1, round(share * side)) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    mask[top : top + tall, left : left + wide] = True
    return mask


def complete(model: nn.Module, grid: np.ndarray, mask: np.ndarray, *, steps: int = 100) -> Completion:
    """Complete the cells of a grid (h, w), or canvas (30, 30), where `mask` of the same shape is true.

    `steps` of Adam, from the same start every time. Raises ValueError where nothing of the grid is hidden, or all.
    """
    mask, canvas = np.asarray(mask, bool), as_canvas(grid)
    if mask.shape not in (np.shape(grid), canvas.shape):
        raise ValueError(f"The mask is {mask.shape} and the grid {np.shape(grid)}; expected the same shape.")
    hidden = np.zeros_like(canvas, bool)
    hidden[: mask.shape[0], : mask.shape[1]] = mask
    hidden &= canvas != OUTSIDE
    seen = (canvas != OUTSIDE) & ~hidden
    if not hidden.any() or not seen.any():
        raise ValueError(f"{hidden.sum()} cells are hidden and {seen.sum()} seen; expected some of both.")
    start = np.where(hidden, modal_colours(np.where(seen, canvas, OUTSIDE)[None]).item(), canvas)
    device = place(model)
    grids, shown = torch.from_numpy(start)[None].long().to(device), torch.from_numpy(seen)[None].to(device)
    chance = _search(model, grids, shown, steps)[0].cpu().numpy()  # (10, 30, 30)
    return Completion(
        true=canvas,
        hidden=hidden,
        completed=np.where(hidden, chance.argmax(0), canvas).astype(np.uint8),
        confidence=np.where(hidden, chance.max(0), np.nan),
    )


def _search(model: nn.Module, grids: torch.Tensor, seen: torch.Tensor, steps: int) -> torch.Tensor:
    """Probabilities (B, 10, 30, 30) of the colours at the z found; cells that are not `seen` are read at the start."""
    heights, widths = sizes_of(grids)
    with torch.no_grad():
        z = model.encode(grids)[0].float().clone()
    z.requires_grad_()
    optimiser = torch.optim.Adam([z], lr=RATE)
    wanted = torch.where(seen, grids, 0)[:, None]
    for _ in range(steps):
        with torch.enable_grad():
            decoded = model.decode(z)
            cells = decoded.cells(heights, widths).gather(1, wanted)[:, 0]  # (B, 30, 30)
            size = decoded.heights.gather(1, heights[:, None] - 1) + decoded.widths.gather(1, widths[:, None] - 1)
            loss = 0.5 * model.config.beta * z.square().sum() - torch.where(seen, cells, 0).sum() - size.sum()
            (gradient,) = torch.autograd.grad(loss, z)
        z.grad = gradient.nan_to_num(0.0, 0.0, 0.0)  # a colour of probability 0 has none
        optimiser.step()
    with torch.no_grad():
        return model.decode(z).cells(heights, widths)[:, :COLOURS].exp()
