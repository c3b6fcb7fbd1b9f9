"""How programs are drawn, token by token, and what is kept of it: `SampleConfig` and `Responses`.

Shapes: P prompts, n samples of each, N = P n responses, L and T tokens, V ids. Leaves out the model (`rl.policy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from utils.core.config import Config
from utils.models.generate import filtered


class SampleConfig(Config):
    """How programs are drawn."""

    max_new_tokens: int = Field(32, ge=1)
    """tokens of a program, its end included; a longer one is cut off and fails"""
    temperature: float = Field(1.0, ge=0)
    """divides the logits; 0 takes the likeliest token (greedy)"""
    top_k: int | None = Field(None, ge=1)
    """keep only the k likeliest tokens"""
    top_p: float | None = Field(None, gt=0, le=1)
    """keep the fewest likeliest tokens whose probabilities reach p; 1 keeps all, as None does"""

    @field_validator("top_p")
    @classmethod
    def _whole(cls, top_p: float | None) -> float | None:
        return None if top_p == 1 else top_p

    def narrows(self, V: int) -> bool:
        """Whether some of V ids that the model allows may be left out."""
        cut = self.top_p is not None or (self.top_k is not None and self.top_k < V)
        return self.temperature > 0 and cut


@dataclass(frozen=True)
class Responses:
    """What was drawn, a row a response; a prompt's n responses lie side by side."""

    ids: Tensor
    """(N, T), PAD after the end"""
    mask: Tensor
    """(N, T) bool, True for the tokens that were drawn, EOS included"""
    logprobs: Tensor
    """(N, T), 0 where the mask is False"""
    values: Tensor
    """(N, T): the value before each token, 0 where the mask is False"""
    support: Tensor | None
    """(N, T, ceil(V / 8)) uint8: what could be drawn, packed (`unpacked`), where top-k or top-p left something out.
    N T V / 8 bytes: 1.2 GB for 256 responses of 256 tokens of a vocabulary of 152,000"""

    finished: Tensor
    """(N,) bool: whether the end was drawn before the limit"""


def joined(parts: Sequence[Responses], order: Tensor, pad: int) -> Responses:
    """Parts drawn one after the other as one, their rows put at the places that `order` (N,) names."""
    if len(parts) == 1:
        return parts[0]
    T, back = max(one.ids.shape[1] for one in parts), order.argsort()

    def whole(name: str, fill: int) -> Tensor:
        rows = [getattr(one, name) for one in parts]
        ends = [(0, 0) * (one.dim() - 2) + (0, T - one.shape[1]) for one in rows]
        return torch.cat([F.pad(one, end, value=fill) for one, end in zip(rows, ends)])[back]

    fills = {"ids": pad, "mask": False, "logprobs": 0, "values": 0}
    support = None if parts[0].support is None else whole("support", 255)
    columns = {name: whole(name, fill) for name, fill in fills.items()}
    return Responses(**columns, support=support, finished=torch.cat([one.finished for one in parts])[back])


def draw(logits: Tensor, config: SampleConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A token of each row of logits (M, V) and its log-probability, (M,); and the logits it was drawn from, (M, V)."""
    if config.temperature == 0:
        token = logits.argmax(-1)
        return token, torch.zeros_like(logits[:, 0]), logits
    logits = filtered(logits, config)
    logprobs = logits.log_softmax(-1)
    token = torch.multinomial(logprobs.exp(), 1, generator=generator)
    return token.squeeze(1), logprobs.gather(-1, token).squeeze(1), logits


class Growing:
    """Responses as they grow."""

    def __init__(self, N: int, T: int, pad: int, V: int, config: SampleConfig, device: torch.device):
        self.ids = torch.full((N, T), pad, device=device)
        self.mask = torch.zeros(N, T, dtype=torch.bool, device=device)
        self.logprobs, self.values = (torch.zeros(N, T, device=device) for _ in "ab")
        # All ones where nothing is drawn, so that no softmax is one of nothing at all, which is NaN.
        size = (N, T, -(-V // 8))
        self.support = torch.full(size, 255, dtype=torch.uint8, device=device) if config.narrows(V) else None
        self.length = 0

    def write(self, place: int, rows: Tensor, going: Tensor, token, logprob, value, logits) -> None:
        """What was drawn for `rows` at this place, of which those that are `going` count."""
        at = rows[going]
        self.ids[at, place], self.mask[at, place] = token[going], True
        self.logprobs[at, place], self.values[at, place] = logprob[going], value[going]
        if self.support is not None:
            self.support[at, place] = packed(~logits[going].isinf())
        self.length = place + 1

    def responses(self, finished: Tensor) -> Responses:
        parts = (self.ids, self.mask, self.logprobs, self.values)
        support = None if self.support is None else self.support[:, : self.length]
        return Responses(*(part[:, : self.length] for part in parts), support, finished)


def packed(kept: Tensor) -> Tensor:
    """Booleans (..., V) as bits (..., ceil(V / 8)) uint8, the first in the lowest bit; what is over is 0."""
    bits = F.pad(kept.to(torch.uint8), (0, -kept.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (bits << torch.arange(8, dtype=torch.uint8, device=kept.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, V: int) -> Tensor:
    """The booleans (..., V) that were `packed`."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits.unsqueeze(-1) >> places & 1).bool().flatten(-2)[..., :V]


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids of several lengths as (P, L), padded on the left, and the mask that says so, both int64."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, longest - len(row) :] = torch.as_tensor(row)
        mask[at, longest - len(row) :] = 1
    return ids, mask
