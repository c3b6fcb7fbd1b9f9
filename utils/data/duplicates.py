"""Rows of one split that another has too, exactly or nearly. Time and memory grow with the number of words.

    exact   the very same text
    near    not exact, and at least `NEAR` of the row's shingles are in the other split (in any of its rows)

A shingle is a run of `SHINGLE` words (of `splits.normalised`, so case, spacing and punctuation do not count); a text of
fewer words has one shingle: all of it. So a text with another spelling of a word is near where it is long, and what was
copied out of a longer text is found too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.splits import normalised

SHINGLE = 5
NEAR = 0.8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing modulo 2**64


@dataclass(frozen=True)
class Prints:
    """The fingerprints of a split's texts: one a text, and those of its shingles (`texts[i]` of the `i`-th)."""

    whole: np.ndarray
    """(N,) uint64"""
    shingles: np.ndarray
    """(S,) uint64, text after text"""
    owner: np.ndarray
    """(S,) the text that each shingle is of"""


@dataclass(frozen=True)
class Overlap:
    """Which rows of a split are in another: two boolean arrays (N,), of which no row is in both."""

    exact: np.ndarray
    near: np.ndarray

    @property
    def any(self) -> np.ndarray:
        return self.exact | self.near


def prints(texts: Iterable[str]) -> Prints:
    """The fingerprints of texts."""
    whole, words, lengths = [], [], []
    known: dict[str, int] = {}
    for text in texts:
        whole.append(_hash(text))
        own = normalised(text).split() or [text]
        lengths.append(len(own))
        for word in own:
            if word not in known:
                known[word] = _hash(word)
            words.append(known[word])
    return _shingled(np.array(whole, np.uint64), np.array(words, np.uint64), np.array(lengths, np.int64))


def prints_of_ids(rows: Iterable[np.ndarray]) -> Prints:
    """The fingerprints of token ids, each id as a word."""
    rows = [np.asarray(row, np.int64) for row in rows]
    whole = np.array([_hash(row.tobytes()) for row in rows], np.uint64)
    flat = np.concatenate(rows) if rows else np.empty(0, np.int64)
    lengths = np.array([len(row) for row in rows], np.int64)
    words = (flat.astype(np.uint64) + np.uint64(1)) * _FACTOR
    return _shingled(whole, words ^ (words >> np.uint64(29)), lengths)


def overlap(split: Prints, others: Sequence[Prints]) -> Overlap:
    """Which of the split's texts are in the others."""
    exact = np.isin(split.whole, np.concatenate([other.whole for other in others] or [np.empty(0, np.uint64)]))
    known = np.concatenate([other.shingles for other in others] or [np.empty(0, np.uint64)])
    found = np.bincount(split.owner, np.isin(split.shingles, known), minlength=len(split.whole))
    number = np.bincount(split.owner, minlength=len(split.whole))
    near = (found >= NEAR * number) & (number > 0) & ~exact
    return Overlap(exact, near)


def repeated(split: Prints) -> int:
    """Rows that are exactly an earlier row of the same split."""
    return len(split.whole) - len(np.unique(split.whole))


def _shingled(whole: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> Prints:
    """The shingle of words i to i + 4 is the sum over k of word[i + k] * factor**(k + 1), modulo 2**64."""
    ends = np.cumsum(lengths)
    begins = ends - lengths
    number = np.maximum(lengths - SHINGLE + 1, np.minimum(lengths, 1))  # shingles of each text
    owner = np.repeat(np.arange(len(lengths)), number)
    first = np.repeat(begins - (np.cumsum(number) - number), number) + np.arange(number.sum())
    padded = np.concatenate([words, np.zeros(SHINGLE, np.uint64)])
    shingles = np.zeros(len(owner), np.uint64)
    power = np.uint64(1)
    with np.errstate(over="ignore"):
        for offset in range(SHINGLE):
            power = power * _FACTOR
            inside = first + offset < ends[owner]  # a short text's shingle ends with the text
            shingles += np.where(inside, padded[first + offset], np.uint64(0)) * power
        shingles ^= np.minimum(lengths, SHINGLE)[owner].astype(np.uint64) * _FACTOR
    return Prints(whole, shingles, owner)


def _hash(value: str | bytes) -> int:
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
