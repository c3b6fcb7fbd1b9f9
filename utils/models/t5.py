"""T5: an encoder-decoder for sequence-to-sequence tasks, made from the blocks.

As version 1.1 of Raffel et al. 2020, but for two habits of this house: scores are divided by the root of the head size
(T5 leaves that to its initialisation), and weights start as in `blocks.init_weights`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from utils.models.blocks import Block, TransformerConfig, init_weights, make_norm, visible
from utils.models.model import Model, refuse_beyond, require_sizes
from utils.models.positions import distances, relative_buckets


class T5Config(TransformerConfig):
    """The shape of a T5. `context_length` bounds the source and the target, each."""

    positions: Literal["relative"] = "relative"
    """how the order of tokens enters: a bias on the scores by the distance of query and key"""
    norm: Literal["rmsnorm"] = "rmsnorm"
    """normalisation before each sub-layer"""
    num_decoder_layers: int | None = Field(None, ge=1)
    """blocks of the decoder; None: as many as the encoder's num_layers"""
    relative_buckets: int = Field(32, ge=4, multiple_of=2)
    """kinds of distance that the bias tells apart; the encoder halves them between before and after"""
    relative_distance: int = Field(128, ge=1)
    """tokens from which on all distances are one"""

    @model_validator(mode="after")
    def _reach(self):
        if self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"relative_distance {self.relative_distance} is not beyond the {self.relative_buckets // 2} distances "
                f"that have a bucket each; raise it, or lower relative_buckets {self.relative_buckets}"
            )
        return self

    @property
    def decoder_layers(self) -> int:
        return self.num_decoder_layers or self.num_layers


class Stack(nn.Module):
    """The blocks of one side and the table of relative positions that they share; the decoder's see the encoder's."""

    def __init__(self, config: T5Config, *, decoder: bool):
        super().__init__()
        self.config, self.decoder = config, decoder
        layers = config.decoder_layers if decoder else config.num_layers
        self.relative = nn.Embedding(config.relative_buckets, config.num_heads)
        self.blocks = nn.ModuleList(Block(config, causal=decoder, cross=decoder) for _ in range(layers))
        self.norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        init_weights(self, additions=(3 if decoder else 2) * layers)

    def forward(self, x: Tensor, attention_mask: Tensor | None, **memory: Tensor | None) -> Tensor:
        """(B, T, C) from embeddings of that shape."""
        T = x.shape[1]
        refuse_beyond(self.config.context_length, T)
        distance = distances(0, T, x.device)
        bias = self.relative(self._buckets(distance)).permute(2, 0, 1)  # (nh, T, T)
        mask = visible(distance, attention_mask, causal=self.decoder)
        mask = bias.masked_fill(~mask, float("-inf")).to(x.dtype)  # (B or 1, nh, T, T)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask=mask, **memory)
        return self.norm(x)

    def _buckets(self, distance: Tensor) -> Tensor:
        buckets, farthest = self.config.relative_buckets, self.config.relative_distance
        return relative_buckets(distance, buckets=buckets, farthest=farthest, both_sides=not self.decoder)


class T5(Model):
    """An encoder and a decoder that attends to it. `config` needs `vocab_size` and `context_length`."""

    kind = "seq2seq"

    def __init__(self, config: T5Config):
        super().__init__(config)
        require_sizes(self)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        init_weights(self, additions=1)
        self.encoder, self.decoder = Stack(config, decoder=False), Stack(config, decoder=True)

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, Td, V) of the token after each of `decoder_input_ids` (B, Td), given all `input_ids` (B, T).

        Masks, in the shapes of their ids: 1 for a token, 0 for padding on either side. Raises ValueError where either
        is longer than the context length.
        """
        memory = self.encode(input_ids, attention_mask)
        return self.decode(decoder_input_ids, memory, attention_mask, decoder_attention_mask)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, C) of the source, for `decode`."""
        return self.encoder(self.embedding(input_ids), attention_mask)

    def decode(
        self,
        decoder_input_ids: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, Td, V) from the `memory` of `encode`, whose padding `attention_mask` marks."""
        memory_mask = None
        if attention_mask is not None:
            token = attention_mask.bool()  # (B, T)
            memory = memory.masked_fill(~token.unsqueeze(-1), 0)
            # A source of nothing but padding is seen as zeros, so that its softmax is defined.
            memory_mask = (token | ~token.any(1, keepdim=True))[:, None, None, :]
        x = self.embedding(decoder_input_ids)  # (B, Td, C)
        return self.head(self.decoder(x, decoder_attention_mask, memory=memory, memory_mask=memory_mask))
