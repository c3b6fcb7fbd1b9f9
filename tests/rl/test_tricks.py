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


def trick(line, outputs=RIGHT, *, shown=0, cells=9, values=30):
    """Of a program that holds a line and made `outputs` of PAIRS, the last ones of which were shown."""
    tree = ast.parse(f"def solve(grid):\n    {line}\n    return grid")
    hidden = len(PAIRS) - shown
    return trick_of(tree, outputs, PAIRS[:hidden], PAIRS[hidden:], cells=cells, values=values)


@pytest.mark.parametrize(("line", "cells"), [("rows = [[1, 2], [3, 4]]", 4), ("rows = [[1], [2], [3]]", 3)])
def test_a_grid_is_held_from_as_many_cells_as_are_said(line, cells):
    assert trick(line, shown=2, cells=cells) == "literal"
    assert trick(line, shown=2, cells=cells + 1) == ""


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("numbers = (1, 2, -3, 40, 5)", 6),  # a number counts as its digits
        ("numbers = {1: 2, 3: (4, 5)}", 5),
        ("text = 'a1b2c34'", 7),
        ("number = 123456", 6),
        ("a, b = 'abc', (1, True)", 5),
    ],
)
def test_a_program_holds_a_grid_from_as_many_values_as_are_said(line, values):
    """The hidden outputs have 2 cells, so that `cells` is the limit of a program that is wrong on a shown pair."""
    assert trick(line, shown=2, values=values) == "literal"
    assert trick(line, shown=2, values=values + 1) == ""
    wrong = [*RIGHT[:2], None]
    assert trick(line, wrong, shown=2, cells=values) == "literal"
    assert trick(line, wrong, shown=2, cells=values + 1) == ""


def test_outputs_tell_identity_and_constant():
    line = "grid = grid[:]"
    assert trick(line, [pair.input for pair in PAIRS]) == "identity"
    assert trick(line, [RIGHT[0]] * 3) == "constant"
    assert trick(line, RIGHT) == ""
    assert trick(line, [None, None, RIGHT[2]]) == ""
    assert trick(line, [None, None, PAIRS[2].input]) == "identity"
    assert trick(line, [None] * 3) == ""
    assert trick("vars(grid)", [None] * 3) == "peeking"  # whatever comes of it
