"""Objectives against hand computations; padding, cuts and shares change nothing."""

import math

import pytest
import torch
from torch.testing import assert_close

from utils.training.objectives import IGNORED, count_targets, micro_batches, next_token, shard, token_metrics


def test_token_metrics_equal_a_hand_computation():
    # Odds 3:1, 1:1 and 1:3 for the classes 0 and 1; the last row is padding.
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]).log().view(2, 2, 2)
    labels = torch.tensor([[0, 1], [0, IGNORED]])
    values = token_metrics(logits, labels)
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4)) / 3
    assert values["loss"].item() == pytest.approx(expected)
    assert values["accuracy"].item() == pytest.approx(1 / 3)  # argmax: 0 (right), 0 of a tie (wrong), 1 (wrong)


def test_no_target_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    values = token_metrics(logits, torch.full((2, 3), IGNORED))
    values["loss"].backward()
    assert values["loss"] == values["accuracy"] == 0
    assert (logits.grad == 0).all()


def test_loss_of_half_precision_logits_is_computed_in_fp32():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(4)
    assert token_metrics(logits, labels)["loss"] == token_metrics(logits.float(), labels)["loss"]


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "alibi"])
@pytest.mark.parametrize("pad_id", [0, 4, 9])  # 9 is the last id, where an end-of-text token would stand
@pytest.mark.parametrize("side", ["left", "right", "rows"])
def test_padding_changes_no_loss(positions, pad_id, side, tiny_model):
    model = tiny_model(positions=positions, context_length=12).eval()
    ids = torch.randint(10, (3, 9), generator=torch.Generator().manual_seed(0))
    plain = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    pad = torch.full((3, 8 if side == "rows" else 4), pad_id)
    parts = {"input_ids": [plain["input_ids"], pad], "labels": [plain["labels"], torch.full_like(pad, IGNORED)]}
    parts["attention_mask"] = [torch.ones(3, 8, dtype=torch.long), torch.zeros_like(pad)]
    if side == "left":
        parts = {name: pieces[::-1] for name, pieces in parts.items()}
    else:
        del parts["attention_mask"]  # needed on the left alone
    padded = {name: torch.cat(pieces, dim=0 if side == "rows" else 1) for name, pieces in parts.items()}
    assert count_targets(padded) == count_targets(plain) == 24
    assert_close(next_token(model, padded, 0), next_token(model, plain, 0))


@pytest.mark.parametrize(("rows", "world"), [(6, 2), (7, 2), (1, 3)])
def test_shares_of_processes_are_equal_and_hold_every_target_once(rows, world):
    ids = torch.arange(rows * 4).view(rows, 4)
    batch = {"input_ids": ids, "labels": ids + 100, "attention_mask": torch.ones_like(ids)}
    parts = [shard(batch, rank, world) for rank in range(world)]
    assert {tuple(value.shape) for part in parts for value in part.values()} == {(math.ceil(rows / world), 4)}
    labels = torch.cat([part["labels"] for part in parts])
    assert sorted(labels[labels != IGNORED].tolist()) == (ids + 100).flatten().tolist()
    for part in parts:
        real = part["labels"] != IGNORED
        assert torch.equal(part["labels"][real], part["input_ids"][real] + 100)


def test_uneven_rows_without_labels_are_refused():
    with pytest.raises(ValueError, match="3 rows cannot be shared by 2"):
        shard({"images": torch.zeros(3, 2)}, 0, 2)


def test_micro_batches_cut_rows_in_order_with_the_rest_last():
    batch = {"input_ids": torch.arange(10).view(5, 2), "labels": torch.arange(10).view(5, 2)}
    parts = micro_batches(batch, 2)
    assert [len(part["labels"]) for part in parts] == [2, 2, 1]
    assert all(torch.equal(torch.cat([part[name] for part in parts]), batch[name]) for name in batch)
    assert micro_batches(batch, None) == [batch]


def test_rows_are_the_targets_where_there_are_no_labels():
    assert count_targets({"images": torch.zeros(3, 2)}) == 3
