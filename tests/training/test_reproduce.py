"""A run trained again is the same to the last bit, or what differs is named."""

import json

import pytest

from utils.core.repro import CHANGES
from utils.core.run import STAMP, Run, RunError
from utils.training.recipes import go_on, load_recipe, train
from utils.training.reproduce import _code, compare, prove_deterministic, reproduce


@pytest.fixture(scope="module")
def recipe(data):
    """The smallest recipe, on the tiny corpus."""
    changes = {
        "max_steps": 6,
        "batch_size": 6,
        "warmup_steps": 2,
        "eval_every": 3,
        "sample_every": 0,
        "log_every": 1,
    }
    return load_recipe("minimal_test").replace(
        data={"corpus": data.metadata["source"], "block_size": 8},
        model={"width": 16, "dropout": 0.1},
        train={**changes, "device": "cpu", "trackers": ()},
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return train(recipe, tmp_path_factory.mktemp("runs")).run


def statuses(report):
    return {check.name: check.status for check in report.checks}


def test_a_run_is_reproduced_to_the_last_bit(run):
    report = reproduce(run.path)
    assert statuses(report) == dict.fromkeys(statuses(report), "pass")
    assert report.sound
    assert "all 8 checks pass" in report.verdict
    (again,) = Run.all(run.path.parent / "reproduced")
    assert again.id != run.id
    saved = json.loads((again.path / "reproduction.json").read_text())
    assert saved["sound"] is True
    assert (again.path / "reproduction.html").is_file()
    assert "at all 6 steps" in report["losses"].summary


def test_what_differs_is_named_with_the_first_step_that_does(run, recipe, tmp_path):
    other = train(recipe.replace(train={"lr": 0.5}), tmp_path).run
    report = compare(run, other)
    assert not report.sound
    assert report["weights"].status == report["metrics"].status == "fail"
    assert "apart: sha256" in report["weights"].summary
    assert report["config"].summary == "train.lr was 0.003, now 0.5."
    # The first step's loss is that of the first weights, whatever the rate; the second's is not.
    assert report["losses"].summary.startswith("They differ from step 2 on: ")
    assert "The 1 logged steps before it are the same." in report["losses"].summary
    assert [report[name].status for name in ("packages", "machine", "code", "data")] == ["pass"] * 4


def test_packages_machine_and_code_that_differ_are_named_and_condemn_nothing(run, recipe, tmp_path):
    other = train(recipe, tmp_path).run
    stamp = other.stamp
    (torch,) = (package for package in stamp["packages"] if package.startswith("torch=="))
    stamp["packages"].remove(torch)
    stamp["packages"] += ["torch==1.0", "only-here==3"]
    stamp["sessions"][-1]["devices"]["cpu"] = "another"
    stamp["sessions"][-1]["git"] = {"commit": "0" * 40, "dirty": False}
    (other.path / STAMP).write_text(json.dumps(stamp))
    report = compare(run, Run.open(other.path))
    assert report.sound
    assert {name: status for name, status in statuses(report).items() if status != "pass"} == dict.fromkeys(
        ("packages", "machine", "code"), "warn"
    )
    assert f"torch was {torch.split('==')[1]}, now 1.0" in report["packages"].summary
    assert "only-here was absent, now 3" in report["packages"].summary
    assert "cpu was" in report["machine"].summary
    assert "commit was" in report["code"].summary


def test_files_that_were_changed_otherwise_are_named(tmp_path, recipe):
    runs = [Run.create(tmp_path, name, recipe) for name in ("one", "other")]
    same = "diff --git a/same.py b/same.py\n-a\n+b\n"
    for run, end in zip(runs, ("+1\n", "+2\n")):
        text = f"# new file, not in the diff: new.py\n{same}diff --git a/utils/x.py b/utils/x.py\n{end}"
        (run.path / CHANGES).write_text(text)
    (runs[1].path / CHANGES).open("a").write("diff --git a/y.py b/y.py\n")
    facts = [{"git.commit": "a", "git.changes": one} for one in ("3d31", "1d67")]
    check = _code(*runs, *facts)
    assert check.status == "warn"
    assert check.summary.endswith("git.changes was 3d31, now 1d67. Files changed otherwise: utils/x.py, y.py.")
    assert _code(*runs, facts[0], facts[0]).status == "pass"


def test_settings_that_only_one_of_the_runs_has_are_named(run, recipe, tmp_path):
    other = train(recipe, tmp_path).run
    text = (other.path / "config.yaml").read_text()
    (other.path / "config.yaml").write_text(text.replace("  warmup_steps: 2\n", "  brand_new: 5\n"))
    summary = compare(run, Run.open(other.path))["config"].summary
    assert "train.warmup_steps was 2, now absent" in summary
    assert "train.brand_new was absent, now 5" in summary


def test_a_branch_and_an_unfinished_run_are_refused(run, recipe, tmp_path):
    branch = go_on(run, recipe.replace(train={"max_steps": 7})).run
    with pytest.raises(RunError, match="is a branch of"):
        reproduce(branch.path, tmp_path)

    def stopping(recipe, root, **how):
        raise KeyboardInterrupt

    unfinished = train(recipe.replace(train={"seed": 5}), tmp_path).run
    newest = max((unfinished.path / "checkpoints").glob("step-*"))
    _make_unfinished(newest)
    with pytest.raises(RunError, match="stopped after step 6; resume it"):
        reproduce(unfinished.path, tmp_path, train=stopping)


def _make_unfinished(path):
    """Have a checkpoint say that training was to go on."""
    import hashlib

    import torch

    state = torch.load(path / "state.pt", weights_only=True)
    state["progress"]["finished"] = ""
    torch.save(state, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_deterministic_mode_proves_itself_by_two_runs_of_the_same_weights(recipe, tmp_path):
    report = prove_deterministic(recipe, tmp_path)
    assert report.sound
    one, other = Run.all(tmp_path) + Run.all(tmp_path / "reproduced")
    assert one.config["train"]["deterministic"] is other.config["train"]["deterministic"] is True


def test_the_proof_fails_for_training_that_is_not_deterministic(recipe, tmp_path):
    seeds = iter([1, 2])

    def careless(recipe, root, **how):
        return train(recipe.replace(train={"seed": next(seeds)}), root, **how)

    report = prove_deterministic(recipe, tmp_path, train=careless)
    assert not report.sound
    assert "weights fails" in report.verdict
