"""Batches of grids: every grid once an epoch, in an order that can be taken up again; and a folder of one's own."""

import logging

import numpy as np
import pytest
import torch

from utils.arc.grids import from_canvas, keys, to_canvas
from utils.data.text import CorpusError
from utils.training.config import TrainConfig
from utils.training.evaluate import evaluate
from utils.vae.augment import AugmentConfig
from utils.vae.data import GridSplit, content_fingerprint, open_corpus
from utils.vae.npz import write_npz


def split(count, online=None, seed=0):
    """`count` random grids, distinct with all but certainty."""
    rng = np.random.default_rng(seed)
    grids = [rng.integers(10, size=shape, dtype=np.uint8) for shape in rng.integers(3, 31, (count, 2))]
    heights, widths = np.array([grid.shape for grid in grids], np.uint8).T
    ids = np.array([f"task{number // 2}" for number in range(count)])
    columns = (np.stack(list(map(to_canvas, grids))), heights, widths, ids, np.full(count, "real"))
    return GridSplit(*columns, online or AugmentConfig(d4=False, colours=False))


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a[name], b[name]) for a, b in zip(one, other) for name in a)


def test_an_epoch_holds_every_grid_once_and_the_last_batch_what_is_left():
    data = split(50)
    for seed in (None, 3):
        batches = list(data.batches(16, seed=seed, epoch=2))
        assert [len(batch["grids"]) for batch in batches] == [16, 16, 16, 2]
        assert data.num_batches(16, seed=seed) == 4
        seen = keys(np.concatenate([batch["grids"].numpy() for batch in batches]))
        assert sorted(seen) == sorted(keys(data.grids))
        assert (seen == keys(data.grids)) == (seed is None)
    assert batches[0]["grids"].dtype == torch.uint8
    assert batches[0]["heights"].dtype == batches[0]["widths"].dtype == torch.int64


def test_batches_are_a_function_of_seed_and_epoch_from_any_start_also_augmented():
    data = split(40, AugmentConfig())
    epoch = list(data.batches(8, seed=1, epoch=1))
    assert same(epoch, list(data.batches(8, seed=1, epoch=1)))
    assert same(epoch[3:], list(data.batches(8, seed=1, epoch=1, start=3)))
    assert not same(epoch, list(data.batches(8, seed=1, epoch=2)))
    assert not same(epoch, list(data.batches(8, seed=2, epoch=1)))


def test_training_batches_are_augmented_and_others_are_not():
    data = split(40, AugmentConfig())
    known = set(keys(data.grids))
    for seed, least, most in [(None, 40, 40), (0, 0, 10)]:
        seen = [key for batch in data.batches(8, seed=seed) for key in keys(batch["grids"].numpy())]
        assert least <= sum(key in known for key in seen) <= most
    for batch in data.batches(8, seed=0):
        for canvas, height, width in zip(batch["grids"], batch["heights"], batch["widths"]):
            assert from_canvas(canvas.numpy()).shape == (height, width)


def test_spread_rows_are_distinct_in_order_and_reach_both_ends():
    some = split(10)
    assert some.spread(None).tolist() == some.spread(10).tolist() == some.spread(99).tolist() == list(range(10))
    assert some.spread(4).tolist() == [0, 3, 6, 9]
    assert some.spread(1).tolist() == [0]
    for most in range(2, 11):
        rows = some.spread(most)
        assert len(set(rows.tolist())) == most
        assert (rows[0], rows[-1]) == (0, 9)


def test_batches_are_copies():
    data = split(4)
    before = data.grids.copy()
    for batch in data.batches(4):
        batch["grids"].fill_(0)
    np.testing.assert_array_equal(data.grids, before)


def test_evaluate_weighs_batches_by_their_grids():
    """The mean height over 10 grids in batches of 4, 4 and 2."""
    data = split(10)

    def objective(model, batch, step):
        return {"loss": batch["heights"].float().mean()}

    result = evaluate(
        torch.nn.Linear(1, 1), objective, data, TrainConfig(max_steps=1, warmup_steps=0, batch_size=4, device="cpu")
    )
    assert result["loss"] == pytest.approx(data.heights.mean())


def write(folder, **splits):
    folder.mkdir(exist_ok=True)
    for name, part in splits.items():
        write_npz(folder / f"{name}.npz", part.arrays())


@pytest.fixture
def own(tmp_path):
    parts = {"train": split(20), "validation": split(5, seed=1), "test": split(5, seed=2)}
    write(tmp_path / "own", **parts)
    return tmp_path / "own", parts


def test_a_folder_of_ones_own_opens_as_what_it_holds(own):
    folder, parts = own
    data = open_corpus(folder)
    for name, part in parts.items():
        for column, array in getattr(data, name).arrays().items():
            np.testing.assert_array_equal(array, part.arrays()[column])
    assert data.manifest["fingerprint"] == content_fingerprint(parts)
    assert data.train.online == AugmentConfig()
    assert data.validation.online.idle
    assert "<td>train</td><td>20</td><td>10</td><td>20</td>" in data._repr_html_()
    assert repr(data).startswith("grids: train 20, validation 5, test 5; ")


def test_fingerprints_differ_with_the_grids_their_split_and_their_augmentation(own):
    folder, parts = own
    first = open_corpus(folder).fingerprint
    assert open_corpus(folder).fingerprint == first
    assert open_corpus(folder, AugmentConfig(d4=False)).fingerprint != first
    changed = split(20)
    changed.grids[7, 0, 0] = (changed.grids[7, 0, 0] + 1) % 10
    swapped = {**parts, "validation": parts["test"], "test": parts["validation"]}
    prints = [content_fingerprint(one) for one in (parts, {**parts, "train": changed}, swapped)]
    assert len(set(prints)) == 3


def test_a_bad_row_of_ones_own_is_named(own):
    folder, parts = own
    parts["validation"].grids[3, 0, 0] = 10
    write(folder, validation=parts["validation"])
    with pytest.raises(CorpusError, match=r"validation.npz, row 3: holds 10 .outside. at \(0, 0\)"):
        open_corpus(folder)


def test_a_missing_split_is_named(own):
    folder, _ = own
    (folder / "test.npz").unlink()
    with pytest.raises(CorpusError, match="has no test.npz; expected train.npz, validation.npz and test.npz"):
        open_corpus(folder)


def test_grids_in_two_splits_of_ones_own_are_warned_of(own, caplog):
    folder, parts = own
    with caplog.at_level(logging.WARNING):
        open_corpus(folder)
    assert not caplog.messages
    turned = to_canvas(np.rot90(from_canvas(parts["train"].grids[0])))
    parts["test"].grids[0] = turned
    heights, widths = parts["train"].widths[0], parts["train"].heights[0]
    parts["test"].heights[0], parts["test"].widths[0] = heights, widths
    write(folder, test=parts["test"])
    with caplog.at_level(logging.WARNING):
        open_corpus(folder)
    assert [message[:40] for message in caplog.messages] == ["1 of the 5 grids of test equal one of an"]
