"""The run folder: identity, isolation, the stamp, the lock, the table of metrics."""

import json
import platform
import re
import subprocess
import sys

import pytest

from utils.core import jsonl, repro
from utils.core.config import Config
from utils.core.run import Run, RunError


class Settings(Config):
    lr: float = 0.1


def files(run):
    return {str(path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_an_opened_run_is_the_same_run_and_a_branch_is_a_new_one_that_names_it(tmp_path):
    run = Run.create(tmp_path, "name", Settings())
    again = Run.open(run.path)
    again.begin_session(0)
    assert (again.id, again.name, again.parent_id) == (run.id, "name", None)
    assert Run.open(run.path).id == run.id
    branch = Run.open(again.branch(Settings(lr=0.2)).path)
    assert branch.id != run.id
    assert branch.parent_id == branch.stamp["parent_id"] == run.id
    assert branch.config == {"lr": 0.2}
    assert run.config == {"lr": 0.1}


def test_two_runs_of_one_root_share_no_file(tmp_path):
    first, second = (Run.create(tmp_path, "same", Settings()) for _ in range(2))
    assert first.path != second.path
    before = files(first)
    with second.locked():
        second.begin_session(0, seed=1)
        jsonl.append(second.metrics_file, {"step": 1, "time": 0.0, "loss": 1.0})
        second.begin_session(0)
    assert files(first) == before
    assert first.metrics().empty


def test_start_takes_the_newest_run_of_its_name_and_config_and_no_other(tmp_path):
    mine = [Run.create(tmp_path, "mine", Settings()) for _ in range(12)]  # several in one second
    Run.create(tmp_path, "mine", Settings(lr=0.2))
    Run.create(tmp_path, "other", Settings())
    (tmp_path / "not-a-run").mkdir()
    assert [run.id for run in Run.all(tmp_path) if run.name == "mine"][:12] == [run.id for run in mine]
    assert Run.start(tmp_path, "mine", Settings()).id == mine[-1].id
    known = {run.id for run in Run.all(tmp_path)}
    for made in (
        Run.start(tmp_path, "mine", Settings(), resume="never"),
        Run.start(tmp_path, "third", Settings()),
        Run.start(tmp_path, "other", Settings(lr=0.3)),
    ):
        assert made.id not in known
        known.add(made.id)
    with pytest.raises(RunError, match="expected 'auto' or 'never'"):
        Run.start(tmp_path, "mine", Settings(), resume="yes")


def test_start_never_takes_a_branch_for_a_run_of_its_settings(tmp_path):
    branch = Run.create(tmp_path, "name", Settings()).branch(Settings(lr=0.2))
    assert Run.start(tmp_path, "name", Settings(lr=0.2)).id != branch.id


def test_the_stamp_says_what_ran_where(tmp_path):
    config = Settings()
    run = Run.create(tmp_path, "name", config)
    run.begin_session(0, seed=7, device="cpu", precision="fp32")
    run.begin_session(5, seed=7, device="cpu", precision="bf16")
    stamp = json.loads((run.path / "env_stamp.json").read_text())
    assert stamp["run_id"] == run.id
    assert stamp["config_hash"] == config.fingerprint()
    assert (stamp["seed"], stamp["precision"], stamp["python"]) == (7, "bf16", platform.python_version())
    assert stamp["os"]
    assert stamp["devices"]["cpu_count"] >= 1
    assert any(line.startswith("torch==") for line in stamp["packages"])
    assert re.fullmatch("[0-9a-f]{12}", stamp["env_hash"])
    assert stamp["git"] is None or (len(stamp["git"]["commit"]) == 40 and stamp["git"]["dirty"] in (True, False))
    assert [(one["from_step"], one["precision"]) for one in stamp["sessions"]] == [(0, "fp32"), (5, "bf16")]
    assert all(stamp["created"] and one["started"] for one in stamp["sessions"])


def test_retention_says_how_long_where_and_what(tmp_path):
    run = Run.create(tmp_path, "name", Settings())
    text = (run.path / "RETENTION.txt").read_text()
    for word in (run.id, str(run.path), "How long:", "What:", "checkpoints/", "metrics.jsonl", "tb/"):
        assert word in text


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".hidden"])
def test_a_name_that_is_no_folder_name_creates_nothing(tmp_path, name):
    with pytest.raises(RunError, match="expected letters"):
        Run.create(tmp_path / "root", name, Settings())
    assert not (tmp_path / "root").exists()


def test_a_process_that_is_stopped_while_it_makes_a_run_leaves_none_that_cannot_be_read(tmp_path, monkeypatch):
    def killed(folder):
        (seen,) = tmp_path.iterdir()  # as SIGKILL would leave it
        (seen / "env_stamp.json").write_text("{}")
        assert Run.all(tmp_path) == []
        assert seen.name.startswith(".")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(repro, "save_changes", killed)
        with pytest.raises(KeyboardInterrupt):
            Run.create(tmp_path, "name", Settings())
    assert list(tmp_path.iterdir()) == []
    run = Run.create(tmp_path, "name", Settings())
    assert [one.id for one in Run.all(tmp_path)] == [run.id]
    assert str(run.path) in (run.path / "RETENTION.txt").read_text()


def test_a_folder_without_a_stamp_is_no_run(tmp_path):
    with pytest.raises(RunError, match="No run at"):
        Run.open(tmp_path)


HOLD = """
import sys
from utils.core.run import Run
with Run.open(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_held_by_one_process_until_it_dies(tmp_path):
    run = Run.create(tmp_path, "name", Settings())
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="being written by another process"), run.locked():
            pass
        child.kill()
    with run.locked(), pytest.raises(RunError, match="another process"), Run.open(run.path).locked():
        pass


def test_metrics_merge_the_lines_of_a_step_in_increasing_order(tmp_path):
    run = Run.create(tmp_path, "name", Settings())
    assert run.metrics().empty
    for step, name, value in [(1, "a", 1.0), (2, "a", float("nan")), (3, "a", 3.0), (2, "b", 5.0), (3, "b", 6.0)]:
        jsonl.append(run.metrics_file, {"step": step, "time": 0.0, name: value})
    frame = run.metrics()
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.index.is_monotonic_increasing
    assert frame["a"].isna().tolist() == [False, True, False]
    assert frame["b"].tolist()[1:] == [5.0, 6.0]
    run.begin_session(2)
    assert run.metrics().index.tolist() == [1, 2]
    assert list(run.metrics().columns) == ["a", "b"]
