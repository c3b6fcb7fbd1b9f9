"""The primitives of the DSL: what each does, and that none harms its argument or answers with anything but a grid."""

import copy
import inspect
import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from utils.arc.dsl import FAMILIES, KINDS, PARAMETERS, PRIMITIVES, SUITS, check
from utils.arc.dsl_inputs import INPUTS, SIZES

SIDES, CORNERS = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)


def rows(text):
    """ "12/30" -> [[1, 2], [3, 0]]"""
    return [[int(cell) for cell in row] for row in text.split("/")]


def written(grid):
    return "/".join("".join(map(str, row)) for row in grid)


def some_grids(count=55, side=9, seed=0):
    """Grids of every family of inputs, some of them square, and of extreme sizes."""
    draw = random.Random(seed)
    names = itertools.cycle(INPUTS)
    grids = []
    for number in range(count):
        height, width = draw.randint(2, side), draw.randint(2, side)
        height = width if number % 3 == 0 else height
        grids.append(INPUTS[next(names)](draw, height, width, draw.sample(range(1, 10), 3)))
    return [*grids, [[0]], [[4]], [[1, 0, 1]], [[2], [0]], [[0] * 3] * 3, [[7] * 30 for _ in range(30)]]


def numbers_of(name):
    """Every choice of numbers for a primitive of one, and some for one of two."""
    choices = list(itertools.product(*(KINDS[kind] for kind in PARAMETERS[name])))
    return choices if len(choices) < 12 else choices[::13]


def test_there_are_many_primitives_each_explained_in_one_line_and_declared_as_it_is():
    assert len(PRIMITIVES) >= 44
    assert set(PRIMITIVES) == set(PARAMETERS) == set(FAMILIES) == set(SUITS)
    for name, function in PRIMITIVES.items():
        assert name == function.__name__
        assert function.__doc__
        assert "\n" not in function.__doc__
        assert len(inspect.signature(function).parameters) == 1 + len(PARAMETERS[name]) <= 3
        assert set(PARAMETERS[name]) <= set(KINDS)
        assert set(SUITS[name]) <= {*INPUTS, *SIZES}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_makes_a_new_grid_or_a_value_error_and_leaves_its_argument_alone(name):
    made = 0
    for grid in some_grids():
        before = copy.deepcopy(grid)
        for numbers in numbers_of(name):
            try:
                out = PRIMITIVES[name](grid, *numbers)
            except ValueError:
                continue
            finally:
                assert grid == before
            check(out)
            rows_made = [id(row) for row in out]
            assert len(set(rows_made)) == len(out), "a row stands twice in the output"
            assert not {id(row) for row in grid} & set(rows_made), "a row of the input stands in the output"
            made += 1
    assert made > 10


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_refuses_what_is_no_grid_and_numbers_out_of_range(name):
    good = [KINDS[kind][0] for kind in PARAMETERS[name]]
    for grid in (
        None,
        3,
        "12",
        [],
        [[]],
        [1, 2],
        [[1], [1, 2]],
        [[10]],
        [[-1]],
        [[1.0]],
        [[True]],
        [["1"]],
        [[0]] * 31,
    ):
        with pytest.raises(ValueError, match="expected"):
            PRIMITIVES[name](grid, *good)
    with pytest.raises(ValueError, match="arguments"):
        PRIMITIVES[name]([[1]], *good, 1)
    for bad in (-1, 31, 10**9, 1.0, True, "1", None):
        if good:
            with pytest.raises(ValueError, match="whole numbers"):
                PRIMITIVES[name]([[1, 2], [3, 4]], *good[:-1], bad)


def test_the_primitives_need_the_standard_library_alone():
    code = "import sys; import utils.arc.dsl; print(sorted(set(sys.modules) & {'numpy', 'torch', 'pydantic', 'yaml'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def longer(g):
    """The two halves along the longer side."""
    axis = 0 if g.shape[0] > g.shape[1] else 1
    half = g.shape[axis] // 2
    return np.take(g, range(half), axis), np.take(g, range(g.shape[axis] - half, g.shape[axis]), axis)


def boxed(g, cells):
    where = np.argwhere(cells)
    (top, left), (bottom, right) = where.min(0), where.max(0) + 1
    return g[top:bottom, left:right]


def ring(g, colour):
    out = g.copy()
    out[[0, -1]] = colour
    out[:, [0, -1]] = colour
    return out


def diagonal(g, colour):
    out = g.copy()
    np.fill_diagonal(out[: min(g.shape), : min(g.shape)], colour)
    return out


def flat_commonest(g):
    return np.bincount(g.ravel(), minlength=10).argmax()


def coloured(g):
    """(count, colour) of the colours beside 0, fewest cells first."""
    return sorted((int((g == c).sum()), c) for c in range(1, 10) if (g == c).any())


