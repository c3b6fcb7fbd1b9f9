"""The pool: splits without a pair in common, within their size, the same for the same settings."""

import dataclasses

import pytest

from utils.arc.behaviour import behaviour
from utils.arc.difficulty import difficulty
from utils.arc.programs import ProgramsConfig, ProgramsError, parse, render, run
from utils.rl.problems import PoolConfig, make_pool, problems

PROGRAMS = ProgramsConfig(primitives=("flip_rows", "transpose", "mirror_right"), max_depth=2, max_side=4)
CONFIG = PoolConfig(programs=PROGRAMS, train=60, validation=20, test=30, max_cells=110)


@pytest.fixture(scope="module")
def pool():
    return make_pool(CONFIG)


def pairs(example):
    task = example.task
    return frozenset(
        (pair.input.tobytes(), pair.input.shape, pair.output.tobytes()) for pair in (*task.train, *task.test)
    )


def test_splits_have_their_sizes_and_no_task_is_twice(pool):
    assert [len(pool.train), len(pool.validation), len(pool.test)] == [60, 20, 30]
    everything = [*pool.train, *pool.validation, *pool.test]
    assert len({pairs(example) for example in everything}) == 110
    assert len({example.task.id for example in everything}) == 110


def test_no_pair_shown_or_hidden_is_in_two_splits(pool):
    found = [
        set().union(
            *(
                {
                    (one.input.tobytes(), one.input.shape, one.output.tobytes())
                    for one in (*example.task.train, *example.task.test)
                }
                for example in split
            )
        )
        for split in (pool.train, pool.validation, pool.test)
    ]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]


def test_a_program_makes_the_pairs_of_its_task(pool):
    for example in pool.train[:20]:
        for pair in (*example.task.train, *example.task.test):
            assert run(parse(example.program), pair.input.tolist()) == pair.output.tolist()


def test_no_task_shows_more_cells_than_it_may_and_depths_are_as_weighed(pool):
    shown = [
        sum(grid.shape[0] * (grid.shape[1] + 1) for pair in example.task.train for grid in (pair.input, pair.output))
        for example in pool.train
    ]
    assert 80 < max(shown) <= 110
    # Of 60 draws at 0.4 : 0.4 (the third weight is for depth 3), 30 are of depth 1; four deviations are 15.
    assert 15 <= sum(example.depth == 1 for example in pool.train) <= 45


def test_equal_settings_make_equal_pools_and_another_seed_another(pool):
    make_pool.cache_clear()
    again, other = make_pool(CONFIG), make_pool(CONFIG.replace(seed=1))
    assert [pairs(one) for one in again.test] == [pairs(one) for one in pool.test]
    assert [one.program for one in again.train] == [one.program for one in pool.train]
    assert not {pairs(one) for one in other.train} & {pairs(one) for one in pool.train}
    assert again.fingerprint == pool.fingerprint != other.fingerprint
    assert dataclasses.replace(pool, test=pool.test[::-1]).fingerprint != pool.fingerprint


def test_held_out_splits_do_not_depend_on_how_much_there_is_to_learn_from(pool):
    more = make_pool(CONFIG.replace(train=70))
    assert [pairs(one) for one in more.test] == [pairs(one) for one in pool.test]
    assert [pairs(one) for one in more.validation] == [pairs(one) for one in pool.validation]
    assert [one.program for one in more.train[:60]] == [one.program for one in pool.train]


def test_seen_are_programs_that_do_what_one_of_a_training_task_does(pool):
    assert all(map(pool.has_seen, pool.train))
    example = next(one for one in pool.train if one.depth == 1)
    twice = render((*parse(example.program), ("flip_rows", ()), ("flip_rows", ())))  # another text, the same outputs
    other = render((*parse(example.program), ("rotate_left", ())))
    assert twice not in {one.program for one in pool.train}
    assert pool.has_seen(dataclasses.replace(example, program=twice))
    assert not pool.has_seen(dataclasses.replace(example, program=render((("recolour", (3, 7)),))))
    assert pool.has_seen(dataclasses.replace(example, program=other)) == (behaviour(other) in pool.behaviours)


def test_held_out_programs_make_no_training_task_in_any_wording():
    programs = PROGRAMS.replace(primitives=("flip_rows", "recolour", "transpose", "mirror_right", "swap_colours"))
    config = CONFIG.replace(programs=programs.model_dump(), held_out_programs=True)
    pool = make_pool(config)
    held_out = [*pool.validation, *pool.test]
    assert [len(pool.train), len(held_out)] == [60, 50]
    assert not {one.program for one in held_out} & {one.program for one in pool.train}
    assert not any(map(pool.has_seen, held_out))
    assert list(pool.table["of programs not in training"]) == [0, 20, 30]
    usual = make_pool(config.replace(held_out_programs=False))
    assert any(map(usual.has_seen, usual.test))
    assert usual.fingerprint != pool.fingerprint


def test_levels_are_steps_or_quarters_of_difficulty(pool):
    made = problems(pool.train, lambda task: [1], levels="difficulty")
    scores = {level: [] for level in (1, 2, 3, 4)}
    for one in made:
        scores[one.level].append(difficulty(one.task).score)
    assert [len(own) for own in scores.values()] == [15] * 4
    for level in (1, 2, 3):
        assert max(scores[level]) <= min(scores[level + 1]) + 1e-9
    assert [one.task for one in made] == [example.task for example in pool.train]
    assert {one.level for one in problems(pool.train[:2], lambda task: [1], levels="difficulty")} == {1, 2}


def test_problems_are_prompts_and_levels_of_the_tasks(pool):
    made = problems(pool.test, lambda task: [len(task.train), *task.train[0].input.shape])
    assert [one.task for one in made] == [example.task for example in pool.test]
    assert [one.level for one in made] == [example.depth for example in pool.test]
    assert made[0].prompt == (3, *pool.test[0].task.train[0].input.shape)


def test_settings_that_no_task_meets_are_an_error_that_says_what_to_change():
    few = PROGRAMS.replace(max_draws=5)
    with pytest.raises(ProgramsError, match="or more than 12 cells"):
        make_pool(CONFIG.replace(programs=few, max_cells=12))


def test_the_pools_table_counts_its_tasks_and_programs(pool):
    table = pool.table
    assert list(table.index) == ["train", "validation", "test"]
    assert list(table["tasks"]) == [60, 20, 30]
    assert list(table["1 step"] + table["2 steps"]) == [60, 20, 30]
    assert table.loc["test", "of programs not in training"] == sum(not pool.has_seen(one) for one in pool.test)
    assert table.loc["train", "of programs not in training"] == 0
    assert "60" in repr(pool)
    assert "<table" in pool._repr_html_()
