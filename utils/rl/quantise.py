"""Frozen weights in 8 or 4 bits, for a base of which only adapters are trained. Memory is measured, not promised.

8 bits are whole numbers with a scale a row; 4 bits are NormalFloat with a scale for every 64 weights (Dettmers et al.
2023, https://arxiv.org/abs/2305.14314), packed by bitsandbytes. Weights are unpacked where they are used, and the
products are those of the model's precision. Layers that round activations too (LLM.int8) would not do: a token's
log-probability, drawn with a cache and scored without, then differs by tenths of a nat, and with it PPO's ratio.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bits = Literal["8bit", "4bit"]
BLOCK = 64  # weights of a scale in 4 bits


def quantise(model: nn.Module, bits: Bits) -> str:
    """Pack every linear layer of a model of transformers' but its output head, in place. The rest is in float32.

    Returns the memory before and after, in words. Raises ImportError where bitsandbytes is missing (4bit).
    """
    kind = {"8bit": Linear8, "4bit": Linear4}[bits]
    before, head = memory(model), model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer is not head:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, kind(layer))
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    return f"{before / 1e6:,.1f} MB before, {memory(model) / 1e6:,.1f} MB with linear layers in {bits}"


def memory(model: nn.Module) -> int:
    """Bytes of the parameters and buffers; shared ones count once."""
    storages = [one.untyped_storage() for one in (*model.parameters(), *model.buffers())]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


class Packed(nn.Linear):
    """A frozen linear layer whose weight is packed. Abstract."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        weight, parts = self.pack(layer.weight.detach().float())
        self.weight = nn.Parameter(weight, requires_grad=False)
        for name, part in parts.items():
            self.register_buffer(name, part)
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)

    def pack(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The packed weight, and what else it takes to unpack it."""
        raise NotImplementedError

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """(out, in)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y = _Product.apply(x.to(dtype), self)
        return y if self.bias is None else y + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    """x (..., in) to (..., out). For the gradient the weight is unpacked again: kept, it would take what was saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Packed) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.unpack(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.unpack(gradient.dtype), None


class Linear8(Packed):
    """Whole numbers from -127 to 127, and a scale for each output."""

    def pack(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        return (weight / scale).round().to(torch.int8), {"scale": scale}

    def unpack(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype) * self.scale.to(dtype)


class Linear4(Packed):
    """NormalFloat: each weight one of 16 numbers, times the scale of its block."""

    def pack(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        packed, state = _functional().quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
        return packed, {"absmax": state.absmax, "code": state.code}

    def unpack(self, dtype: torch.dtype) -> Tensor:
        functional, shape = _functional(), torch.Size((self.out_features, self.in_features))
        options = {"blocksize": BLOCK, "quant_type": "nf4", "dtype": dtype}
        return functional.dequantize_4bit(
            self.weight, functional.QuantState(self.absmax, shape=shape, code=self.code, **options)
        )


def _functional() -> Any:
    try:
        import bitsandbytes.functional as functional
    except ImportError:
        raise ImportError(
            "quantise=4bit needs bitsandbytes, which is not installed: pip install bitsandbytes, or quantise=8bit."
        ) from None
    return functional
