"""The tiny policy: a GPT that sees grids as grids.

Leaves out how it is warmed up (`rl.warm`) and trained (`rl.loop`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.vocabulary import PieceTokenizer

PARTS = 20  # grids of a prompt that are told apart; further ones count as the last
VIEWS = 8
PAIRS = (COLOURS + 1) * COLOURS  # of a colour in the input, OUTSIDE among them, and an own colour


class GridGPT(GPT):
    """A GPT that sees grids as grids.

    Each cell's embedding holds its row, its column and its grid; and, in an output, what stands in the input at the
    same place and at the seven places that turns and mirrors bring there, beside its own colour. All is read off the
    tokens up to the cell, so the model stays causal.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.rows = nn.Embedding(SIDE, config.width)
        self.columns = nn.Embedding(SIDE + 1, config.width)  # the end of a row stands after its last cell
        self.parts = nn.Embedding(PARTS, config.width)
        self.views = nn.EmbeddingBag(VIEWS * PAIRS + 1, config.width, mode="sum", padding_idx=VIEWS * PAIRS)
        for table in (self.rows, self.columns, self.parts, self.views):
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.views.weight[-1].zero_()

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = super().embed(input_ids)
        row, column, part, inside = coordinates(input_ids)
        if not inside.any():  # a program
            return x
        places = self.rows(row) + self.columns(column) + self.parts(part)
        views = self.views(views_of(input_ids, row, column, part, inside).flatten(0, 1)).view_as(x)
        return x + places * inside.unsqueeze(-1) + views


def views_of(input_ids: Tensor, row: Tensor, column: Tensor, part: Tensor, inside: Tensor) -> Tensor:
    """What an output's cells are compared with, (B, T, 8): numbers of (view, colour there, own colour).

    The views are the places in the input that the eight symmetries bring to the cell's own; a place outside the input
    has the colour OUTSIDE. The last number is for tokens that are no cell of an output.
    """
    ids = PieceTokenizer
    B, size = input_ids.shape[0], (PARTS + 1) * SIDE * SIDE
    cell = inside & (input_ids != ids.row_id)
    own = (input_ids - ids.first_cell).clamp(0, COLOURS - 1)
    canvas = input_ids.new_full((B, size + 1), OUTSIDE)  # every grid, one place later, so that an input is at `part`
    canvas.scatter_(1, torch.where(cell, ((part + 1) * SIDE + row) * SIDE + column, size), own)
    grids = canvas[:, :size].view(B, PARTS + 1, SIDE, SIDE) != OUTSIDE
    heights, widths = grids.any(3).sum(2).gather(1, part), grids.any(2).sum(2).gather(1, part)  # the input's, (B, T)
    down, left = (row, heights - 1 - row), (column, widths - 1 - column)
    across, up = (row, widths - 1 - row), (column, heights - 1 - column)
    places = [(r, c) for r in down for c in left] + [(r, c) for r in up for c in across]
    numbers = []
    for view, (r, c) in enumerate(places):
        there = (r >= 0) & (c >= 0) & (r < heights) & (c < widths)
        place = (part * SIDE + r.clamp(0, SIDE - 1)) * SIDE + c.clamp(0, SIDE - 1)
        colour = torch.where(there, canvas.gather(1, place), OUTSIDE)
        numbers.append(view * PAIRS + colour * COLOURS + own)
    compared = cell & (part % 2 == 1)
    return torch.where(compared.unsqueeze(-1), torch.stack(numbers, dim=-1), VIEWS * PAIRS)


def coordinates(input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, column and grid of each of `input_ids` (B, T), and whether it is part of a grid; each (B, T).

    A grid is what follows a mark ("input", "output"): cells, and the end of each row.
    """
    ids = PieceTokenizer
    end, mark = input_ids == ids.row_id, (input_ids == ids.mark_ids[0]) | (input_ids == ids.mark_ids[1])
    inside = end | ((input_ids >= ids.first_cell) & (input_ids < ids.row_id))
    place = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    last_break = torch.where(end | mark, place, -1).cummax(1).values
    before = last_break.roll(1, 1).index_fill(1, place[0, :1], -1)  # the last break before each place itself
    column = place - before - 1
    ends = end.long().cumsum(1)
    at_mark = torch.where(mark, ends, 0).cummax(1).values
    row = ends - end.long() - at_mark
    part = (mark.long().cumsum(1) - 1).clamp(min=0)
    limits = (SIDE - 1, SIDE, PARTS - 1)
    row, column, part = ((one * inside).clamp(0, limit) for one, limit in zip((row, column, part), limits))
    return row, column, part, inside
