from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.attention import attention_patterns, describe
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


def test_uniform_causal_heads_have_all_of_the_entropy_and_the_first_row_does_not_count():
    visible = torch.ones(4, 4).tril().bool()
    weights = (visible / visible.sum(-1, keepdim=True)).expand(2, 3, 4, 4)
    found = describe(weights, visible.expand(2, 3, 4, 4))
    entropy = (math.log(2) + math.log(3) + math.log(4)) / 3  # rows that see 2, 3 and 4 keys
    assert found["entropy"] == pytest.approx([entropy] * 3)
    assert found["share"] == pytest.approx([1.0] * 3)
    assert found["first"] == found["diagonal"] == pytest.approx([(1 / 2 + 1 / 3 + 1 / 4) / 3] * 3)
    assert found["diversity"] == pytest.approx(0, abs=1e-6)


def test_heads_that_look_at_different_keys_are_ln_2_apart():
    weights = torch.zeros(1, 3, 4, 4)
    for head in range(3):
        weights[:, head, :, head] = 1
    found = describe(weights, torch.ones(1, 3, 4, 4, dtype=torch.bool))
    assert found["diversity"] == pytest.approx(math.log(2))
    assert found["share"] == [0, 0, 0]
    assert found["first"] == [1, 0, 0]
    assert found["diagonal"] == [0.25] * 3


def test_an_untrained_gpt_passes_and_one_with_scores_a_thousandfold_collapses():
    torch.manual_seed(0)
    model = GPT(TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32))
    check = attention_patterns(adapt(model), SMOKE)
    assert check.status == "pass", check
    assert "near uniform" in check.summary
    assert len(check.table) == 2 * 4
    with torch.no_grad():
        model.blocks[1].attention.qkv.weight.mul_(200)
    check = attention_patterns(adapt(model), SMOKE)
    assert check.status == "warn"
    assert "single key in blocks.1.attention:" in check.summary


def test_heads_that_are_modules_of_their_own_are_one_layer():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.qk = nn.Linear(16, 8)

        def forward(self, x):
            q, k = self.qk(x).chunk(2, -1)
            hidden = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
            return (q @ k.mT).masked_fill(hidden, -math.inf).softmax(-1) @ x

    class Model(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.embedding, self.heads = nn.Embedding(23, 16), nn.ModuleList([Head(), Head(), Head()])

        def forward(self, x):
            x = self.embedding(x)
            return sum(head(x) for head in self.heads)

    table = attention_patterns(adapt(Model()), SMOKE).table
    assert list(zip(table["layer"], table["head"])) == [("heads", 0), ("heads", 1), ("heads", 2)]


def test_a_softmax_over_queries_is_found_by_rows_that_do_not_sum_to_one():
    class Model(nn.Module):
        kind, vocab_size, context_length = "masked_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(23, 16), nn.Linear(16, 23)

        def forward(self, x):
            x = self.embedding(x)
            q = x.view(*x.shape[:2], 2, 8).transpose(1, 2)
            y = torch.softmax(q @ q.mT, dim=-2) @ q
            return self.head(y.transpose(1, 2).reshape(x.shape))

    check = attention_patterns(adapt(Model()), SMOKE)
    assert check.status == "warn"
    assert "do not sum to one" in check.summary


def test_a_model_without_attention_is_skipped_with_the_reason():
    class Model(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(23, 16), nn.Linear(16, 23)

        def forward(self, x):
            return self.head(self.embedding(x)).log_softmax(-1)

    check = attention_patterns(adapt(Model()), SMOKE)
    assert check.status == "skip"
    assert "no attention" in check.summary
