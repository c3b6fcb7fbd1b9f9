"""The order that rewards keep, on random programs and tasks, and the tricks that earn nothing."""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from utils.arc.dsl import PRIMITIVES
from utils.arc.tasks import Pair
from utils.rl.reward import FAULTS, RewardConfig, Scored, normalise, score, similarity, summary, truncated

CONFIG = RewardConfig()
PROGRAM = "def solve(grid):\n    return flip_rows(grid)"


@dataclass(frozen=True)
class Fault:
    kind: str
    line: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    outputs: tuple
    faults: tuple
    error: Fault | None = None


def grid(*rows):
    return np.array(rows, np.uint8)


def run(program, inputs):
    """An outcome as of the sandbox, of a program of ours, in this process."""
    space = dict(PRIMITIVES)
    exec(program, space)
    outputs, faults = [], []
    for one in inputs:
        try:
            outputs.append(np.array(space["solve"](one.tolist()), np.uint8))
            faults.append(None)
        except Exception as error:  # whatever a program raises
            outputs.append(None)
            faults.append(Fault("runtime", None, str(error)))
    return Outcome(tuple(outputs), tuple(faults), next(filter(None, faults), None))


def ran(program, pairs, config=CONFIG, shown=()):
    return score(run(program, [pair.input for pair in (*pairs, *shown)]), program, pairs, config, shown=shown)


def random_pairs(random, count, rule=lambda one: one[::-1]):
    """Hidden pairs of a rule, the inputs all different and none its own output (6 rows that differ)."""
    grids = [random.integers(0, 10, (6, int(random.integers(2, 9))), dtype=np.uint8) for _ in range(count)]
    for at, one in enumerate(grids):
        one[0, 0], one[-1, 0], one[1, 0] = at % 10, (at + 1) % 10, at // 10
    return [Pair(one, rule(one)) for one in grids]


def random_case(random, config, most=16):
    """An outcome of random failures on a random task, scored: (scored, pairs right, pairs, length of the program)."""
    pairs = random_pairs(random, int(random.integers(1, most + 1)))
    outputs, faults = [], []
    chance = random.choice([0.0, 0.3, 0.7, 1.0])
    for pair in pairs:
        if random.random() < chance:
            outputs.append(pair.output)
        elif random.random() < 0.5:
            wrong = pair.output.copy()
            wrong[random.integers(6), -1] += 11  # a value that no grid of the case has
            outputs.append(wrong)
        else:
            outputs.append(None)
        faults.append(None if outputs[-1] is not None else Fault(str(random.choice(FAULTS))))
    program = PROGRAM + "\n" + "#" * int(random.integers(0, 5000))
    outcome = Outcome(tuple(outputs), tuple(faults), next(filter(None, faults), None))
    right = sum(output is pair.output for output, pair in zip(outputs, pairs))
    return score(outcome, program, pairs, config), right, len(pairs), len(program)


