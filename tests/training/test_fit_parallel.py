"""Two processes, or a compiled step, train as one plain process does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from utils.core.checkpoints import Checkpoints

LOGGED = ["train/loss", "train/accuracy", "train/grad_norm", "train/lr", "validation/loss", "validation/accuracy"]


def numbers(frame):
    return torch.tensor(frame[LOGGED].values, dtype=torch.float32)


def launch(session):
    """`child.py` on two processes; what they printed, and the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*command, str(Path(__file__).with_name("child.py")), json.dumps([session])],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_stopped_and_resumed_equal_one(train, new_run, trace):
    # 50 or 51 rows in batches of 7, the last of 1 or 2: no batch is shared evenly but, at times, the ragged one.
    settings = {"max_steps": 12, "batch_size": 7, "micro_batch_size": 1, "lr": 1e-3}
    one, two = train(**settings).run, new_run()
    session = {"run": str(two.path), "settings": settings}
    stopped = launch({**session, "at": [5, 1], "number": signal.SIGTERM})
    assert stopped.returncode != 0
    assert Checkpoints(two.path / "checkpoints").last().step == 6, stopped.stderr
    resumed = launch(session)
    assert resumed.returncode == 0, resumed.stderr
    assert [entry["processes"] for entry in two.stamp["sessions"]] == [2, 2]
    assert list(trace(two).index) == list(range(1, 13))
    assert_close(numbers(trace(two)), numbers(trace(one)), equal_nan=True)
    weights = [Checkpoints(run.path / "checkpoints").last().load()["model"] for run in (one, two)]
    assert_close(weights[1], weights[0])
    digests = re.findall(r"weights (\w+)", resumed.stdout)
    assert len(digests) == 2
    assert len(set(digests)) == 1  # each process is left with the best weights


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_out_of_time_stop_after_the_same_step_with_the_same_average(new_run, tmp_path, final_weights):
    run, disk = new_run(), tmp_path / "disk"
    settings = {"max_hours": 1e-9, "ema_decay": 0.5, "local_checkpoints": str(disk)}
    stopped = launch({"run": str(run.path), "settings": settings})
    assert stopped.returncode == 0, stopped.stderr
    last = Checkpoints(run.path / "checkpoints").last()
    assert last.step == 1  # never less than one
    assert Checkpoints(disk / run.path.name / "checkpoints").last().step == 1
    assert last.load()["average"]["updates"] == 1
    digests = re.findall(r"weights (\w+)", stopped.stdout)
    assert digests == [final_weights(run)] * 2


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler, which torch.compile needs on a CPU")
def test_compiled_step_gives_the_same_losses_and_plain_checkpoints(train, trace, tiny_model):
    from torch._dynamo.utils import counters

    models = [tiny_model(num_layers=1), tiny_model(num_layers=1)]
    settings = {"max_steps": 6, "lr": 1e-3, "restore_best": False}
    counters.clear()
    plain = train(models[0], compile=False, **settings).run
    assert counters["stats"]["unique_graphs"] == 0
    compiled = train(models[1], compile=True, **settings).run
    assert counters["stats"]["unique_graphs"] >= 1
    assert_close(numbers(trace(compiled)), numbers(trace(plain)), equal_nan=True)
    assert_close(models[1].state_dict(), models[0].state_dict())
    saved = Checkpoints(compiled.path / "checkpoints").last().load()["model"]
    assert set(saved) == set(models[0].state_dict())
