"""What counts as equal: differences, masks, tolerances and tensors."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from utils.models.exportable import Part
from utils.publish.compare import Expected, Proof, compare_outputs, compare_tensors
from utils.publish.parity_worker import digests

ROWS = {0: "batch", 1: "length"}
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
EAGER = numpy.random.default_rng(0).normal(size=(2, 3, 50)).astype(numpy.float32)


def judged(output: numpy.ndarray, *, eager: numpy.ndarray = EAGER, format: str = "onnx", name: str = "logits") -> Proof:
    """The proof of one output (2, 3, V) under a mask that asks for the first four places."""
    axes = {"attention_mask": ROWS, name: ROWS}
    part = Part("model", nn.Identity(), {"attention_mask": MASK}, (), axes, name)
    proof = Proof(format)
    compare_outputs(proof, [Expected(part, part.inputs, eager, 1.0)], [output], [2.0], {"model": 3_000_000})
    return proof


def changed(place: tuple[int, ...], by: float) -> numpy.ndarray:
    output = EAGER.copy()
    output[place] += by
    return output


@pytest.mark.parametrize(("by", "status"), [(9e-5, "pass"), (1.1e-4, "fail")])
def test_one_number_that_is_off_by_more_than_1e_4_fails(by, status):
    proof = judged(changed((0, 2, 7), by))
    assert proof.check.status == status
    assert proof.largest == pytest.approx(by, rel=1e-2)


def test_what_the_mask_does_not_ask_for_is_not_compared():
    assert judged(changed((1, 2), 100.0)).check.status == "pass"
    assert judged(changed((1, 0), 100.0)).check.status == "fail"


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_what_is_not_finite_fails_unless_eager_says_the_same_infinity(value):
    output = changed((0, 0, 0), value)
    assert judged(output).check.status == "fail"
    assert judged(output, eager=output).check.status == ("fail" if numpy.isnan(value) else "pass")


def test_another_shape_fails_and_both_are_named():
    assert "(2, 3, 49); expected (2, 3, 50)" in judged(EAGER[..., :49]).check.summary


def test_agreement_is_the_share_of_places_that_count_with_the_same_argmax():
    output = EAGER.copy()
    output[0, 1] = -output[0, 1]  # one of the four places
    assert judged(output).agreement == 0.75


def test_int8_is_judged_by_its_mean_difference_over_the_spread():
    spread = EAGER[MASK.bool().numpy()].std()
    assert judged(EAGER + 0.09 * spread, format="int8").check.status == "pass"
    proof = judged(EAGER + 0.11 * spread, format="int8")  # every number, so that no argmax changes
    assert proof.agreement == 1
    assert "mean difference 11.0%" in proof.check.summary
    assert proof.check.status == "fail"


def test_int8_that_changes_too_many_decisions_fails_however_small_the_difference():
    output = EAGER.copy()
    for place in (0, 0), (0, 1):  # two of four
        first, second = output[place].argsort()[-2:]
        output[place][[first, second]] = output[place][[second, first]]
    proof = judged(output, format="int8")
    assert "argmax agreement 50.0% is below 90%" in proof.check.summary
    assert judged(output, format="int8", name="encoder_hidden").check.status == "pass"  # where none is made


def test_the_table_says_size_in_mb_and_both_latencies():
    (row,) = judged(EAGER).rows
    assert (row["MB"], row["latency ms"], row["eager ms"], row["batch"], row["length"]) == (3.0, 2.0, 1.0, 2, "3")


@pytest.fixture
def tied() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False), nn.LayerNorm(5))
    model[1].weight = model[0].weight
    return model


def tensors_judged(model: nn.Module, tensors: dict) -> Proof:
    proof = Proof("state_dict")
    compare_tensors(proof, digests(tensors), model.state_dict())
    return proof


def test_of_tied_tensors_one_is_enough_and_of_others_none_is_missing(tied):
    state = dict(tied.state_dict())
    assert tensors_judged(tied, state).check.status == "pass"
    assert tensors_judged(tied, {name: state[name] for name in state if name != "1.weight"}).check.status == "pass"
    lacking = {name: state[name] for name in state if name != "2.bias"}
    assert tensors_judged(tied, lacking).check.summary == "2.bias: missing from the file"


def test_a_tensor_that_differs_in_its_last_bit_its_dtype_or_its_name_fails_by_name(tied):
    state = {name: tensor.clone() for name, tensor in tied.state_dict().items()}
    last = torch.nextafter(state["2.weight"], torch.tensor(2.0))
    for wrong in (last, state["2.weight"].double(), state["2.weight"].reshape(5, 1)):
        assert "2.weight: not the trained one" in tensors_judged(tied, {**state, "2.weight": wrong}).check.summary
    assert "more: in the file, and unknown" in tensors_judged(tied, {**state, "more": last}).check.summary
