"""Positions: tables, places and distances against their papers and against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

from utils.models.positions import (
    alibi_slopes,
    distances,
    places,
    relative_buckets,
    rotary_table,
    rotate,
    sinusoidal_table,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (32, 256), (64, 100), (8, 10), (4, 3), (6, 20)])
def test_relative_buckets_are_those_of_transformers(buckets, farthest, both_sides):
    distance = torch.arange(-1500, 1501)
    expected = T5Attention._relative_position_bucket(distance, both_sides, buckets, farthest)
    ours = relative_buckets(distance, buckets=buckets, farthest=farthest, both_sides=both_sides)
    assert torch.equal(ours, expected)
    assert ours.min() == 0
    assert ours.max() == buckets - 1


def test_distances_are_those_from_each_query_to_each_key():
    assert distances(1, 2, CPU).tolist() == [[-1, 0, 1], [-2, -1, 0]]  # queries at 1 and 2, keys at 0, 1 and 2


def test_a_token_stands_where_its_own_text_puts_it_whatever_the_padding():
    assert places(None, 3, 2, CPU).tolist() == [3, 4]
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    assert places(mask, 0, 4, CPU).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 1, 1]]
    assert places(mask, 2, 2, CPU).tolist() == [[2, 3], [0, 1], [1, 1]]
