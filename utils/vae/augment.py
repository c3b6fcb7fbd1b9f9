"""Augmentation of grid batches as tensors: turns and mirrors about the grid itself, and renaming of colours.

Turning the canvas would move the padding; here the grid is turned within its own rectangle and stays at the top left,
so a batch stays a batch of valid canvases. Every step is invertible. Leaves out where the batches come from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.core.config import Config

# Elements of D4 in the order of arc.grids.d4. Cell (r, c) of the image is cell (r', c') of the grid, where (r', c') is
# (r, c), swapped if `swap`, and then counted from the other end where `rows` or `columns`.
SWAP = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0], dtype=torch.bool)
ROWS = torch.tensor([0, 0, 1, 1, 0, 1, 1, 0], dtype=torch.bool)
COLUMNS = torch.tensor([0, 1, 1, 0, 0, 0, 1, 1], dtype=torch.bool)
INVERSE = torch.tensor([0, 3, 2, 1, 4, 5, 6, 7])  # a quarter turn back; a mirror undoes itself


class AugmentConfig(Config):
    """What may be changed about a grid."""

    d4: bool = True
    """one of the 8 turns and mirrors, about the grid itself"""
    colours: bool = True
    """a random renaming of the colours"""
    keep_black: bool = True
    """leave colour 0, the usual background, as it is"""

    @property
    def idle(self) -> bool:
        """Whether nothing is changed."""
        return not (self.d4 or self.colours)


def augment(batch: dict[str, Tensor], config: AugmentConfig, *, generator: torch.Generator) -> dict[str, Tensor]:
    """A batch with each grid turned and renamed at random; `generator` is one of the CPU."""
    count, device = len(batch["grids"]), batch["grids"].device
    if config.d4:
        batch = turn(batch, torch.randint(8, (count,), generator=generator).to(device))
    if config.colours:
        names = draw_names(count, keep_black=config.keep_black, generator=generator)
        batch = {**batch, "grids": rename(batch["grids"], names.to(device))}
    return batch


def turn(batch: dict[str, Tensor], elements: Tensor) -> dict[str, Tensor]:
    """Each grid's image under an element of D4 (0 to 7, as in `arc.grids.d4`), at the top left again.

    `elements` (B,) int64; `grids` (B, 30, 30), `heights` and `widths` (B,); other entries are left as they are.
    """
    grids, heights, widths = batch["grids"], batch["heights"].long(), batch["widths"].long()
    swap, rows, columns = (table.to(grids.device)[elements][:, None, None] for table in (SWAP, ROWS, COLUMNS))
    place = torch.arange(SIDE, device=grids.device)
    row, column = place[None, :, None], place[None, None, :]
    height, width = heights[:, None, None], widths[:, None, None]
    r, c = torch.where(swap, column, row), torch.where(swap, row, column)  # (B, 30, 30)
    inside = (r < height) & (c < width)
    r, c = torch.where(rows, height - 1 - r, r), torch.where(columns, width - 1 - c, c)
    source = torch.where(inside, r * SIDE + c, 0)
    turned = grids.flatten(1).gather(1, source.flatten(1)).view_as(grids)
    swap = swap.flatten()
    return {
        **batch,
        "grids": torch.where(inside, turned, OUTSIDE),
        "heights": torch.where(swap, widths, heights),
        "widths": torch.where(swap, heights, widths),
    }


def rename(grids: Tensor, names: Tensor) -> Tensor:
    """Colour k of grid b becomes `names[b, k]`; (B, 30, 30) and (B, 11), where names[:, 10] is 10, the outside.

    `names.argsort(1)` renames back.
    """
    return names.to(grids.dtype).gather(1, grids.flatten(1).long()).view_as(grids)


def draw_names(count: int, *, keep_black: bool, generator: torch.Generator) -> Tensor:
    """Random permutations (count, 11) of the colours that fix OUTSIDE, and 0 where `keep_black`."""
    first = int(keep_black)
    shuffled = torch.rand(count, COLOURS - first, generator=generator).argsort(1) + first
    fixed = torch.arange(COLOURS + 1).expand(count, -1)
    return torch.cat((fixed[:, :first], shuffled, fixed[:, COLOURS:]), 1)
