"""Causal language models behind one call: read some more tokens, get logits and hidden states of the last of them.

A cache holds what was read before. A prompt is read once and its samples are read on from it: token by token in
sampling, all at once in scoring, with gradients through both. P prompts of L tokens, n samples of each, N = P n.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.blocks import KVCache
from utils.models.transformer import GPT


class Backbone(Protocol):
    """What the policy needs of a language model."""

    width: int
    context_length: int
    together: bool
    """whether the samples of a prompt are read as one row: in a cache for sampling, and by `read_together`"""
    whole: bool
    """whether gradients need prompt and response read at once, without a cache"""

    def read(self, ids: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Tensor]:
        """Logits (B, keep, V) and hidden states (B, keep, C) of the last `keep` of `ids` (B, T).

        `mask` (B, S) is 1 for the tokens and 0 for the padding of everything read so far, `ids` included. The cache
        grows by T; None: nothing was read before.
        """

    def new_cache(self) -> Any:
        """An empty cache that gradients pass through."""

    def sampling_cache(self, prompt: int, new: int, n: int) -> Any:
        """An empty cache without gradients, for prompts of `prompt` tokens and n samples of each, `new` tokens long."""

    def repeat(self, cache: Any, n: int) -> Any:
        """A cache from which n samples of each row go on, side by side. The one given is used up."""

    def select(self, cache: Any, rows: Tensor) -> Any:
        """A cache for sampling with these rows of N only. The one given is used up."""


class GPTBackbone(nn.Module):
    """Our own GPT."""

    whole = False

    def __init__(self, model: GPT):
        super().__init__()
        self.model = model
        self.width, self.context_length = model.config.width, model.config.context_length
        self.together = model.config.positions == "rotary"

    def read(self, ids: Tensor, mask: Tensor, cache: KVCache, keep: int) -> tuple[Tensor, Tensor]:
        if isinstance(cache, SharedCache) and cache.length:
            return self._read_on(ids, mask, cache)
        hidden = self.model.hidden(ids, mask, cache)[:, -keep:]
        return self.model.head(hidden), hidden

    def _read_on(self, ids: Tensor, mask: Tensor, cache: SharedCache) -> tuple[Tensor, Tensor]:
        """One token more of each sample, (N, 1): the samples of a prompt are n queries of one row."""
        n, L = cache.n, cache.prompt
        ids, places = ids.view(-1, n), mask.sum(1).view(-1, n) - 1  # (P, n)
        columns = torch.arange(cache.length - L + n, device=ids.device)
        own = columns % n == columns[:n, None]  # (n, S - L): a sample sees its own tokens alone
        seen = mask[::n, None, :L].bool().expand(-1, n, -1)
        seen = torch.cat((seen, own.expand(len(ids), -1, -1)), dim=2)  # (P, n, S)
        hidden = self._hidden(ids, places, seen, cache).view(-1, 1, self.width)  # (N, 1, C)
        cache.length += n
        return self.model.head(hidden), hidden

    def read_together(self, prompts: Tensor, prompt_mask: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, T, V) and hidden states (N, T, C) before each of responses `ids` (N, T), in one pass.

        A prompt and its responses make one row without padding between them: each token of a response stands at its
        place after the prompt, and sees the prompt and what comes before it in its own response. `mask` (N, T) says
        which tokens were drawn; elsewhere the result is that of a response's first token.
        """
        (P, L), (N, T) = prompts.shape, ids.shape
        n = N // P
        read = mask[:, 1:].reshape(P, n * (T - 1))  # a token is read where another was drawn after it
        row, at = read.nonzero(as_tuple=True)
        sample, step, column = at // max(T - 1, 1), at % max(T - 1, 1), L + read.cumsum(1)[row, at] - 1
        width = L + int(read.sum(1).max())
        tokens, places = (
            F.pad(one, (0, width - L)) for one in (prompts, (prompt_mask.long().cumsum(1) - 1).clamp(min=0))
        )
        tokens[row, column] = ids.view(P, n, T)[row, sample, step]
        places[row, column] = prompt_mask.sum(1)[row] + step
        owner = F.pad(torch.where(prompt_mask.bool(), n, -1), (0, width - L), value=-1)  # n: all samples; -1: padding
        owner[row, column] = sample
        seen = (owner[:, :, None] == owner[:, None, :]) | (owner == n)[:, None, :]
        hidden = self._hidden(tokens, places, seen.tril())
        before = tokens.new_full((P, n, T), L - 1)  # where the state before each token stands: the prompt's last place,
        before[row, sample, step + 1] = column  # or that of the token before it
        hidden = hidden.gather(1, before.view(P, n * T, 1).expand(-1, -1, self.width)).view(N, T, self.width)
        return self.model.head(hidden), hidden

    def _hidden(self, ids: Tensor, places: Tensor, seen: Tensor, cache: KVCache | None = None) -> Tensor:
        """The normed residual stream (P, M, C) of `ids` (P, M) at `places` (P, M), each seeing `seen` (P, M, S)."""
        model = self.model
        rotation = model.cos[places].unsqueeze(1), model.sin[places].unsqueeze(1)
        x = model.dropout(model.embed(ids))
        for layer, block in enumerate(model.blocks):
            x = block(x, mask=seen.unsqueeze(1), rotation=rotation, cache=cache, layer=layer)
        return model.norm(x)

    def new_cache(self) -> GrowingCache:
        return GrowingCache(self.model.config.num_layers, self.context_length)

    def sampling_cache(self, prompt: int, new: int, n: int) -> KVCache:
        layers = self.model.config.num_layers
        return SharedCache(layers, prompt, new, n) if self.together else KVCache(layers, prompt + new)

    def repeat(self, cache: KVCache, n: int) -> KVCache:
        return cache if isinstance(cache, SharedCache) else _each(cache, lambda part: part.repeat_interleave(n, 0))

    def select(self, cache: KVCache, rows: Tensor) -> KVCache:
        if isinstance(cache, SharedCache):
            rows = rows[:: cache.n] // cache.n
        return _each(cache, lambda part: part[rows])


