"""Generation from a causal language model: greedy or sampled, one prompt or a batch, cached.

Past the context length the window slides: each further token is predicted from the last `context_length` tokens,
read afresh. A prompt without tokens starts from the tokenizer's `start_id`, which is not part of the result.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from utils.core.config import Config
from utils.models.transformer import GPT


class Tokenizer(Protocol):
    """What generation needs of a tokenizer (`data.tokenizers` has several)."""

    start_id: int

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class SamplingConfig(Config):
    """How the next token is chosen."""

    max_new_tokens: int = Field(200, ge=0)
    """tokens to add"""
    temperature: float = Field(0.8, ge=0)
    """divides the logits; 0 takes the likeliest token (greedy)"""
    top_k: int | None = Field(None, ge=1)
    """keep only the k likeliest tokens"""
    top_p: float | None = Field(None, gt=0, le=1)
    """keep the fewest likeliest tokens whose probabilities reach p (nucleus, Holtzman et al. 2020)"""
    repetition_penalty: float = Field(1.0, gt=0)
    """divides positive logits of tokens already there, multiplies negative ones (Keskar et al. 2019); 1: off"""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """texts that end the result, and are left off it"""


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    config: SamplingConfig = SamplingConfig(),
    *,
    seed: int = 0,
) -> str | list[str]:
    """The continuation of a prompt, or of each of several (without the prompts). Equal seeds give equal texts.

    `model` is a GPT of ours, or a causal language model from elsewhere as `models.called` calls it (without a cache).
    """
    if isinstance(prompts, str):
        return generate(model, tokenizer, [prompts], config, seed=seed)[0]
    if not prompts:
        return []
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    ids = [row if len(row) else [tokenizer.start_id] for row in ids]
    longest = max(len(row) for row in ids)
    device = next(model.parameters()).device
    input_ids = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(ids):  # padded on the left
        input_ids[row, longest - len(prompt) :] = torch.as_tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    generator = torch.Generator(device).manual_seed(seed)
    texts: list[str] = [""] * len(ids)
    done = [False] * len(ids)
    tokens: list[Tensor] = []
    for token in stream(model, input_ids.to(device), mask.to(device), config, generator=generator):
        tokens.append(token)
        if not config.stop:
            continue
        for row, finished in enumerate(done):
            if not finished:
                texts[row], done[row] = _until_stop(tokenizer.decode([t[row] for t in tokens]), config.stop)
        if all(done):
            break
    if not config.stop and tokens:
        texts = [tokenizer.decode(row) for row in torch.stack(tokens, dim=1).tolist()]
    return texts


@dataclass(frozen=True)
class Samples:
    """Texts by the temperature they were sampled at; shows itself with its line breaks."""

    prompt: str
    texts: dict[float, str]

    def __str__(self) -> str:
        return "\n\n".join(f"temperature {temperature}:\n{text}" for temperature, text in self.texts.items())

    def _repr_html_(self) -> str:
        style = "white-space: pre-wrap; text-align: left; font-family: monospace"
        cells = "".join(
            f'<tr><td style="vertical-align: top">{temperature}</td><td style="{style}">{html.escape(text)}</td></tr>'
            for temperature, text in self.texts.items()
        )
        title = f"continuation of {html.escape(repr(self.prompt))}"
        heads = f"<tr><th>temperature</th><th style='text-align: left'>{title}</th></tr>"
        return f"<table>{heads}{cells}</table>"


def sample_temperatures(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig = SamplingConfig(),
    temperatures: Sequence[float] = (0.0, 0.5, 0.8, 1.0),
    *,
    seed: int = 0,
) -> Samples:
    """One continuation of `prompt` at each temperature, everything else as in `config`."""
    configs = {temperature: config.replace(temperature=temperature) for temperature in temperatures}
    return Samples(prompt, {key: generate(model, tokenizer, prompt, one, seed=seed) for key, one in configs.items()})


@torch.no_grad()
def stream(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    config: SamplingConfig = SamplingConfig(),
    *,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield the new tokens, (B,) at a time. `input_ids` (B, T) are padded on the left, as `attention_mask` says."""
    context = model.config.context_length
    mode = model.training
    model.eval()
    try:
        ids = input_ids
        mask = attention_mask if attention_mask is not None and not bool(attention_mask.all()) else None
        there = torch.ones_like(ids) if mask is None else mask
        seen = torch.zeros(len(ids), model.config.vocab_size, dtype=torch.long, device=ids.device)
        seen = seen.scatter_add_(1, ids, there) > 0  # (B, V)
        cached = use_cache and isinstance(model, GPT) and ids.shape[1] < context
        cache = model.new_cache() if cached else None
        for _ in range(config.max_new_tokens):
            window = slice(-context, None)
            if cache is not None and ids.shape[1] <= context:
                logits = model(ids[:, cache.length :], mask, cache)
            else:
                logits = model(ids[:, window], attention_mask=None if mask is None else mask[:, window])
            token = choose(logits[:, -1].float(), seen, config, generator)  # (B,)
            yield token
            ids = torch.cat((ids, token[:, None]), dim=1)
            if mask is not None:
                mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
            seen.scatter_(1, token[:, None], True)
    finally:
        model.train(mode)


def choose(logits: Tensor, seen: Tensor, config: SamplingConfig, generator: torch.Generator | None) -> Tensor:
    """One token a row (B,) from logits (B, V). `seen` (B, V) marks the tokens that the penalty is for."""
    if config.repetition_penalty != 1:
        penalised = torch.where(logits > 0, logits / config.repetition_penalty, logits * config.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if config.temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(filtered(logits, config).softmax(-1), 1, generator=generator).squeeze(1)


def filtered(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits (B, V) over the temperature, with -inf for what top-k, then top-p, leave out."""
    logits = logits / config.temperature
    if config.top_k is not None:
        floor = logits.topk(min(config.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    if config.top_p is not None:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # of the likelier ones
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= config.top_p)
        logits = logits.masked_fill(dropped, float("-inf"))
    return logits


def _until_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the earliest stop string, and whether there was one."""
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(found)], True) if found else (text, False)
