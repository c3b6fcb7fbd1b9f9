"""What is logged of a rollout, counted by hand."""

import pytest

from utils.rl.episodes import Episodes
from utils.rl.reward import RewardConfig, Scored, truncated

PARTS = {"passes": 0.0, "brevity": 0.0, "wrong": 0.0, "faults": 0.0, "trick": 0.0}
RIGHT = Scored(1.0, 1.0, PARTS | {"passes": 1.0})
HALF = Scored(0.25, 0.5, PARTS | {"passes": 0.25})
TRICK = Scored(-0.1, 0.0, PARTS | {"trick": -0.1}, "identity")
CUT = truncated("def", RewardConfig())


def test_rates_are_over_programs_and_solved_over_tasks():
    scored = [RIGHT, HALF, CUT, TRICK, TRICK, HALF, RIGHT, RIGHT]  # 4 tasks, 2 programs each
    programs = ["a", "b", "c", "a", "a", "d", "a", "a"]
    finished = [one.fault != "truncated" for one in scored]
    episodes = Episodes([1, 2, 2, 1], programs, scored, [3, 4, 9, 2, 2, 2, 3, 3], finished)
    assert episodes.passed.tolist() == [[True, False], [False, False], [False, False], [True, True]]
    told = episodes.metrics()
    expected = {
        "score": (1 + 0.25 - 1 - 0.1 - 0.1 + 0.25 + 1 + 1) / 8,
        "pass@1": 3 / 8,
        "solved": 2 / 4,
        "length": 28 / 8,
        "truncated": 1 / 8,
        "distinct": 4 / 8,
        "passed": 4 / 8,
        "tricks": 2 / 8,
        "faults": 1 / 8,
        "component/passes": 3.5 / 8,
        "trick/identity": 2 / 8,
        "fault/truncated": 1 / 8,
        "level1/pass@1": 3 / 4,
        "level2/pass@1": 0.0,
    }
    assert {name: told[name] for name in expected} == pytest.approx(expected)
    assert {"trick/literal", "fault/timeout", "component/brevity"} < set(told)
    assert "level3/pass@1" not in told
