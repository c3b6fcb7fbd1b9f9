"""`Row`: one prompt and its text, a token at a time, as text-generation-inference tells it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .sampling import Sampling


@dataclass
class Row:
    """One prompt and what has been generated of it so far."""

    prompt: str
    ids: list[int]
    sampling: Sampling
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    seed: int | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    """without what a stop text or an unfinished character may still take back, until `finish` is set"""
    finish: str | None = None
    """length, eos_token or stop_sequence, as text-generation-inference names them; cancelled"""
    shown: int = 0
    """characters of `text` that events have told"""
    watched: bool = False
    """whether the text is needed after every token"""

    def __post_init__(self):
        if self.sampling.do_sample and self.seed is None:
            self.seed = random.SystemRandom().randrange(2**32) if self.sampling.seed is None else self.sampling.seed
        self.generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)

    def add(self, token: int, logprob: float) -> None:
        """One more token; sets `finish` where it was the last. Where its text cannot be told, the row is as before."""
        finish, text = None, self.text
        if token in self.ends:
            finish = "eos_token"
        elif len(self.tokens) + 1 >= self.sampling.max_new_tokens:
            finish = "length"
        if finish or self.watched or self.sampling.stop:
            text = self.decode([*self.tokens, token])
            places = [place for place in (text.find(stop) for stop in self.sampling.stop) if place >= 0]
            if places:
                text, finish = text[: min(places)], "stop_sequence"
            elif not finish:
                text = settled(text, self.sampling.stop)
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.text, self.finish = text, finish or self.finish

    def event(self) -> dict[str, Any]:
        """The last token as text-generation-inference streams it; the texts of all events make the whole text."""
        new, self.shown = self.text[self.shown :], len(self.text)
        last = self.finish is not None
        return {
            "index": len(self.tokens),
            "token": {
                "id": self.tokens[-1], "text": new, "logprob": self.logprobs[-1],
                "special": self.tokens[-1] in self.ends,
            },
            "generated_text": self.result()["generated_text"] if last else None,
            "details": {"finish_reason": self.finish, "generated_tokens": len(self.tokens), "seed": self.seed}
            if last
            else None,
        }  # fmt: skip

    def result(self) -> dict[str, Any]:
        """The whole text, and with `details` what it is made of."""
        text = self.prompt + self.text if self.sampling.return_full_text else self.text
        if not self.sampling.details:
            return {"generated_text": text}
        tokens = [
            {"id": token, "text": self.decode([token]), "logprob": logprob, "special": token in self.ends}
            for token, logprob in zip(self.tokens, self.logprobs)
        ]
        details = {"finish_reason": self.finish, "generated_tokens": len(tokens), "seed": self.seed}
        return {"generated_text": text, "details": {**details, "prefill": [], "tokens": tokens}}


def settled(text: str, stops: Sequence[str]) -> str:
    """Text without an end that the next token may change: part of a character, or the beginning of a stop text."""
    text = text.rstrip("\ufffd")
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]
