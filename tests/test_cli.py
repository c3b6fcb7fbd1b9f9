"""The command line does what the notebook does, and refuses bad input before it creates anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from utils.core.run import Run

SHORT = ["train.max_steps=20", "train.warmup_steps=2", "train.eval_every=10", "sample.max_new_tokens=20"]


def utils(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "utils", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run, and what training it printed."""
    root = tmp_path_factory.mktemp("cli") / "runs"
    done = utils("train", "minimal_test", *SHORT, "--root", str(root))
    assert done.returncode == 0, done.stderr
    return Run.all(root)[0], done


def test_train_shows_progress_and_leaves_a_report(trained):
    run, done = trained
    assert "20/20" in done.stdout
    assert "loss" in done.stdout
    report = (run.path / "report.md").read_text()
    assert run.id in report
    assert "| loss |" in report
    assert (run.path / "figures" / "curves.png").stat().st_size > 10_000


def test_the_same_command_again_says_that_the_run_is_complete(trained):
    run, _ = trained
    again = utils("train", "minimal_test", *SHORT, "--root", str(run.path.parent))
    assert again.returncode == 0
    assert "nothing is trained again" in again.stderr
    assert [one.id for one in Run.all(run.path.parent)] == [run.id]


def test_evaluate_prints_the_metrics_of_the_whole_split(trained):
    run, _ = trained
    metrics = json.loads(utils("evaluate", str(run.path), "--split", "test").stdout)
    row = next(line for line in (run.path / "report.md").read_text().splitlines() if line.startswith("| loss |"))
    value, low, high = map(float, re.findall(r"[\d.]+", row.split("|")[3]))  # with its 95% interval
    assert value == pytest.approx(metrics["loss"], abs=1e-4)
    assert low <= value <= high


def test_generate_continues_each_prompt_alike_for_equal_seeds(trained):
    run, _ = trained
    command = ("generate", str(run.path), "--prompt", "The ", "--prompt", "import", "--max-new-tokens", "5")
    first, second, other = utils(*command), utils(*command), utils(*command, "--seed", "1")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("The ")
    assert first.stdout == second.stdout != other.stdout


def test_resume_with_overrides_makes_a_branch(trained):
    run, _ = trained
    done = utils("resume", str(run.path), "train.max_steps=25")
    assert done.returncode == 0, done.stderr
    branch = next(one for one in Run.all(run.path.parent) if one.parent_id == run.id)
    assert branch.metrics().index[0] > 20  # it goes on from step 20
    assert branch.metrics().index[-1] == 25


