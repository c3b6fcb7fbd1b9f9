"""A run that is interrupted, killed, damaged or branched goes on exactly where it stopped."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pandas.testing import assert_frame_equal

from utils.core.checkpoints import Checkpoints
from utils.core.mirror import Mirror
from utils.core.run import RunError
from utils.training.objectives import next_token
from utils.training.optim import learning_rate


def checkpoints(run):
    return Checkpoints(run.path / "checkpoints")


def at_step(action, k):
    """next_token, which calls `action` in the first training pass of the step that follows step `k`."""
    done = []

    def objective(model, batch, step):
        if model.training and step == k and not done:
            done.append(action())
        return next_token(model, batch, step)

    return objective


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_interrupted_run_equals_uninterrupted(precision, new_run, trace, final_weights):
    exit_codes = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}  # 130 is child.py's KeyboardInterrupt
    draw = random.Random(precision)
    # Not the ragged batches that end epochs of 9: they have fewer than 3 micro-batches.
    steps = sorted(draw.sample([step for step in range(22) if step % 9 != 8], 6))
    numbers = draw.sample([*exit_codes, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL], 6)
    whole, broken = new_run(), new_run()
    stops = [{"at": [step, draw.randrange(3)], "number": number} for step, number in zip(steps, numbers)]
    sessions = [{"run": str(whole.path)}, *({"run": str(broken.path), **stop} for stop in [*stops, {}])]
    settings = {"max_steps": 22, "micro_batch_size": 2, "checkpoint_every": 3, "precision": precision}
    sessions = [{"settings": settings, "dropout": 0.2, **session} for session in sessions]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("child.py")), json.dumps(sessions)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [0, *(exit_codes[number] for number in numbers), 0], done.stderr
    assert list(trace(whole).index) == list(range(1, 23))
    assert {"train/loss", "train/lr", "train/grad_norm"} <= set(trace(whole))
    assert_frame_equal(trace(broken), trace(whole), check_exact=True)
    assert final_weights(broken) == final_weights(whole)


def test_signal_acts_once_its_step_is_saved(train, new_run, trace):
    run, saved = new_run(), []
    before = signal.signal(signal.SIGTERM, lambda *_: saved.append(checkpoints(run).last().step))
    try:
        result = train(run=run, objective=at_step(lambda: signal.raise_signal(signal.SIGTERM), 3))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved == [4]
    assert list(trace(run).index) == [1, 2, 3, 4]
    assert result.progress.finished == ""


def test_damaged_newest_checkpoint_costs_only_the_way_from_the_one_before(train, new_run, trace, final_weights, caplog):
    def stop():
        raise InterruptedError

    whole, run, settings = new_run(), new_run(), {"checkpoint_every": 4, "eval_every": 20}
    train(run=whole, **settings)
    with pytest.raises(InterruptedError):
        train(run=run, objective=at_step(stop, 9), **settings)
    with (checkpoints(run).last().path / "state.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(InterruptedError):  # goes on from step 4, and stops before it has written a checkpoint
        train(run=run, objective=at_step(stop, 6), **settings)
    assert "Checkpoint of step 8 is damaged" in caplog.text
    assert list(trace(run).index) == [1, 2, 3, 4, 5, 6]
    train(run=run, **settings)
    assert_frame_equal(trace(run), trace(whole), check_exact=True)
    assert final_weights(run) == final_weights(whole)


EVERYTHING = {"schedule": "wsd", "ema_decay": 0.5, "label_smoothing": 0.1, "gradient_checkpointing": True}


@pytest.mark.parametrize("memory", [None, "once", "always"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "every option"])
def test_options_and_rows_halved_by_memory_survive_a_stop_bit_for_bit(
    options, memory, train, new_run, tiny_model, trace, final_weights
):
    """Memory runs out with more than 2 rows at step 2 alone, or from there on. Stopped before 6, and again before 8."""

    def objective_of(stops):
        refused = []

        def objective(model, batch, step, *, label_smoothing=0.0):
            training = model.training and torch.is_grad_enabled()
            short = step == 2 if memory == "once" else memory and step >= 2
            if training and short and len(batch["labels"]) > 2:
                refused.append(step)
                raise torch.OutOfMemoryError("CUDA out of memory")
            if training and step in stops:
                raise InterruptedError
            return next_token(model, batch, step, label_smoothing=label_smoothing)

        return objective, refused

    settings = {**options, "checkpoint_every": 2, "eval_every": 5}
    whole, parts = new_run(), new_run()
    objective, refused = objective_of([])
    train(tiny_model(dropout=0.2), objective=objective, run=whole, **settings)
    assert refused == ([2, 2] if memory else [])  # 6 rows, then 3; the rest go through with 2
    for stop in (6, 8, None):
        objective, refused = objective_of([stop])
        if stop is None:
            train(tiny_model(dropout=0.2), objective=objective, run=parts, **settings)
        else:
            with pytest.raises(InterruptedError):
                train(tiny_model(dropout=0.2), objective=objective, run=parts, **settings)
        assert refused == ([2, 2] if memory and stop == 6 else [])
    assert ("train/micro_batch_size" in trace(whole)) == (memory is not None)
    assert_frame_equal(trace(parts), trace(whole), check_exact=True)
    assert final_weights(parts) == final_weights(whole)
    ends = [checkpoints(run).last().load() for run in (parts, whole)]
    assert ends[0].get("average", {}).get("updates") == (10 if "ema_decay" in options else None)
    for name in ("model", "average"):
        torch.testing.assert_close(ends[0].get(name, {}), ends[1].get(name, {}), rtol=0, atol=0)


def test_complete_run_says_so_and_is_not_trained_again(train, new_run, caplog):
    run = new_run()
    first = train(run=run)
    written = run.metrics_file.read_bytes()
    with caplog.at_level(logging.INFO):
        again = train(run=run, objective=None)  # no objective is called
    assert "complete after 10 steps" in caplog.text
    assert str(again) == str(first)
    assert run.metrics_file.read_bytes() == written


def test_changed_settings_are_refused_by_name_and_free_ones_taken(train, new_run, other_data):
    run = new_run()
    train(run=run)
    with pytest.raises(RunError, match=r"train\.lr was 0\.01, now 0\.02; train\.seed was 1337, now 1338"):
        train(run=run, lr=0.02, seed=1338)
    with pytest.raises(RunError, match="trained on data .* its tokenizer or its splits have changed"):
        train(run=run, data=other_data)
    train(run=run, log_every=7, checkpoint_every=4, keep_last=5)


def test_branch_starts_from_its_parents_state_with_its_own_settings(train, new_run, trace, settings, tiny_model):
    parent, branch = new_run(), new_run()
    train(run=parent, checkpoint_every=4, keep_last=9, model=tiny_model(dropout=0.2))
    step_8 = next(one for one in checkpoints(parent).all() if one.step == 8)
    changed = {"max_steps": 14, "lr": 0.2, "eval_every": 99}
    result = train(run=branch, model=tiny_model(seed=5, dropout=0.2), parent=step_8, **changed)
    own, theirs = trace(branch), trace(parent)
    assert list(own.index) == list(range(9, 15))
    # The first of its steps starts from the parent's weights, generators and place in the data.
    assert own["train/loss"][9] == theirs["train/loss"][9]
    assert own["train/grad_norm"][9] == theirs["train/grad_norm"][9]
    assert list(own["train/lr"]) == [learning_rate(step, 14, settings(**changed)) for step in range(8, 14)]
    # Early stopping and the best weights are counted anew: the parent's best is not among the branch's checkpoints.
    assert theirs["validation/loss"][5] < own["validation/loss"].min() == result.progress.best
    assert result.progress.best_step == 14


def test_branch_that_would_end_where_it_starts_is_refused(train, new_run):
    parent = new_run()
    train(run=parent)
    with pytest.raises(RunError, match=r"step 10.*max_steps"):
        train(run=new_run(), parent=checkpoints(parent).last(), lr=0.02)


def test_refused_checkpoint_is_reported_and_written_when_the_disk_takes_it(train, new_run, caplog, final_weights):
    run, whole = new_run(), new_run()
    folder, away = run.path / "checkpoints", run.path / "away"

    def vanish():
        folder.rename(away)
        folder.write_text("in the way")

    def come_back():
        folder.unlink()
        away.rename(folder)

    def objective(model, batch, step):
        return at_come_back(model, batch, step) if step == 7 else at_vanish(model, batch, step)

    at_vanish, at_come_back = at_step(vanish, 3), at_step(come_back, 7)
    train(run=run, objective=objective, checkpoint_every=2, keep_last=9)
    train(run=whole)
    refused = [record.message for record in caplog.records if "Training goes on" in record.message]
    assert [message.split(" was")[0] for message in refused] == [f"Checkpoint of step {n}" for n in (4, 5, 6)]
    assert [one.step for one in checkpoints(run).all()] == [0, 2, 8, 10]
    assert final_weights(run) == final_weights(whole)


@pytest.fixture
def pauses(monkeypatch):
    """No waiting between the tries of a copy."""
    monkeypatch.setattr("utils.core.mirror.PAUSE", 0.0)


def test_folder_that_vanishes_costs_no_checkpoint_where_they_are_written_locally(
    train, new_run, tmp_path, caplog, final_weights, pauses
):
    run, whole, disk = new_run(), new_run(), tmp_path / "disk"
    folder, away, seen = run.path / "checkpoints", run.path / "away", []

    def come_back():
        seen.append([one.step for one in Checkpoints(disk / run.path.name / "checkpoints").all()])
        away.rename(folder)

    def objective(model, batch, step):
        return at_come_back(model, batch, step) if step == 7 else at_vanish(model, batch, step)

    at_vanish, at_come_back = at_step(lambda: folder.rename(away), 3), at_step(come_back, 7)
    train(run=run, objective=objective, checkpoint_every=2, keep_last=9, local_checkpoints=disk)
    train(run=whole)
    assert seen == [[0, 2, 4, 5, 6]]  # 5 is evaluated
    assert "training goes on" in caplog.text
    assert [one.step for one in checkpoints(run).all()] == [0, 2, 4, 5, 6, 8, 10]
    assert final_weights(run) == final_weights(whole)
    assert not (disk / run.path.name).exists()  # everything is copied


def test_folder_that_is_gone_at_the_end_is_told_and_filled_by_the_same_call_again(
    train, new_run, tmp_path, tiny_model, final_weights, pauses
):
    run, whole, disk = new_run(), new_run(), tmp_path / "disk"
    folder, away = run.path / "checkpoints", run.path / "away"
    settings = {"local_checkpoints": disk, "checkpoint_every": 2}
    with pytest.raises(OSError, match=f"whole in {disk / run.path.name}.*run the same cell again"):
        train(run=run, objective=at_step(lambda: folder.rename(away), 3), **settings)
    away.rename(folder)
    model, other = tiny_model(seed=3), tiny_model()
    result = train(model, run=run, objective=None, **settings)  # nothing is trained again
    train(other, run=whole)
    assert result.progress.finished == "complete after 10 steps"
    assert final_weights(run) == final_weights(whole)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters()))


@pytest.mark.parametrize("lost", ["local", "far"])
def test_run_goes_on_from_the_newest_of_both_places(lost, train, new_run, tmp_path, trace, final_weights, pauses):
    run, whole, disk = new_run(), new_run(), tmp_path / "disk"
    local, settings = disk / run.path.name / "checkpoints", {"local_checkpoints": disk, "checkpoint_every": 2}

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(run=run, objective=at_step(stop, 7), **settings)
    Mirror(Checkpoints(local), checkpoints(run)).settle()
    newest = Checkpoints(local).last() if lost == "local" else checkpoints(run).last()
    assert newest.step == 6
    shutil.rmtree(newest.path)
    train(run=run, **settings)
    train(run=whole, checkpoint_every=2)
    assert [entry["from_step"] for entry in run.stamp["sessions"]] == [0, 6]
    assert_frame_equal(trace(run), trace(whole), check_exact=True)
    assert final_weights(run) == final_weights(whole)


def test_refused_last_checkpoint_raises_and_leaves_the_model_trained(train, new_run, tiny_model):
    run, model, whole = new_run(), tiny_model(), tiny_model()
    (run.path / "checkpoints").rmdir()
    (run.path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match="last checkpoint, of step 10, could not be written"):
        train(run=run, model=model)
    train(model=whole, restore_best=False)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), whole.parameters()))