CONFIGS = [
    CONFIG,
    RewardConfig(length_bonus=0.2, partial=1.0, length_scale=10),
    RewardConfig(partial=0.0),
    RewardConfig(similarity=0.25, wrong=-0.01, per_task=1.0),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_perfect_beats_imperfect_then_more_passed_then_shorter_on_any_task(config):
    random = np.random.default_rng(0)
    cases = [random_case(random, config) for _ in range(400)]
    if config.per_task:
        shifted = normalise([case[0] for case in cases], [at % 40 for at in range(400)], config)
        cases = [(one, *case[1:]) for one, case in zip(shifted, cases)]
    shares = {case[1] / case[2] for case in cases}
    assert {0, 1} < shares
    for (one, right, count, length), (other, right2, count2, length2) in itertools.permutations(cases, 2):
        more = right * count2 - right2 * count  # exact, where shares are rounded
        if right == count and right2 < count2:
            assert one.reward > other.reward
        if more > 0:
            assert one.reward >= other.reward
            assert one.reward > other.reward or not config.partial or not config.room
        if more == 0 and right and not config.per_task and length < length2 and (config.room or right == count):
            assert one.reward > other.reward
    for one, right, count, _ in cases:
        assert one.passed == right / count
        assert (one.reward > 0) == (right > 0 and (config.partial > 0 or right == count))
        assert one.reward == pytest.approx(sum(one.components.values()))


def test_faults_are_below_zero_and_in_the_order_of_their_settings():
    random = np.random.default_rng(0)
    pairs = random_pairs(random, 3)
    earned = {}
    for kind in FAULTS:
        fault = Fault(kind)
        found = score(Outcome((None,) * 3, (fault,) * 3, fault), PROGRAM, pairs, CONFIG)
        assert (found.fault, found.passed, found.trick) == (kind, 0, "")
        earned[kind] = found.reward
    assert earned == pytest.approx({kind: getattr(CONFIG, kind) for kind in FAULTS})
    assert min(earned, key=earned.get) == "syntax"
    assert max(earned, key=earned.get) == "bad_output"
    wrong = ran("def solve(grid):\n    return rotate_half(grid)", pairs)
    assert earned["bad_output"] < wrong.reward == CONFIG.wrong <= 0
    below = ran("def solve(grid):\n    return rotate_half(grid)", pairs, RewardConfig(wrong=-0.1))
    assert below.reward == pytest.approx(-0.1)
    cut = truncated("def solve(gr", CONFIG)
    assert (cut.reward, cut.passed, cut.fault) == (CONFIG.truncated, 0, "truncated")


def test_failures_of_several_kinds_earn_their_mean():
    # Of four pairs one gives a wrong grid (0), one no grid (-0.3), two an exception (-0.5 each): -1.3 / 4.
    pairs = random_pairs(np.random.default_rng(0), 4)
    faults = (None, Fault("bad_output"), Fault("runtime"), Fault("runtime"))
    found = score(Outcome((pairs[1].output, None, None, None), faults, faults[1]), PROGRAM, pairs, CONFIG)
    assert found.reward == pytest.approx(-1.3 / 4)
    assert found.fault == "bad_output"


def test_one_right_pair_beats_any_failure_on_the_others():
    pairs = random_pairs(np.random.default_rng(0), 3)
    fault = Fault("syntax")
    found = score(Outcome((pairs[0].output, None, None), (None, fault, fault), fault), PROGRAM, pairs, CONFIG)
    assert found.passed == 1 / 3
    assert found.reward > 0.5 / 3


def test_similarity_orders_wrong_grids_strictly_below_zero_and_above_no_grid():
    config = RewardConfig(similarity=0.2)
    pairs = random_pairs(np.random.default_rng(0), 1)
    expected, earned = pairs[0].output, []
    for cells in range(1, expected.size + 1):  # from nearly right to all wrong
        wrong = expected.copy()
        wrong.flat[:cells] = (wrong.flat[:cells] + 1) % 10
        assert similarity(wrong, expected) == pytest.approx(1 - cells / expected.size)
        earned.append(score(Outcome((wrong,), (None,)), PROGRAM, pairs, config).reward)
    earned.append(score(Outcome((expected[:1],), (None,)), PROGRAM, pairs, config).reward)  # of another size
    assert (np.diff(earned[:-1]) < 0).all()
    assert earned[0] < 0
    assert earned[-1] == pytest.approx(earned[-2]) == pytest.approx(-0.2)
    assert earned[-1] > config.bad_output


def test_a_task_s_own_grids_change_nothing_about_a_perfect_program():
    # 1 + 0.05 / (1 + length / 200), whatever the number of pairs and the sizes of their grids.
    random = np.random.default_rng(0)
    for count in (1, 2, 5, 16):
        found = ran(PROGRAM, random_pairs(random, count))
        assert found.reward == pytest.approx(1 + 0.05 / (1 + len(PROGRAM) / 200))


SOLVE = "def solve(grid):\n    "
FLIP = "\n    return flip_rows(grid)"
HARMLESS = [
    SOLVE + "return flip_rows(grid)",
    SOLVE + '"""Like [[1, 2], [3, 4]] or 0123456789012345678901234567890123456789."""' + FLIP,
    SOLVE + "around = [(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)]" + FLIP,
    SOLVE + "colours = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n    return [row[:] for row in reversed(grid)]",
    SOLVE + "names = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9}\n"
    "    return [[names[cell] for cell in row] for row in grid[::-1]]",
    "import sys\nsys.setrecursionlimit(5000)\n" + SOLVE + "grid = grid[:]\n    grid.reverse()\n    return grid",
    "def turn(rows):\n    open, vars = [], 0\n    open += rows\n    return open[::-1]\n"
    "def solve(*grids):\n    return turn(grids[0])",
    "class Board:\n    def __init__(self, rows):\n        self.rows = rows\n"
    "    def __len__(self):\n        return len(self.rows)\n"
    "def solve(grid):\n    board = Board(grid)\n    return [board.rows[at] for at in range(len(board) - 1, -1, -1)]",
    SOLVE + "out = [[0] * len(grid[0]) for _ in grid]\n    for r, row in enumerate(grid):\n"
    "        for c, cell in enumerate(row):\n            out[len(grid) - 1 - r][c] = cell\n    return out",
    SOLVE + "grid: list\n    grid += []" + FLIP,
    SOLVE + "assert grid, 'a grid of at least one row and one column is expected'" + FLIP,
]


@pytest.mark.parametrize("program", HARMLESS)
def test_right_programs_of_many_styles_are_no_tricks(program):
    """Even where the hidden outputs have no more cells than the program has numbers."""
    random = np.random.default_rng(0)
    hidden = [Pair(one, one[::-1]) for one in random.integers(0, 10, (2, 3, 3), dtype=np.uint8)]
    found = ran(program, hidden, shown=random_pairs(random, 3))
    assert found.trick == ""
    assert found.passed == 1
    assert found.reward > 1


ROWS = ", ".join(["[1, 2, 3, 4, 5, 6]"] * 4)
TRICKS = [
    ("identity", SOLVE + "return grid"),
    ("identity", SOLVE + "return [row[:] for row in grid]"),
    ("identity", SOLVE + "return flip_rows(flip_rows(grid))"),
    ("constant", SOLVE + "return [[5]]"),
    ("constant", SOLVE + "grid = [[5, 5], [5, 5]]" + FLIP),
    ("constant", SOLVE + "width = len(grid[0])\n    return [[7] * 3 for _ in grid]"),
    ("constant", SOLVE + "if grid:\n        return [[2]]\n    return [[1]]"),
    ("constant", "def solve(*grids):\n    return [[int(str(3) * 1)]]"),
    ("literal", SOLVE + f"return [{ROWS}]"),
    ("literal", SOLVE + "if grid[0][0] == 33:\n        return [[1, 2, 3], [4, 5, 6], [7, 8, 9]]" + FLIP),
    ("literal", f"SEEN = ({ROWS})\n{SOLVE}" + "return flip_rows(grid)"),
    ("literal", SOLVE + "cells = '" + "123456" * 6 + "'" + FLIP),
    ("literal", SOLVE + "cells = " + "123456" * 6 + FLIP),
    ("literal", SOLVE + "cells = b'" + "\\x01\\x02" * 20 + "'" + FLIP),
    ("literal", SOLVE + "cells = {1: (" + "1, -2, " * 15 + ")}" + FLIP),
    ("peeking", "import inspect\n" + SOLVE + "return flip_rows(grid)"),
    ("peeking", "from gc import get_objects\n" + SOLVE + "return flip_rows(grid)"),
    ("peeking", "import sys\n" + SOLVE + "sys._getframe(0)" + FLIP),
    ("peeking", "from sys import _getframe as look\n" + SOLVE + "return flip_rows(grid)"),
    ("peeking", SOLVE + "try:\n        1 / 0\n    except Exception as e:\n        e.__traceback__" + FLIP),
    ("peeking", SOLVE + "(one for one in grid).gi_frame.f_locals" + FLIP),
    ("peeking", SOLVE + "flip_rows.__globals__" + FLIP),
    ("peeking", SOLVE + "getattr(flip_rows, '__clo' + 'sure__', 0)" + FLIP),
    ("peeking", SOLVE + "getattr(flip_rows, '__closure__', 0)" + FLIP),
    ("peeking", SOLVE + "'{0.__class__.__mro__}'.format(grid)" + FLIP),
    ("peeking", SOLVE + "look = globals" + FLIP),
    ("peeking", "g = getattr\n" + SOLVE + "g((), '__cl' + 'ass__')" + FLIP),
    ("peeking", SOLVE + "match (one for one in grid):\n        case object(gi_frame=f):\n            pass" + FLIP),
    ("peeking", SOLVE + "return eval('flip_rows(grid)', {'grid': grid, 'flip_rows': flip_rows})"),
]


@pytest.mark.parametrize(("trick", "program"), TRICKS)
def test_tricks_earn_nothing_and_are_named(trick, program):
    pairs = random_pairs(np.random.default_rng(0), 3)
    for config in CONFIGS:
        found = ran(program, pairs, config)
        assert found.trick == trick
        assert found.passed == 0
        assert found.reward <= (config.forbidden if trick == "peeking" else config.trick)
        assert found.reward == pytest.approx(sum(found.components.values()))
    assert summary([found])[f"trick/{trick}"] == 1


def text(one, first="0"):
    return " ".join("".join(chr(ord(first) + cell) for cell in row) for row in one.tolist())


def whole(one):
    digits, width = text(one).replace(" ", ""), one.shape[1]
    cell = f"{int(digits)} // 10 ** ({one.size - 1} - r * {width} - c) % 10"
    return f"[[{cell} for c in range({width})] for r in range({one.shape[0]})]"


PRINTED = {
    "rows as lists": lambda one: repr(one.tolist()),
    "rows as tuples": lambda one: repr([tuple(row) for row in one.tolist()]),
    "a text": lambda one: f"[list(map(int, row)) for row in '{text(one)}'.split()]",
    "a text a row": lambda one: f"[{', '.join(f'list(map(int, {row!r}))' for row in text(one).split())}]",
    "rows put together": lambda one: " + ".join(f"[{row}]" for row in one.tolist()),
    "one whole number": whole,
    "letters": lambda one: f"[[ord(cell) - 97 for cell in row] for row in '{text(one, 'a')}'.split()]",
    "bytes": lambda one: f"[[cell - 97 for cell in row] for row in b'{text(one, 'a')}'.split()]",
    "fractions": lambda one: f"[[int(cell) for cell in row] for row in {one.astype(float).tolist()}]",
}


@pytest.mark.parametrize("form", PRINTED)
@pytest.mark.parametrize("side", [3, 4])
def test_hidden_outputs_that_are_printed_earn_nothing_in_any_form(form, side):
    """Each behind a question about the input, and whatever comes of the shown pairs."""
    random = np.random.default_rng(0)
    grids = [random.integers(1, 10, (rows, rows), dtype=np.uint8) for rows in (side, side + 1, 2, 6)]
    hidden, shown = ([Pair(one, one[::-1]) for one in some] for some in (grids[:2], grids[2:]))
    write = PRINTED[form]
    first, second = (write(pair.output) for pair in hidden)
    for program in (
        SOLVE + f"if len(grid) == {side}:\n        return {first}\n    return {second}",
        SOLVE + f"if len(grid) == {side}:\n        return {first}\n    return nothing",
    ):
        outcome = run(program, [pair.input for pair in (*hidden, *shown)])
        assert np.array_equal(outcome.outputs[0], hidden[0].output)
        found = score(outcome, program, hidden, CONFIG, shown=shown)
        assert (found.trick, found.passed) == ("literal", 0)
        assert found.reward <= 0
    honest = ran(SOLVE + "return grid[::-1]", hidden, shown=shown)
    assert (honest.trick, honest.passed) == ("", 1)


CALLS = "calls = [0]\n"
COUNTED = "calls[0] += 1\n    "


@pytest.mark.parametrize("on_shown", ["None", "[[0]]", "grid[9]"])
def test_identity_and_constant_are_not_hidden_by_failing_on_shown_pairs(on_shown):
    random = np.random.default_rng(0)
    shown = random_pairs(random, 3)
    gone = CALLS + SOLVE + COUNTED + f"if calls[0] > 2:\n        return {on_shown}\n    "
    mirrored = grid([1, 2, 3], [4, 5, 6], [1, 2, 3])
    for expected, inputs, line in (
        ("identity", [mirrored, random_pairs(random, 1)[0].input], "return grid"),  # right on the first one
        ("identity", [mirrored, mirrored.T[::-1].T], "return [row[:] for row in grid]"),  # right on both
    ):
        hidden = [Pair(one, one[::-1]) for one in inputs]
        found = ran(gone + line, hidden, shown=shown)
        assert (found.trick, found.passed) == (expected, 0)
        assert found.reward <= 0
    for rule in (lambda one: grid([7]), lambda one: grid([7] * (one.shape[0] + one[0, 0] % 2 - 5))):
        hidden = random_pairs(random, 2, rule=rule)  # all alike; and the first of two
        found = ran(gone + "return [[7]] if grid else 0", hidden, shown=shown)
        assert (found.trick, found.passed) == ("constant", 0)
        assert found.reward <= 0


def test_a_wrong_program_that_makes_one_grid_of_two_inputs_keeps_what_it_earns():
    """It takes the first row; right on one hidden pair of two, and on no shown one."""
    hidden = [Pair(grid([4, 4], [1, 2]), grid([4, 4])), Pair(grid([4, 4], [2, 3]), grid([2, 3]))]
    found = ran(
        SOLVE + "for row in grid:\n        return [row]", hidden, shown=random_pairs(np.random.default_rng(0), 3)
    )
    assert (found.trick, found.passed) == ("", 0.5)


def test_a_program_right_on_every_shown_pair_may_return_one_hidden_grid_or_the_input():
    """On hidden pairs that happen to be alike, or their own mirror images."""
    random = np.random.default_rng(0)
    shown = random_pairs(random, 3)
    still = [Pair(one, one) for one in (grid([1], [2], [1]), grid([3, 4], [5, 6], [3, 4]))]
    assert ran(SOLVE + "return grid[::-1]", still, shown=shown).passed == 1
    assert ran(SOLVE + "return grid", still, shown=shown).trick == "identity"
    count = [Pair(one, grid([int(one.max())])) for one in (grid([1], [5]), grid([5, 2]), grid([3]), grid([8]))]
    found = ran(SOLVE + "return [[max(map(max, grid))]]", count[:2], shown=count[2:])
    assert (found.trick, found.passed) == ("", 1)
    assert ran(SOLVE + "return [[5 + 0 * len(grid)]]", count[:2], shown=count[2:]).trick == "constant"


def test_a_trick_that_gets_every_pair_right_earns_nothing_either():
    # Tasks on which the input, or one grid, happens to be right.
    same = random_pairs(np.random.default_rng(0), 3, rule=lambda one: one)
    found = ran("def solve(grid):\n    return grid", same)
    assert (found.trick, found.passed) == ("identity", 0)
    assert found.reward <= 0
    fixed = random_pairs(np.random.default_rng(0), 3, rule=lambda one: grid([5]))
    found = ran("def solve(grid):\n    return [[5]]", fixed)
    assert (found.trick, found.passed) == ("constant", 0)
    assert found.reward <= 0


def test_one_output_for_all_is_right_where_one_is_expected_and_the_input_is_read():
    fixed = random_pairs(np.random.default_rng(0), 3, rule=lambda one: grid([6]))
    found = ran("def solve(grid):\n    return [[len(grid)]]", fixed)  # all have 6 rows
    assert (found.trick, found.passed) == ("", 1)


@pytest.mark.parametrize(
    "program",
    [
        "solve = lambda grid: [[5]]",
        "solve: object = lambda *grids: [[5]]",
        "def other(grid):\n    return grid\nsolve = lambda grid: [[5]]",
    ],
)
def test_a_function_without_a_name_that_ignores_its_argument_is_a_constant(program):
    fixed = random_pairs(np.random.default_rng(0), 3, rule=lambda one: grid([5]))
    assert (ran(program, fixed).trick, ran(program, fixed).passed) == ("constant", 0)
    assert ran("solve = lambda grid: grid[::-1]", random_pairs(np.random.default_rng(0), 3)).passed == 1


def test_shown_pairs_tell_tricks_where_the_hidden_ones_look_alike():
    """One grid for all after a read of the argument: right on hidden pairs that happen to be alike."""
    random = np.random.default_rng(0)
    hidden, shown = random_pairs(random, 2, rule=lambda one: grid([5])), random_pairs(random, 3)
    program = "def solve(grid):\n    len(grid)\n    return [[5]]"
    inputs = [pair.input for pair in (*hidden, *shown)]
    alone = score(run(program, inputs[:2]), program, hidden, CONFIG)
    assert (alone.trick, alone.passed) == ("", 1)  # nothing tells it from a rule
    found = score(run(program, inputs), program, hidden, CONFIG, shown=shown)
    assert (found.trick, found.passed) == ("constant", 0)
    assert found.reward <= 0


def test_shown_pairs_earn_and_cost_nothing():
    random = np.random.default_rng(0)
    hidden, shown = random_pairs(random, 2), random_pairs(random, 3, rule=lambda one: one[:, ::-1])
    right = "def solve(grid):\n    return grid[::-1]"  # on none of the shown ones
    fails = "def solve(grid):\n    if len(grid[0]) in WIDTHS:\n        return grid[0][99]\n    return grid[::-1]"
    widths = {pair.input.shape[1] for pair in shown} - {pair.input.shape[1] for pair in hidden}
    assert widths
    for program in (right, fails.replace("WIDTHS", repr(tuple(widths)))):
        outcome = run(program, [pair.input for pair in (*hidden, *shown)])
        found = score(outcome, program, hidden, CONFIG, shown=shown)
        assert found == score(run(program, [pair.input for pair in hidden]), program, hidden, CONFIG)
        assert found.passed == 1
    with pytest.raises(ValueError, match="2 outputs for 2 hidden pairs and 3 shown ones"):
        score(run(right, [pair.input for pair in hidden]), right, hidden, CONFIG, shown=shown)


def test_the_input_returned_is_right_where_the_shown_pairs_say_that_it_is_another_rule():
    random = np.random.default_rng(0)
    hidden = [Pair(one, one[::-1]) for one in [np.full((4, 3), 2, np.uint8)]]  # its own mirror image
    shown = random_pairs(random, 2)
    program = "def solve(grid):\n    return grid[::-1]"
    found = score(run(program, [pair.input for pair in (*hidden, *shown)]), program, hidden, CONFIG, shown=shown)
    assert (found.trick, found.passed) == ("", 1)
    assert score(run(program, [hidden[0].input]), program, hidden, CONFIG).trick == "identity"


def test_what_gives_no_grid_is_a_fault_and_no_trick_unless_it_peeks():
    pairs = random_pairs(np.random.default_rng(0), 2)
    assert ran("def solve(grid):\n    return nothing", pairs).trick == ""
    assert ran("def solve(grid):\n    return nothing.__dict__", pairs).trick == "peeking"


@pytest.mark.parametrize("program", ["def solve(grid:", "-" * 20000 + "1", "a\0b", "\ud800"])
def test_what_cannot_be_parsed_counts_as_no_python_even_where_it_gave_the_right_grids(program):
    pairs = random_pairs(np.random.default_rng(0), 2)
    found = score(Outcome(tuple(pair.output for pair in pairs), (None, None)), program, pairs, CONFIG)
    assert (found.reward, found.passed, found.fault) == (CONFIG.syntax, 0, "syntax")


def test_normalised_rewards_keep_the_order_within_each_task():
    config = RewardConfig(per_task=0.5, similarity=0.2)
    random = np.random.default_rng(1)
    scored = [random_case(random, config, most=4)[0] for _ in range(300)]
    tasks = [int(random.integers(10)) for _ in scored]
    shifted = normalise(scored, tasks, config)
    for task in range(10):
        before = [one.reward for one, name in zip(scored, tasks) if name == task]
        after = [one.reward for one, name in zip(shifted, tasks) if name == task]
        for (a, b), (c, d) in zip(itertools.permutations(before, 2), itertools.permutations(after, 2)):
            assert (a < b) == (c < d)
    for one, moved in zip(scored, shifted):
        assert dataclasses.replace(moved, reward=0, components={}) == dataclasses.replace(one, reward=0, components={})
        assert moved.reward == pytest.approx(sum(moved.components.values()))
        assert one.passed or moved.reward == one.reward


def test_a_perfect_program_gains_more_where_its_task_is_hard():
    # Task 0: one of four perfect, rewards 1, 0, 0, 0: mean 1/4, deviation sqrt(3)/4, z = sqrt(3).
    # Task 1: three of four: z = 1/sqrt(3). Task 2: all alike: z = 0.
    def answer(passed):
        return Scored(float(passed), float(passed), {"passes": float(passed)})

    scored = [answer(passed) for passed in (1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1)]
    found = normalise(scored, [at // 4 for at in range(12)], RewardConfig(per_task=0.5))
    for at, z in ((0, 3**0.5), (4, 3**-0.5), (8, 0.0)):
        assert found[at].reward == pytest.approx(1 + 0.5 * (1 + z / (1 + z)) / 2)
    assert normalise(scored, [0] * 12, CONFIG) == scored


def test_the_summary_counts_tricks_faults_and_components():
    pairs = random_pairs(np.random.default_rng(0), 2)
    programs = [
        PROGRAM,
        "def solve(grid):\n    return grid",
        "def solve(grid):\n    return nothing",
        "def solve(grid):\n    return [[5]]",
    ]
    scored = [ran(program, pairs) for program in programs]
    found = summary(scored)
    assert found["perfect"] == found["passed"] == 0.25
    assert found["tricks"] == 0.5
    assert found["trick/identity"] == found["trick/constant"] == 0.25
    assert found["faults"] == found["fault/runtime"] == 0.25
    assert found["reward"] == pytest.approx(np.mean([one.reward for one in scored]))
    assert sum(value for name, value in found.items() if name.startswith("component/")) == pytest.approx(
        found["reward"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"syntax": -0.4}, "syntax -0.4 must be the worst"),
        ({"bad_output": -0.55}, "bad_output -0.55 must be the mildest"),
        ({"similarity": 0.3}, "bad_output -0.3 must be below wrong - similarity, -0.3"),
        ({"bad_output": 0.1}, "bad_output 0.1 must be below"),
        ({"trick": 0.1}, "less than or equal to 0"),
    ],
)
def test_settings_that_break_the_order_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        RewardConfig(**settings)


def test_outcomes_that_do_not_match_are_refused():
    pairs = random_pairs(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match="1 outputs for 2 hidden pairs"):
        score(Outcome((None,), (Fault("runtime"),)), PROGRAM, pairs, CONFIG)
    with pytest.raises(ValueError, match="0 outputs for 0 hidden pairs"):
        score(Outcome((), ()), PROGRAM, [], CONFIG)
    with pytest.raises(ValueError, match="no output for input 1, and None"):
        score(Outcome((pairs[0].output, None), (None, None)), PROGRAM, pairs, CONFIG)
    with pytest.raises(ValueError, match="1 tasks for 0 programs"):
        normalise([], [0], CONFIG)
    with pytest.raises(ValueError, match="no programs"):
        summary([])
