"""Structure checks on models whose shapes, positions, vocabulary and state dict are broken in one known way."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import Adapter, adapt
from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.steady import Effort
from utils.validation.structure import context_length, kind, output_shapes, state_dict_round_trip, vocabulary_range

V, T = 11, 16
EFFORT = Effort(rows=2, length=8, longest=20, inputs=1, overfit_steps=3, repeats=2)
SHAPE = TransformerConfig(vocab_size=V, context_length=1000, num_layers=2, num_heads=2, width=16)
STATED = {"vocab_size": V, "context_length": T}


class Given(nn.Module):
    """A model that is a function of its ids."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.answer(input_ids)


def given(answer, kind: str = "causal_lm", **config) -> Adapter:
    return adapt(Given(answer), kind=kind, config={**STATED, **config})


def one_hot(ids: Tensor) -> Tensor:
    return F.one_hot(ids, V).float()


def test_a_declared_and_an_inferred_causal_model_are_known():
    assert kind(given(one_hot, "masked_lm"), EFFORT).summary == "masked_lm (declared)"
    inferred = kind(given(one_hot, ""), EFFORT)
    assert (inferred.status, inferred.summary.partition(" ")[0]) == ("pass", "causal_lm")


def test_a_model_that_is_masked_by_its_behaviour_alone_is_a_warning():
    assert kind(given(lambda ids: one_hot(ids).flip(1), ""), EFFORT).status == "warn"


def test_shapes_are_tried_at_the_edges_of_batch_and_length():
    result = output_shapes(given(one_hot), EFFORT)
    assert result.status == "pass"
    cases = set(zip(result.table["batch"], result.table["length"]))
    assert cases >= {(2, 1), (2, 7), (2, 8), (2, 16), (1, 8), (3, 8)}
    assert {int(length) for length in output_shapes(given(one_hot, context_length=1), EFFORT).table["length"]} == {1}
    assert output_shapes(given(one_hot, context_length=None), EFFORT).table["length"].max() == EFFORT.longest
    assert (
        "the stated context of 5,000 was tried up to 20"
        in output_shapes(given(one_hot, context_length=5000), EFFORT).summary
    )


def refuse_odd(ids: Tensor) -> Tensor:
    return one_hot(ids.view(len(ids), -1, 2).flatten(1) if ids.shape[1] not in (1, 3) else ids)


@pytest.mark.parametrize(
    ("answer", "batch", "length"),
    [
        pytest.param(refuse_odd, 2, 7, id="a reshape into pairs"),
        pytest.param(lambda ids: one_hot(ids[:, :15]), 2, 16, id="all but the full context"),
        pytest.param(lambda ids: one_hot(ids).squeeze(0), 1, 8, id="a batch of one is squeezed"),
        pytest.param(lambda ids: one_hot(ids).squeeze(1), 2, 1, id="a length of one is squeezed"),
        pytest.param(lambda ids: one_hot(ids).expand(2, -1, -1)[: len(ids)], 3, 8, id="for two rows only"),
        pytest.param(lambda ids: one_hot(ids)[..., : len(ids) + 9], 1, 8, id="logits by the batch"),
    ],
)
def test_a_shape_that_is_wrong_at_one_edge_fails_there(answer, batch, length):
    result = output_shapes(given(answer), EFFORT)
    assert result.status == "fail"
    bad = result.table[~result.table["sound"]]
    assert (batch, length) in set(zip(bad["batch"], bad["length"]))
    assert result.table["sound"].any()


def test_classes_are_a_row_of_logits_for_each_text_or_image():
    assert output_shapes(given(lambda ids: one_hot(ids).mean(1), "classifier"), EFFORT).status == "pass"
    vit = ViT(ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8))
    result = output_shapes(adapt(vit), EFFORT)
    assert (result.status, set(result.table["expected"])) == ("pass", {"(1, 3)", "(2, 3)", "(3, 3)"})


def past(config: TransformerConfig, model: type = GPT, rows=None) -> Adapter:
    """A model of 1,000 positions that states 16; `rows` makes those past the 16 from the table of all."""
    torch.manual_seed(0)
    made = model(config)
    tables = [made.positions.weight] if config.positions == "learned" else []
    tables += [getattr(made, name) for name in ("table", "cos", "sin") if hasattr(made, name)]
    with torch.no_grad():
        for table in tables if rows is not None else ():
            table[T:] = rows(table)
    return adapt(made, config=STATED)