def most(g):
    return max(coloured(g), key=lambda pair: (pair[0], -pair[1]))[1]


NUMPY = {  # name -> the same by numpy, from (grid, *numbers)
    "flip_rows": np.flipud,
    "flip_columns": np.fliplr,
    "rotate_right": lambda g: np.rot90(g, -1),
    "rotate_left": np.rot90,
    "rotate_half": lambda g: np.rot90(g, 2),
    "transpose": np.transpose,
    "transpose_other": lambda g: np.rot90(g, 2).T,
    "crop": lambda g: boxed(g, g),
    "crop_colour": lambda g, c: boxed(g, g == c),
    "crop_rarest": lambda g: boxed(g, g == coloured(g)[0][1]),
    "top_half": lambda g: np.array_split(g, 2)[0][: len(g) // 2],
    "bottom_half": lambda g: g[-(len(g) // 2) :],
    "left_half": lambda g: g[:, : g.shape[1] // 2],
    "right_half": lambda g: g[:, -(g.shape[1] // 2) :],
    "corner": lambda g, n: g[:n, :n],
    "trim": lambda g: g[1:-1, 1:-1],
    "scale": lambda g, n: np.kron(g, np.ones((n, n), int)),
    "shrink": lambda g, n: g[::n, ::n],
    "repeat_right": lambda g, n: np.tile(g, (1, n)),
    "repeat_down": lambda g, n: np.tile(g, (n, 1)),
    "tile": lambda g, n: np.tile(g, (n, n)),
    "mirror_right": lambda g: np.pad(g, ((0, 0), (0, g.shape[1])), "symmetric"),
    "mirror_left": lambda g: np.pad(g, ((0, 0), (g.shape[1], 0)), "symmetric"),
    "mirror_down": lambda g: np.pad(g, ((0, g.shape[0]), (0, 0)), "symmetric"),
    "mirror_up": lambda g: np.pad(g, ((g.shape[0], 0), (0, 0)), "symmetric"),
    "mirror_both": lambda g: np.pad(g, ((0, g.shape[0]), (0, g.shape[1])), "symmetric"),
    "fractal": lambda g: np.kron(g != 0, g),
    "fractal_commonest": lambda g: np.kron(g == flat_commonest(g), g),
    "repeat_by_colours": lambda g: np.tile(g, (max(1, len(coloured(g))),) * 2),
    "roll_down": lambda g, n: np.roll(g, n, 0),
    "roll_up": lambda g, n: np.roll(g, -n, 0),
    "roll_right": lambda g, n: np.roll(g, n, 1),
    "roll_left": lambda g, n: np.roll(g, -n, 1),
    "shift_down": lambda g, n: np.pad(g, ((n, 0), (0, 0)))[: len(g)],
    "shift_right": lambda g, n: np.pad(g, ((0, 0), (n, 0)))[:, : g.shape[1]],
    "recolour": lambda g, a, b: np.where(g == a, b, g),
    "swap_colours": lambda g, a, b: np.select([g == a, g == b], [b, a], g),
    "paint_all": lambda g, c: c * (g > 0),
    "fill_background": lambda g, c: np.where(g == 0, c, g),
    "invert": lambda g, c: c * (g == 0),
    "negative": lambda g: np.select([g == 0, g == most(g)], [most(g), 0], g),
    "keep_colour": lambda g, c: g * (g == c),
    "remove_colour": lambda g, c: g * (g != c),
    "keep_commonest": lambda g: g * (g == most(g)),
    "remove_commonest": lambda g: g * (g != most(g)),
    "keep_rarest": lambda g: g * (g == coloured(g)[0][1]),
    "remove_rarest": lambda g: g * (g != coloured(g)[0][1]),
    "paint_commonest": lambda g, c: np.where(g == most(g), c, g),
    "paint_rarest": lambda g, c: np.where(g == coloured(g)[0][1], c, g),
    "paint_others": lambda g, c: np.where(g == flat_commonest(g), g, c),
    "fill_commonest": lambda g: np.full_like(g, flat_commonest(g)),
    "border": ring,
    "frame": lambda g, c: np.pad(g, 1, constant_values=c),
    "diagonal": diagonal,
    "other_diagonal": lambda g, c: diagonal(g[::-1], c)[::-1],
    "stripe_rows": lambda g, c: np.where((g == 0) & (np.arange(len(g)) % 2 == 0)[:, None], c, g),
    "stripe_columns": lambda g, c: np.where((g == 0) & (np.arange(g.shape[1]) % 2 == 0), c, g),
    "halves_and": lambda g, c: c * np.logical_and(*longer(g)),
    "halves_or": lambda g, c: c * np.logical_or(*longer(g)),
    "halves_xor": lambda g, c: c * np.logical_xor(*longer(g)),
    "halves_nor": lambda g, c: c * ~np.logical_or(*longer(g)),
    "overlay_halves": lambda g: np.where(longer(g)[0], *longer(g)),
    "underlay_halves": lambda g: np.where(longer(g)[1], *longer(g)[::-1]),
    "overlay_flip_columns": lambda g: np.where(g, g, g[:, ::-1]),
    "overlay_flip_rows": lambda g: np.where(g, g, g[::-1]),
    "fall_down": lambda g: np.take_along_axis(g, (g > 0).argsort(0, kind="stable"), 0),
    "fall_up": lambda g: np.take_along_axis(g, (g == 0).argsort(0, kind="stable"), 0),
    "fall_right": lambda g: np.take_along_axis(g, (g > 0).argsort(1, kind="stable"), 1),
    "fall_left": lambda g: np.take_along_axis(g, (g == 0).argsort(1, kind="stable"), 1),
    "smear_right": lambda g: np.take_along_axis(
        g, np.maximum.accumulate(np.where(g > 0, np.arange(g.shape[1]), 0), 1), 1
    ),
    "extend_rows": lambda g, c: np.where((g == c).any(1)[:, None] & (g == 0), c, g),
    "extend_columns": lambda g, c: np.where((g == c).any(0) & (g == 0), c, g),
    "sort_rows": lambda g: g[(g > 0).sum(1).argsort(kind="stable")],
    "sort_columns": lambda g: g[:, (g > 0).sum(0).argsort(kind="stable")],
    "sort_cells": lambda g: np.sort(g, 1),
    "remove_empty_rows": lambda g: g[g.any(1)],
    "remove_empty_columns": lambda g: g[:, g.any(0)],
    "unique_rows": lambda g: g[[not at or (g[at] != g[at - 1]).any() for at in range(len(g))]],
    "unique_columns": lambda g: g[:, [not at or (g[:, at] != g[:, at - 1]).any() for at in range(g.shape[1])]],
    "level_rows": lambda g: np.stack([np.full_like(row, flat_commonest(row)) for row in g]),
    "level_columns": lambda g: np.stack([np.full_like(column, flat_commonest(column)) for column in g.T], 1),
    "mark_even_rows": lambda g, c: np.repeat(c * (g == g[:, :1]).all(1)[:, None], g.shape[1], 1),
    "fill_holes": lambda g, c: np.where(ndimage.binary_fill_holes(g > 0) & (g == 0), c, g),
    "outline": lambda g, c: np.where(ndimage.binary_dilation(g > 0, CORNERS) & (g == 0), c, g),
    "outline_sides": lambda g, c: np.where(ndimage.binary_dilation(g > 0, SIDES) & (g == 0), c, g),
    "hollow": lambda g: np.where(inside(g), 0, g),
    "paint_inside": lambda g, c: np.where(inside(g), c, g),
}


def inside(g):
    """Cells whose 3x3 neighbourhood has their one colour."""
    return np.logical_or.reduce([ndimage.binary_erosion(g == colour, CORNERS) for colour in range(1, 10)])


OF_COLOURS = {"negative", "keep_commonest", "remove_commonest", "paint_commonest"}


@pytest.mark.parametrize("name", NUMPY)
def test_a_primitive_does_what_numpy_or_scipy_does(name):
    compared = 0
    for grid in some_grids(seed=1):
        for numbers in numbers_of(name):
            try:
                out = PRIMITIVES[name](grid, *numbers)
            except ValueError:
                continue
            if name in OF_COLOURS and not np.any(grid):
                continue  # the reference has no answer
            np.testing.assert_array_equal(out, NUMPY[name](np.array(grid), *numbers))
            compared += 1
    assert compared > 10


def parts(grid, one_colour):
    """Masks of the objects (or of the shapes, whatever their colours) by scipy, in the order of their first cells."""
    colours = range(1, 10) if one_colour else [None]
    found = []
    for colour in colours:
        labels, count = ndimage.label(grid > 0 if colour is None else grid == colour, CORNERS)
        found += [labels == label for label in range(1, count + 1)]
    return sorted(found, key=lambda mask: int(mask.ravel().argmax()))


def touching(mask):
    return mask[[0, -1]].any() or mask[:, [0, -1]].any()


def first_largest(masks):
    return max(masks, key=np.sum)


def first_smallest(masks):
    return min(masks, key=np.sum)


def union(masks, like):
    return np.logical_or.reduce([*masks, np.zeros(like.shape, bool)])


def singles(g):
    return union([mask for mask in parts(g, True) if mask.sum() == 1], g)


def fill_boxes(g, colour):
    out = g.copy()
    for mask in parts(g, True):
        where = np.argwhere(mask)
        (top, left), (bottom, right) = where.min(0), where.max(0) + 1
        view, seen = out[top:bottom, left:right], g[top:bottom, left:right]
        view[seen == 0] = colour
    return out


OBJECTS = {
    "keep_largest": lambda g: g * first_largest(parts(g, True)),
    "keep_smallest": lambda g: g * first_smallest(parts(g, True)),
    "remove_largest": lambda g: g * ~first_largest(parts(g, True)),
    "remove_smallest": lambda g: g * ~first_smallest(parts(g, True)),
    "paint_largest": lambda g, c: np.where(first_largest(parts(g, True)), c, g),
    "paint_smallest": lambda g, c: np.where(first_smallest(parts(g, True)), c, g),
    "crop_largest": lambda g: boxed(g, first_largest(parts(g, True))),
    "crop_smallest": lambda g: boxed(g, first_smallest(parts(g, True))),
    "crop_largest_shape": lambda g: boxed(g, first_largest(parts(g, False))),
    "crop_smallest_shape": lambda g: boxed(g, first_smallest(parts(g, False))),
    "remove_dots": lambda g: g * ~singles(g),
    "keep_dots": lambda g: g * singles(g),
    "paint_dots": lambda g, c: np.where(singles(g), c, g),
    "remove_touching": lambda g: g * ~union([mask for mask in parts(g, True) if touching(mask)], g),
    "paint_touching": lambda g, c: np.where(union([mask for mask in parts(g, True) if touching(mask)], g), c, g),
    "fill_boxes": fill_boxes,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_those_that_scipy_labels(name):
    for grid in some_grids(seed=2):
        for numbers in numbers_of(name):
            if np.any(grid):
                out = PRIMITIVES[name](grid, *numbers)
                np.testing.assert_array_equal(out, OBJECTS[name](np.array(grid), *numbers))
            elif "st" in name:  # largest or smallest of none
                with pytest.raises(ValueError, match="no object"):
                    PRIMITIVES[name](grid, *numbers)


BY_HAND = [
    ("first_third", (), "123/456", "1/4"),
    ("first_third", (), "12/34/56/78", "12"),
    ("pinwheel", (), "12/34", "1231/3442/2443/1321"),
    ("scale_by_colours", (), "10/02", "1100/1100/0022/0022"),
    ("smear_down", (), "102/000/300", "102/102/302"),
    ("smear_up", (), "000/102/000", "102/102/000"),
    ("smear_left", (), "0010/2003", "1110/2333"),
    ("connect_rows", (), "1001/1020/0202", "1111/1020/0222"),
    ("connect_columns", (), "120/000/112", "120/100/112"),
    ("bridge_rows", (5,), "1001/1020/0202", "1551/1020/0252"),
    ("bridge_both", (5,), "101/000/102", "151/500/102"),
    ("overlay_transpose", (), "120/003/400", "124/203/430"),
    ("fill_colour_boxes", (), "100/020/001", "111/121/111"),
    ("fill_colour_boxes", (), "0302/0000/0203", "0322/0222/0223"),
    ("fill_holes", (4,), "1110/1010/1110/0001", "1110/1410/1110/0001"),
    ("fill_holes", (4,), "1110/1010/1101/0111", "1110/1410/1141/0111"),
    ("paint_inside", (4,), "2222/2222/2222/2223", "2222/2442/2422/2223"),
    ("border", (7,), "1", "7"),
    ("border", (7,), "1/2/3", "7/7/7"),
]


@pytest.mark.parametrize(("name", "numbers", "before", "after"), BY_HAND)
def test_a_primitive_does_what_was_worked_out_by_hand(name, numbers, before, after):
    assert written(PRIMITIVES[name](rows(before), *numbers)) == after


def test_every_primitive_is_compared_with_something():
    compared = {*NUMPY, *OBJECTS, *(name for name, *_ in BY_HAND)}
    assert set(PRIMITIVES) - compared == set()


@pytest.mark.parametrize(
    ("name", "grid", "numbers"),
    [
        ("crop", [[0, 0]], ()),
        ("crop_colour", [[1, 0]], (5,)),
        ("crop_rarest", [[0]], ()),
        ("top_half", [[1]], ()),
        ("first_third", [[1, 2]], ()),
        ("corner", [[1, 2]], (2,)),
        ("trim", [[1, 2], [3, 4]], ()),
        ("tile", [[1] * 16], (2,)),
        ("scale", [[1] * 16], (2,)),
        ("frame", [[1] * 29], (2,)),
        ("fractal", [[1] * 6], ()),
        ("pinwheel", [[1, 2]], ()),
        ("overlay_transpose", [[1, 2]], ()),
        ("remove_empty_rows", [[0, 0]], ()),
    ],
)
def test_what_cannot_be_done_is_a_value_error_that_says_so(name, grid, numbers):
    with pytest.raises(ValueError, match="[a-z]+ .*[a-z0-9]"):
        PRIMITIVES[name](grid, *numbers)
