"""What a program holds is counted in whatever form it stands there, and nothing that no one reads."""

import ast

import pytest

from utils.rl.literals import grid_held, values_held


def counted(program):
    return values_held(ast.parse(program))


@pytest.mark.parametrize(
    "program",
    [  # 9 cells each
        "x = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]",
        "x = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]",
        "x = [[1, 2, 3]] + [[4, 5, 6]] + [[7, 8, 9]]",
        "x = [list(map(int, '123')), list(map(int, '456')), list(map(int, '789'))]",
        "x = 123456789",
        "x = [ord(c) for c in 'abcdefghi']",
        "x = [*b'abcdefghi']",
        "x = [True, False, 1.5, 2.5, 3, 4, 5]",  # two, then two digits each, then three
        "x = f(1, 2, 3, 4, 5, *{6: 7}, k=89)",
        "x = (lambda a=1, b=2: 3 if a else 456)(7, 8, 9)",
    ],
)
def test_a_grid_of_nine_cells_counts_nine_in_any_form(program):
    assert counted(program) == 9


def test_a_number_too_long_to_be_written_counts_about_its_digits():
    assert counted(f"x = 0x{'f' * 6000}") == pytest.approx(6000 * 1.20412, rel=1e-3)  # log10(16) digits each


def test_docstrings_and_messages_that_nothing_reads_count_nothing():
    quiet = 'def solve(grid):\n    """Turns 123."""\n    print("turned 456")\n    assert grid, f"no {grid} 789"\n'
    assert counted(quiet + "    raise ValueError('no rows')") == 0
    assert counted(quiet + "    raise ValueError(12)") == 2


@pytest.mark.parametrize(
    "program",
    [
        "try:\n    raise ValueError('123456789')\nexcept ValueError as e:\n    x = e.args[0]",
        "class A:\n    def __exit__(self, kind, one, trace):\n        self.one = one\nraise ValueError('123456789')",
        "def print(text):\n    return text\nx = print('123456789')",
        "ValueError = str\nraise ValueError('123456789')",
        "from math import gcd as print\nprint('123456789')",
        "def f(a):\n    return a\nraise f('123456789')",
        "print(x := '123456789')",
    ],
)
def test_messages_that_something_may_read_count(program):
    assert counted(program) >= 9


def test_the_largest_list_of_lists_of_colours_is_found():
    tree = ast.parse("a = [[1, 2], [3]]\nb = ([4, 5], [6, 7])\nc = [[10, 11, 12, 13, 14]]\nd = [(1, 2, 3, 4, 5)]")
    assert grid_held(tree) == 4