@pytest.mark.parametrize("model", [GPT, BERT])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi"])
def test_positions_that_go_on_past_the_context_pass(positions, model):
    result = context_length(past(SHAPE.replace(positions=positions), model), EFFORT)
    assert (result.status, result.table is not None) == ("pass", True), str(result)
    assert "keep their places" in result.summary


@pytest.mark.parametrize(
    ("positions", "model"),
    [("learned", GPT), ("learned", BERT), ("sinusoidal", GPT), ("sinusoidal", BERT), ("rotary", BERT)],
)
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lambda table: table[T - 1], id="clamped"),
        pytest.param(lambda table: 0 * table[0], id="zero"),
        pytest.param(lambda table: table[0], id="all first"),
    ],
)
def test_positions_that_are_one_past_the_context_fail(positions, rows, model):
    adapter = past(SHAPE.replace(positions=positions), model, rows)
    assert context_length(adapter, EFFORT).status == "fail"


def test_positions_cut_off_by_the_mask_of_a_fixed_size_are_refused():
    def masked(ids: Tensor) -> Tensor:
        return one_hot(ids) + torch.zeros(T, V)[: ids.shape[1]]

    result = context_length(given(masked), EFFORT)
    assert result.status == "pass"
    assert "17 tokens are refused (RuntimeError" in result.summary


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi"])
def test_a_longer_input_that_is_refused_passes(positions):
    adapter = adapt(GPT(SHAPE.replace(positions=positions, context_length=T)))
    assert "17 tokens are refused" in context_length(adapter, EFFORT).summary


def test_no_positions_at_all_pass():
    torch.manual_seed(0)
    nope = GPT(SHAPE.replace(positions="alibi"))
    nope.slopes.zero_()  # a causal mask is all that tells the places apart (Haviv et al. 2022)
    assert context_length(adapt(nope, config=STATED), EFFORT).status == "pass"
    bag = given(lambda ids: one_hot(ids).cumsum(1))
    assert "do not matter within the context either" in context_length(bag, EFFORT).summary


def test_relative_positions_of_an_encoder_decoder_pass():
    torch.manual_seed(0)
    model = T5(T5Config(vocab_size=V, context_length=1000, num_layers=2, num_heads=2, width=16))
    assert context_length(adapt(model, config=STATED), EFFORT).status == "pass"


@pytest.mark.parametrize("kept", [slice(None, T), slice(-T, None)], ids=["first", "last"])
def test_an_input_that_is_cut_to_the_context_in_silence_fails(kept):
    adapter = given(lambda ids: one_hot(ids[:, kept]).cumsum(1))
    result = context_length(adapter, EFFORT)
    assert result.status == "fail"
    assert "16 outputs come" in result.summary


