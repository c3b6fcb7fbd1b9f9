"""Blocks: attention and feed-forward against their equations and against other libraries."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from utils.models.blocks import Attention, CrossAttention, FeedForward, TransformerConfig, attend, visible
from utils.models.positions import distances


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


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cross_attention_equals_torch_multi_head_attention_of_the_same_weights(kv_heads):
    ours = CrossAttention(TransformerConfig(width=24, num_heads=4, num_kv_heads=kv_heads, bias=True))
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)

    def per_head(parameter: torch.Tensor) -> torch.Tensor:
        """Rows of a key/value head, once for each head of its group."""
        return parameter.unflatten(0, (kv_heads, 6)).repeat_interleave(4 // kv_heads, dim=0).flatten(0, 1)

    with torch.no_grad():
        for name, joined in (("weight", theirs.in_proj_weight), ("bias", theirs.in_proj_bias)):
            key, value = getattr(ours.kv, name).chunk(2)
            joined.copy_(torch.cat((getattr(ours.query, name), per_head(key), per_head(value))))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory = torch.randn(3, 5, 24), torch.randn(3, 7, 24)
    token = torch.arange(7) < torch.tensor([[7], [3], [1]])
    expected = theirs(x, memory, memory, key_padding_mask=~token, need_weights=False)[0]
    assert_close(ours(x, memory, mask=token[:, None, None, :]), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_a_query_sees_itself_and_of_the_tokens_all_or_those_before_it(causal):
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    seen = visible(distances(2, 3, mask.device), mask, causal=causal)  # queries at 2, 3, 4
    assert seen.shape == (4, 1, 3, 5)
    for row in range(4):
        for query in range(3):
            for key in range(5):
                expected = query + 2 == key or (bool(mask[row, key]) and (not causal or key <= query + 2))
                assert bool(seen[row, 0, query, key]) == expected


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
