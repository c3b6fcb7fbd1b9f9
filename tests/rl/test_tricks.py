"""Where a program begins to be a trick; what tricks earn, and many programs that are none, are in test_reward.py."""

import ast

import numpy as np
import pytest

from utils.arc.tasks import Pair
from utils.rl.tricks import trick_of

PAIRS = [
    Pair(np.array(rows, np.uint8), np.array(rows, np.uint8)[::-1]) for rows in ([[1], [2]], [[3], [4]], [[5], [6]])
]
RIGHT = [pair.output for pair in PAIRS]


def trick(line, outputs=RIGHT, *, cells=9, values=30):
    return trick_of(
        ast.parse(f"def solve(grid):\n    {line}\n    return grid"), outputs, PAIRS, cells=cells, values=values
    )


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("rows = [[1, 2], [3, 4]]", {"cells": 4}),
        ("rows = [[1], [2], [3]]", {"cells": 3}),
        ("numbers = (1, 2, -3, 40, 5)", {"values": 5}),
        ("numbers = {1: 2, 3: (4, 5)}", {"values": 5}),
        ("text = 'a1b2c34'", {"values": 4}),
        ("number = 123456", {"values": 6}),
    ],
)
def test_a_grid_is_held_from_as_many_numbers_as_are_said(line, holds):
    ((name, count),) = holds.items()
    assert trick(line, **holds) == "literal"
    assert trick(line, **{name: count + 1}) == ""
    assert trick(line) == ""


def test_outputs_tell_identity_and_constant():
    line = "grid = grid[:]"
    assert trick(line, [pair.input for pair in PAIRS]) == "identity"
    assert trick(line, [RIGHT[0]] * 3) == "constant"
    assert trick(line, RIGHT) == ""
    assert trick(line, [None, None, RIGHT[2]]) == ""
    assert trick(line, [None, None, PAIRS[2].input]) == "identity"
    assert trick(line, [None] * 3) == ""
    assert trick("vars(grid)", [None] * 3) == "peeking"  # whatever comes of it
