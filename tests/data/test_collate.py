"""What a batch of each task holds: -100 exactly on padding, targets where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.data.batches import Draw
from utils.data.collate import Classes, MaskedTokens, NextTokens, Pairs, Spans, padded
from utils.data.masking import rebuild
from utils.data.ragged import Ragged
from utils.data.special import Special

BERT = Special(pad=0, end=3, mask=4, unknown=1, before=(2,), between=(3,), after=(3,), ids=frozenset(range(5)))
T5 = Special(pad=0, end=1, sentinels=tuple(range(2, 40)), after=(1,), ids=frozenset(range(40)))
TEXTS = [np.arange(50, 50 + length) for length in (7, 1, 4, 60)]
TARGETS = [np.array([90, 91, 1]), np.array([1]), np.array([92, 93, 94, 95, 1]), np.array([96, 1])]
ROWS = np.array([2, 0, 1])
TRAIN, FIXED = Draw(0, 0, 0), Draw(None, 0, 0)


def check(batch: dict[str, torch.Tensor]) -> None:
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_rows_are_padded_on_the_right_to_the_longest():
    ids, mask = padded([np.array([5, 6, 7]), np.array([], np.int64), np.array([8])], 9)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 9], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_next_tokens_ask_for_the_token_after_each_and_nothing_on_padding():
    batch = NextTokens(Ragged.of([np.array([5, 6, 7]), np.array([8, 9])]), T5)(np.array([1, 0]), TRAIN)
    check(batch)
    assert batch["input_ids"].tolist() == [[8, 0], [5, 6]]
    assert batch["labels"].tolist() == [[9, -100], [6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_classes_come_with_the_rows():
    batch = Classes(Ragged.of(TEXTS), np.array([0, 1, 2, 3]), BERT)(ROWS, TRAIN)
    check(batch)
    assert batch["labels"].tolist() == [2, 0, 1]
    assert batch["attention_mask"].sum(1).tolist() == [4, 7, 1]
    assert batch["input_ids"][2].tolist() == [50, 0, 0, 0, 0, 0, 0]


def test_pairs_are_forced_by_their_target_moved_right():
    batch = Pairs(Ragged.of(TEXTS), Ragged.of(TARGETS), T5, 0)(ROWS, TRAIN)
    check(batch)
    assert batch["labels"].tolist() == [
        [92, 93, 94, 95, 1], [90, 91, 1, -100, -100], [1, -100, -100, -100, -100],
    ]  # fmt: skip
    assert batch["decoder_input_ids"].tolist() == [[0, 92, 93, 94, 95], [0, 90, 91, 1, 0], [0, 1, 0, 0, 0]]
    assert torch.equal(batch["decoder_attention_mask"], (batch["labels"] != -100).long())
    assert batch["attention_mask"].sum(1).tolist() == [4, 7, 1]


def test_another_start_token_goes_first():
    batch = Pairs(Ragged.of(TEXTS), Ragged.of(TARGETS), T5, 33)(ROWS, TRAIN)
    assert batch["decoder_input_ids"][:, 0].tolist() == [33, 33, 33]


@pytest.mark.parametrize("draw", [TRAIN, FIXED], ids=["training", "evaluation"])
def test_masked_tokens_ask_only_for_chosen_ones_and_never_for_padding_or_special_ones(draw):
    rows = [BERT.around(text) for text in TEXTS]
    collate = MaskedTokens(BERT, 200, 0.3, Ragged.of(rows))
    batch = collate(np.arange(4), draw)
    check(batch)
    plain, mask = padded(rows, 0)
    plain = torch.from_numpy(plain)
    asked = batch["labels"] != -100
    assert torch.equal(batch["labels"][asked], plain[asked])  # the labels are the original ids
    assert torch.equal(batch["input_ids"][~asked], plain[~asked])  # nothing else is changed
    assert not asked[(plain < 5) | (torch.from_numpy(mask) == 0)].any()
    assert asked.any(1).all()


def test_masks_of_evaluation_are_the_same_in_any_company():
    collate = MaskedTokens(BERT, 200, 0.3, Ragged.of([BERT.around(text) for text in TEXTS]))
    together = collate(np.array([3, 0]), FIXED)
    alone = collate(np.array([0]), FIXED)
    for name in ("input_ids", "labels"):
        assert torch.equal(together[name][1, :9], alone[name][0])  # 7 ids and two marks
    assert torch.equal(collate(np.array([0]), FIXED)["labels"], alone["labels"])


def test_masks_of_training_change_with_the_batch():
    collate = MaskedTokens(BERT, 200, 0.3, Ragged.of([TEXTS[3]]))
    drawn = {
        collate(np.array([0]), Draw(*key))["labels"].numpy().tobytes()
        for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    }
    assert len(drawn) == 4


@pytest.mark.parametrize("draw", [TRAIN, FIXED], ids=["training", "evaluation"])
def test_spans_rebuild_the_text(draw):
    blocks = [np.arange(50, 150), np.arange(60, 63), np.arange(70, 150)]
    batch = Spans(T5, 0, 0.15, 3.0)(blocks, np.arange(3), draw)
    check(batch)
    for row, block in enumerate(blocks):
        source = batch["input_ids"][row][batch["attention_mask"][row] == 1].numpy()
        target = batch["labels"][row][batch["labels"][row] != -100].numpy()
        assert (source[-1], target[-1]) == (1, 1)
        assert rebuild(source[:-1], target[:-1], sentinels=T5.sentinels).tolist() == block.tolist()
        assert batch["decoder_input_ids"][row, 1 : len(target)].tolist() == target[:-1].tolist()
