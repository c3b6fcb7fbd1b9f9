"""Figures of tasks: every pair, and what a program made of the hidden ones."""

import numpy as np
import pytest

from utils.rl.task_plots import LINES, plot_solution, plot_task

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.fixture
def task(flip_problems):
    return flip_problems[0].task


def test_every_pair_of_a_task_is_drawn(task):
    figure = plot_task(task)
    assert titles(figure) == ["shown 1", "shown 2", "shown 3", "hidden 1", "hidden 2"]
    assert len([ax for ax in figure.axes if ax.images]) == 10
    assert len(texts(figure)) == sum(grid.size for grid in task.grids)  # a digit in each cell
    assert texts(plot_task(task, digits=False)) == []


def test_outputs_are_right_wrong_of_another_size_or_missing(task):
    right = task.test[0].output
    wrong = task.test[1].output.copy()
    wrong[0, 0], wrong[1, 2] = (wrong[0, 0] + 1) % 10, (wrong[1, 2] + 1) % 10
    assert titles(plot_solution(task, "p", (right, wrong)))[-2:] == ["right", "2 wrong cells"]
    figure = plot_solution(task, "p", (None, np.zeros((1, 1), np.uint8)))
    assert titles(figure)[-2:] == ["failed", "wrong size"]
    assert "no output" in texts(figure)
    assert figure.get_suptitle() == "Task flip0: 0 of 2 hidden pairs right"


def test_the_program_stands_beside(task):
    program = "def solve(grid):\n    return grid\n"
    assert program.strip() in texts(plot_solution(task, program, (None, None), digits=False))


def test_long_programs_are_wrapped_and_cut_with_a_word_of_it(task):
    figure = plot_solution(task, "x = 1\n" * 100 + "y = " + "1 + " * 200, (None, None), digits=False)
    figure.canvas.draw()
    (text,) = (one for one in texts(figure) if one.startswith("x = 1"))
    assert len(text.splitlines()) == LINES + 1
    assert text.splitlines()[-1].endswith("more lines")


def test_texts_that_are_no_program_are_drawn_too(task):
    shown = {"": "(no text)", "$a^{broken$ \\frac": "$a^{broken$ \\frac", "\t\u4e00": "\u4e00"}
    for program, text in shown.items():
        figure = plot_solution(task, program, (None, None), digits=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **options: None)  # a font without some sign is no fault
            figure.canvas.draw()
        assert text in texts(figure)


def test_outputs_of_another_number_are_refused(task):
    with pytest.raises(ValueError, match="1 outputs for the 2 hidden pairs of task flip0"):
        plot_solution(task, "p", (None,))
