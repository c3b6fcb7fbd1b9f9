from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.extrapolation import describe, length_extrapolation, lengths_for
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


class Tokens(nn.Module):
    """Logits of a token alone, but for what `past` does to those of a sequence longer than 16."""

    kind, vocab_size = "causal_lm", 23

    def __init__(self, past=lambda logits: logits, context_length=16):
        super().__init__()
        self.embedding, self.past = nn.Embedding(23, 23), past
        self.context_length = context_length

    def forward(self, x):
        logits = self.embedding(x)
        return self.past(logits) if x.shape[1] > 16 else logits


def refuse(logits):
    raise IndexError("index out of range")


def test_lengths_go_from_a_quarter_of_the_context_to_twice_it_as_far_as_the_scale_goes():
    assert lengths_for(64, 256) == [16, 32, 64, 80, 96, 128]
    assert lengths_for(64, 90) == [16, 32, 64, 80]
    assert lengths_for(None, 256) == [32, 64, 128, 160, 192, 256]
    assert lengths_for(4096, 256) == [256]
    assert lengths_for(1, 256) == [1, 2]


def test_uniform_logits_have_an_entropy_of_the_logarithm_of_the_classes():
    found = describe(torch.full((1, 12, 5), 3.0))
    assert found == {
        "entropy (nats)": pytest.approx(math.log(5)),
        "RMS of the logits": pytest.approx(3),
        "positions": 12,
    }


@pytest.mark.parametrize(
    ("past", "status", "reason"),
    [
        (lambda x: x, "pass", "it answers, its entropy 0."),
        (refuse, "pass", "20 tokens are refused (IndexError)"),
        (lambda x: 50 * x, "warn", "do not use it at 20 tokens and more"),  # as sure of one token as can be
        (lambda x: x / 0, "warn", "not finite at 20 tokens"),
    ],
    ids=["answers", "refuses", "shifts", "not finite"],
)
def test_past_its_context_a_model_may_refuse_or_answer_as_it_did_within(past, status, reason):
    torch.manual_seed(0)
    check = length_extrapolation(adapt(Tokens(past)), SMOKE)
    assert check.status == status
    assert reason in check.summary
    assert list(check.table["tokens"][check.table["past the context"]])[0] == 20


def test_an_error_within_the_context_is_not_a_refusal():
    adapter = adapt(Tokens(refuse, context_length=64))
    with pytest.raises(IndexError):
        length_extrapolation(adapter, SMOKE)


def test_our_gpt_refuses_and_passes():
    torch.manual_seed(0)
    check = length_extrapolation(adapt(GPT(TransformerConfig(vocab_size=23, context_length=16, width=32))), SMOKE)
    assert check.status == "pass"
    assert "refused (ValueError), as is right" in check.summary


def test_without_a_context_any_length_is_held_against_the_shortest():
    torch.manual_seed(0)
    adapter = adapt(Tokens(lambda x: 50 * x), config={"context_length": 16})
    adapter.limit = None
    check = length_extrapolation(adapter, EFFORTS["smoke"])
    assert "no context is stated" in check.summary
    assert check.status == "pass"  # the shortest of 32 to 256 tokens is as sure as the others
    assert check.table["tokens"].max() == SMOKE.longest


def test_images_are_skipped():
    check = length_extrapolation(adapt(ViT(ViTConfig(num_layers=1, width=16, image_size=8))), SMOKE)
    assert check.status == "skip"
