"""GPT: a causal language model made from the blocks, and the trunk that it shares with BERT.

Leaves out training (`training.fit`) and sampling (`models.generate`).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from utils.models.blocks import Block, KVCache, TransformerConfig, init_weights, make_norm, visible
from utils.models.model import Model, refuse_beyond, require_sizes
from utils.models.positions import alibi_slopes, distances, places, rotary_table, sinusoidal_table


class Trunk(Model):
    """Embedding, positions, blocks and the matrix of the output head, from one sequence of tokens. Abstract."""

    def __init__(self, config: TransformerConfig, *, causal: bool, head_bias: bool):
        super().__init__(config)
        require_sizes(self)
        self.causal = causal
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, causal=causal) for _ in range(config.num_layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=head_bias)
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

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """The normed residual stream (B, T, C) of `input_ids` (B, T), which follow those of a `cache`."""
        T = input_ids.shape[1]
        past = cache.length if cache is not None else 0
        refuse_beyond(self.config.context_length, past + T)
        positions = places(attention_mask, past, T, input_ids.device)
        x = self.embed(input_ids)  # (B, T, C)
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
        return self.norm(x)

    def embed(self, input_ids: Tensor) -> Tensor:
        """The tokens' embeddings, (B, T) -> (B, T, C), before anything of their positions."""
        return self.embedding(input_ids)

    def _mask(self, attention_mask: Tensor | None, past: int, T: int, x: Tensor) -> Tensor | None:
        """What may be attended: None where `causal` alone says it all, else (B or 1, 1 or nh, T, S)."""
        alibi = self.config.positions == "alibi"
        if attention_mask is None and not alibi and (past == 0 or T == 1):
            return None
        distance = distances(past, T, x.device)  # (T, S)
        mask = visible(distance, attention_mask, causal=self.causal)
        if not alibi:
            return mask
        bias = self.slopes[:, None, None] * -distance.abs()  # (nh, T, S)
        return bias.masked_fill(~mask, float("-inf")).to(x.dtype)


class GPT(Trunk):
    """A decoder-only transformer (Radford et al. 2019). `config` needs `vocab_size` and `context_length`."""

    kind = "causal_lm"

    def __init__(self, config: TransformerConfig):
        super().__init__(config, causal=True, head_bias=False)
        init_weights(self, additions=2 * config.num_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `input_ids` (B, T).

        `attention_mask` (B, S), 1 for a token and 0 for padding on either side, covers the cached tokens too. With a
        `cache` the ids are those that follow it. Raises ValueError past the context length.
        """
        return self.head(self.hidden(input_ids, attention_mask, cache))

    def new_cache(self) -> KVCache:
        return KVCache(self.config.num_layers, self.config.context_length)
