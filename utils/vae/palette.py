"""A grid as two things: which cells are alike (slots), and which colour each slot has (a palette).

Slot 0 is the most frequent colour, slot 1 the next, and so on; of equally frequent colours the one met first in reading
order comes first. So renaming colours changes the palette alone, and slots and palette together are the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arc.grids import COLOURS, OUTSIDE

UNUSED = -1
UNSURE = 1e6  # more than any score: what no cell shows comes last


def factor(grids: Tensor) -> tuple[Tensor, Tensor]:
    """Slots (B, 30, 30) int64, 10 outside, and palette (B, 10): the colour of each slot, -1 where it is unused."""
    cells = grids.flatten(1).long()  # (B, 900)
    rows, area = cells.shape
    place = torch.arange(area, device=cells.device).expand_as(cells)
    empty = cells.new_zeros(rows, COLOURS + 1)
    found = empty.scatter_add(1, cells, torch.ones_like(cells))[:, :COLOURS]  # cells of each colour
    first = (empty + area).scatter_reduce(1, cells, place, "amin")[:, :COLOURS]  # where it is first met
    order = torch.argsort(found * (area + 1) - first, dim=1, descending=True, stable=True)  # colour of each slot
    ranks = F.pad(order.argsort(1), (0, 1), value=OUTSIDE)  # slot of each colour
    slots = ranks.gather(1, cells).view_as(grids)
    return slots, torch.where(found.gather(1, order) > 0, order, UNUSED)


def distinct(scores: Tensor, used: Tensor) -> Tensor:
    """A colour for each slot, none twice: (B, 10, 10) scores of slot by colour to (B, 10).

    The highest score of all is taken first, then the highest of the slots and colours that are left; the slots that are
    `used` (B, 10) before the others, whose scores mean nothing.
    """
    scores = scores - UNSURE * ~used[:, :, None]
    rows = torch.arange(len(scores), device=scores.device)
    colours = torch.zeros(scores.shape[:2], dtype=torch.long, device=scores.device)
    for _ in range(COLOURS):
        slot = scores.flatten(1).argmax(1).div(COLOURS, rounding_mode="floor")
        colour = scores[rows, slot].argmax(1)
        colours[rows, slot] = colour
        scores[rows, slot] = -torch.inf
        scores[rows, :, colour] = -torch.inf
    return colours


class PaletteEncoder(nn.Module):
    """Palettes (B, 10) to mu and log-variance (B, 2 * latents)."""

    def __init__(self, latents: int, width: int = 128):
        super().__init__()
        self.names = nn.Embedding(COLOURS * (COLOURS + 1), latents)  # of each colour in each slot
        self.layers = _mlp(COLOURS * (COLOURS + 1), width, 2 * latents)

    def forward(self, palette: Tensor) -> Tensor:
        named = F.one_hot(palette + 1, COLOURS + 1).flatten(1).float()  # (B, 110)
        mu = named @ self.names.weight / COLOURS**0.5  # told apart from the first step on
        return self.layers(named) + F.pad(mu, (0, mu.shape[1]))


class PaletteDecoder(nn.Module):
    """Latents (B, latents) to logits (B, 10, 10) of each slot's colour."""

    def __init__(self, latents: int, width: int = 128):
        super().__init__()
        self.layers = _mlp(latents, width, COLOURS * COLOURS)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).view(-1, COLOURS, COLOURS)


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )
