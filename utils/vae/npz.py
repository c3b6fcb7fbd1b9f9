"""Grids in .npz files: read without pickle and checked cell by cell, written in the same bytes for the same arrays.

    grids (N, 30, 30) whole numbers, 0 to 9 in the grid at the top left, 10 outside it      heights, widths (N,)
    task_ids, source (N,) text

Of one's own files only `grids` is needed. Leaves out what the grids are for (`vae.data`).
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from utils.arc.grids import OUTSIDE, SIDE, sizes
from utils.data.text import CorpusError

log = logging.getLogger(__name__)
COLUMNS = ("heights", "widths", "task_ids", "source")


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """`grids` and COLUMNS of a file, checked. Raises `CorpusError` naming the file, and the first row at fault.

    Heights and widths that are not given are counted; without task ids each row is a task of its own.
    """
    path = Path(path)
    arrays = load_npz(path)
    grids = check_grids(arrays["grids"], path)
    columns = dict(zip(COLUMNS, (*sizes(grids), *_names(arrays, path, len(grids)))))
    for name in ("heights", "widths"):
        given = arrays.get(name, columns[name])
        if given.shape != columns[name].shape or given.dtype.kind not in "iu":
            raise CorpusError(f"{path}: {name} is {given.dtype} of shape {given.shape}; expected {len(grids)} integers")
        wrong = np.flatnonzero(given != columns[name])
        if len(wrong):
            row = wrong[0]
            raise CorpusError(
                f"{path}, row {row}: {name} says {given[row]}, and the grid has {columns[name][row]} ({len(wrong)} such"
                " rows); correct it, or leave the array out."
            )
        columns[name] = columns[name].astype(np.uint8)
    return {"grids": grids, **columns}


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """`grids` and those of COLUMNS that a file has, unchecked."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("grids", *COLUMNS) if name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise CorpusError(f"{path} cannot be read as .npz (without pickled objects): {error}") from None
    if "grids" not in arrays:
        raise CorpusError(f"{path} has no array named grids; expected (N, {SIDE}, {SIDE}) whole numbers, 0 to 10.")
    return arrays


def _names(arrays: Mapping[str, np.ndarray], path: Path, count: int) -> Iterator[np.ndarray]:
    """Task ids and sources as text; where not given, each row is a task of its own (which is said), and real."""
    if "task_ids" not in arrays:
        log.warning("%s has no array named task_ids: each grid counts as a task of its own.", path)
    defaults = {"task_ids": [f"{path.stem}/{row}" for row in range(count)], "source": ["real"] * count}
    for name, default in defaults.items():
        column = arrays.get(name, np.array(default, np.str_))
        if column.shape != (count,) or column.dtype.kind not in "Uiu":
            raise CorpusError(f"{path}: {name} is {column.dtype} of shape {column.shape}; expected {count} texts.")
        yield column.astype(np.str_)


def check_grids(grids: np.ndarray, path: Path | str) -> np.ndarray:
    """Canvases as uint8. Raises `CorpusError` for the first row that is no grid in the top-left corner of a canvas."""
    if grids.ndim != 3 or grids.shape[1:] != (SIDE, SIDE) or grids.dtype.kind not in "iu" or not len(grids):
        raise CorpusError(
            f"{path}: grids is {grids.dtype} of shape {grids.shape}; expected whole numbers of shape (N, {SIDE},"
            f" {SIDE}), each grid at the top left and {OUTSIDE} around it."
        )
    odd = ((grids < 0) | (grids > OUTSIDE)).any((1, 2))
    heights, widths = sizes(grids)
    place = np.arange(SIDE)
    box = (place[:, None] < heights[:, None, None]) & (place < widths[:, None, None])
    ragged = ((grids != OUTSIDE) != box).any((1, 2)) | (heights == 0)
    for row in np.flatnonzero(odd | ragged)[:1]:
        if odd[row]:
            r, c = np.argwhere((grids[row] < 0) | (grids[row] > OUTSIDE))[0]
            fault = f"holds {grids[row, r, c]} at ({r}, {c}); expected 0 to 9, and {OUTSIDE} outside the grid"
        elif heights[row] == 0:
            fault = f"has no cell inside the grid: every value is {OUTSIDE}"
        else:
            r, c = np.argwhere((grids[row] != OUTSIDE) != box[row])[0]
            fault = (
                f"holds {OUTSIDE} (outside) at ({r}, {c}), within its {heights[row]}x{widths[row]} cells; expected a"
                " full rectangle from the top left"
            )
        raise CorpusError(f"{path}, row {row}: {fault} ({int((odd | ragged).sum())} such rows).")
    return grids.astype(np.uint8)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write arrays as .npz and return the file's sha256. Equal arrays make equal bytes: the entries bear no time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, on every system
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
            archive.writestr(entry, content.getbuffer(), zipfile.ZIP_DEFLATED, 6)
    return hashlib.sha256(path.read_bytes()).hexdigest()
