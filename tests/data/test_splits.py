"""Splits by hash: disjoint, stable, by their shares."""

from __future__ import annotations

import numpy as np
import pytest

from utils.data.splits import assign, normalised, positions
from utils.data.text import CorpusError

SHARES = (0.8, 0.1, 0.1)
BOTH = {"test": True, "validation": True}
KEYS = [f"row {number}" for number in range(5000)]


def sides(keys, **more) -> dict[str, str]:
    rows = assign(keys, SHARES, 0, **{**BOTH, **more})
    return {keys[index]: name for name, chosen in rows.items() for index in chosen}


def test_every_row_is_in_one_split_and_sizes_follow_the_shares():
    rows = assign(KEYS, SHARES, 0, **BOTH)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(5000))
    for name, share in zip(("train", "validation", "test"), SHARES):
        # binomial: sd = sqrt(5000 * 0.1 * 0.9) = 21 for the small ones, 28 for train; five of them
        assert abs(len(rows[name]) - share * 5000) < 5 * (5000 * share * (1 - share)) ** 0.5


def test_rows_keep_their_side_when_others_are_added_removed_or_moved():
    before = sides(KEYS)
    assert sides(KEYS[::-1]) == before
    more = sides([f"new {number}" for number in range(500)] + KEYS[::2] + KEYS[1::2])
    assert {key: side for key, side in more.items() if key in before} == before
    assert sides(KEYS[:2500]) == {key: before[key] for key in KEYS[:2500]}


def test_equal_keys_share_a_side_and_seeds_change_sides():
    rows = assign(KEYS[:50] * 20, (0.5, 0.25, 0.25), 0, **BOTH)
    for key in range(50):
        assert sum(key in set(chosen % 50) for chosen in rows.values()) == 1
    assert list(assign(KEYS, SHARES, 1, **BOTH)["test"]) != list(assign(KEYS, SHARES, 0, **BOTH)["test"])


def test_a_split_that_is_not_to_be_made_leaves_its_rows_in_train():
    both, one = assign(KEYS, SHARES, 0, **BOTH), assign(KEYS, SHARES, 0, test=False, validation=True)
    assert set(one) == {"train", "validation"}
    assert list(one["validation"]) == list(both["validation"])
    assert set(one["train"]) == set(both["train"]) | set(both["test"])


def test_positions_are_the_blake2b_of_seed_and_key():
    from hashlib import blake2b

    expected = int.from_bytes(blake2b(b"7:a", digest_size=8).digest(), "little") / 2**64
    assert positions(["a"], 7)[0] == pytest.approx(expected, abs=1e-15)
    assert 0 <= positions(KEYS, 0).min() <= positions(KEYS, 0).max() < 1


def test_too_few_rows_for_a_split_are_refused():
    with pytest.raises(CorpusError, match="3 rows, of 1 different keys, gave the .* split none"):
        assign(["a", "a", "a"], SHARES, 0, **BOTH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  World!", "hello world"),
        ("snake_case\n2x", "snake case 2x"),
        ("Ｆｕｌｌ STRASSE straße", "full strasse strasse"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_normalised_leaves_lower_case_words(text, words):
    assert normalised(text) == words
