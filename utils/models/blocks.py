"""Transformer blocks: attention, feed-forward and norms, from which every model here is made.

Pre-norm (Xiong et al. 2020). Shapes: B rows, T queries, S keys, C width, nh heads, nkv key/value heads, hs = C / nh.
Positions stand in `models.positions`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.core.config import Config
from utils.models.positions import rotate


class TransformerConfig(Config):
    """The shape of a transformer."""

    vocab_size: int | None = Field(None, ge=1)
    """entries of the embedding; None: the tokenizer's"""
    context_length: int | None = Field(None, ge=1)
    """tokens a model sees at once; None: data.block_size"""
    num_layers: int = Field(4, ge=1)
    """blocks"""
    num_heads: int = Field(4, ge=1)
    """attention heads"""
    num_kv_heads: int | None = Field(None, ge=1)
    """key/value heads, shared by groups of heads (grouped-query attention); None: as many as heads"""
    width: int = Field(128, ge=1)
    """size of the residual stream"""
    mlp_ratio: float = Field(4.0, gt=0)
    """hidden size of the feed-forward, over the width"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """dropped share of the embeddings, attention weights and block outputs"""
    positions: Literal["learned", "sinusoidal", "rotary", "alibi"] = "rotary"
    """how the order of tokens enters"""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """normalisation before each sub-layer"""
    activation: Literal["gelu", "swiglu", "relu2"] = "gelu"
    """non-linearity of the feed-forward (swiglu has two thirds of the hidden size, for equal parameters)"""
    bias: bool = False
    """biases in linear layers and norms"""
    tie_embeddings: bool = True
    """one matrix for the input embedding and the output head"""

    @model_validator(mode="after")
    def _divisible(self):
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.width} / {self.num_heads}")
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        return self.width // self.num_heads


class KVCache:
    """Keys and values of the tokens seen so far, (B, nkv, capacity, hs) a layer; for generation."""

    def __init__(self, num_layers: int, capacity: int):
        self.capacity = capacity
        self.length = 0
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, nkv, T, hs) after what is there; all S = length + T so far. The model moves `length` on."""
        if self.layers[layer] is None:
            B, nkv, _, hs = k.shape
            self.layers[layer] = k.new_empty(B, nkv, self.capacity, hs), v.new_empty(B, nkv, self.capacity, hs)
        keys, values = self.layers[layer]
        end = self.length + k.shape[2]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]


