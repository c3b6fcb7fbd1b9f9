"""BERT: a masked language model made from the blocks.

Pre-norm, as every model here, and one segment: leaves out the segment embedding, the pooler and the prediction of the
next sentence (Liu et al. 2019 do without). Which tokens are masked is the batch's affair (`data`).
"""

from __future__ import annotations

import torch.nn.functional as F
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
