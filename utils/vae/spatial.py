"""Encoder and decoder with a map of latents: one place of it to 4x4 cells, and a few latents of the whole grid.

Every layer multiplies by a mask of what lies inside the grid, so a grid's numbers do not depend on the canvas it lies
on. Grids of like size can therefore be computed together on a canvas no larger than they need, which saves most of
the padding's work. Places wholly outside the grid have the prior for a posterior: they cost and tell nothing.

Residual blocks begin as the identity (De and Smith 2020), and there are no norms.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.vae.config import PATCH, PLACES, VAEConfig

EDGES = 8  # numbers that say where in the grid a place is


class Residual(nn.Module):
    """x + gain * conv(silu(conv(silu(x)))) inside the mask, the gain learned from 0."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = F.silu(self.first(F.silu(x))) * mask
        return torch.addcmul(x, self.second(y), mask * self.gain.to(mask.dtype))


class SpatialEncoder(nn.Module):
    """Values 0 to 9 of cells, 10 outside, to mu and log-variance of `overall` and `map`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        fine, coarse = config.widths
        self.enter = nn.Conv2d(4 * (OUTSIDE + 1) + EDGES, fine, 3, padding=1)
        self.fine = nn.ModuleList(Residual(fine) for _ in range(config.blocks[0]))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse = nn.ModuleList(Residual(coarse) for _ in range(config.blocks[1]))
        self.map = nn.Conv2d(coarse, 2 * config.channels, 1)
        self.glance = nn.Conv2d(4 * (OUTSIDE + 1), config.channels, 2, stride=2, bias=False)
        nn.init.normal_(self.glance.weight, std=1 / PATCH)  # of 16 cells, one value each: unit variance
        self.overall = nn.Linear(2 * coarse, 2 * config.overall)
        self.heights, self.widths = (nn.Embedding(SIDE, config.overall) for _ in range(2))
        self.to(memory_format=torch.channels_last)

    def forward(self, cells: Tensor, heights: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """`cells` (B, 30, 30) int64; returns (B, 2, overall) and (B, 2, channels * 64): mu and log-variance."""
        overall, maps, rows = [], [], []
        for part, side in parts(heights, widths, self.config.part):
            rows.append(part)
            whole, local = self._part(_cropped(cells[part], side), heights[part], widths[part], side)
            missing = PLACES - side // PATCH
            overall.append(whole)
            maps.append(F.pad(local, (0, missing, 0, missing)).reshape(len(part), 2, -1))
        back = torch.cat(rows).argsort()
        return torch.cat(overall)[back].view(len(back), 2, -1), torch.cat(maps)[back]

    def _part(self, cells: Tensor, heights: Tensor, widths: Tensor, side: int) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(cells)
        half, quarter = (inside(heights, widths, side, step).to(dtype) for step in (2, PATCH))
        place = edges(heights, widths, side, 2).to(dtype)
        seen = _two_by_two(F.one_hot(cells, OUTSIDE + 1).to(dtype)).permute(0, 3, 1, 2)  # (b, 44, S/2, S/2)
        x = torch.cat((seen, place.permute(0, 3, 1, 2)), 1).contiguous(memory_format=torch.channels_last)
        x = self.enter(x * half) * half
        for block in self.fine:
            x = block(x, half)
        x = self.down(F.silu(x)) * quarter  # (b, coarse, S/4, S/4)
        for block in self.coarse:
            x = block(x, quarter)
        mu, logvar = self.map(F.silu(x)).float().chunk(2, 1)
        mu = mu + self.glance(seen * half).float()  # tells patches apart from the first step on
        local = torch.cat((mu, logvar), 1) * quarter  # (b, 2 * channels, S/4, S/4); outside 0, which is the prior
        x, places = x.float(), quarter.float().sum((2, 3))
        most = x.masked_fill(quarter == 0, -torch.inf).amax((2, 3))
        whole = self.overall(torch.cat((x.sum((2, 3)) / places, most), 1))
        size = self.heights(heights - 1) + self.widths(widths - 1)  # told apart from the first step on
        whole = whole + F.pad(size, (0, size.shape[1]))
        return whole, local


class SpatialDecoder(nn.Module):
    """Latents to logits of the sizes, and to logits of each cell once the size is given."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        fine, coarse = config.widths
        self.sizes = nn.Sequential(nn.Linear(config.overall, 128), nn.SiLU(), nn.Linear(128, 2 * SIDE))
        self.enter = nn.Conv2d(config.channels + config.overall + EDGES, coarse, 1)
        self.coarse = nn.ModuleList(Residual(coarse) for _ in range(config.blocks[1]))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = nn.ModuleList(Residual(fine) for _ in range(config.blocks[0]))
        self.cells = nn.Conv2d(fine, 4 * COLOURS, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, overall: Tensor, local: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """`overall` (B, overall) and `local` (B, channels * 64) to logits (B, 30, 30, 10), 0 outside the grids."""
        rows, drawn = [], []
        local = local.view(len(local), -1, PLACES, PLACES)
        for part, side in parts(heights, widths, self.config.part):
            rows.append(part)
            places = side // PATCH
            logits = self._part(overall[part], local[part, :, :places, :places], heights[part], widths[part], side)
            missing = SIDE - side
            drawn.append(F.pad(logits, (0, 0, 0, missing, 0, missing)))
        return torch.cat(drawn)[torch.cat(rows).argsort()]

    def _part(self, overall: Tensor, local: Tensor, heights: Tensor, widths: Tensor, side: int) -> Tensor:
        dtype = compute_dtype(overall)
        half, quarter = (inside(heights, widths, side, step).to(dtype) for step in (2, PATCH))
        whole = overall[:, :, None, None].expand(-1, -1, *local.shape[2:])
        place = edges(heights, widths, side, PATCH).permute(0, 3, 1, 2)
        x = torch.cat((local, whole, place), 1).to(dtype).contiguous(memory_format=torch.channels_last)
        x = self.enter(x) * quarter
        for block in self.coarse:
            x = block(x, quarter)
        x = _apart(self.up(F.silu(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * half  # (b, fine, S/2, S/2)
        for block in self.fine:
            x = block(x, half)
        return _apart(self.cells(F.silu(x)).permute(0, 2, 3, 1))  # (b, S, S, 10)


def parts(heights: Tensor, widths: Tensor, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Rows of a batch in order of size, `rows` at a time, each with the side of canvas that holds them."""
    sides = torch.maximum(heights, widths)
    for part in torch.argsort(sides, stable=True).split(rows):
        yield part, -(-int(sides[part].max()) // PATCH) * PATCH


def inside(heights: Tensor, widths: Tensor, side: int, step: int) -> Tensor:
    """Which squares of `step` cells hold some of the grid: (B, 1, S / step, S / step)."""
    place = torch.arange(0, side, step, device=heights.device)
    return ((place < heights[:, None])[:, :, None] & (place < widths[:, None])[:, None, :])[:, None]


def reached(config: VAEConfig, heights: Tensor, widths: Tensor) -> Tensor:
    """Which latents (D,) some grid of these sizes (B,) reaches: all but those of the places outside every grid."""
    found = torch.ones(config.latent_size, dtype=torch.bool)
    if "map" in config.groups:
        places = inside(heights, widths, PLACES * PATCH, PATCH).flatten(1).any(0).cpu()  # (64,)
        found[config.groups["map"]] = places.repeat(config.channels)
    return found


def edges(heights: Tensor, widths: Tensor, side: int, step: int) -> Tensor:
    """Where each square of `step` cells lies in its grid: (B, S / step, S / step, 8).

    For rows and for columns, cells from the first and from the last edge, as shares of 30 and of 8 (at most 1).
    """
    place = torch.arange(0, side, step, device=heights.device).float()

    def along(size: Tensor) -> Tensor:
        first, last = place.expand(size.shape[0], -1), place - size[:, None]
        return torch.stack((first / SIDE, last / SIDE, (first / 8).clamp(max=1), (last / 8).clamp(-1, 1)), -1)

    down, across = along(heights)[:, :, None], along(widths)[:, None]  # (B, S, 1, 4), (B, 1, S, 4)
    count = side // step
    return torch.cat((down.expand(-1, -1, count, -1), across.expand(-1, count, -1, -1)), -1)


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What convolutions are computed in here: that of autocast, where it is on."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def _cropped(cells: Tensor, side: int) -> Tensor:
    """(B, 30, 30) to (B, S, S), with more outside where S is 32."""
    return F.pad(cells, (0, side - SIDE, 0, side - SIDE), value=OUTSIDE)


def _two_by_two(x: Tensor) -> Tensor:
    """(B, S, S, C) to (B, S / 2, S / 2, 4 C): squares of 2x2 side by side as channels."""
    rows, side, _, channels = x.shape
    x = x.view(rows, side // 2, 2, side // 2, 2, channels).transpose(2, 3)
    return x.reshape(rows, side // 2, side // 2, 4 * channels)


def _apart(x: Tensor) -> Tensor:
    """(B, S, S, 4 C) to (B, 2 S, 2 S, C): undoes `_two_by_two`."""
    rows, side, _, channels = x.shape
    x = x.reshape(rows, side, side, 2, 2, channels // 4).transpose(2, 3)
    return x.reshape(rows, 2 * side, 2 * side, channels // 4)
