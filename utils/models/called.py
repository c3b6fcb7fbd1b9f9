"""`Called`: a model of any origin as the training loop calls every model, by the keys of our batches.

Leaves out where it comes from (`models.source`) and what is known of it (`models.adapter`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from utils.models.adapter import Adapter
from utils.models.signature import logits_of


@dataclass(frozen=True)
class Sizes:
    """What generation asks of a model, under the names that our own models' configs have."""

    vocab_size: int
    context_length: int


class Called(nn.Module):
    """Calling it with the keys of a batch gives logits, (B, T, V) or (B, classes). Its weights are the model's own."""

    def __init__(self, adapter: Adapter):
        super().__init__()
        self.model, self.kind = adapter.model, adapter.kind
        self._signature, self._varied = adapter.signature, adapter.varied
        unbounded = 2**31 - 1
        self.config = Sizes(adapter.vocab_size or 0, unbounded if adapter.limit is None else adapter.limit)

    def forward(self, input_ids: Tensor | None = None, **more: Tensor | None) -> Tensor:
        """`input_ids` (B, T), `attention_mask`, `decoder_input_ids` ... as in `models.adapter`; None is not given."""
        batch = {name: value for name, value in {"input_ids": input_ids, **more}.items() if value is not None}
        targets = {self._signature.targets: batch[self._varied]} if self._signature.targets else {}
        return logits_of(self._signature.call(self.model, batch, **targets))[0]

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())
