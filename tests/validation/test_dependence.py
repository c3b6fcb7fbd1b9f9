"""Dependence checks on models whose dependence has a known size, on both sides of each tolerance."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import Adapter, adapt
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.validation.dependence import (
    batch_independence,
    causality,
    change,
    eval_determinism,
    input_sensitivity,
    padding_invariance,
)
from utils.validation.steady import Effort

V, T = 11, 12
EFFORT = Effort(rows=2, length=8, longest=16, inputs=1, overfit_steps=3, repeats=2)
SHAPE = TransformerConfig(vocab_size=V, context_length=16, num_layers=2, num_heads=2, width=8, tie_embeddings=False)


class Plain(nn.Module):
    """Logits: 1 at the token itself, 0 elsewhere, and what `more(ids, mask)` adds to every logit of a position."""

    def __init__(self, more):
        super().__init__()
        self.more = more

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.one_hot(input_ids, V).float() + self.more(input_ids, None)


class Masked(Plain):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return F.one_hot(input_ids, V).float() + self.more(input_ids, attention_mask)


class Demanding(Plain):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return F.one_hot(input_ids, V).float() + self.more(input_ids, attention_mask)


def plain(more, kind: str = "causal_lm", of: type[Plain] = Plain, **config) -> Adapter:
    return adapt(of(more), kind=kind, config={"vocab_size": V, "context_length": T, **config})


def nothing(ids: Tensor, mask: Tensor | None) -> float:
    return 0.0


def later(ids: Tensor) -> Tensor:
    """The next token's id over V, (B, T, 1): what a leak of size 1 adds."""
    return F.pad(ids[:, 1:] / V, (0, 1)).unsqueeze(-1)


def test_a_change_is_the_largest_difference_over_the_largest_finite_number():
    one, inf, nan = torch.tensor([4.0, -8.0, 1.0]), float("inf"), float("nan")
    assert change(one, one) == 0
    assert change(one, one + torch.tensor([0.0, 0.0, 2.0])) == 2 / 8
    assert change(one[:1], one[:1] + 2, one) == 2 / 8
    assert change(torch.tensor([4.0, -inf]), torch.tensor([3.0, -inf])) == 1 / 4
    assert change(torch.tensor([4.0, -inf]), torch.tensor([4.0, 0.0])) == inf
    assert change(torch.tensor([4.0, 1.0]), torch.tensor([4.0, nan])) == inf
    assert change(torch.tensor([-inf]), torch.tensor([-inf])) == 0


@pytest.mark.parametrize(("size", "status"), [(0.9e-5, "fail"), (1.1e-5, "pass")])
def test_input_sensitivity_asks_for_a_change_of_1e_5(size, status):
    # 1 everywhere, and `size` more at the token itself: two inputs differ by `size` of the largest logit.
    adapter = plain(lambda ids, mask: 1 - (1 - size) * F.one_hot(ids, V))
    assert input_sensitivity(adapter, EFFORT).status == status


def test_a_zero_head_and_zero_output_projections_are_sensitive():
    model = GPT(SHAPE)
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "head.weight")):
            nn.init.zeros_(parameter)
    adapter = adapt(model)
    assert not adapter(adapter.batch(2, 8, seed=0)).any()  # every logit is 0 before training
    assert input_sensitivity(adapter, EFFORT).status == "pass"


def test_a_zero_head_over_a_deaf_trunk_is_not_sensitive():
    class Deaf(GPT):
        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(torch.zeros_like(input_ids))

    model = Deaf(SHAPE)
    nn.init.zeros_(model.head.weight)
    assert input_sensitivity(adapt(model), EFFORT).status == "fail"


