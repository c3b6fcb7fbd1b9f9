"""Checkpoints: whole or absent, through kills, damage, full disks and pruning."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from utils.core.checkpoints import Checkpoint, CheckpointError, Checkpoints


def state(step):
    return {"step": step, "weights": torch.full((1000,), float(step)), "nest": [{"rng": torch.get_rng_state()}, None]}


def steps(checkpoints):
    return [one.step for one in checkpoints.all()]


@pytest.fixture
def kept(tmp_path):
    """Three checkpoints, of which step 2 is the best."""
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    for step, metric in ((1, 3.0), (2, 1.0), (3, 2.0)):
        checkpoints.save(step, state(step), metric)
    return checkpoints


# Saves without a pause, beginning with the step it takes up, and tells which saves have returned.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from utils.core.checkpoints import Checkpoints

torch.set_num_threads(1)
rng = random.Random(0)
checkpoints = Checkpoints(Path(sys.argv[1]), keep_last=2)
newest = 0
for kill in range(20):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(newest, newest + 100_000):
            checkpoints.save(step, {"step": step, "weights": torch.full((200_000,), float(step))})
            os.write(tell, b"%09d" % step)
    os.close(tell)
    os.read(told, 9)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    returned = os.read(told, 1 << 16)
    last = checkpoints.last()
    loaded = last.load()
    assert last.step >= newest and (not returned or last.step >= int(returned[-9:])), (last, newest, returned)
    assert loaded["step"] == last.step and bool((loaded["weights"] == last.step).all())
    assert not list(checkpoints.folder.glob("*.damaged"))
    newest = last.step
checkpoints.save(newest + 1, {})
print(sorted(path.name for path in checkpoints.folder.iterdir()) == [f"step-{n:08d}" for n in (newest, newest + 1)])
"""


def test_after_any_of_twenty_kills_the_newest_checkpoint_loads(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_checkpoint_is_reported_and_set_aside_and_the_one_before_it_used(kept, caplog, file, damage):
    path = kept.last().path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if file == "state.pt" else 0] ^= 0xFF
    path.write_bytes({"flip": content, "truncate": path.read_bytes()[:-1], "empty": b""}[damage])
    for _ in range(2):  # the second time it is out of the way
        assert kept.last().step == 2
        assert kept.last().load()["step"] == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "step 3 is damaged" in caplog.text
    assert (kept.folder / "step-00000003.damaged").is_dir()
    assert steps(kept) == [1, 2]


def test_a_lost_file_is_damage_too_and_nothing_left_is_none(kept, caplog):
    for step in (1, 2, 3):
        (kept.folder / f"step-{step:08d}" / "state.pt").unlink()
    assert kept.best() is None
    assert kept.last() is None
    assert len(caplog.records) == 3
    assert Checkpoints(kept.folder / "absent").last() is None


def test_load_refuses_what_was_changed_and_what_is_no_plain_state(kept):
    newest = kept.last()
    with (newest.path / "state.pt").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="sha256"):
        newest.load()
    with pytest.raises(Exception, match="[Ww]eights.only"):
        kept.save(4, {"object": Unsafe()}).load()


class Unsafe:
    pass


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "left"), [(1, 1, [2, 6]), (2, 1, [2, 5, 6]), (1, 3, [2, 3, 4, 6]), (3, 2, [2, 4, 5, 6])]
)
def test_the_last_and_the_best_are_kept(tmp_path, keep_last, keep_best, left):
    # By metric, best first and the later of equals first: 2 (0.5), 4 (1.0), 3 (1.0), 1 (2.0). NaN judges nothing.
    checkpoints = Checkpoints(tmp_path, keep_last=keep_last, keep_best=keep_best)
    for step, metric in enumerate((2.0, 0.5, 1.0, 1.0, float("nan"), None), start=1):
        checkpoints.save(step, state(step), metric)
    assert steps(checkpoints) == left
    assert checkpoints.best().step == 2
    assert checkpoints.last().step == 6


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_a_refused_write_raises_and_leaves_the_older_ones(kept, file_size_limit, size):
    before = sorted(kept.folder.iterdir())
    for step in (3, 4):  # a step that is there already, and a new one
        with file_size_limit(size), pytest.raises(OSError, match=f"Checkpoint of step {step} was not written"):
            kept.save(step, {"weights": torch.zeros(100_000)})
    assert sorted(kept.folder.iterdir()) == before
    assert kept.last().load()["weights"][0] == 3
    kept.save(4, state(4))  # and goes on when there is room
    assert steps(kept) == [2, 3, 4]


@pytest.mark.skipif(not (hasattr(os, "geteuid") and os.geteuid() == 0), reason="only root may mount a tiny disk")
def test_a_full_disk_leaves_the_older_ones(tmp_path):
    disk = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(disk, capture_output=True).returncode:
        pytest.skip("this container may not mount a disk")
    try:
        checkpoints = Checkpoints(tmp_path, keep_last=1)
        checkpoints.save(1, state(1))
        with pytest.raises(OSError, match="step 2 was not written"):
            checkpoints.save(2, {"weights": torch.zeros(100_000)})
        assert steps(checkpoints) == [1]
        assert checkpoints.last().load()["step"] == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_step_reached_again_is_replaced_and_a_kill_between_the_renames_loses_nothing(kept):
    kept.save(3, {"again": True}, 0.5)
    assert kept.last().load() == {"again": True}
    assert kept.best().step == 3
    last = kept.last().path
    last.rename(last.with_suffix(".replaced"))  # what such a kill leaves
    shutil.copytree(last.with_suffix(".replaced"), kept.folder / ".writing-step-00000003")
    assert kept.last().load() == {"again": True}
    kept.save(4, state(4))
    assert sorted(path.name for path in kept.folder.iterdir()) == [f"step-0000000{step}" for step in (2, 3, 4)]


def test_the_manifest_says_what_was_saved(kept):
    manifest = json.loads((kept.last().path / "manifest.json").read_text())
    assert (manifest["step"], manifest["metric"]) == (3, 2.0)
    assert manifest["bytes"] == (kept.last().path / "state.pt").stat().st_size


def test_a_vanished_run_folder_is_not_made_anew(tmp_path):
    folder = tmp_path / "gone" / "checkpoints"
    with pytest.raises(OSError, match="step 1 was not written"):
        Checkpoints(folder).save(1, {"weights": torch.ones(1)})
    assert not folder.parent.exists()


def test_a_disk_that_fails_to_read_does_not_cost_a_sound_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"weights": torch.ones(1)})

    def fail(self):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "verify", fail)
        with pytest.raises(OSError, match="Input/output"):
            checkpoints.last()
    assert checkpoints.last().step == 1