def test_two_processes_train_evaluate_and_report_as_one(trained, tmp_path):
    alone, _ = trained
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29611", "-m", "utils"]
    command = ["train", "minimal_test", *SHORT, "train.precision=fp32", "--root", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    [run] = Run.all(tmp_path)
    assert "| metric | validation | test |" in (run.path / "report.md").read_text()
    # bf16 (or what the machine has) in one process, fp32 in two: bf16 keeps 8 bits, so losses agree to about 1 in 2^7
    loss = [one.metrics()["train/loss"].iloc[-1] for one in (alone, run)]
    assert loss[1] == pytest.approx(loss[0], rel=1 / 2**7)


def test_resume_with_a_setting_that_decides_nothing_makes_no_branch(trained):
    run, _ = trained
    before = len(Run.all(run.path.parent))
    assert utils("resume", str(run.path), "train.keep_last=3").returncode == 0
    assert len(Run.all(run.path.parent)) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nowhere.yaml"), "nowhere.yaml"),
        (("train", "minimal_test", "train.lrr=1"), "'train.lr'"),
        (("train", "minimal_test", "data.corpus=/nowhere.txt"), "/nowhere.txt"),
        (("train", "minimal_test", "data.block_size=10000000"), "fewer than one block"),
        (("prepare-data", "minimal_test", "data.tokenizer.kind=hf"), "tokenizer.name"),
        (("resume", "nowhere"), "No run at"),
        (("generate", "nowhere"), "No run at"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(arguments, message, tmp_path):
    root = ("--root", str(tmp_path / "runs")) if arguments[0] in ("train", "prepare-data") else ()
    done = utils(*arguments, *root)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("env_stamp.json"))


def test_doctor_lists_what_is_installed():
    done = utils("doctor")
    assert done.returncode == 0, done.stdout
    assert "pass  torch:" in done.stdout


def test_notebook_runs_headlessly_with_settings_and_keeps_the_executed_copy(tmp_path):
    form, use = (
        "scale = 'standard'",
        "from utils.core.notebook import form\nprint('the scale is', form(scale=scale).scale)",
    )
    cells = [nbformat.v4.new_markdown_cell("# A heading")] + [nbformat.v4.new_code_cell(one) for one in (form, use)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    output = tmp_path / "executed.ipynb"
    done = utils("notebook", str(tmp_path / "small.ipynb"), "scale=smoke", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "# A heading" in done.stdout
    assert "the scale is smoke" in done.stdout
    assert nbformat.read(output, as_version=4).cells[2].outputs[0]["text"] == "the scale is smoke\n"


SMALL = ["num_layers=2", "num_heads=2", "width=32", "vocab_size=97", "context_length=32", "--scale", "smoke"]


def test_validate_exits_0_for_a_sound_model_and_saves_the_report(tmp_path):
    done = utils("validate", "example:gpt", *SMALL, "--report", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "Sound" in done.stdout
    assert "pass  causality" in done.stdout
    report = json.loads((tmp_path / "out" / "validation_report.json").read_text())
    assert report["sound"]
    assert "width=32" in report["facts"]["config"]
    assert (tmp_path / "out" / "validation_report.html").stat().st_size > 50_000


def test_validate_exits_1_where_a_critical_check_fails(tmp_path):
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\n"
        "def build_model():\n    return nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 40))\n"
    )
    done = utils("validate", str(tmp_path / "model.py"), "vocab_size=50", "context_length=8", "--scale", "smoke")
    assert done.returncode == 1, done.stderr
    assert "Not sound: vocabulary range fails" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["example:rnn"], "example:gpt"),
        (["nowhere/model.py"], "nowhere/model.py"),
        (["example:gpt", "--kind", "poet"], "kind"),
        (["example:gpt", "--scale", "huge"], "scale"),
        (["example:gpt", "wdith=32"], "width"),
    ],
)
def test_validate_exits_2_in_one_line_where_the_model_cannot_be_loaded(arguments, message):
    done = utils("validate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


TINY_VAE = [
    "corpus.total=200", "train.max_steps=10", "train.warmup_steps=2", "train.eval_every=5", "train.sample_every=5",
    "evaluation.grids=20", "evaluation.iwae_samples=2", "evaluation.factor_grids=60", "sampler.steps=3",
    "betas=[0.0]", "beta_steps=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained_vae(tmp_path_factory):
    """A short run of a beta-VAE, and what training it printed."""
    root = tmp_path_factory.mktemp("cli") / "runs"
    done = utils("vae", "train", "vae_smoke", *TINY_VAE, "--root", str(root), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    [run] = [run for run in Run.all(root) if run.name == "vae-smoke"]
    return run, done


def test_vae_train_shows_progress_and_leaves_metrics_and_a_report(trained_vae):
    run, done = trained_vae
    assert "10/10" in done.stdout
    assert "of the cells inside" in done.stdout
    assert f"Report: {run.path / 'report.md'}" in done.stdout
    assert run.id in (run.path / "report.md").read_text()
    results = json.loads((run.path / "results" / "metrics.json").read_text())["results"]
    assert set(results) == {"validation", "test"}


def test_vae_resume_with_overrides_makes_a_branch(trained_vae):
    run, _ = trained_vae
    done = utils("vae", "resume", str(run.path), "train.max_steps=15", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    [branch] = [one for one in Run.all(run.path.parent) if one.parent_id == run.id]
    assert branch.metrics().index[-1] == 15


def test_vae_build_corpus_finds_the_corpus_that_training_made(trained_vae):
    run, _ = trained_vae
    root = run.path.parent
    before = sorted((root / "data").iterdir())
    done = utils("vae", "build-corpus", "vae_smoke", "corpus.total=200", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert '"distinct_grids"' in done.stdout
    assert sorted((root / "data").iterdir()) == before


def test_vae_evaluate_judges_a_checkpoint_on_a_split_and_writes_where_it_is_told(trained_vae, tmp_path):
    run, _ = trained_vae
    output = tmp_path / "of step 5.json"
    done = utils("vae", "evaluate", str(run.path), "--split", "test", "--step", "5", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "autoencoder (beta 0, 4 steps)" in done.stdout
    content = json.loads(output.read_text())
    assert set(content["results"]) == {"test"}
    assert content["config"]["checkpoint"] == {"step": 5}


def test_vae_sample_prints_grids_alike_for_equal_seeds(trained_vae, tmp_path):
    run, _ = trained_vae
    command = ("vae", "sample", str(run.path), "--number", "3", "--sampler", "normal")
    first, second, other = utils(*command), utils(*command), utils(*command, "--seed", "1")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout != other.stdout
    grids = first.stdout.strip().split("\n\n")
    assert len(grids) == 3
    assert all(row.isdigit() and len(row) == len(grid.split()[0]) for grid in grids for row in grid.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nowhere.yaml"), "nowhere.yaml"),
        (("train", "vae_smoke", "model.betta=1"), "'model.beta'"),
        (("build-corpus", "vae_smoke", "corpus.source=nowhere"), "No corpus 'nowhere'"),
        (("evaluate", "nowhere"), "No run at"),
        (("sample", "nowhere"), "No run at"),
    ],
)
def test_bad_input_to_vae_is_one_line(arguments, message, tmp_path):
    root = ("--root", str(tmp_path / "runs")) if arguments[0] in ("train", "build-corpus") else ()
    done = utils("vae", *arguments, *root)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("env_stamp.json"))


def test_a_root_a_column_and_a_metric_that_are_not_there_are_one_line(trained, tmp_path):
    run, _ = trained
    for arguments, message in (
        (("runs", "--root", str(tmp_path / "none")), "No folder"),
        (("runs", "--root", str(run.path.parent), "--sort", "x"), "has x; logged are"),
        (("compare", str(run.path), "--metric", "validation/x_loss"), "has no validation/x_loss"),
        (("compare", str(run.path), "--metric", "train/lr"), "better high or low"),
    ):
        done = utils(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_train_many_takes_settings_for_all_of_its_recipes(tmp_path):
    changes = ["train.max_steps=2", "train.warmup_steps=1", "train.eval_every=2", "train.sample_every=0"]
    done = utils("train-many", "minimal_test", *changes, "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (run,) = Run.all(tmp_path)
    assert run.metrics().index[-1] == 2
    refused = utils("train-many", *changes, "--root", str(tmp_path))
    assert refused.returncode == 2
    assert "name at least one recipe" in refused.stderr
