"""Rates, parts, endings and differences of hand-made records, against numpy."""

import json

import numpy as np
import pytest

from utils.rl.estimates import bootstrap
from utils.rl.evaluation import ENDINGS, Evaluation, Record, ending, paired, spread
from utils.rl.reward import FAULTS, Scored
from utils.rl.tricks import TRICKS


def record(number, correct, *, greedy=False, level=1, seen=None, samples=4, **endings):
    endings = endings or {"solved": correct, "wrong": samples - correct}
    return Record(f"t{number}", level, seen, samples, correct, greedy, "p", float(correct > 0 or greedy), 1, 2, endings)


@pytest.fixture
def evaluation():
    records = [
        record(0, 4, greedy=True, level=1, seen=True),
        record(1, 1, level=1, seen=False),
        record(2, 0, level=2, seen=False),
        record(3, 2, greedy=True, level=3, seen=True),
    ]
    return Evaluation("mine", records, (1, 2), 500, 7, tokens=[3, 4, 5, 20], characters=[30, 40, 50, 200])


def test_rates_are_means_over_tasks(evaluation):
    assert evaluation.metrics == ["pass@1", "greedy", "pass@2"]
    assert evaluation.rates["pass@1"].value == pytest.approx((1 + 1 / 4 + 0 + 1 / 2) / 4)
    # Of 6 pairs of 4 programs, those without a correct one: 0 of 6, 3 of 6, all, 1 of 6.
    assert evaluation.rates["pass@2"].value == pytest.approx((1 + 1 / 2 + 0 + 5 / 6) / 4)
    assert evaluation.rates["greedy"].value == 0.5
    assert evaluation.rates["greedy"] == bootstrap(np.array([1.0, 0, 0, 1]), draws=500, seed=7)


def test_parts_hold_their_tasks_alone(evaluation):
    assert {level: len(part.records) for level, part in evaluation.by_level.items()} == {1: 2, 2: 1, 3: 1}
    assert evaluation.by_level[1].rates["pass@1"].value == pytest.approx(5 / 8)
    assert evaluation.by_seen[True].rates["greedy"].value == 1
    assert evaluation.by_seen[False].rates["pass@1"].value == pytest.approx(1 / 8)
    assert Evaluation("x", [record(0, 1)]).by_seen == {}


def test_counts_and_shares_of_endings_add_up(evaluation):
    assert evaluation.counts == {
        "tasks": 4, "programs": 16, "correct": 7, "distinct": 8, "programs_a_task": 5, "tasks_solved_by_any_program": 3,
        "tasks_solved_by_greedy": 2,
    }  # fmt: skip
    assert evaluation.endings["solved"] == 7 / 16
    assert sum(evaluation.endings.values()) == pytest.approx(1)
    assert set(evaluation.endings) == set(ENDINGS)


def test_difference_is_that_of_the_tasks_pairs(evaluation):
    later = Evaluation("later", [record(at, correct) for at, correct in enumerate((4, 3, 1, 2))], (1, 2), 500, 7)
    found = paired(evaluation, later, "pass@1")
    assert found == bootstrap(np.array([0, 0.5, 0.25, 0]), draws=500, seed=7)
    assert found.value == pytest.approx(later.rates["pass@1"].value - evaluation.rates["pass@1"].value)
    same = paired(evaluation, evaluation, "pass@2")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_differences_of_other_tasks_are_refused(evaluation):
    with pytest.raises(ValueError, match="has 4 tasks and fewer 3, or others"):
        paired(evaluation, Evaluation("fewer", evaluation.records[:3]), "pass@1")
    with pytest.raises(ValueError, match="or others"):
        paired(evaluation, Evaluation("turned", evaluation.records[::-1]), "pass@1")


def test_every_program_comes_to_one_ending():
    def scored(passed, trick="", fault=""):
        return Scored(0.0, passed, {}, trick, fault)

    assert ending(scored(1.0)) == "solved"
    assert ending(scored(0.5, fault="runtime")) == "partial"
    assert ending(scored(0.0)) == "wrong"
    assert [ending(scored(0.0, trick=trick, fault="runtime")) for trick in TRICKS] == list(TRICKS)
    assert [ending(scored(0.0, fault=fault)) for fault in FAULTS] == list(FAULTS)


def test_content_is_strict_json(evaluation):
    content = json.loads(json.dumps(evaluation.content(), allow_nan=False))
    assert content["counts"]["tasks"] == 4
    assert set(content["rates"]["pass@1"]) == {"value", "low", "high"}
    assert content["by_level"]["1"]["tasks"] == 2
    assert content["by_seen"]["False"]["pass@1"]["value"] == pytest.approx(1 / 8)
    assert content["tokens"] == {"mean": 8, "median": 4.5, "p95": pytest.approx(17.75), "max": 20}


def test_a_writer_without_a_likeliest_program_has_no_greedy_rate():
    records = [record(0, 1, greedy=None)]
    found = Evaluation("random", records, (1, 4))
    assert found.metrics == ["pass@1", "pass@4"]
    assert "tasks_solved_by_greedy" not in found.counts
    assert found.counts["programs_a_task"] == 4
    with pytest.raises(ValueError, match="no greedy program"):
        found.values("greedy")


def test_unknown_rates_and_no_tasks_are_refused(evaluation):
    with pytest.raises(ValueError, match="No rate 'accuracy'; expected greedy or pass@k"):
        evaluation.values("accuracy")
    with pytest.raises(ValueError, match="has no task"):
        Evaluation("empty", [])
    assert spread([]) is None


def test_tasks_have_a_row_each(evaluation):
    table = evaluation.tasks
    assert list(table["task_id"]) == ["t0", "t1", "t2", "t3"]
    assert list(table["correct"]) == [4, 1, 0, 2]
