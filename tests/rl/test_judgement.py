"""A run is judged before and after PPO, beside baselines, on tasks it was not trained on."""

import shutil
from dataclasses import replace

import pytest

from utils.core.run import Run, RunError
from utils.rl.judgement import AFTER, BEFORE, judge, start_policy
from utils.rl.recipes import open_trained
from utils.training.runs import best_checkpoint


@pytest.fixture(scope="module")
def judged(ppo_trained, open_sandbox):
    return judge(ppo_trained, start_policy(ppo_trained), open_sandbox)


def test_before_is_what_the_run_began_with_and_needs_no_other_run(ppo_trained, tmp_path):
    """The weights of update 0, those of the warm start's best checkpoint; the warm start's run is not there."""
    run = Run.open(shutil.copytree(ppo_trained.run.path, tmp_path / ppo_trained.run.path.name))
    weights = start_policy(replace(ppo_trained, run=run)).state_dict()
    first = open_trained(ppo_trained.run.path, 0).policy.state_dict()
    assert weights.keys() == first.keys()
    assert all(weights[name].equal(one) for name, one in first.items())
    (warm,) = (one for one in Run.all(ppo_trained.run.path.parent) if one.name == "tiny-ppo-warm")
    kept = best_checkpoint(warm).load()["model"]
    assert all(weights[f"actor.model.{name}"].equal(one) for name, one in kept.items())
    assert [one.name for one in Run.all(tmp_path)] == ["tiny-ppo"]  # no warm start was made here
    shutil.rmtree(run.path / "checkpoints" / "reference")
    with pytest.raises(RunError, match="has lost the weights of its reference"):
        start_policy(replace(ppo_trained, run=run))


def test_policies_and_baselines_are_judged_on_the_same_tasks(ppo_trained, judged):
    pool = ppo_trained.setting.pool
    ids = [example.task.id for example in pool.test]
    for one in judged.all.values():
        assert [record.task_id for record in one.records] == ids
        assert [record.seen for record in one.records] == [pool.has_seen(example) for example in pool.test]
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
    assert "at least one of 5 programs (4 drawn, 1 greedy) passed the hidden pairs: " in found.arc_sentence
    none = sum(one.counts["tasks_solved_by_any_program"] for one in found.arc.values()) == 0
    assert ("With none of 2 solved" in found.arc_sentence) == none
