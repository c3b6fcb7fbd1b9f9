"""Splits that a source lacks, made from its training rows by hashing each row.

A row's side follows from its own key and the seed alone: hash(seed, key) as a number in [0, 1), cut at the shares. So
the splits are disjoint, the same in every run, and stay as they are when rows are added, removed or reordered; rows of
one key (the same text but for case, spacing and punctuation, or the same group) are never on two sides. The price: the
sizes follow the shares only about, to within a few times sqrt(n).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from utils.data.text import CorpusError


def normalised(text: str) -> str:
    """A text's words alone: NFKC, lower case, a space for each run of what is no letter or digit.

    `Hello,  World!` -> `hello world`; a text of no words is left as it is.
    """
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text


def positions(keys: Iterable[str], seed: int) -> np.ndarray:
    """(N,) float64 in [0, 1), each from the blake2b of the seed and its key."""
    prefix = f"{seed}:".encode()
    digests = b"".join(
        hashlib.blake2b(prefix + key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys
    )
    return np.frombuffer(digests, "<u8").astype(np.float64) / 2.0**64 * (1 - 2**-53)


def assign(
    keys: Sequence[str], shares: tuple[float, float, float], seed: int, *, test: bool, validation: bool
) -> dict[str, np.ndarray]:
    """Rows (in their order) of `train` and of the splits to make: `validation`, `test`, each by its share.

    Raises `CorpusError` where a split that was asked for gets no row.
    """
    place = positions(keys, seed)
    ends = {"validation": shares[1] if validation else 0.0, "test": shares[2] if test else 0.0}
    made = {
        "validation": place < ends["validation"],
        "test": (place >= ends["validation"]) & (place < ends["validation"] + ends["test"]),
    }
    made["train"] = ~made["validation"] & ~made["test"]
    rows = {name: np.flatnonzero(chosen) for name, chosen in made.items() if name == "train" or ends[name]}
    empty = [name for name, index in rows.items() if not len(index)]
    if empty:
        raise CorpusError(
            f"{len(place)} rows, of {len(set(keys))} different keys, gave the {' and '.join(empty)} split none. Give"
            " more rows, larger shares in splits=, another seed, or a source with splits of its own."
        )
    return rows
