"""The order of batches: every row once, a function of (seed, epoch), taken up anywhere; bucketing saves padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.data.batches import Draw, TokenRows, TokenWindows
from utils.data.collate import padded

LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)


def rows(lengths=LENGTHS) -> TokenRows:
    """Batches that hold their row numbers, and a number that is drawn."""

    def collate(index, draw):
        numbers = np.concatenate(
            [generator.random(part.stop - part.start) for generator, part in draw.generators(index)]
        )
        return {"rows": torch.tensor(index), "drawn": torch.tensor(numbers)}

    return TokenRows(collate, np.asarray(lengths), len(lengths))


def windows(length: int, block_size: int) -> TokenWindows:
    """Token t is the number t."""

    def collate(blocks, numbers, draw):
        ids, mask = padded(blocks, -1)
        return {"ids": torch.tensor(ids), "mask": torch.tensor(mask), "rows": torch.tensor(numbers)}

    return TokenWindows(collate, np.arange(length, dtype=np.uint16), block_size)


def same(left: list[dict], right: list[dict]) -> bool:
    return len(left) == len(right) and all(torch.equal(a[key], b[key]) for a, b in zip(left, right) for key in a)


@pytest.mark.parametrize("seed", [None, 0, 3])
@pytest.mark.parametrize(("number", "batch_size"), [(1, 1), (7, 3), (999, 8), (1000, 8), (5, 50)])
def test_an_epoch_has_every_row_once(number, batch_size, seed):
    split = rows(LENGTHS[:number])
    for epoch in range(3):
        batches = list(split.batches(batch_size, seed=seed, epoch=epoch))
        assert len(batches) == split.num_batches(batch_size, seed=seed, epoch=epoch) == -(-number // batch_size)
        assert sorted(torch.cat([batch["rows"] for batch in batches]).tolist()) == list(range(number))
        assert sorted(len(batch["rows"]) for batch in batches)[1:] == [batch_size] * (len(batches) - 1)


@pytest.mark.parametrize("split", [rows(), windows(2001, 16)], ids=["rows", "windows"])
def test_starting_at_a_batch_goes_on_with_the_very_sequence(split):
    for seed, epoch in ((None, 0), (5, 0), (5, 3)):
        whole = list(split.batches(32, seed=seed, epoch=epoch))
        for start in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
            assert same(list(split.batches(32, seed=seed, epoch=epoch, start=start)), whole[start:])


@pytest.mark.parametrize("split", [rows, lambda: windows(2001, 16)], ids=["rows", "windows"])
def test_the_order_is_a_function_of_seed_and_epoch(split):
    order = {(seed, epoch): list(split().batches(8, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    for key, batches in order.items():
        assert same(list(split().batches(8, seed=key[0], epoch=key[1])), batches)
        assert not any(same(batches, other) for other_key, other in order.items() if other_key != key)


def test_bucketing_leaves_a_tenth_of_the_padding_of_a_shuffle():
    """Lengths 1 to 199 evenly. Shuffled batches of 32 are padded to about 194, so about 1 - 100 / 194 = 48% of the
    places hold padding; sorted in stretches of 7 batches (1000 // (4 * 32)), 224 rows, a batch spans about 1/7 of the
    lengths, 28: about 14 places of each row's 114 on average, 12%."""
    split = rows()
    shuffled = np.random.default_rng(1).permutation(1000)
    padding = 1 - LENGTHS.sum() / sum(
        LENGTHS[part].max() * len(part) for part in np.split(shuffled, range(32, 1000, 32))
    )
    assert padding == pytest.approx(0.48, abs=0.02)
    assert split.padding(32, seed=0) == pytest.approx(0.12, abs=0.03)
    assert split.padding(1, seed=0) == 0


def test_the_share_of_padding_is_that_of_the_batches():
    pairs = np.stack([LENGTHS, LENGTHS[::-1]], 1)
    for lengths in (LENGTHS, pairs):
        split = rows(lengths)
        places = held = 0
        for batch in split.batches(16, seed=2, epoch=1):
            part = np.atleast_2d(lengths[batch["rows"].numpy()].T)
            places += sum(len(column) * max(column) for column in part)
            held += part.sum()
        assert split.padding(16, seed=2, epoch=1) == pytest.approx(1 - held / places)


def test_batches_of_one_length_come_in_any_order_and_hold_other_rows_each_epoch():
    split = rows()
    means = [LENGTHS[index].mean() for index in split.order(32, seed=0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.6  # short ones are not first
    first, second = ({tuple(sorted(index)) for index in split.order(32, seed=0, epoch=epoch)} for epoch in (0, 1))
    assert not first & second


def test_what_is_drawn_for_evaluation_belongs_to_the_row_and_for_training_to_the_batch():
    split = rows()
    small, large = (torch.cat([batch["drawn"] for batch in split.batches(size)]).tolist() for size in (7, 64))
    assert small == large
    assert len(set(small)) == 1000
    drawn = [batch["drawn"].tolist() for epoch in (0, 1) for batch in split.batches(64, seed=0, epoch=epoch)]
    assert len({tuple(numbers) for numbers in drawn}) == len(drawn)


def test_training_never_draws_what_evaluation_draws():
    training = Draw(0, 0, 0).generators([0])[0][0].random()
    assert training != Draw(None, 0, 0).generators([0])[0][0].random()


@pytest.mark.parametrize("seed", [None, 0, 3])
@pytest.mark.parametrize(("length", "block_size"), [(1, 2), (8, 8), (9, 8), (300, 7)])
def test_windows_hold_every_token_once_in_unbroken_pieces(length, block_size, seed):
    split = windows(length, block_size)
    for epoch in range(4):
        batches = list(split.batches(3, seed=seed, epoch=epoch))
        assert len(batches) == split.num_batches(3, seed=seed, epoch=epoch)
        found = []
        for batch in batches:
            for ids, mask in zip(batch["ids"], batch["mask"]):
                piece = ids[mask == 1]
                assert 1 <= len(piece) <= block_size
                assert torch.equal(piece, torch.arange(piece[0], piece[0] + len(piece)))
                found += piece.tolist()
        assert sorted(found) == list(range(length))
        numbers = torch.cat([batch["rows"] for batch in batches]).tolist()
        assert len(set(numbers)) == len(numbers)


def test_an_empty_split_has_no_batches():
    for split in (rows([]), windows(0, 8)):
        assert (split.targets, split.num_batches(4), list(split.batches(4))) == (0, 0, [])
