"""Positions: where tokens stand, and the tables by which a model learns of it.

Pure functions of places and distances; `models.blocks` and the models apply them. Shapes as in `models.blocks`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def places(attention_mask: Tensor | None, past: int, T: int, device: torch.device) -> Tensor:
    """Place of each token in its own text: (T,), or (B, T) where the padding of a mask (B, S) shifts the rows."""
    if attention_mask is None:
        return torch.arange(past, past + T, device=device)
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]


def distances(past: int, T: int, device: torch.device) -> Tensor:
    """(T, S) key's place less the query's, of T queries after `past` tokens and the S = past + T keys so far."""
    return torch.arange(past + T, device=device) - torch.arange(past, past + T, device=device).unsqueeze(1)


def rotary_table(positions: int, head_size: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin of rotary positions (Su et al. 2021), (positions, hs): angle t / base^(2i / hs).

    Both halves of a row hold the same angles; sin's first half is negated, as `rotate` needs it.
    """
    frequency = base ** -(torch.arange(0, head_size, 2) / head_size)
    angle = torch.outer(torch.arange(positions), frequency)
    return angle.cos().repeat(1, 2), torch.cat((-angle.sin(), angle.sin()), dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + hs/2}) of (B, nh, T, hs) by its position's angle."""
    return torch.addcmul(x * cos.to(x.dtype), x.roll(x.shape[-1] // 2, -1), sin.to(x.dtype))


def sinusoidal_table(positions: int, width: int) -> Tensor:
    """(positions, C): sines and cosines of geometric wavelengths (Vaswani et al. 2017, section 3.5)."""
    frequency = 10000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.outer(torch.arange(positions), frequency)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


def alibi_slopes(num_heads: int) -> Tensor:
    """(nh,) slopes of ALiBi (Press et al. 2022): 2^(-8i/n) for n a power of two, the odd ones of 2n for the rest."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return torch.tensor(slopes)


def relative_buckets(distance: Tensor, *, buckets: int, farthest: int, both_sides: bool) -> Tensor:
    """The bucket of each distance (Raffel et al. 2020, section 2.1), in the shape of `distance`.

    Half of a side's buckets hold one distance each; the other half grow logarithmically up to `farthest`, and the last
    holds all beyond. `both_sides` gives the keys after the query the second half of the buckets; otherwise such keys
    share bucket 0 with the query's own.
    """
    if both_sides:
        buckets //= 2
        side, far = buckets * (distance > 0), distance.abs()
    else:
        side, far = 0, (-distance).clamp(min=0)
    exact = buckets // 2
    growth = (far.clamp(min=exact) / exact).log() / math.log(farthest / exact)  # 0 at `exact`, 1 at `farthest`
    log_bucket = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
    return side + torch.where(far < exact, far, log_bucket)
