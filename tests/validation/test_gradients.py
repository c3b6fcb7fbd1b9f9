"""Gradient flow in models whose gradients are known in closed form, on both sides of the factor of 1,000."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import Adapter, adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.gradients import gradient_flow, layer_norms
from utils.validation.steady import Effort

V, T = 11, 12
EFFORT = Effort(rows=2, length=8, longest=16, inputs=1, overfit_steps=3, repeats=2)
STATED = {"vocab_size": V, "context_length": T}
SHAPE = TransformerConfig(**STATED, num_layers=2, num_heads=2, width=8, tie_embeddings=False)


class Branches(nn.Module):
    """Logits: the sum of scale_l W_l x over branches l, x the one-hot token. dL/dW_l is scale_l times the same matrix.

    With `chain`, the scales are chain^(L - l): what a stack gives whose every layer multiplies the stream by `chain`.
    """

    kind = "causal_lm"

    def __init__(self, scales: list[float] | None = None, *, chain: float = 0.0, layers: int = 0):
        super().__init__()
        self.scales = scales or [1.0] * layers
        self.chain = chain or 1.0
        self.layers = nn.ModuleList(nn.Linear(V, V, bias=False) for _ in self.scales)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=1e-3)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = F.one_hot(input_ids, V).float()  # (B, T, V)
        total = torch.zeros_like(x)
        for layer, scale in zip(self.layers, self.scales):
            total = self.chain * total + scale * layer(x)
        return total


def flow(model: nn.Module, **options):
    return gradient_flow(adapt(model, config=STATED, **options), EFFORT)


def sizes(result) -> dict[str, float]:
    return dict(zip(result.table["layer"], result.table["gradient norm"]))


def test_the_norms_are_those_of_softmax_regression():
    torch.manual_seed(0)
    model = Branches([1.0, 3.0])
    adapter = adapt(model, config=STATED)
    result = gradient_flow(adapter, EFFORT)
    batch = adapter.batch(EFFORT.rows, EFFORT.length, seed=0)
    x, y = (numpy.eye(V)[batch[key].flatten().numpy()] for key in ("input_ids", "labels"))  # (N, V)
    weights = [layer.weight.detach().double().numpy() for layer in model.layers]
    scores = numpy.exp(x @ (weights[0] + 3 * weights[1]).T)
    slope = (scores / scores.sum(1, keepdims=True) - y).T @ x / len(x)  # dL/dW of mean cross-entropy, (p - y)' x / N
    norm = numpy.linalg.norm(slope)
    assert sizes(result) == pytest.approx({"layers.0": norm, "layers.1": 3 * norm}, rel=1e-5)
    assert result.summary == "all 2 matrices get a gradient; layers differ by a factor of 3"


@pytest.mark.parametrize(
    ("scale", "status", "word"),
    [
        (1 / 1050, "fail", "vanishes at layers.2"),
        (1 / 950, "pass", ""),
        (950.0, "pass", ""),
        (1050.0, "fail", "explodes at layers.2"),
    ],
)
def test_a_layer_may_be_1000_times_off_the_median(scale, status, word):
    result = flow(Branches([1.0, 1.0, scale, 1.0, 1.0]))
    assert result.status == status
    assert word in result.summary
    assert sizes(result)["layers.2"] / sizes(result)["layers.0"] == pytest.approx(scale, rel=1e-4)


@pytest.mark.parametrize(
    ("chain", "layers", "status"),
    [
        (0.5, 13, "pass"),  # of 13 layers the median is the 7th; the ends are 2^6 = 64 off
        (0.5, 21, "fail"),  # 2^10 = 1024
        (2.0, 13, "pass"),
        (2.0, 21, "fail"),
        (1.0, 40, "pass"),
        (0.9, 40, "pass"),  # 0.9^-19.5 = 7.8
    ],
)
def test_a_chain_vanishes_or_explodes_by_its_factor_to_the_depth(chain, layers, status):
    result = flow(Branches(chain=chain, layers=layers))
    assert result.status == status
    norms = [sizes(result)[f"layers.{index}"] for index in range(layers)]
    for one, two in zip(norms, norms[1:]):
        assert two / one == pytest.approx(1 / chain, rel=1e-4)


def test_a_gradient_that_is_not_finite_fails():
    class Rooted(Branches):
        def forward(self, input_ids: Tensor) -> Tensor:  # the slope of a square root at 0 is infinite
            return super().forward(input_ids) + (0 * self.layers[0].weight).abs().sqrt().sum()

    result = flow(Rooted([1.0, 1.0]))
    assert result.status == "fail"
    assert "the gradient of layers.0 is not finite" in result.summary


def zeroed(*ends: str) -> GPT:
    torch.manual_seed(0)
    model = GPT(SHAPE)
    for name, parameter in model.named_parameters():
        if name.endswith(ends):
            nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize(
    "ends",
    [("out.weight",), ("head.weight",), ("out.weight", "head.weight"), ("attention.out.weight",)],
    ids=["output projections", "head", "both", "attention alone"],
)
def test_what_starts_at_zero_comes_to_life_with_a_step_or_two(ends):
    result = flow(zeroed(*ends))
    assert result.status == "pass", result.summary


class Gained(GPT):
    """x + gain * branch(x) in each block."""

    def __init__(self, gain: float, *, learned: bool):
        super().__init__(SHAPE)
        self.gains = nn.Parameter(torch.full((2,), gain)) if learned else [gain, gain]

    def hidden(self, input_ids: Tensor, *_: object) -> Tensor:
        x = self.embedding(input_ids)
        rotation = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for gain, block in zip(self.gains, self.blocks):
            x = x + gain * (block(x, rotation=rotation) - x)
        return self.norm(x)


@pytest.mark.parametrize("gain", [0.0, 1e-9, 1e-6, 0.1, 1.0])
def test_a_learned_gain_may_start_a_branch_at_nothing(gain):
    # ReZero (Bachlechner et al. 2021) starts at 0, LayerScale (Touvron et al. 2021) at 1e-6 to 0.1
    torch.manual_seed(0)
    result = flow(Gained(gain, learned=True))
    assert result.status == "pass", result.summary


@pytest.mark.parametrize(("gain", "status"), [(0.0, "fail"), (1e-6, "fail"), (0.1, "pass")])
def test_a_fixed_factor_does_not_come_to_life(gain, status):
    torch.manual_seed(0)
    assert flow(Gained(gain, learned=False)).status == status


def test_the_bias_of_keys_has_no_gradient_and_is_not_judged():
    torch.manual_seed(0)
    shape = SHAPE.replace(bias=True, positions="learned")
    adapter = adapt(GPT(shape))
    adapter.loss(adapter.batch(2, 8, seed=0)).backward()
    bias = adapter.model.blocks[0].attention.qkv.bias.grad
    assert bias[8:16].norm() < 1e-6 * bias.norm()  # a number added to every score of a query leaves its softmax alone
    assert flow(GPT(shape)).status == "pass"


def unused() -> GPT:
    model = GPT(SHAPE)
    model.blocks[0].spare = nn.Linear(8, 8)
    return model


def test_a_module_that_is_never_called_is_a_warning():
    result = flow(unused())
    assert result.status == "warn"
    assert "1 matrices (blocks.0.spare.weight)" in result.summary


def test_a_token_that_only_another_task_reads_is_not_judged():
    model = GPT(SHAPE)
    model.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    assert flow(model).status == "pass"


class Stopped(GPT):
    """Block 0 is computed without gradients, as a frozen feature extractor is."""

    def __init__(self, *, frozen: bool):
        super().__init__(SHAPE)
        self.embedding.requires_grad_(not frozen)
        self.blocks[0].requires_grad_(not frozen)
        self.blocks[0].register_forward_hook(lambda module, inputs, output: output.detach())


def test_a_frozen_matrix_may_go_without_a_gradient_and_another_may_not():
    assert flow(Stopped(frozen=True)).status == "pass"
    result = flow(Stopped(frozen=False))
    assert result.status == "fail"
    assert "5 of 10 matrices get no gradient (embedding.weight, blocks.0" in result.summary


def test_frozen_matrices_on_the_way_are_judged_as_any():
    model = GPT(SHAPE)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    result = flow(model)
    assert (result.status, result.table["matrices"].sum()) == ("pass", 10)
    broken = Branches([1.0, 1.0, 0.0])
    broken.layers[2].requires_grad_(False)
    assert flow(broken).status == "pass"


def test_a_forward_pass_without_gradients_is_dead():
    class Inference(GPT):
        @torch.no_grad()
        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(input_ids)

    result = flow(Inference(SHAPE))
    assert result.status == "fail"
    assert "10 of 10 matrices get no gradient" in result.summary


def test_units_that_are_always_off_are_dead():
    model = GPT(SHAPE.replace(activation="relu2", bias=True))
    nn.init.constant_(model.blocks[1].feed_forward.up.bias, -100.0)
    result = flow(model)
    assert result.status == "fail"
    assert "2 of 10 matrices get no gradient (blocks.1.feed_forward.up.weight, blocks.1.feed_forward.out.weight)" in (
        result.summary
    )


class Headless(nn.Module):
    """Ends in hidden states."""

    kind = "masked_lm"

    def __init__(self, scale: float):
        super().__init__()
        self.scale, self.embedding = scale, nn.Embedding(V, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.embedding(input_ids)
        return {"last_hidden_state": x + self.layers[0](x) + self.layers[1](x) + self.scale * self.layers[2](x)}


def test_hidden_states_are_judged_by_a_fixed_product_of_them():
    torch.manual_seed(0)
    assert flow(Headless(1.0)).status == "pass"
    for scale, status in ((1 / 500, "pass"), (1 / 2000, "fail"), (0.0, "fail")):
        result = flow(Headless(scale))
        assert result.status == status
        assert sizes(result)["layers.2"] == pytest.approx(scale * sizes(result)["layers.0"], rel=1e-4)


class Bias(nn.Module):
    kind = "causal_lm"

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(V))

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.one_hot(input_ids, V) + self.bias


def test_without_a_matrix_or_with_constant_ones_there_is_nothing_to_judge():
    assert flow(Bias()).status == "skip"
    model = GPT(SHAPE)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert flow(model).status == "skip"


def test_norms_are_joined_by_numbered_blocks():
    table = layer_norms({"h.0.a.weight": 3.0, "h.0.b.weight": 4.0, "h.1.a.weight": None, "wte.weight": 2.0, "raw": 1.0})
    assert table.to_dict("list") == {
        "layer": ["h.0", "h.1", "wte", "raw"],
        "matrices": [2, 1, 1, 1],
        "gradient norm": [math.hypot(3, 4), 0.0, 2.0, 1.0],
    }


@pytest.mark.parametrize("name", ["batch norm", "lstm"])
def test_other_kinds_of_layers_pass(name):
    class Other(nn.Module):
        kind = "causal_lm"

        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(V, 8), nn.Linear(8, V)
            self.layer = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True) if name == "lstm" else nn.BatchNorm1d(8)

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embedding(input_ids)
            x = self.layer(x)[0] if name == "lstm" else self.layer(x.transpose(1, 2)).transpose(1, 2)
            return self.head(x)

    torch.manual_seed(0)
    adapter: Adapter = adapt(Other(), config=STATED)
    assert gradient_flow(adapter, EFFORT).status == "pass"
