"""The loss at the start and the learning of one batch, on models for which both are known in closed form."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.learning import initialisation, overfit_one_batch
from utils.validation.steady import Effort

V, T = 11, 12
EFFORT = Effort(rows=4, length=8, longest=16, inputs=2, overfit_steps=100, repeats=2)
STATED = {"vocab_size": V, "context_length": T}
SHAPE = TransformerConfig(**STATED, num_layers=2, num_heads=2, width=16, tie_embeddings=False)


class Normal(nn.Module):
    """Logits of a token: a row of independent normal numbers of deviation `s`."""

    kind = "causal_lm"

    def __init__(self, vocabulary: int, s: float):
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)
        nn.init.normal_(self.table.weight, std=s)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.table(input_ids)


@pytest.mark.parametrize(
    ("s", "status"), [(0.0, "pass"), (0.1, "pass"), (1.3, "pass"), (1.5, "warn"), (2.2, "warn"), (4.0, "fail")]
)
def test_normal_logits_cost_half_their_variance_over_ln_v(s, status):
    torch.manual_seed(0)
    effort = Effort(rows=16, length=32, longest=64, inputs=4, overfit_steps=1, repeats=1)
    model = Normal(1000, s or 1e-9)
    result = initialisation(adapt(model, config={"context_length": 32}), effort)
    assert result.status == status
    loss = float(re.search(r"loss is ([\d.]+) nats", result.summary)[1])
    if s <= 2.2:
        # E ln(sum of e^x) is ln V + s^2 / 2 less Var(mean of e^x) / 2 E^2 = (e^(s^2) - 1) / 2V, 0.06 at s = 2.2; the
        # labels' logits, 2048 of 1000 rows, average to 0 within s / sqrt(2048) = 0.05; so three of those and 0.06.
        assert loss == pytest.approx(math.log(1000) + s * s / 2, abs=0.02 + 0.1 * s)


def test_a_zero_head_costs_ln_v_exactly():
    model = GPT(SHAPE)
    nn.init.zeros_(model.head.weight)
    result = initialisation(adapt(model), EFFORT)
    assert result.status == "pass"
    assert "loss is 2.40 nats; a guess costs ln 11 = 2.40" in result.summary  # ln 11 = 2.398


class OneSided(nn.Module):
    """A logit of `excess` at token 0, which a random label is once in V: costs about excess (V - 1) / V over ln V."""

    kind = "causal_lm"

    def __init__(self, excess: float):
        super().__init__()
        self.excess, self.weight = excess, nn.Parameter(torch.randn(V, V) * 1e-6)

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.one_hot(input_ids, V).float() @ self.weight + F.one_hot(torch.zeros_like(input_ids), V) * self.excess


@pytest.mark.parametrize("excess", [0.0, 1.0, 2.5, 3.2, 3.5, 4.0, 5.0, 6.0, 8.0])
def test_the_loss_may_exceed_ln_v_by_1_and_by_3_with_a_warning(excess):
    adapter = adapt(OneSided(excess), config=STATED)
    result = initialisation(adapter, EFFORT)
    labels = torch.cat([adapter.batch(4, 8, seed=seed)["labels"].flatten() for seed in (0, 1)])
    share = (labels == 0).double().mean().item()
    over = math.log(math.exp(excess) + V - 1) - share * excess - math.log(V)
    assert min(abs(over - 1), abs(over - 3)) > 0.01
    assert result.status == ("pass" if over < 1 else "warn" if over < 3 else "fail")


def test_weights_that_are_all_alike_fail_and_zeros_among_others_do_not():
    for value in (0.0, 0.3):
        model = GPT(SHAPE)
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        assert initialisation(adapt(model), EFFORT).status == "fail"
    model = GPT(SHAPE)
    nn.init.constant_(model.blocks[1].feed_forward.up.weight, 0.02)
    result = initialisation(adapt(model), EFFORT)
    assert result.status == "fail"
    assert result.summary.startswith("blocks.1.feed_forward.up.weight: one number repeated")
    nn.init.zeros_(model.blocks[1].feed_forward.up.weight)
    assert initialisation(adapt(model), EFFORT).status == "pass"


@pytest.mark.parametrize("shape", [(16,), (1, 16), (1, 1, 16), (16, 1, 1)])
def test_gains_of_ones_in_any_shape_are_sound(shape):
    class Gained(GPT):
        def __init__(self):
            super().__init__(SHAPE)
            self.gain = nn.Parameter(torch.ones(shape))

        def hidden(self, *inputs: Tensor) -> Tensor:
            return super().hidden(*inputs) * self.gain.flatten()

    assert initialisation(adapt(Gained()), EFFORT).status == "pass"


def test_trained_weights_and_hidden_states_have_no_untrained_loss():
    loud = GPT(SHAPE)
    nn.init.normal_(loud.head.weight, std=5)
    assert initialisation(adapt(loud), EFFORT).status == "fail"
    assert initialisation(adapt(loud, pretrained=True), EFFORT).status == "skip"

    class Headless(GPT):
        def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
            return {"last_hidden_state": self.hidden(input_ids)}

    adapter = adapt(Headless(SHAPE))
    assert initialisation(adapter, EFFORT).status == "skip"
    assert overfit_one_batch(adapter, EFFORT).status == "skip"


class Bounded(nn.Module):
    """Logits between -b and b, any for each position: the least loss is ln(1 + (V - 1) e^(-2b)), the first one ln V."""

    kind = "causal_lm"

    def __init__(self, bound: float):
        super().__init__()
        self.bound = bound
        self.table = nn.Parameter(1e-6 * torch.randn(8, V))

    def forward(self, input_ids: Tensor) -> Tensor:
        free = self.bound * torch.tanh(100 * self.table[: input_ids.shape[1]])  # 100: saturates in a few steps
        return free + 1e-3 * F.one_hot(input_ids, V)


@pytest.mark.parametrize(
    ("bound", "status"),
    [
        (1.5, "pass"),  # ln(1 + 10 e^-3) = 0.40 of ln 11 = 2.40: less than a fifth, 0.48
        (1.35, "warn"),  # 0.51
        (0.8, "warn"),  # 1.11: less than a half, 1.20
        (0.7, "fail"),  # 1.24
        (0.1, "fail"),
    ],
)
def test_one_batch_must_be_learned_to_a_fifth_of_its_loss_and_to_a_half_with_a_warning(bound, status):
    torch.manual_seed(0)
    one_row = Effort(rows=1, length=8, longest=16, inputs=1, overfit_steps=150, repeats=1)
    result = overfit_one_batch(adapt(Bounded(bound), config={**STATED, "context_length": 8}), one_row)
    assert result.status == status
    if status != "pass":  # else it stops at a fifth
        least = math.log(1 + (V - 1) * math.exp(-2 * bound))
        assert result.table["last loss"].min() == pytest.approx(least, abs=0.01)
    assert result.table["first loss"].tolist() == pytest.approx([math.log(V)] * len(result.table), abs=2e-3)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: GPT(SHAPE.replace(dropout=0.5)), id="GPT with dropout"),
        pytest.param(
            lambda: ViT(ViTConfig(image_size=4, patch_size=2, num_classes=5, num_layers=1, num_heads=2, width=16)),
            id="ViT",
        ),
        pytest.param(lambda: GPT(SHAPE).requires_grad_(False), id="frozen"),
    ],
)
def test_a_sound_model_learns_its_batch_and_stops_there(make):
    torch.manual_seed(0)
    result = overfit_one_batch(adapt(make()), EFFORT)
    assert result.status == "pass", result.summary
    last = result.table.iloc[-1]
    assert last["last loss"] <= last["first loss"] / 5
    assert last["steps"] < EFFORT.overfit_steps


def test_zero_output_projections_and_a_zero_head_learn():
    torch.manual_seed(0)
    model = GPT(SHAPE)
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "head.weight")):
            nn.init.zeros_(parameter)
    assert overfit_one_batch(adapt(model), EFFORT).status == "pass"


def test_labels_that_the_model_cannot_line_up_with_its_input_fail():
    class Shuffled(GPT):
        def forward(self, input_ids: Tensor) -> Tensor:
            logits = super().forward(input_ids)
            return logits[:, torch.randperm(logits.shape[1])]  # another order each time

    torch.manual_seed(0)
    result = overfit_one_batch(adapt(Shuffled(SHAPE), kind="masked_lm"), EFFORT)
    assert result.status == "fail"
    assert result.table["learning rate"].tolist() == ["lr 0.001", "lr 0.003", "lr 0.0003"]


def test_a_forward_pass_without_gradients_learns_nothing():
    class Inference(GPT):
        @torch.no_grad()
        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(input_ids)

    result = overfit_one_batch(adapt(Inference(SHAPE)), EFFORT)
    assert result.status == "fail"


def test_a_loss_that_turns_nan_at_one_rate_does_not_hide_another():
    class Brittle(Bounded):
        last = None

        def forward(self, input_ids: Tensor) -> Tensor:
            step = 0.0 if self.last is None else (self.table - self.last).abs().max().item()
            self.last = self.table.detach().clone()
            logits = super().forward(input_ids)
            return logits * math.nan if step > 5e-4 else logits  # Adam's first steps are of the size of its rate

    torch.manual_seed(0)
    one_row = Effort(rows=1, length=8, longest=16, inputs=1, overfit_steps=150, repeats=1)
    result = overfit_one_batch(adapt(Brittle(1.0), config={**STATED, "context_length": 8}), one_row)
    assert result.table["last loss"].isna().tolist() == [True, True, False]
    assert result.status == "warn"  # ln(1 + 10 e^-2) = 0.86 of 2.40
    assert "at lr 0.0003" in result.summary


def test_what_other_checks_have_found_is_left_to_them():
    model = GPT(SHAPE)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert "see initialisation" in overfit_one_batch(adapt(model), EFFORT).summary

    class Deaf(GPT):
        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(torch.zeros_like(input_ids))

    assert "see input sensitivity" in overfit_one_batch(adapt(Deaf(SHAPE)), EFFORT).summary
