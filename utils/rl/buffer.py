"""The buffer: a rollout's tokens with all that a pass over them needs, cut into minibatches by prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectories:
    """P prompts and the n responses to each, side by side in N = P n rows."""

    prompts: Tensor
    """(P, L) ids, padded on the left"""
    prompt_mask: Tensor
    """(P, L), 1 for a token"""
    ids: Tensor
    """(N, T) ids, padded on the right"""
    mask: Tensor
    """(N, T) bool, True for a token that was drawn"""
    logprobs: Tensor
    """(N, T) under the policy that drew them"""
    values: Tensor
    """(N, T) before each token, by the same policy"""
    advantages: Tensor
    """(N, T)"""
    returns: Tensor
    """(N, T)"""
    support: Tensor | None = None
    """(N, T, ceil(V / 8)) uint8: what could be drawn, packed (`sampling.unpacked`), where something was left out"""

    def minibatches(self, count: int, generator: torch.Generator) -> Iterator[Trajectories]:
        """All of it in `count` parts of equally many prompts, in random order. Raises ValueError where none are."""
        if len(self.prompts) % count:
            raise ValueError(f"{len(self.prompts)} prompts cannot be cut into {count} minibatches alike")
        for rows in torch.randperm(len(self.prompts), generator=generator).chunk(count):
            yield self.part(rows.to(self.prompts.device))

    def micro_batches(self, prompts: int | None) -> list[Trajectories]:
        """All of it in parts of at most so many prompts, those of like length together; None: in one."""
        if prompts is None or prompts >= len(self.prompts):
            return [self]
        return [self.part(rows) for rows in self.prompt_mask.sum(1).argsort(stable=True).split(prompts)]

    def part(self, rows: Tensor) -> Trajectories:
        """The prompts of these numbers with their responses, without padding that all of them share."""
        n = len(self.ids) // len(self.prompts)
        responses = (rows[:, None] * n + torch.arange(n, device=rows.device)).flatten()
        mask = self.mask[responses]
        T = int(mask.any(0).nonzero().max()) + 1
        prompt_mask = self.prompt_mask[rows]
        start = int(prompt_mask.any(0).nonzero().min())
        drawn = (self.ids, self.mask, self.logprobs, self.values, self.advantages, self.returns)
        return Trajectories(
            self.prompts[rows, start:],
            prompt_mask[:, start:],
            *(one[responses, :T] for one in drawn),
            None if self.support is None else self.support[responses, :T],
        )