class Attention(nn.Module):
    """Multi-head or grouped-query self-attention (Vaswani et al. 2017; Ainslie et al. 2023)."""

    def __init__(self, config: TransformerConfig, *, causal: bool):
        super().__init__()
        self.num_heads, self.kv_heads, self.head_size = config.num_heads, config.kv_heads, config.head_size
        self.causal, self.dropout = causal, config.dropout
        self.qkv = nn.Linear(config.width, (self.num_heads + 2 * self.kv_heads) * self.head_size, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """`x` (B, T, C). `mask` broadcasts to (B, nh, T, S): False or -inf hides a key; None leaves it to `causal`."""
        B, T, C = x.shape
        heads = [self.num_heads, self.kv_heads, self.kv_heads]
        qkv = self.qkv(x).view(B, T, sum(heads), self.head_size).transpose(1, 2)
        qk, v = qkv.split([sum(heads[:2]), self.kv_heads], dim=1)
        if rotation is not None:
            qk = rotate(qk, *rotation)
        q, k = qk.split(heads[:2], dim=1)  # (B, nh, T, hs); k and v are (B, nkv, T, hs)
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # (B, nkv, S, hs)
        dropout = self.dropout if self.training else 0.0
        y = attend(q, k, v, mask=mask, causal=self.causal and T > 1, dropout=dropout)  # (B, nh, T, hs)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """softmax(q k' / sqrt(hs)) v of q (B, nh, T, hs) and k, v (B, nkv, S, hs); `causal` counts only without a mask.

    SDPA, but for bf16 on a CPU: its kernel there is slower than the plain products by half again in training, at up to
    a few hundred keys (benchmarks/train_lm.py), so these are written out.
    """
    T, S = q.shape[-2], k.shape[-2]
    if not (q.device.type == "cpu" and q.dtype == torch.bfloat16 and S <= _PLAIN_KEYS):
        causal, groups = causal and mask is None, q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, enable_gqa=groups)
    if q.shape[1] != k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if mask is None:
        bias = q.new_full((T, S), float("-inf") if causal else 0.0).triu_(S - T + 1)
    else:
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, float("-inf")) if mask.dtype == torch.bool else mask
    weights = torch.add(bias, q @ k.transpose(-1, -2), alpha=q.shape[-1] ** -0.5).softmax(-1)  # (B, nh, T, S)
    return F.dropout(weights, dropout, training=dropout > 0).to(v.dtype) @ v


_PLAIN_KEYS = 512  # beyond, the (T, S) products cost more memory than they save time


def visible(distance: Tensor, attention_mask: Tensor | None, *, causal: bool) -> Tensor:
    """Which keys each query may see, (B or 1, 1, T, S), from their distances (T, S) and a padding mask (B, S)."""
    mask = (distance <= 0 if causal else torch.ones_like(distance, dtype=torch.bool))[None, None]
    if attention_mask is not None:
        # A padding query sees itself, so that its softmax is defined; no other token sees it.
        mask = mask & (attention_mask[:, None, None, :].bool() | (distance == 0))
    return mask


class CrossAttention(nn.Module):
    """Multi-head or grouped-query attention of one sequence to another, the memory (Vaswani et al. 2017)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.num_heads, self.kv_heads, self.head_size = config.num_heads, config.kv_heads, config.head_size
        self.dropout = config.dropout
        self.query = nn.Linear(config.width, config.width, bias=config.bias)
        self.kv = nn.Linear(config.width, 2 * self.kv_heads * self.head_size, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor, memory: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """`x` (B, T, C) attends to `memory` (B, S, C); `mask` broadcasts to (B, nh, T, S)."""
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.num_heads, self.head_size).transpose(1, 2)  # (B, nh, T, hs)
        kv = self.kv(memory).view(B, memory.shape[1], 2 * self.kv_heads, self.head_size).transpose(1, 2)
        k, v = kv.chunk(2, dim=1)  # (B, nkv, S, hs)
        y = attend(q, k, v, mask=mask, causal=False, dropout=self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Module):
    """Two linear layers around a non-linearity; SwiGLU (Shazeer 2020) has a gate beside the first."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.activation = config.activation
        hidden = int(config.mlp_ratio * config.width)
        if self.gated:
            hidden = max(8, round(hidden * 2 / 3 / 8) * 8)
        self.up = nn.Linear(config.width, hidden * (1 + self.gated), bias=config.bias)
        self.out = nn.Linear(hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        elif self.activation == "relu2":
            x = F.relu(x).square()  # So et al. 2021
        else:
            x = F.gelu(x)
        return self.out(x)


class Block(nn.Module):
    """x + attention(norm(x)), with `cross` then x + cross(norm(x), memory), and x + feed_forward(norm(x)).

    With `recompute`, what the backward pass needs is computed again from the inputs there, instead of being kept.
    """

    recompute = False

    def __init__(self, config: TransformerConfig, *, causal: bool, cross: bool = False):
        super().__init__()
        self.norm_attention, self.attention = make_norm(config), Attention(config, causal=causal)
        self.cross = None
        if cross:
            self.norm_cross, self.cross = make_norm(config), CrossAttention(config)
        self.norm_feed_forward, self.feed_forward = make_norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(self, *args, **kwargs):
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False, **kwargs)
        return super().__call__(*args, **kwargs)

    def forward(self, x: Tensor, *, memory: Tensor | None = None, memory_mask: Tensor | None = None, **own) -> Tensor:
        """`own` goes to the attention; a block with `cross` needs the `memory`."""
        x = x + self.dropout(self.attention(self.norm_attention(x), **own))
        if self.cross is not None:
            x = x + self.dropout(self.cross(self.norm_cross(x), memory, mask=memory_mask))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


def make_norm(config: TransformerConfig) -> nn.Module:
    return nn.RMSNorm(config.width) if config.norm == "rmsnorm" else nn.LayerNorm(config.width, bias=config.bias)


def init_weights(model: nn.Module, *, additions: int) -> None:
    """Normal(0, 0.02), the projections back into the residual stream by 1 / sqrt(additions to it) smaller (GPT-2)."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.02 / math.sqrt(additions) if name.endswith("out.weight") else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