@pytest.mark.parametrize("part", [0.0, 0.05, 0.09, 0.11, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("loudness", [1.0, 5.0])
def test_places_past_the_context_must_do_a_tenth_of_what_they_do_within(part, loudness):
    # A token of id i at distance d (in places; past the context in `part` places) from the last adds i (1 - d / 10) to
    # one logit; past the context all of it counts `loudness` times. Moving it by one place then does 1 / 10 of i, its
    # share of i (1 - 2 / 10) is 1 / 8; past the context `part` / 10 of i (1 - 2 part / 10).
    def answer(ids: Tensor) -> Tensor:
        place = torch.arange(ids.shape[1]).double()
        place = torch.where(place < T, place, T - 1 + part * (place - T + 1))
        distance = place[:, None] - place[None, :]
        near = (1 - distance / 10).tril() * (loudness if ids.shape[1] > T else 1)
        heard = torch.einsum("ts,bs->bt", near, ids.double()) / 1e3
        return torch.cat((torch.ones(*ids.shape, 1), heard.unsqueeze(-1), torch.zeros(*ids.shape, V - 2)), -1)

    result = context_length(given(answer), EFFORT)
    within, past = result.table["share"]
    assert within == pytest.approx(1 / 8, rel=1e-3)
    assert past == pytest.approx((part / 10) / (1 - 2 * part / 10), rel=1e-3, abs=1e-5)
    assert result.status == ("pass" if past / within > 0.1 else "fail")
    assert (result.status == "fail") == (part < 0.125)  # 8 (part / 10) / (1 - part / 5) = 0.1 at part = 0.122


def test_the_context_is_checked_where_it_is_stated_and_within_reach():
    assert context_length(given(one_hot, context_length=None), EFFORT).status == "skip"
    assert context_length(given(one_hot, context_length=7), EFFORT).status == "skip"
    assert context_length(given(one_hot, context_length=21), EFFORT).status == "skip"
    assert context_length(given(one_hot, context_length=20), EFFORT).status == "pass"


def embedded(rows: int, outputs: int, kind: str = "causal_lm", hidden: bool = False) -> Adapter:
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(rows, 8), nn.Linear(8, outputs)

        def forward(self, input_ids: Tensor) -> Tensor | dict[str, Tensor]:
            x = self.embedding(input_ids)
            return {"last_hidden_state": x} if hidden else self.head(x)

    return adapt(Embedded(), kind=kind, config=STATED)


@pytest.mark.parametrize(
    ("rows", "outputs", "status"),
    [
        pytest.param(11, 11, "pass", id="equal"),
        pytest.param(11, 64, "pass", id="a head padded to 64"),
        pytest.param(64, 64, "pass", id="both padded"),
        pytest.param(10, 11, "fail", id="an embedding without the last id"),
        pytest.param(11, 10, "fail", id="a head without the last id"),
    ],
)
def test_every_id_has_a_row_and_a_logit(rows, outputs, status):
    assert vocabulary_range(embedded(rows, outputs), EFFORT).status == status


def test_a_classifier_and_hidden_states_owe_no_logit_for_each_id():
    assert vocabulary_range(given(lambda ids: one_hot(ids).mean(1)[:, :3], "classifier"), EFFORT).status == "pass"
    assert vocabulary_range(embedded(11, 1, hidden=True), EFFORT).status == "pass"
    vit = ViT(ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8))
    assert vocabulary_range(adapt(vit), EFFORT).status == "skip"


@pytest.mark.parametrize("bad", [0, V - 1])
def test_an_id_that_is_refused_is_named(bad):
    def picky(ids: Tensor) -> Tensor:
        if (ids[:, 1:] == bad).all():
            raise IndexError("not that one")
        return one_hot(ids)

    result = vocabulary_range(given(picky), EFFORT)
    assert result.status == "fail"
    assert f"id {bad} of a vocabulary of 11 is refused: IndexError: not that one" in result.summary


class Scaled(nn.Module):
    """Logits times a gain outside the state dict: 1 at first, and `step` more in each instance that is made."""

    def __init__(self, step: float, number: int):
        super().__init__()
        self.register_buffer("gain", torch.tensor(1 + step * number, dtype=torch.float64), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return one_hot(input_ids) * self.gain


@pytest.mark.parametrize(("step", "status"), [(0.0, "pass"), (0.7e-6, "pass"), (1.3e-6, "fail"), (0.1, "fail")])
def test_a_fresh_instance_may_differ_by_1e_6(step, status):
    made = itertools.count()
    adapter = adapt(Scaled(step, next(made)), kind="causal_lm", config=STATED, build=lambda: Scaled(step, next(made)))
    assert state_dict_round_trip(adapter, EFFORT).status == status


def test_weights_in_a_plain_attribute_are_lost():
    class Hidden(GPT):
        def __init__(self):
            super().__init__(SHAPE.replace(context_length=T))
            self.gain = 1 + 0.1 * torch.randn(V)

        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(input_ids) * self.gain

    assert state_dict_round_trip(adapt(Hidden(), build=Hidden), EFFORT).status == "fail"


def test_a_fresh_instance_of_another_shape_refuses_the_state_dict():
    small = SHAPE.replace(context_length=T)
    adapter = adapt(GPT(small), build=lambda: GPT(small.replace(num_layers=3)))
    result = state_dict_round_trip(adapter, EFFORT)
    assert result.status == "fail"
    assert "refuses the state dict" in result.summary


def test_without_a_way_to_build_the_state_dict_is_still_saved_and_loaded():
    result = state_dict_round_trip(adapt(GPT(SHAPE.replace(context_length=T))), EFFORT)
    assert result.status == "pass"
    assert "no fresh instance" in result.summary


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_trained_weights_tied_and_with_dropout_come_back(dropout):
    shape = SHAPE.replace(context_length=T, dropout=dropout, tie_embeddings=True)
    model = GPT(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    assert state_dict_round_trip(adapt(model, build=lambda: GPT(shape)), EFFORT).status == "pass"
