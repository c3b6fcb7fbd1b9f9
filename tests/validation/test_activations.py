from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.activations import activations
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


class Squared(nn.Module):
    """A GELU that no function of torch is called for."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / 2**0.5))


class SquaredReLU(Squared):
    def forward(self, x):
        return (x * (x > 0)) ** 2


class Tokens(nn.Module):
    kind, vocab_size, context_length = "causal_lm", 23, 16

    def __init__(self, function, dead=0, pooled=False):
        super().__init__()
        self.embedding, self.up = nn.Embedding(23, 16), nn.Linear(16, 40)
        self.act, self.head, self.pooled = function, nn.Linear(40, 23), pooled
        with torch.no_grad():
            self.up.bias[:dead] = -1e3

    def forward(self, x):
        x = self.embedding(x)
        x = self.act(self.up(x.mean(1) if self.pooled else x))
        return self.head(x)


FUNCTIONS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "Tensor.relu": lambda x: x.relu(),
    "nn.GELU": nn.GELU(),
    "F.gelu": F.gelu,
    "nn.SiLU": nn.SiLU(),
    "F.silu": F.silu,
    "a module of its own": SquaredReLU(),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
@pytest.mark.parametrize(("dead", "status"), [(0, "pass"), (18, "pass"), (22, "warn")])
def test_dead_units_are_counted_however_the_rectifier_is_called(function, dead, status):
    torch.manual_seed(0)
    check = activations(adapt(Tokens(function, dead)), SMOKE)
    rectifiers = check.table[check.table["units"].notna()]
    assert list(rectifiers["units"]) == [40]
    assert list(rectifiers["dead"]) == [dead]
    assert list(rectifiers["positions"]) == [SMOKE.inputs * SMOKE.rows * 16]
    assert check.status == status  # 18 of 40 are under a half, 22 over


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, nn.LeakyReLU(), nn.ELU(), nn.PReLU()])
def test_functions_that_are_never_off_have_no_dead_units(function):
    check = activations(adapt(Tokens(function, 40)), SMOKE)
    assert check.status == "pass"
    assert check.table["units"].isna().all()


def test_pooled_rows_are_too_alike_to_call_a_relu_dead_unless_nearly_all_are():
    assert activations(adapt(Tokens(nn.ReLU(), 30, pooled=True), kind="classifier"), SMOKE).status == "pass"
    assert activations(adapt(Tokens(nn.ReLU(), 40, pooled=True), kind="classifier"), SMOKE).status == "warn"


def test_the_statistics_are_those_of_all_inputs_together():
    torch.manual_seed(0)
    adapter = adapt(Tokens(nn.ReLU()))
    check = activations(adapter, SMOKE)
    ids = torch.cat([adapter.batch(SMOKE.rows, 16, seed=seed)["input_ids"] for seed in range(SMOKE.inputs)])
    with torch.no_grad():
        x = adapter.model.up(adapter.embedding(ids))
    row = check.table.set_index("module").loc["up"]
    assert row["mean"] == pytest.approx(float(x.mean()), abs=1e-6)
    assert row["std"] == pytest.approx(float(x.std(correction=0)), rel=1e-4)
    assert row["RMS"] == pytest.approx(float(x.square().mean().sqrt()), rel=1e-4)
    assert row["largest"] == float(x.abs().max())
    assert list(check.table["module"]) == ["embedding", "up", "act", "head"]


def test_the_first_output_that_is_not_finite_is_named():
    model = GPT(TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32))
    with torch.no_grad():
        model.blocks[1].attention.out.weight[0, 0] = float("nan")
    check = activations(adapt(model), SMOKE)
    assert check.status == "warn"
    assert check.summary.startswith("blocks.1.attention.out is the first")


@pytest.mark.parametrize("activation", ["gelu", "swiglu", "relu2"])
def test_a_new_gpt_has_no_dead_units(activation):
    torch.manual_seed(0)
    config = TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32, activation=activation)
    check = activations(adapt(GPT(config)), SMOKE)
    assert check.status == "pass"
    assert check.table["dead"].sum() == 0
    assert check.table["units"].count() == 2
