from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.robustness import compare, robustness
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


def test_the_divergence_is_torchs_of_the_clean_prediction_from_the_disturbed():
    torch.manual_seed(0)
    clean, disturbed = torch.randn(6, 5), torch.randn(6, 5)
    same, divergence = compare(clean, disturbed)
    expected = F.kl_div(disturbed.log_softmax(-1), clean.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(divergence, expected)
    assert same.tolist() == [int(a.argmax()) == int(b.argmax()) for a, b in zip(clean, disturbed)]


class Tokens(nn.Module):
    """Each position's class is a function of its own token alone."""

    kind, vocab_size, context_length = "causal_lm", 23, 16

    def __init__(self, gain=0.0):
        super().__init__()
        self.embedding, self.head, self.gain = nn.Embedding(23, 16), nn.Linear(16, 23), gain

    def forward(self, x):
        x = self.embedding(x)
        return self.head((self.gain * x).sin() if self.gain else x)


def test_replacing_a_share_of_the_tokens_flips_at_most_that_share_of_a_model_without_memory():
    model = Tokens()
    with torch.no_grad():
        model.embedding.weight.copy_(10 * torch.eye(23, 16))
        model.head.weight.copy_(torch.eye(23, 16))  # the likeliest class is the token, or 0 for those from 16 on
        model.head.bias.zero_()
    table = robustness(adapt(model), SMOKE).table
    flips = table[table["disturbance"] == "replaced tokens"].set_index("size")["flips"]
    replaced = {0.02: 1, 0.05: 1, 0.1: 2, 0.2: 3, 0.5: 8}  # of 16 positions, at least one
    for share, number in replaced.items():
        assert flips[share] <= number / 16
    # A token is replaced by itself 1 time in 23, and one of the 8 of class 0 by another of them 8 in 23 of 8 in 23.
    assert flips[0.5] > 0.3


def test_an_untrained_gpt_passes_and_more_noise_tells_more():
    torch.manual_seed(0)
    check = robustness(adapt(GPT(TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32))), SMOKE)
    assert check.status == "pass", check
    noise = check.table[check.table["disturbance"] == "noise"]["KL (nats)"]
    assert noise.is_monotonic_increasing
    assert noise.iloc[0] < 1e-4 < noise.iloc[-1]


def test_a_model_that_amplifies_a_hundredth_warns():
    torch.manual_seed(0)
    check = robustness(adapt(Tokens(gain=1e4)), SMOKE)
    assert check.status == "warn"
    assert "rounding alone" in check.summary


def test_a_model_without_an_embedding_is_tried_with_other_tokens_only():
    class OneHot(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(23, 23)

        def forward(self, x):
            return self.head(F.one_hot(x, 23).float())

    check = robustness(adapt(OneHot()), SMOKE)
    assert check.status == "pass"
    assert set(check.table["disturbance"]) == {"replaced tokens"}
    assert "no noise" in check.summary