def test_a_model_of_zeros_alone_is_left_to_the_check_of_its_initialisation():
    model = GPT(SHAPE)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert input_sensitivity(adapt(model), EFFORT).status == "skip"


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-5, 2e-5, 1e-4, 1.0])
@pytest.mark.parametrize("seed", [0, 5])
def test_causality_measures_a_leak_of_known_size(size, seed):
    adapter = plain(lambda ids, mask: size * later(ids))
    result = causality(adapter, EFFORT, seed=seed)
    one, two = (adapter.batch(2, EFFORT.length, seed=seed + shift)["input_ids"] for shift in (0, 1))
    largest = 1 + size * max(later(one)[row, t].item() for row in range(2) for t in range(8))
    assert result.table["tokens changed from"].tolist() == [1, 4, 7]
    for row in result.table.to_dict("records"):
        cut = row["tokens changed from"]  # only the position before the cut sees a changed token, the one at the cut
        leak = size * (one[:, cut] - two[:, cut]).abs().max().item() / V
        # The largest logit lies between 1 and 1 + size; a difference of float32 numbers near 1 is known to 1e-7.
        assert leak / (1 + size) - 2e-7 <= row["largest change before"] <= leak + 2e-7
        assert largest <= 1 + size
    assert result.status == ("fail" if result.table["largest change before"].max() > 1e-5 else "pass")
    if size in (0.0, 1e-6):
        assert result.status == "pass"  # at most 1e-6 of 1
    if size in (1e-4, 1.0):
        assert result.status == "fail"


def test_a_leak_that_depends_on_the_mask_is_found_and_told():
    without = causality(plain(lambda ids, mask: later(ids) if mask is None else 0.0, of=Masked), EFFORT)
    assert without.status == "fail"
    assert "leaks when no attention_mask is given" in without.summary
    with_mask = causality(plain(lambda ids, mask: 0.0 if mask is None else later(ids), of=Masked), EFFORT)
    assert with_mask.status == "fail"
    assert "no attention_mask" not in with_mask.summary
    assert sorted(set(without.table["attention_mask"])) == [False, True]


def test_a_mask_that_the_model_cannot_do_without_is_always_given():
    adapter = plain(lambda ids, mask: 0.0 * mask.unsqueeze(-1), of=Demanding)
    result = causality(adapter, EFFORT)
    assert result.status == "pass"
    assert set(result.table["attention_mask"]) == {True}


def test_causality_is_asked_of_causal_models_with_a_future():
    assert causality(plain(nothing, kind="masked_lm"), EFFORT).status == "skip"
    assert causality(plain(nothing, context_length=1), EFFORT).status == "skip"
    assert causality(plain(nothing, context_length=2), EFFORT).status == "pass"


def test_a_decoder_must_be_causal_and_its_encoder_need_not():
    shape = T5Config(vocab_size=V, context_length=16, num_layers=1, num_heads=2, width=8)
    model = T5(shape)
    assert causality(adapt(model), EFFORT).status == "pass"
    model.decoder.decoder = False  # its mask then hides padding alone
    assert causality(adapt(model), EFFORT).status == "fail"


@pytest.mark.parametrize(("size", "status"), [(0.9e-4, "pass"), (1.1e-4, "fail")])
@pytest.mark.parametrize("pad", [{}, {"pad_token_id": 3}], ids=["no pad id", "pad id 3"])
def test_padding_may_change_1e_4(size, status, pad):
    # 6 real tokens are padded to 12 (half of the context): every logit then rises by size * (12 - 6) / 6.
    adapter = plain(lambda ids, mask: size * (ids.shape[1] - 6) / 6, of=Masked, **pad)
    result = padding_invariance(adapter, EFFORT)
    assert result.status == status
    row = result.table.iloc[0]
    assert row["largest change"] == pytest.approx(size, rel=0.01)
    assert (row["padding"], row["of"]) == ("right", 6)
    assert row["filled with"] == ("id 3" if pad else "random tokens")


def test_padding_is_hidden_by_the_mask_and_has_the_padding_id():
    seen = []

    def note(ids: Tensor, mask: Tensor) -> float:
        seen.append((ids, mask))
        return 0.0

    assert padding_invariance(plain(note, "masked_lm", of=Demanding, pad_token_id=3), EFFORT).status == "pass"
    (alone, whole), (padded, mask) = seen[-2:]
    assert whole.all()
    assert not (alone == 3).any()
    assert torch.equal(padded[:, :6], alone)
    assert (padded[:, 6:] == 3).all()
    assert mask.tolist() == [[1] * 6 + [0] * 6] * 2


