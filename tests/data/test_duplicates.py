"""Duplicates between splits, against brute force over Python sets."""

from __future__ import annotations

import random

import numpy as np
import pytest

from utils.data.duplicates import NEAR, SHINGLE, overlap, prints, prints_of_ids, repeated
from utils.data.splits import normalised


def shingles(text: str) -> list[tuple[str, ...]]:
    words = normalised(text).split() or [text]
    return [tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]


def brute_force(texts: list[str], others: list[str]) -> tuple[list[bool], list[bool]]:
    known = {shingle for other in others for shingle in shingles(other)}
    exact = [text in set(others) for text in texts]
    near = [
        not same and sum(one in known for one in shingles(text)) >= NEAR * len(shingles(text))
        for text, same in zip(texts, exact)
    ]
    return exact, near


def drawn(seed: int) -> tuple[list[str], list[str]]:
    """Texts over few words, of which some are copies, changed in a word, in case, or cut out of the others."""
    draw = random.Random(seed)
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "the", "of"]

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randrange(1, 30)))

    others = [text() for _ in range(200)]
    texts = [text() for _ in range(60)] + draw.sample(others, 20)
    texts += [other.upper() + "!" for other in draw.sample(others, 20)]
    texts += [" ".join([*other.split(), "zzz"]) for other in draw.sample(others, 40)]
    texts += [" ".join(other.split()[2:9]) or "x" for other in draw.sample(others, 20)]
    draw.shuffle(texts)
    return texts, others


@pytest.mark.parametrize("seed", range(5))
def test_exact_and_near_are_those_that_brute_force_finds(seed):
    texts, others = drawn(seed)
    found = overlap(prints(texts), [prints(others[:100]), prints(others[100:])])
    exact, near = brute_force(texts, others)
    assert found.exact.tolist() == exact
    assert found.near.tolist() == near
    assert sum(exact) >= 20
    assert sum(near) >= 40  # the upper-case copies and most of the cut-out ones at least


def test_ids_are_words():
    rows = [np.array(row) for row in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], [7, 8], [0])]
    found = overlap(prints_of_ids(rows), [prints_of_ids([rows[0], np.array([7, 8, 9]), rows[2]])])
    assert found.exact.tolist() == [True, False, True, False]
    assert found.near.tolist() == [False, True, False, False]  # its one run of five is in the first row


def test_a_short_text_is_near_only_the_same_short_text():
    found = overlap(
        prints(["two words", "two words more"]), [prints(["Two words!", "two words more or less than five"])]
    )
    assert found.near.tolist() == [True, False]


def test_repeats_within_a_split_are_counted_and_no_texts_have_none():
    assert repeated(prints(["a", "b", "a", "a"])) == 2
    empty = prints([])
    assert repeated(empty) == 0
    assert overlap(empty, [prints(["a"])]).any.tolist() == []
    assert overlap(prints(["a"]), [empty]).any.tolist() == [False]
