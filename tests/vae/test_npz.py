"""Grids in .npz files: the same bytes for the same arrays, and what is said of a file that is no such thing."""

import hashlib
import os
import time

import numpy as np
import pytest

from utils.arc.grids import to_canvas
from utils.data.text import CorpusError
from utils.vae.npz import read_npz, write_npz


@pytest.fixture
def grids():
    return np.stack([to_canvas(np.full((rows, rows + 1), rows)) for rows in range(1, 6)])


def test_equal_arrays_make_equal_bytes_at_any_time(tmp_path, grids, monkeypatch):
    first = write_npz(tmp_path / "a.npz", {"grids": grids, "task_ids": np.array(["a", "bb"])})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    assert write_npz(tmp_path / "b.npz", {"grids": grids, "task_ids": np.array(["a", "bb"])}) == first
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest() == first
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["grids"], grids)
        assert file["task_ids"].tolist() == ["a", "bb"]


def test_grids_alone_are_enough_and_the_rest_is_counted(tmp_path, grids):
    np.savez(tmp_path / "mine.npz", grids=grids.astype(np.int64))
    arrays = read_npz(tmp_path / "mine.npz")
    assert arrays["grids"].dtype == np.uint8
    assert arrays["heights"].tolist() == [1, 2, 3, 4, 5]
    assert arrays["widths"].tolist() == [2, 3, 4, 5, 6]
    assert arrays["task_ids"].tolist() == [f"mine/{row}" for row in range(5)]
    assert arrays["source"].tolist() == ["real"] * 5


def put(grids, row, cell, value):
    changed = grids.astype(np.int64)
    changed[(row, *cell)] = value
    return {"grids": changed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: put(g, 2, (0, 1), 11), r"mine.npz, row 2: holds 11 at \(0, 1\); expected 0 to 9, and 10 outside"),
        (lambda g: put(g, 0, (29, 29), -1), r"mine.npz, row 0: holds -1 at \(29, 29\)"),
        (lambda g: put(g, 4, (1, 1), 10), r"row 4: holds 10 \(outside\) at \(1, 1\), within its 5x6 cells"),
        (lambda g: put(g, 1, (9, 9), 3), r"row 1: holds 10 .* at \(0, 3\), within its 10x10 cells"),
        (lambda g: put(g, 3, (slice(None), slice(None)), 10), "row 3: has no cell inside the grid"),
        (lambda g: put(g, slice(1, 5), (0, 0), 99), r"row 1: holds 99 at \(0, 0\).* \(4 such rows\)"),
        (lambda g: {"grids": g, "heights": np.array([1, 2, 7, 4, 5])}, "row 2: heights says 7, and the grid has 3"),
        (lambda g: {"grids": g, "widths": np.arange(4)}, r"widths is int64 of shape \(4,\); expected 5 integers"),
        (lambda g: {"grids": g, "task_ids": np.array(["a"])}, r"task_ids is <U1 of shape \(1,\); expected 5 texts"),
        (lambda g: {"grids": g[0]}, r"grids is uint8 of shape \(30, 30\); expected whole numbers"),
        (lambda g: {"grids": g.astype(float)}, r"grids is float64 of shape \(5, 30, 30\)"),
        (lambda g: {"grids": g[:0]}, r"grids is uint8 of shape \(0, 30, 30\)"),
        (lambda g: {"grid": g}, "mine.npz has no array named grids"),
        (lambda g: {"grids": np.array([None, "a"], object)}, "cannot be read as .npz .without pickled objects."),
    ],
)
def test_a_bad_array_is_named_with_file_and_row(tmp_path, grids, change, message):
    np.savez(tmp_path / "mine.npz", **change(grids))
    with pytest.raises(CorpusError, match=message):
        read_npz(tmp_path / "mine.npz")


def test_a_pickle_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "mine.npz", grids=np.array([Trap()], object))
    np.save(tmp_path / "two.npy", np.array([Trap()], object))
    (tmp_path / "two.npy").rename(tmp_path / "two.npz")
    for name in ("mine.npz", "two.npz"):
        with pytest.raises(CorpusError, match=f"{name} cannot be read"):
            read_npz(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"text", lambda b: b[:-100], lambda b: b[:60] + b[90:]])
def test_a_damaged_file_is_named(tmp_path, grids, damage):
    path = tmp_path / "mine.npz"
    write_npz(path, {"grids": grids})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorpusError, match="mine.npz cannot be read as .npz"):
        read_npz(path)


def test_one_array_without_an_archive_is_no_npz(tmp_path, grids):
    np.save(tmp_path / "mine.npy", grids)
    (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    with pytest.raises(CorpusError, match="mine.npz cannot be read as .npz"):
        read_npz(tmp_path / "mine.npz")
