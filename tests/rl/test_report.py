"""A finished run is judged before and after PPO, and its report says so."""

import json

import pytest

from utils.core.run import Run
from utils.rl.evaluation import paired
from utils.rl.findings import findings, holds, rise
from utils.rl.report import AFTER, BEFORE, finish, judge, outputs_of, start_policy


@pytest.fixture(scope="module")
def judged(ppo_trained, open_sandbox):
    before = start_policy(ppo_trained.setting, ppo_trained.run.path.parent)
    return judge(ppo_trained, before, open_sandbox)


def test_before_is_the_warm_start(ppo_trained, judged):
    """Its weights are those of the warm start's best checkpoint, and PPO changed them or its best update is 0."""
    before = start_policy(ppo_trained.setting, ppo_trained.run.path.parent)
    from utils.training.runs import best_checkpoint

    (warm,) = (run for run in Run.all(ppo_trained.run.path.parent) if run.name == "tiny-ppo-warm")
    kept = best_checkpoint(warm).load()["model"]
    weights = before.actor.model.state_dict()
    assert all(weights[name].equal(kept[name]) for name in kept)
    assert [run.name for run in Run.all(warm.path.parent)].count("tiny-ppo-warm") == 1  # taken up, not made anew


def test_policies_and_baselines_are_judged_on_the_same_tasks(ppo_trained, judged):
    pool = ppo_trained.setting.pool
    ids = [example.task.id for example in pool.test]
    for one in judged.all.values():
        assert [record.task_id for record in one.records] == ids
        assert [record.seen for record in one.records] == [example.program in pool.seen for example in pool.test]
        assert [record.level for record in one.records] == [example.depth for example in pool.test]
    assert list(judged.all) == [BEFORE, AFTER, "identity", "constant", "random program"]


def test_no_pair_of_a_test_task_was_trained_on(ppo_trained):
    from utils.arc.programs import pair_keys

    pool = ppo_trained.setting.pool
    splits = (pool.train, pool.validation, pool.test)
    keys = [{key for example in split for key in pair_keys(example.task)} for split in splits]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert not keys[0] & keys[1]


def test_finish_writes_metrics_and_reports(ppo_trained):
    run = ppo_trained.run
    text = finish(run).read_text(encoding="utf-8")
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
    assert "pass@1 rose" in page
    assert page.count("<img") >= 6
    for figure in ("learning", "before_after", "levels", "endings", "lengths"):
        assert (run.path / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_real_tasks_are_counted_with_those_left_out(ppo_trained, open_sandbox):
    recipe = ppo_trained.recipe
    few = recipe.evaluation.replace(arc=2, samples=4, tasks=1)
    trained = type(ppo_trained)(
        ppo_trained.run, recipe.replace(evaluation=few.model_dump()), ppo_trained.policy, ppo_trained.setting,
        ppo_trained.update,
    )  # fmt: skip
    found = judge(trained, ppo_trained.policy, open_sandbox)
    assert len(found.after.records) == 1
    assert [len(one.records) for one in found.arc.values()] == [2, 2]
    content = found.content()["arc"]
    assert (content["tasks"], content["tried"]) == (400, 2)
    assert f"{400 - content['fitting']} of 400 were left out for their length" in found.arc_sentence
    none = sum(one.counts["tasks_solved"] for one in found.arc.values()) == 0
    assert ("With none of 2 solved" in found.arc_sentence) == none


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
    assert names[:3] == ["pass@1 rose", "greedy held", "pass@4 held"]
    assert report["Real ARC tasks"].status == "skip"
    assert report["Sandbox"].status in ("pass", "warn")
    assert report.facts["run"] == ppo_trained.run.id


def test_outputs_of_a_program_are_those_of_the_hidden_inputs(flip_problems, open_sandbox):
    task = flip_problems[0].task
    outputs = outputs_of("def solve(grid):\n    return [row[::-1] for row in grid]\n", task, open_sandbox)
    assert [grid.tolist() for grid in outputs] == [pair.output.tolist() for pair in task.test]
