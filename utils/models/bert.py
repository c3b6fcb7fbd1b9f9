"""BERT: a masked language model, and a classifier of texts, made from the blocks.

Pre-norm, as every model here, and one segment: leaves out the segment embedding, the pooler and the prediction of the
next sentence (Liu et al. 2019 do without). Which tokens are masked is the batch's affair (`data`).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from utils.models.blocks import TransformerConfig, init_weights, make_norm
from utils.models.transformer import Trunk


class BERT(Trunk):
    """A bidirectional encoder (Devlin et al. 2019). `config` needs `vocab_size` and `context_length`.

    Every field of the config has its meaning; the output matrix has a bias (V,) whatever `bias` says.
    """

    kind = "masked_lm"

    def __init__(self, config: TransformerConfig):
        super().__init__(config, causal=False, head_bias=True)
        self.dense = nn.Linear(config.width, config.width, bias=config.bias)
        self.norm_head = make_norm(config)
        init_weights(self, additions=2 * config.num_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the token at each place of `input_ids` (B, T), given all of them.

        `attention_mask` (B, T): 1 for a token, 0 for padding on either side. Raises ValueError past the context length.
        """
        x = self.hidden(input_ids, attention_mask)
        return self.head(self.norm_head(F.gelu(self.dense(x))))


class ClassifierConfig(TransformerConfig):
    """The shape of a classifier of texts."""

    num_classes: int = Field(2, ge=2)
    """classes it tells apart"""
    tie_embeddings: Literal[False] = False
    """off: the head's rows are classes, not tokens"""


class TextClassifier(Trunk):
    """A bidirectional encoder whose tokens' mean is classified. `config` needs `vocab_size` and `context_length`."""

    kind = "classifier"

    def __init__(self, config: ClassifierConfig):
        super().__init__(config, causal=False, head_bias=True)
        self.head = nn.Linear(config.width, config.num_classes)
        init_weights(self, additions=2 * config.num_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, classes) of `input_ids` (B, T).

        `attention_mask` (B, T): 1 for a token, 0 for padding on either side; padding has no part in the mean, and a row
        of nothing else has a mean of zeros. Raises ValueError past the context length.
        """
        x = self.hidden(input_ids, attention_mask)  # (B, T, C)
        if attention_mask is None:
            return self.head(x.mean(1))
        token = attention_mask.unsqueeze(-1).bool()
        return self.head(x.masked_fill(~token, 0).sum(1) / token.sum(1).clamp(min=1))
