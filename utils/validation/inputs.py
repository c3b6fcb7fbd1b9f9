"""The input of a model as numbers that can be moved a little: the embeddings of its tokens, or its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from utils.models.adapter import Adapter


def values_of(adapter: Adapter, batch: Mapping[str, Tensor]) -> Tensor | None:
    """The pixels (B, channels, H, W), or the embeddings (B, T, C) of `input_ids`: of the source, in a seq2seq model.

    None where no nn.Embedding takes those ids.
    """
    if not adapter.text:
        return batch["pixel_values"]
    if adapter.embedding is None:
        return None
    seen: list[Tensor] = []
    with torch.no_grad():
        _call(adapter, batch, lambda output: seen.append(output.detach()))
    return seen[0] if seen else None


def logits_at(adapter: Adapter, batch: Mapping[str, Tensor], values: Tensor) -> Tensor:
    """The logits with `values` where `values_of(adapter, batch)` stood."""
    if not adapter.text:
        return adapter({**batch, "pixel_values": values})
    return _call(adapter, batch, lambda output: values)


def _call(adapter: Adapter, batch: Mapping[str, Tensor], change: Any) -> Tensor:
    ids, met = batch["input_ids"], []

    def swap(module: nn.Module, arguments: tuple, keywords: dict[str, Any], output: Tensor) -> Tensor | None:
        given = arguments[0] if arguments else keywords.get("input")
        if met or given.shape != ids.shape or not torch.equal(given, ids):  # a seq2seq model's other ids
            return None
        met.append(True)
        return change(output)

    hook = adapter.embedding.register_forward_hook(swap, with_kwargs=True)
    try:
        return adapter(batch)
    finally:
        hook.remove()
