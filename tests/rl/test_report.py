"""A finished run is judged before and after PPO, and its report says so."""

import json

import pytest

from utils.core.check import Check
from utils.rl.evaluation import paired
from utils.rl.findings import Findings, findings, holds, rise
from utils.rl.report import AFTER, BEFORE, finish, judge, outputs_of, start_policy


@pytest.fixture(scope="module")
def judged(ppo_trained, open_sandbox):
    return judge(ppo_trained, start_policy(ppo_trained), open_sandbox)


def test_finish_writes_metrics_and_reports(ppo_trained, capsys):
    run = ppo_trained.run
    text = finish(run).read_text(encoding="utf-8")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Test tasks: pass@1 "))
    assert line.removeprefix("Test tasks: pass@1 ").removesuffix(".") in (run.path / "results/report.html").read_text()
    for expected in (run.id, "before PPO", "random program", "ppo solve TASK", "evaluation.arc is 0", "| seccomp |"):
        assert expected in text
    content = json.loads((run.path / "results" / "metrics.json").read_text(encoding="utf-8"))
    assert content["config"]["recipe"] == ppo_trained.recipe.model_dump(mode="json")
    assert content["update"] == ppo_trained.update
    assert set(content["results"]) == {
        BEFORE, AFTER, "baselines", "difference", "difference_by_seen", "arc",
    }  # fmt: skip
    assert content["results"][AFTER]["counts"]["programs"] == 12 * 8
    assert set(content["sandbox"].values()) <= {"ACTIVE", "MISSING", "NOT NEEDED"}
    change = content["results"]["difference"]["pass@1"]
    rates = [content["results"][name]["rates"]["pass@1"]["value"] for name in (BEFORE, AFTER)]
    assert change["value"] == pytest.approx(rates[1] - rates[0])
    lines = (run.path / "results" / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["evaluation"] for line in lines] == [BEFORE] * 12 + [AFTER] * 12
    page = (run.path / "results" / "report.html").read_text(encoding="utf-8")
    assert "points (95%: " in page
    assert page.count("<img") >= 6
    for figure in ("learning", "before_after", "levels", "endings", "lengths"):
        assert (run.path / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_findings_pass_where_intervals_are_clear_of_zero(judged):
    worse = judged.baselines["identity"]  # solves nothing
    better = judged.after
    assert paired(worse, better, "pass@1").low > 0
    assert rise(worse, better, "pass@1", None, None).status == "pass"
    assert rise(better, worse, "pass@1", None, None).status == "fail"
    assert rise(better, better, "pass@1", None, None).status == "warn"
    assert holds(better, better, "greedy").status == "pass"
    assert holds(better, worse, "pass@4").status == "fail"


def test_findings_name_what_is_known(ppo_trained, judged, open_sandbox):
    report = findings(ppo_trained, judged, open_sandbox)
    names = [check.name for check in report.checks]
    assert names[:3] == ["pass@1", "greedy", "pass@4"]
    assert report["Real ARC tasks"].status == "skip"
    assert report["Sandbox"].status in ("pass", "warn")
    assert report.facts["run"] == ppo_trained.run.id
    assert names[-1] == "What to try next"


@pytest.mark.parametrize(
    ("status", "begins"), [("pass", "Improved: "), ("warn", "Not shown to improve: "), ("fail", "Worse: ")]
)
def test_the_verdict_says_what_became_of_the_rate_and_what_else_to_look_at(status, begins):
    """Improved only where the interval is above zero: where the first check passes."""
    others = [Check("Course", "warn", ""), Check("Ahead of baselines", "fail", ""), Check("Length", "pass", "")]
    report = Findings("PPO", [Check("pass@1", status, "30.0% to 40.0%, over 9 tasks."), *others])
    told = f"{begins}pass@1 30.0% to 40.0%, over 9 tasks. Fails: Ahead of baselines. Warnings: Course."
    assert report.verdict == told
    assert report._content()["verdict"] == told


def test_outputs_of_a_program_are_those_of_the_hidden_inputs(flip_problems, open_sandbox):
    task = flip_problems[0].task
    outputs = outputs_of("def solve(grid):\n    return [row[::-1] for row in grid]\n", task, open_sandbox)
    assert [grid.tolist() for grid in outputs] == [pair.output.tolist() for pair in task.test]
