"""Numerical stability of functions that are known to overflow at one scale, precision or input, and of sound ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import Adapter, adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.stability import SCALES, is_finite, numerical_stability
from utils.validation.steady import Effort

V, T = 11, 12
EFFORT = Effort(rows=2, length=8, longest=16, inputs=2, overfit_steps=3, repeats=2)
STATED = {"vocab_size": V, "context_length": T}
INF, NAN = float("inf"), float("nan")


class OfOnes(nn.Module):
    """Embeddings of ones, so that what is read times s is s everywhere; then `change`, whose shape is kept."""

    kind = "causal_lm"

    def __init__(self, change):
        super().__init__()
        self.embedding, self.change = nn.Embedding(V, V), change
        nn.init.ones_(self.embedding.weight)
        self.linear = nn.Linear(V, V, bias=False)
        nn.init.eye_(self.linear.weight)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.linear(self.embedding(input_ids))
        return self.change(x, input_ids) + F.one_hot(input_ids, V)


def of_ones(change) -> Adapter:
    return adapt(OfOnes(change), config=STATED)


@pytest.mark.parametrize(
    ("logits", "finite"),
    [
        ([[1.0, 2.0]], True),
        ([[1.0, -INF], [0.0, 0.0]], True),
        ([[-INF, -INF], [0.0, 0.0]], False),
        ([[1.0, INF]], False),
        ([[1.0, NAN]], False),
    ],
)
def test_what_is_finite(logits, finite):
    assert is_finite(torch.tensor(logits)) == finite


def first_bad(result) -> tuple[str, float, str]:
    row = result.table[~result.table["finite"]].iloc[0]
    return row["input"], row["times"], row["precision"]


@pytest.mark.parametrize(
    ("change", "times"),
    [
        pytest.param(lambda x, ids: x.float().exp(), 100.0, id="exp overflows beyond 88.7"),
        pytest.param(lambda x, ids: x.float() ** 13, 1000.0, id="1000^13 is beyond 3.4e38, 100^13 is not"),
        pytest.param(lambda x, ids: -(x.float() - 1000).abs().log(), 1000.0, id="-log 0"),
        pytest.param(lambda x, ids: (20 - x.float()).sqrt(), 100.0, id="a root of less than 0"),
    ],
)
def test_the_first_scale_that_overflows_is_named(change, times):
    adapter = of_ones(lambda x, ids: torch.cat((change(x, ids)[..., :1], x[..., 1:]), -1))
    result = numerical_stability(adapter, EFFORT)
    assert result.status == "fail"
    assert first_bad(result) == ("random", times, "float32")
    assert f"NaN or Inf with random inputs times {times:,.0f} in float32" in result.summary


def test_the_same_functions_written_with_care_pass():
    for change in (
        lambda x, ids: F.softplus(x.float()),
        lambda x, ids: x.float().softmax(-1),
        lambda x, ids: (x.float() ** 2 + 1e-6).log(),
        lambda x, ids: F.layer_norm(x, (V,)),
    ):
        assert numerical_stability(of_ones(change), EFFORT).status == "pass"


def test_what_breaks_in_bf16_alone_is_found_there():
    # 1.001 is a number in fp32, and 1 in bf16, whose next one is 1 + 1 / 128.
    adapter = of_ones(lambda x, ids: x)
    adapter.model.linear.weight.data *= 1.001
    adapter.model.change = lambda x, ids: 1 / (x.float() - 1)
    result = numerical_stability(adapter, EFFORT)
    assert first_bad(result) == ("random", 1.0, "bfloat16")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        pytest.param(lambda ids: (ids[:, 1:] == 0).all(), "smallest id", id="smallest"),
        pytest.param(lambda ids: (ids[:, 1:] == V - 1).all(), "largest id", id="largest"),
        pytest.param(lambda ids: torch.tensor(ids.shape[1] == T), "full context", id="full"),
    ],
)
def test_an_input_that_breaks_alone_is_named(where, named):
    adapter = of_ones(lambda x, ids: x / (~where(ids)).float())
    assert first_bad(numerical_stability(adapter, EFFORT)) == (named, 1.0, "float32")


@pytest.mark.parametrize(
    ("column", "status"),
    [(slice(2, 3), "pass"), (slice(1, None), "pass"), (slice(None), "fail")],
    ids=["one", "all but one", "all"],
)
def test_logits_of_minus_infinity_rule_out_some_tokens_but_not_all(column, status):
    forbidden = torch.zeros(V)
    forbidden[column] = -INF
    assert numerical_stability(of_ones(lambda x, ids: x + forbidden), EFFORT).status == status


@pytest.mark.parametrize("value", [INF, NAN])
def test_one_logit_of_infinity_or_nan_fails(value):
    added = torch.zeros(V).index_fill(0, torch.tensor(4), value)
    assert numerical_stability(of_ones(lambda x, ids: x + added), EFFORT).status == "fail"


@pytest.mark.parametrize(("size", "status"), [(65_000.0, "pass"), (66_000.0, "warn")])
def test_activations_beyond_fp16_are_a_warning(size, status):
    result = numerical_stability(of_ones(lambda x, ids: x * size), EFFORT)
    assert result.status == status
    assert result.table[result.table["times"] == 1]["largest activation"].max() == pytest.approx(size, rel=0.01)


def test_large_activations_at_scaled_inputs_are_no_warning():
    result = numerical_stability(of_ones(lambda x, ids: x * 10), EFFORT)  # 100,000 at 10,000 times the input
    assert result.table["largest activation"].max() >= 1e5
    assert result.status == "pass"


def test_every_input_is_read_in_both_precisions_and_random_ones_at_all_scales():
    result = numerical_stability(of_ones(lambda x, ids: x), EFFORT)
    assert f"finite for {2 * (EFFORT.inputs * len(SCALES) + 3)} batches" in result.summary
    kinds = list(zip(result.table["input"], result.table["times"]))
    each = [("random", scale) for scale in SCALES] + [
        (name, 1.0) for name in ("smallest id", "largest id", "full context")
    ]
    assert kinds == each * 2
    scaled = result.table[(result.table["input"] == "random") & (result.table["precision"] == "float32")]
    assert scaled["batches"].tolist() == [EFFORT.inputs] * len(SCALES)
    assert scaled["largest activation"].tolist() == pytest.approx(
        [scale + 1 for scale in SCALES]  # the logit of the token itself is one more
    )


def test_pixels_are_scaled_where_there_are_no_tokens():
    shape = ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8)
    assert numerical_stability(adapt(ViT(shape)), EFFORT).status == "pass"

    class Bright(ViT):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return super().forward(pixel_values) + pixel_values.amax((1, 2, 3)).exp()[:, None]

    result = numerical_stability(adapt(Bright(shape)), EFFORT)
    assert result.status == "fail"
    assert first_bad(result)[:2] == ("random", 100.0)  # 48 normal numbers reach 2 to 3: exp of 20 to 30, of 200 to 300
    assert {"black", "white"} < set(result.table["input"])


def test_hooks_and_scale_are_gone_afterwards():
    adapter = adapt(GPT(TransformerConfig(**STATED, num_layers=1, num_heads=2, width=8)))
    batch = adapter.batch(2, 8, seed=0)
    before = adapter(batch)
    numerical_stability(adapter, EFFORT)
    assert torch.equal(adapter(batch), before)
    assert not any(module._forward_hooks for module in adapter.model.modules())
