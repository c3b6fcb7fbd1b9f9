"""GPT: a causal language model made from the blocks.

Leaves out training (`training.fit`) and sampling (`models.generate`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from utils.models.blocks import (
    Block,
    KVCache,
    TransformerConfig,
    alibi_slopes,
    init_weights,
    make_norm,
    rotary_table,
    sinusoidal_table,
)


class GPT(nn.Module):
    """A decoder-only transformer (Radford et al. 2019). `config` needs `vocab_size` and `context_length`."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        if config.vocab_size is None or config.context_length is None:
            raise ValueError("GPT needs model.vocab_size and model.context_length; one of them is None.")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, causal=True) for _ in range(config.num_layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context_length, config.width)
        elif config.positions == "sinusoidal":
            self.register_buffer("table", sinusoidal_table(config.context_length, config.width), persistent=False)
        elif config.positions == "rotary":
            cos, sin = rotary_table(config.context_length, config.head_size)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        else:
            self.register_buffer("slopes", alibi_slopes(config.num_heads), persistent=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        init_weights(self, config.num_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `input_ids` (B, T).

        `attention_mask` (B, S), 1 for a token and 0 for padding on either side, covers the cached tokens too. With a
        `cache` the ids are those that follow it. Raises ValueError past the context length.
        """
        T = input_ids.shape[1]
        past = cache.length if cache is not None else 0
        if past + T > self.config.context_length:
            raise ValueError(f"{past + T} tokens exceed the model's context length of {self.config.context_length}.")
        positions = self._positions(attention_mask, past, T, input_ids.device)
        x = self.embedding(input_ids)  # (B, T, C)
        rotation = None
        if self.config.positions == "learned":
            x = x + self.positions(positions)
        elif self.config.positions == "sinusoidal":
            x = x * math.sqrt(self.config.width) + self.table[positions]  # Vaswani et al. 2017, section 3.4
        elif self.config.positions == "rotary":
            cos, sin = self.cos[positions], self.sin[positions]  # (T, hs) or (B, T, hs)
            rotation = (cos, sin) if cos.dim() == 2 else (cos.unsqueeze(1), sin.unsqueeze(1))
        mask = self._mask(attention_mask, past, T, x)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask=mask, rotation=rotation, cache=cache, layer=layer)
        if cache is not None:
            cache.length += T
        return self.head(self.norm(x))

    @staticmethod
    def _positions(attention_mask: Tensor | None, past: int, T: int, device: torch.device) -> Tensor:
        """Place of each token in its own text: (T,), or (B, T) where padding shifts the rows."""
        if attention_mask is None:
            return torch.arange(past, past + T, device=device)
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]

    def _mask(self, attention_mask: Tensor | None, past: int, T: int, x: Tensor) -> Tensor | None:
        """What may be attended: None where the attention's causal mask says it all, else (B or 1, 1 or nh, T, S)."""
        alibi = self.config.positions == "alibi"
        if attention_mask is None and not alibi and (past == 0 or T == 1):
            return None
        queries = torch.arange(past, past + T, device=x.device).unsqueeze(1)
        keys = torch.arange(past + T, device=x.device)
        mask = (keys <= queries)[None, None]  # (1, 1, T, S)
        if attention_mask is not None:
            # A padding query sees itself, so that its softmax is defined; no other token sees it.
            mask = mask & (attention_mask[:, None, None, :].bool() | (keys == queries))
        if not alibi:
            return mask
        bias = self.slopes[:, None, None] * (keys - queries)  # (nh, T, S)
        return bias.masked_fill(~mask, float("-inf")).to(x.dtype)

    def new_cache(self) -> KVCache:
        return KVCache(self.config.num_layers, self.config.context_length)

    def num_parameters(self) -> int:
        """Trainable numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
