"""What programs do: alike for other wordings, unlike for other numbers, on grids that tell them apart."""

import pytest

from utils.arc.behaviour import behaviour, probes
from utils.arc.dsl import PARAMETERS, PRIMITIVES
from utils.arc.programs import ProgramsError, render


def of(*steps):
    return behaviour(render([(name, tuple(numbers)) for name, *numbers in steps]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("rotate_half",)], [("flip_rows",), ("flip_columns",)]),
        ([("transpose",)], [("rotate_left",), ("flip_rows",)]),
        ([("flip_rows",), ("fall_down",)], [("fall_up",), ("flip_rows",)]),
        ([("recolour", 3, 5)], [("flip_rows",), ("recolour", 3, 5), ("flip_rows",)]),
    ],
)
def test_wordings_of_one_program_are_alike(one, other):
    assert of(*one) == of(*other)


def test_programs_of_one_step_without_numbers_differ():
    plain = [name for name in PRIMITIVES if not PARAMETERS[name]]
    found = {}
    for name in plain:
        found.setdefault(of((name,)), []).append(name)
    assert [names for names in found.values() if len(names) > 1] == []
    assert len(plain) > 40


@pytest.mark.parametrize("name", ["recolour", "swap_colours", "keep_colour", "remove_colour", "border", "paint_all"])
def test_every_number_of_a_program_counts(name):
    kinds = len(PARAMETERS[name])
    numbers = [(colour,) if kinds == 1 else (colour, colour % 9 + 1) for colour in range(1, 10)]
    assert len({of((name, *one)) for one in numbers}) == 9


def test_the_probes_hold_every_colour_and_are_no_squares_alone():
    assert {cell for grid in probes() for row in grid for cell in row} == set(range(10))
    assert {(len(grid), len(grid[0])) for grid in probes()} == {(3, 3), (4, 6), (7, 5)}


def test_what_is_no_program_of_ours_is_refused():
    with pytest.raises(ProgramsError, match="is no composition of primitives"):
        behaviour("def solve(grid):\n    return open('x')\n")
