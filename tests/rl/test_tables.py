"""Tables say what evaluations hold."""

import pytest

from utils.rl.estimates import Estimate
from utils.rl.evaluation import Evaluation, Record, paired
from utils.rl.tables import (
    change_table,
    changed,
    ending_table,
    metric_card,
    part_table,
    points,
    solved_and_unsolved,
)


def evaluation(name, correct, *, levels=(1, 1, 2, 3), seen=(True, False, False, True), greedy=True, passed=None):
    records = []
    for at, (right, level, known) in enumerate(zip(correct, levels, seen)):
        share = float(right > 0) if passed is None else passed[at]
        endings = {"solved": right, "wrong": 4 - right}
        records.append(Record(f"t{at}", level, known, 4, right, greedy and right > 1, f"p{at}", share, 1, 2, endings))
    return Evaluation(name, records, (1, 2), 100)


@pytest.fixture
def before():
    return evaluation("before", (0, 2, 0, 1))


@pytest.fixture
def after():
    return evaluation("after", (4, 1, 0, 3))


def test_the_card_has_a_row_an_evaluation(before, after):
    random = Evaluation("random", [Record("t0", 1, True, 4, 1, None, "p", 1.0, 1, 4, {"solved": 4})], (1, 2), 100)
    card = metric_card({"before": before, "after": after, "random": random})
    assert list(card.index) == ["before", "after", "random"]
    assert list(card.columns) == ["pass@1", "greedy", "pass@2", "tasks solved by any program"]
    assert card.loc["after", "pass@1"].startswith("50.0% (")  # (4 + 1 + 0 + 3) / 16
    assert card.loc["random", "greedy"] == "–"
    assert list(card["tasks solved by any program"]) == [
        "2 of 4 (of 5 each)", "3 of 4 (of 5 each)", "1 of 1 (of 4 each)",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one"):
        metric_card({})


def test_changes_are_differences_and_ratios(before, after):
    table = change_table(before, after).set_index("rate")
    assert table.loc["pass@1", "before"] == "18.8%"  # 3 / 16
    assert table.loc["pass@1", "difference, points"].startswith("+31.2 (")
    assert table.loc["pass@1", "ratio"] == "2.67"
    nothing = evaluation("nothing", (0, 0, 0, 0))
    assert list(change_table(nothing, after)["ratio"]) == ["–"] * 3
    assert points(Estimate(-0.01, -0.0251, 0.004)) == "-1.0 (-2.5 to +0.4)"


def test_parts_are_levels_and_programs_known_from_training(before, after):
    table = part_table({"before": before, "after": after})
    kinds = ["1 step", "2 steps", "3 steps", "programs that made no training task", "programs of training tasks"]
    assert list(table["tasks of"]) == kinds
    assert list(table["tasks"]) == [2, 1, 1, 2, 2]
    assert table["after"][0].startswith("62.5% (")  # (4 + 1) / 8
    unknown = evaluation("arc", (0, 0, 0, 1), levels=(0,) * 4, seen=(None,) * 4)
    assert list(part_table({"arc": unknown})["tasks of"]) == ["unknown"]


def test_endings_that_none_came_to_are_left_out(before, after):
    table = ending_table({"before": before, "after": after})
    assert list(table["ending"]) == ["solved", "wrong"]
    assert list(table["after"]) == ["50.0%", "50.0%"]


def test_solved_tasks_of_most_steps_and_unsolved_ones_that_came_nearest():
    found = solved_and_unsolved(
        evaluation("x", (1, 0, 2, 0, 3, 0), levels=(1, 2, 3, 1, 3, 1), seen=(None,) * 6, passed=(1, 0.5, 1, 0, 1, 0.5))
    )
    assert found["solved"].tolist() == [4, 2, 0]  # of two at level 3 the one that more programs solve
    assert found["unsolved"].tolist() == [5, 1, 3]  # of two at 0.5 the one of fewer steps
    assert solved_and_unsolved(evaluation("x", (0, 0, 0, 0)))["solved"].tolist() == []


def test_a_change_is_told_with_both_rates_and_its_paired_interval(before, after):
    """18.8% is 3 / 16 and 50.0% is 8 / 16; the interval is that of the differences."""
    change = paired(before, after, "pass@1")
    assert changed(before, after, "pass@1") == (
        f"18.8% to 50.0%, +31.2 points (95%: {100 * change.low:+.1f} to {100 * change.high:+.1f})"
    )
