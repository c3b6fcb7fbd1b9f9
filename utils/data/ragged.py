"""Rows of token ids of any length, in two flat files, memory-mapped.

NAME.ids.bin     uint16 or uint32, little-endian: row after row
NAME.ends.bin    int64: where each row ends
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.text import CorpusError


@dataclass(frozen=True)
class Ragged:
    """`rows[i]` is row i, (T_i,); `values` is all of them, one after the other."""

    values: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64"""
        return np.diff(self.ends, prepend=0)

    @classmethod
    def of(cls, rows: Iterable[np.ndarray]) -> Ragged:
        """Rows in memory."""
        rows = [np.asarray(row, np.int64) for row in rows]
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate(rows) if rows else np.empty(0, np.int64), ends)

    @staticmethod
    def write(folder: Path, name: str, rows: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
        """Write rows as they come; returns their lengths (N,)."""
        dtype = id_type(vocab_size)
        lengths = []
        with (folder / f"{name}.ids.bin").open("wb") as file:
            for row in rows:
                file.write(np.asarray(row).astype(dtype).tobytes())
                lengths.append(len(row))
        lengths = np.array(lengths, np.int64)
        np.cumsum(lengths).astype("<i8").tofile(folder / f"{name}.ends.bin")
        return lengths

    @classmethod
    def open(cls, folder: Path, name: str, vocab_size: int) -> Ragged:
        """Memory-map what `write` left. Raises `CorpusError` where a file was cut short."""
        ends = np.fromfile(folder / f"{name}.ends.bin", "<i8")
        path = folder / f"{name}.ids.bin"
        total = int(ends[-1]) if len(ends) else 0
        held = path.stat().st_size // id_type(vocab_size).itemsize
        if held != total:
            raise CorpusError(f"{path} holds {held} ids, and its ends say {total}: delete {folder} and prepare again.")
        values = np.memmap(path, id_type(vocab_size), mode="r") if total else np.empty(0, id_type(vocab_size))
        return cls(values, ends)


def id_type(vocab_size: int) -> np.dtype:
    """Two bytes an id up to 65,536 ids, four beyond."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