@pytest.mark.parametrize("size", [0.0, 1e-6, 5e-6, 5e-5, 9e-5, 1.0])
def test_what_stands_in_padding_on_the_left_may_change_1e_5_of_a_causal_model(size):
    seen = []

    def first(ids: Tensor, mask: Tensor | None) -> Tensor:
        """`size` times the first token's id, over V, padding or not."""
        seen.append(ids)
        return size * (ids[:, :1] / V).unsqueeze(-1)

    result = padding_invariance(plain(first, of=Masked), EFFORT)
    left, other = seen[-2:]
    assert not torch.equal(left[:, :6], other[:, :6])
    assert torch.equal(left[:, 6:], other[:, 6:])
    gap = size * ((left - other)[:, 0].abs().max().item()) / V
    table = result.table.set_index("padding")["largest change"]
    assert table["right"] == 0
    assert table["left"] == pytest.approx(gap, abs=2e-7 + 0.5 * gap * size)  # the largest logit: 1 to 1 + size
    assert size in (0.0, 1.0) or abs(gap - 1e-5) > 1e-6
    assert result.status == ("fail" if gap > 1e-5 else "pass")


class Pooled(nn.Module):
    """Classes from the mean of one-hot tokens: over real ones, or over all of them."""

    kind = "classifier"

    def __init__(self, *, real: bool):
        super().__init__()
        self.real = real

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = attention_mask if self.real else torch.ones_like(input_ids)
        tokens = F.one_hot(input_ids, V) * mask.unsqueeze(-1)
        return tokens.sum(1) / mask.sum(1, keepdim=True)


@pytest.mark.parametrize(("real", "status"), [(True, "pass"), (False, "fail")])
def test_a_pooling_over_padding_is_found(real, status):
    adapter = adapt(Pooled(real=real), config={"vocab_size": V, "context_length": T})
    assert padding_invariance(adapter, EFFORT).status == status


def test_padding_is_asked_of_models_that_take_a_mask_and_have_room():
    assert padding_invariance(plain(nothing), EFFORT).summary.startswith(
        "takes no attention_mask; padding on the right"
    )
    assert "was not checked" in padding_invariance(plain(nothing, kind="masked_lm"), EFFORT).summary
    assert padding_invariance(plain(nothing, of=Masked, context_length=1), EFFORT).status == "skip"
    assert padding_invariance(plain(nothing, of=Masked, context_length=2), EFFORT).status == "pass"
    assert padding_invariance(plain(nothing, of=Masked, context_length=None), EFFORT).status == "pass"


def mixing(size: float):
    """Adds `size` times the mean of the other rows' ids, over V."""
    return lambda ids, mask: size * ((ids.sum(0) - ids) / (len(ids) - 1 or 1) / V).unsqueeze(-1)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-5, 3e-5, 1e-4, 1.0])
def test_batch_independence_measures_a_mixing_of_known_size(size):
    adapter = plain(mixing(size))
    one, two = (adapter.batch(3, EFFORT.length, seed=shift)["input_ids"] for shift in (0, 1))
    gap = size * (one[1:].sum(0) - two[1:].sum(0)).abs().max().item() / 2 / V
    result = batch_independence(adapter, EFFORT)
    if size == 1.0:  # the largest logit is between 1 and 2
        assert gap / 2 > 1e-5
        assert result.status == "fail"
    else:
        assert abs(gap - 1e-5) > 1e-6  # neither side of the tolerance is a matter of rounding
        assert result.status == ("fail" if gap > 1e-5 else "pass")


def test_an_attention_that_takes_rows_for_places_is_found():
    class Confused(nn.Module):
        kind = "masked_lm"

        def __init__(self, *, batch_first: bool):
            super().__init__()
            self.embedding = nn.Embedding(V, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
            self.head = nn.Linear(8, V)

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embedding(input_ids)
            return self.head(x + self.attention(x, x, x, need_weights=False)[0])

    torch.manual_seed(0)
    for batch_first, status in ((True, "pass"), (False, "fail")):
        adapter = adapt(Confused(batch_first=batch_first), config={"context_length": T})
        assert batch_independence(adapter, EFFORT).status == status


@pytest.mark.parametrize(("size", "status"), [(0.8e-6, "pass"), (1.2e-6, "fail")])
def test_noise_in_eval_mode_may_be_1e_6(size, status):
    # 0 at an even seed and `size` at an odd one; the check draws from three seeds in a row.
    result = eval_determinism(plain(lambda ids, mask: -size * (torch.initial_seed() % 2)), EFFORT)
    assert result.status == status


def test_equal_infinities_are_no_dependence():
    forbidden = torch.zeros(V).index_fill(0, torch.tensor(2), -math.inf)
    adapter = plain(lambda ids, mask: forbidden, of=Masked)
    for check in (input_sensitivity, causality, padding_invariance, batch_independence, eval_determinism):
        assert check(adapter, EFFORT).status == "pass"
