from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.attribution import attribution, integrated_gradients
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


def test_of_a_linear_function_it_is_the_weight_times_the_way_from_the_baseline():
    torch.manual_seed(0)
    w, x, x0 = torch.randn(5), torch.randn(3, 5), torch.randn(3, 5)
    found = integrated_gradients(lambda values: values @ w, x, x0)
    torch.testing.assert_close(found.values, w * (x - x0))
    torch.testing.assert_close(found.change, ((x - x0) @ w).double(), atol=1e-5, rtol=1e-5)
    assert found.steps == 8
    assert found.gap < 1e-5


def test_of_a_product_each_factor_has_its_exact_share():
    # F = a * b from (0, 0): the mean of dF/da = b over the way is b / 2, so each of the two has a * b / 2.
    x = torch.tensor([[2.0, 3.0]])
    found = integrated_gradients(lambda values: values.prod(1), x, torch.zeros(1, 2))
    torch.testing.assert_close(found.values, torch.tensor([[3.0, 3.0]]))


def test_steps_are_refined_until_the_sum_is_the_change_and_give_up_at_the_cap():
    x, zero = torch.ones(1, 1), torch.zeros(1, 1)
    wave = integrated_gradients(lambda values: (30 * values).sin().sum(1) + values.sum(1), x, zero)
    assert wave.steps > 8
    assert wave.gap < 0.05
    jump = integrated_gradients(lambda values: (values > 0.5).float().sum(1) + 0 * values.sum(1), x, zero)
    assert jump.steps == 128
    assert jump.gap == pytest.approx(1)  # no gradient sees the jump


def test_the_attributions_of_a_gpt_account_for_the_change_of_its_logit():
    torch.manual_seed(0)
    check = attribution(adapt(GPT(TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32))), SMOKE)
    assert check.status == "pass", check
    change, total = check.table["change from the baseline"], check.table["sum of attributions"]
    assert (change - total).abs().sum() < 0.05 * change.abs().sum()


class Tokens(nn.Module):
    kind, vocab_size, context_length = "causal_lm", 23, 16

    def __init__(self, between):
        super().__init__()
        self.embedding, self.head, self.between = nn.Embedding(23, 16), nn.Linear(16, 23), between

    def forward(self, x):
        return self.head(self.between(self.embedding(x)))


@pytest.mark.parametrize(
    ("between", "status", "reason"),
    [
        (lambda x: x + x.sign().detach(), "warn", "gradients do not explain"),  # jumps where an embedding is zero
        (lambda x: x.detach(), "skip", "no gradient reaches the input"),
        (lambda x: x * 0, "skip", "hardly depends on the input"),
        (lambda x: x / 0, "warn", "not finite"),
    ],
    ids=["jumps", "detached", "constant", "not finite"],
)
def test_what_gradients_cannot_explain_is_said(between, status, reason):
    torch.manual_seed(0)
    check = attribution(adapt(Tokens(between)), SMOKE)
    assert check.status == status
    assert reason in check.summary
