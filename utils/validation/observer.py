"""Attention seen from outside: every way of computing it that torch has a function for.

Leaves out what is written with an exponential of its own, and fused kernels that are not torch's.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.models.adapter import Adapter
from utils.validation.steady import WithoutDropout
from utils.validation.watch import running

See = Callable[[str, Tensor, Tensor], None]
SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax)


class Observer(TorchFunctionMode):
    """Calls `see(module, weights, visible)` at each attention: weights (B, nh, T, S), and which keys a row may see.

    `visible` is boolean and broadcasts to the weights. A softmax is taken for attention's if its result has four or
    more dimensions, the first of them a multiple of the batch's rows, or three of which the last two are equal.
    """

    def __init__(self, stack: list[str], rows: int, see: See):
        super().__init__()
        self.stack, self.rows, self.see = stack, rows, see

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, inspect.signature(func).bind(*args, **kwargs).arguments)
        if func is F.scaled_dot_product_attention:
            self._tell(*weights_of(*args, **kwargs))
        result = func(*args, **kwargs)
        if func in SOFTMAX:
            self._softmax(args[0] if args else kwargs.get("input"), result, args[1:2], kwargs)
        return result

    def _multi_head(self, func: Any, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        wanted, average = given.get("need_weights", True), given.get("average_attn_weights", True)
        output, weights = func(**(given | {"need_weights": True, "average_attn_weights": False}))
        visible = torch.ones_like(weights, dtype=torch.bool)  # (B, nh, T, S), or (nh, T, S) of one row
        if (mask := given.get("attn_mask")) is not None:  # True or -inf hides, (T, S) or (B * nh, T, S)
            shown = ~mask if mask.dtype == torch.bool else mask > -math.inf
            visible = visible & (shown if shown.dim() == 2 else shown.view(weights.shape))
        if (mask := given.get("key_padding_mask")) is not None:  # (B, S)
            shown = ~mask if mask.dtype == torch.bool else mask > -math.inf
            visible = visible & shown.view(-1, 1, 1, shown.shape[-1])
        self._tell(weights, visible)
        if not wanted:
            return output, None
        return output, weights.mean(-3) if average else weights

    def _softmax(self, scores: Any, weights: Tensor, dim: tuple, kwargs: Mapping[str, Any]) -> None:
        axis = dim[0] if dim else kwargs.get("dim")
        if not isinstance(axis, int) or weights.dim() < 3 or weights.shape[0] % self.rows:
            return
        square = weights.shape[-1] == weights.shape[-2] > 1
        if axis % weights.dim() < weights.dim() - 2 or (weights.dim() == 3 and not square):
            return
        # A mask takes thousands from a score (-1e4 at the least that is in use); scores differ by hundreds at most.
        visible = scores > scores.amax(axis, keepdim=True) - 5000
        self._tell(weights, visible.expand_as(weights))

    def _tell(self, weights: Tensor, visible: Tensor) -> None:
        if weights.dim() == 3:  # (B * nh, T, S)
            shape = (self.rows if weights.shape[0] % self.rows == 0 else 1, -1, *weights.shape[-2:])
        else:
            shape = (weights.shape[0], -1, *weights.shape[-2:])
        visible = visible.broadcast_to(weights.shape)
        self.see(
            self.stack[-1] if self.stack else "", *(x.detach().cpu().reshape(shape) for x in (weights.float(), visible))
        )


def weights_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weights (..., T, S) behind `F.scaled_dot_product_attention`, without dropout, and which keys are seen."""
    q, k = query.detach().float(), key.detach().float()
    if enable_gqa and q.shape[-3] != k.shape[-3]:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)  # (..., T, S)
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        visible = visible.tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        visible = visible & attn_mask
    elif attn_mask is not None:
        visible = visible & (attn_mask > -5000)
        scores = scores + attn_mask.detach().float()
    scores = scores.masked_fill(~visible, -math.inf)
    return scores.softmax(-1), visible


def observe(adapter: Adapter, batch: Mapping[str, Tensor], see: See) -> None:
    """Run the model once, in the mode it is in, with every attention of it shown to `see`."""
    rows = next(iter(batch.values())).shape[0]
    with running(adapter.model) as stack, WithoutDropout(), Observer(stack, rows, see), torch.no_grad():
        adapter(batch)
