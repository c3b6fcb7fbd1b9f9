"""What comes next for each row, and which rows are left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .rows import Row


class Causal:
    """Logits of the next token of each row, cached up to the context length; beyond, from its last tokens afresh."""

    def __init__(self, model: Any, rows: list[Row], context: int | None, device: torch.device):
        self.model, self.context, self.device = model, context, device
        self.ids = [[*row.ids, *row.tokens] for row in rows]
        self.caching, self.cache, self.mask = model.caches, None, None

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """(B, V), float32, on the CPU."""
        width = max(map(len, self.ids)) if self.mask is None else self.mask.shape[1]
        if self.caching and (self.context is None or width <= self.context):
            if self.cache is None:
                ids, self.mask = padded(self.ids, self.device, left=True)
            else:
                ids = torch.tensor([row[-1:] for row in self.ids], device=self.device)
            last, self.cache = self.model.cached(ids, self.mask, self.cache)
        else:
            self.caching, self.cache = False, None
            windows = [row[-self.context :] if self.context else row for row in self.ids]
            last = self.model.last(*padded(windows, self.device), torch.tensor([len(row) - 1 for row in windows]))
        return last.float().cpu()

    def push(self, tokens: list[int]) -> None:
        for row, token in zip(self.ids, tokens):
            row.append(token)
        if self.mask is not None:
            self.mask = torch.cat((self.mask, self.mask.new_ones(len(self.mask), 1)), 1)

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        self.ids = [self.ids[at] for at in rows]
        if self.cache is not None:
            index = torch.tensor(rows, device=self.device)
            self.mask, self.cache = self.mask[index], self.model.keep(self.cache, index)


class Seq2Seq:
    """Logits of the next token of each row's target. Sources are encoded once; the decoder has no cache."""

    @torch.inference_mode()
    def __init__(self, model: Any, rows: list[Row], start: int, device: torch.device):
        self.model = model
        sources, self.mask = padded([row.ids for row in rows], device)
        self.memory = model.encode(sources, self.mask)
        self.ids = torch.tensor([[start, *row.tokens] for row in rows], device=device)

    @torch.inference_mode()
    def logits(self) -> Tensor:
        return self.model.decode(self.ids, self.memory, self.mask)[:, -1].float().cpu()

    def push(self, tokens: list[int]) -> None:
        self.ids = torch.cat((self.ids, torch.tensor(tokens, device=self.ids.device)[:, None]), 1)

    def keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.ids.device)
        self.ids, self.memory, self.mask = self.ids[index], self.memory[index], self.mask[index]


def choose(logits: Tensor, row: Row) -> int:
    """The next token from logits (V,): the likeliest, or one drawn by the row's own generator."""
    sampling = row.sampling
    if sampling.repetition_penalty != 1:  # Keskar et al. 2019
        seen = torch.tensor(sorted({*row.ids, *row.tokens}))
        past = logits[seen]
        logits = logits.clone()
        logits[seen] = torch.where(past > 0, past / sampling.repetition_penalty, past * sampling.repetition_penalty)
    if not sampling.do_sample:
        return int(logits.argmax())
    divided = logits / sampling.temperature
    if bool(divided.isposinf().any()):  # probabilities depend on differences alone
        divided = (logits - logits.max()) / sampling.temperature
    logits = divided
    if sampling.top_k is not None:
        floor = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < floor, -math.inf)
    if sampling.top_p is not None:  # the fewest whose probabilities reach p (Holtzman et al. 2020)
        ordered, order = logits.sort(descending=True)
        chances = ordered.softmax(-1)
        dropped = order[chances.cumsum(-1) - chances >= sampling.top_p]
        logits = logits.index_fill(0, dropped, -math.inf)
    return int(torch.multinomial(logits.softmax(-1), 1, generator=row.generator))


def sound(values: Tensor) -> Tensor:
    if bool(values.isnan().any()):
        raise ArithmeticError("The model's outputs are NaN: its weights are broken, or its arithmetic overflows.")
    return values


def padded(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """ids and mask (B, T), padded on one side with 0."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[at, place], mask[at, place] = torch.tensor(list(row)), 1
    return ids.to(device), mask.to(device)
