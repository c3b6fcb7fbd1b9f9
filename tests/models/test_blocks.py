"""Blocks: attention, feed-forward and positions against their equations and against other libraries."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from utils.models.blocks import (
    Attention,
    FeedForward,
    TransformerConfig,
    alibi_slopes,
    attend,
    rotary_table,
    rotate,
    sinusoidal_table,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torch_multi_head_attention_of_the_same_weights(causal):
    ours = Attention(TransformerConfig(width=24, num_heads=4, bias=True), causal=causal)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(3, 7, 24)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    assert_close(ours(x), theirs(x, x, x, attn_mask=hidden, need_weights=False)[0])


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_softmax_of_qk_over_root_d_with_each_key_head_serving_a_group(kv_heads):
    config = TransformerConfig(width=24, num_heads=4, num_kv_heads=kv_heads)
    attention = Attention(config, causal=True)
    x = torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).split([24, 6 * kv_heads, 6 * kv_heads], dim=-1)
    heads = []
    for head in range(4):
        group = head // (4 // kv_heads)
        query, key, value = q[..., 6 * head :][..., :6], k[..., 6 * group :][..., :6], v[..., 6 * group :][..., :6]
        scores = query @ key.transpose(1, 2) / math.sqrt(6)
        scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -math.inf)
        heads.append(scores.softmax(-1) @ value)
    assert_close(attention(x), torch.cat(heads, dim=-1) @ attention.out.weight.T)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(
    ("T", "S", "hide"),
    [(9, 9, "causal"), (520, 520, "causal"), (1, 9, "nothing"), (9, 9, "keys"), (3, 9, "keys"), (3, 9, "bias")],
)
def test_bf16_attention_is_that_of_float32_to_its_rounding(T, S, hide, kv_heads):
    q, k, v = (torch.randn(2, heads, length, 8) for heads, length in ((4, T), (kv_heads, S), (kv_heads, S)))
    q, k, v = (x.bfloat16() for x in (q, k, v))
    shown = torch.rand(2, 1, T, S) < 0.7
    shown[..., 0] = True
    mask = {"keys": shown, "bias": torch.randn(1, 4, T, S).bfloat16()}.get(hide)
    options = {"causal": hide == "causal", "dropout": 0.0}
    exact = mask.float() if hide == "bias" else mask
    expected = attend(q.float(), k.float(), v.float(), mask=exact, **options)
    # Scores up to 8 are rounded by 2^-9 of themselves: weights are off by 1.6% at most, and values reach 4.
    assert_close(attend(q, k, v, mask=mask, **options).float(), expected, atol=0.06, rtol=0)


def test_bf16_attention_drops_its_share_of_weights_and_scales_the_rest():
    q = torch.zeros(4, 4, 16, 16, dtype=torch.bfloat16)  # so every weight is 1/16
    weights = attend(q, q, torch.eye(16).bfloat16().expand_as(q), mask=None, causal=False, dropout=0.5)
    assert weights.unique().tolist() == [0, 1 / 8]
    assert (weights == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)  # of 4096: 0.5 / 64 is one deviation


def test_feed_forward_follows_its_equations():
    x = torch.randn(5, 48)
    for activation, function in (("gelu", F.gelu), ("relu2", lambda hidden: F.relu(hidden) ** 2)):
        layer = FeedForward(TransformerConfig(width=48, activation=activation))
        assert_close(layer(x), function(x @ layer.up.weight.T) @ layer.out.weight.T)
    layer = FeedForward(TransformerConfig(width=48, activation="swiglu"))
    gate, up = (x @ layer.up.weight.T).chunk(2, dim=-1)
    assert_close(layer(x), (gate * gate.sigmoid() * up) @ layer.out.weight.T)


def test_swiglu_has_the_parameters_of_the_plain_feed_forward():
    # 3 matrices of 96 x 256 and 2 of 96 x 384: 256 is two thirds of 4 * 96
    counts = {
        activation: sum(p.numel() for p in FeedForward(TransformerConfig(width=96, activation=activation)).parameters())
        for activation in ("gelu", "swiglu")
    }
    assert counts == {"gelu": 2 * 96 * 384, "swiglu": 3 * 96 * 256}


def test_rotary_positions_equal_llamas():
    llama = LlamaRotaryEmbedding(LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=32))
    q, k = torch.randn(2, 2, 4, 32, 16)
    cos, sin = llama(q, torch.arange(32)[None])
    ours = rotary_table(32, 16)
    for x, expected in zip((q, k), apply_rotary_pos_emb(q, k, cos, sin)):
        assert_close(rotate(x, *ours), expected)


def test_rotary_scores_depend_only_on_the_distance():
    cos, sin = (table.double() for table in rotary_table(64, 16))
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def score(query: int, key: int) -> float:
        place = [slice(query, query + 1), slice(key, key + 1)]
        turned = [rotate(x, cos[at], sin[at]) for x, at in zip((q, k), place)]
        return float((turned[0] * turned[1]).sum())

    # The table is float32: angles up to 63 are off by at most 63 * 2^-24, about 4e-6.
    for distance in (0, 1, 17):
        assert score(40 + distance, 40) == pytest.approx(score(distance, 0), abs=1e-4)
    assert abs(score(41, 40) - score(40, 40)) > 1e-3


def test_sinusoidal_positions_are_sines_and_cosines_of_geometric_wavelengths():
    table = sinusoidal_table(50, 6)
    for position in (0, 1, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert float(table[position, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[position, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoidal_table(50, 5).shape == (50, 5)


@pytest.mark.parametrize(
    ("num_heads", "slopes"),
    [
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),  # the paper's section 3
        (1, [1 / 256]),
        # The authors' code: those of 4 heads, then every other one of 8's.
        (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]),
        (12, [*(2.0**-i for i in range(1, 9)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_alibi_slopes_are_the_papers(num_heads, slopes):
    assert_close(alibi_slopes(num_heads), torch.tensor(slopes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 30, "num_heads": 4}, "width 30 is not a multiple of num_heads 4"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"width": 12, "num_heads": 4, "positions": "rotary"}, "even head size, not 12 / 4"),
    ],
)
def test_a_shape_that_does_not_divide_is_refused_when_the_config_is_made(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**fields)