class GrowingCache(KVCache):
    """A cache that copies instead of writing in place, so that gradients pass through it."""

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.layers[layer] is not None:
            keys, values = self.layers[layer]
            k, v = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
        self.layers[layer] = k, v
        return k, v


class SharedCache(KVCache):
    """Keys and values of P prompts, each behind it those of its n samples: all their first tokens, all their second.

    The prompt's are stored and read once for its n samples.
    """

    def __init__(self, num_layers: int, prompt: int, new: int, n: int):
        super().__init__(num_layers, prompt + new * n)
        self.prompt, self.n = prompt, n


def _each(cache: KVCache, change) -> KVCache:
    cache.layers = [(change(keys), change(values)) for keys, values in cache.layers]
    return cache


class HFBackbone(nn.Module):
    """A causal language model of transformers', with or without peft's adapters in it."""

    together = False

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        config = model.config.get_text_config()
        self.width, self.context_length = config.hidden_size, config.max_position_embeddings
        self._taken = {"position_ids", "logits_to_keep"} & set(inspect.signature(model.forward).parameters)

    @property
    def whole(self) -> bool:
        """transformers drops the cache of a layer whose activations it computes again."""
        return any(one.training for one in recomputing(self.model))

    def read(self, ids: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Tensor]:
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options = {"position_ids": positions, "logits_to_keep": keep}
        seen: list[Tensor] = []  # what enters the head: to ask for hidden states would keep those of every layer
        head = self.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            out = self.model(
                input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None,
                **{name: value for name, value in options.items() if name in self._taken},
            )  # fmt: skip
        finally:
            handle.remove()
        return out.logits[:, -keep:], seen[0][:, -keep:]

    def new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def sampling_cache(self, prompt: int, new: int, n: int) -> Any:
        return self.new_cache()

    def repeat(self, cache: Any, n: int) -> Any:
        cache.batch_repeat_interleave(n)
        return cache

    def select(self, cache: Any, rows: Tensor) -> Any:
        cache.batch_select_indices(rows)
        return cache


def recomputing(model: nn.Module) -> list[nn.Module]:
    """The modules of transformers' that compute their activations again for gradients, where they are in training."""
    return [one for one in model.modules() if getattr(one, "gradient_checkpointing", False)]


def backbone_of(model: nn.Module) -> GPTBackbone | HFBackbone:
    """The backbone of a GPT of ours, or of a causal language model of transformers'."""
    return GPTBackbone(model) if isinstance(model, GPT) else HFBackbone(model)
