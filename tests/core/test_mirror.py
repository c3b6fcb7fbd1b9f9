"""Checkpoints in two places: whichever of them is full, gone, slow, damaged or killed, none is lost."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from utils.core import checkpoints, mirror
from utils.core.checkpoints import Checkpoints
from utils.core.mirror import Mirror, local_folder


def state(step):
    return {"step": step, "weights": torch.full((1000,), float(step))}


def steps(kept):
    return [one.step for one in kept.all()]


@pytest.fixture
def places(tmp_path):
    """`make()` a mirror of tmp_path/near and tmp_path/far; its pauses are kept in `pauses`, not waited."""

    def make(*, keep_last=2, keep_best=1):
        near, far = (
            Checkpoints(tmp_path / name / "checkpoints", keep_last=keep_last, keep_best=keep_best)
            for name in ("near", "far")
        )
        return Mirror(near, far, sleep=make.pauses.append)

    make.pauses = []
    (tmp_path / "far" / "checkpoints").mkdir(parents=True)
    return make


def refusing(monkeypatch, error, *, times=10**6):
    """Copies raise `error` so many times, then succeed."""
    real, refused = checkpoints.copy_file, []

    def copy(source, target):
        if len(refused) < times:
            refused.append(target)
            raise error
        real(source, target)

    monkeypatch.setattr(checkpoints, "copy_file", copy)
    return refused


def test_what_is_saved_is_copied_whole_and_both_places_keep_the_best_and_the_last(places):
    both = places()
    for step, metric in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 4.0)):
        both.save(step, state(step), metric)
        both.wait()
    assert steps(both.local) == steps(both.far) == [2, 4, 5]
    for place in (both.local, both.far):
        assert place.best().load()["step"] == 2
        assert place.last().load()["step"] == 5
    assert both.missing() == []
    assert not list(both.far.folder.glob(".*"))


def test_the_best_of_an_earlier_machine_is_kept_and_found_where_only_the_far_place_has_it(places):
    first = places()
    for step, metric in ((1, 0.5), (2, 2.0)):
        first.save(step, state(step), metric)
    first.settle()
    shutil.rmtree(first.local.folder.parent)  # another machine
    second = places()
    assert second.last().step == 2
    for step, metric in ((3, 1.0), (4, 1.5), (5, 1.7), (6, 1.8)):
        second.save(step, state(step), metric)
        second.wait()
    assert steps(second.far) == [1, 5, 6]
    assert steps(second.local) == [3, 5, 6]  # of its own it keeps the best, too
    assert second.best().load()["step"] == 1
    second.settle()
    assert steps(second.far) == [1, 5, 6]  # step 3 is not worth a copy


def test_a_refused_copy_is_tried_again_with_longer_and_longer_pauses(places, monkeypatch, caplog):
    both = places()
    refusing(monkeypatch, OSError(errno.EIO, "Input/output error"), times=3)
    both.save(1, state(1))
    both.settle()
    assert places.pauses == [1, 2, 4]
    assert steps(both.far) == [1]
    (record,) = caplog.records
    assert "Checkpoint of step 1 was not written" in record.message
    assert "safe in" in record.message


def test_a_full_far_place_costs_nothing_and_is_told_where_the_checkpoints_are(places, monkeypatch, caplog):
    both = places()
    both.save(1, state(1), 1.0)
    both.settle()
    with monkeypatch.context() as full:
        refusing(full, OSError(errno.ENOSPC, "No space left on device"))
        for step in (2, 3, 4):
            both.save(step, state(step), float(step))
            both.wait()
        with pytest.raises(OSError, match=f"whole in {both.local.folder}.*No space left") as caught:
            both.settle()
    assert "run the same cell again" in str(caught.value)
    assert "Given up for now" in caplog.text
    assert steps(both.far) == [1]  # untouched
    assert steps(both.local) == [1, 3, 4]
    assert both.last().step == 4
    both.settle()
    assert steps(both.far) == [1, 3, 4]
    assert "takes checkpoints again" in caplog.text


@pytest.mark.skipif(not (hasattr(os, "geteuid") and os.geteuid() == 0), reason="only root may mount a tiny disk")
def test_a_disk_that_is_really_full_takes_the_copies_once_there_is_room(places, tmp_path):
    both = places()
    disk = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path / "far")]
    if subprocess.run(disk, capture_output=True).returncode:
        pytest.skip("this container may not mount a disk")
    try:
        both.far.folder.mkdir()
        ballast = tmp_path / "far" / "ballast"
        ballast.write_bytes(bytes(200_000))
        both.save(1, {"weights": torch.zeros(25_000)})  # 100 KB
        both.wait()
        assert both.failure.__cause__.errno == errno.ENOSPC
        assert list(both.far.folder.iterdir()) == []
        ballast.unlink()
        both.settle()
        assert both.far.last().load()["weights"].shape == (25_000,)
    finally:
        subprocess.run(["umount", str(tmp_path / "far")], check=True)


def test_a_folder_that_vanishes_and_comes_back_has_everything_worth_keeping(places, tmp_path):
    both = places()
    both.save(1, state(1), 1.0)
    both.settle()
    (tmp_path / "far").rename(tmp_path / "away")
    for step in (2, 3):
        both.save(step, state(step), 5.0)
        both.wait()
    assert not (tmp_path / "far").exists()  # it is not made anew in its absence
    assert both.failure is not None
    assert steps(both) == [1, 2, 3]  # the far ones are remembered
    (tmp_path / "away").rename(tmp_path / "far")
    both.settle()
    assert both.failure is None
    assert steps(both.far) == [1, 2, 3]


def test_a_truncated_copy_is_never_taken_for_a_checkpoint(places, monkeypatch):
    both = places()
    real, cut = checkpoints.copy_file, []

    def copy(source, target):
        real(source, target)
        if target.name == "state.pt" and not cut:
            os.truncate(target, 100)
            cut.append(both.far.last())

    monkeypatch.setattr(checkpoints, "copy_file", copy)
    both.save(1, state(1))
    both.settle()
    assert cut == [None]
    assert places.pauses == [1]
    assert both.far.last().load()["step"] == 1


KILLED = """
import os, sys
from pathlib import Path
from utils.core.checkpoints import Checkpoints
from utils.core.mirror import Mirror

root = Path(sys.argv[1])
both = Mirror(Checkpoints(root / "near" / "checkpoints"), Checkpoints(root / "far" / "checkpoints"))
both.save(1, {"step": 1})
both.settle()
rename = Path.rename
Path.rename = lambda self, to: os._exit(9) if "far" in str(self) else rename(self, to)
both.save(2, {"step": 2})
both.wait()
"""


def test_a_kill_between_copy_and_rename_loses_nothing(places, tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == 9
    both = places()
    assert (both.far.folder / ".writing-step-00000002" / "manifest.json").exists()
    assert both.far.last().load()["step"] == 1
    assert both.last().load()["step"] == 2
    both.settle()
    assert sorted(path.name for path in both.far.folder.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize(
    ("near", "far", "damaged", "newest"),
    [
        ([1, 2], [1], [], "near 2"),
        ([1], [1, 2], [], "far 2"),
        ([2], [2], [], "near 2"),
        ([2], [2], ["near 2"], "far 2"),
        ([1, 3], [2], ["near 3"], "far 2"),
        ([1], [2, 3], ["far 3", "far 2"], "near 1"),
        ([1], [2], ["near 1", "far 2"], None),
        ([], [], [], None),
    ],
)
def test_on_start_up_the_newest_sound_one_of_both_places_wins(near, far, damaged, newest, places, tmp_path):
    both = places()
    for name, place, there in (("near", both.local, near), ("far", both.far, far)):
        place.folder.mkdir(parents=True, exist_ok=True)
        for step in there:
            saved = place.save(step, {"place": name, "step": step})
            if f"{name} {step}" in damaged:
                os.truncate(saved.path / "state.pt", 10)
    found = places().last()
    assert (found and "{place} {step}".format(**found.load())) == newest


def test_a_damaged_local_one_is_set_aside_and_not_copied(places, monkeypatch, caplog):
    both = places()
    with monkeypatch.context() as broken:
        refusing(broken, OSError(errno.EIO, "gone"))
        both.save(1, state(1))
        both.save(2, state(2))
        both.wait()
    os.truncate(both.local.last().path / "state.pt", 10)
    both.settle()
    assert "Checkpoint of step 2 is damaged" in caplog.text
    assert steps(both.far) == [1]


def test_a_step_reached_again_replaces_its_copy(places):
    both = places()
    both.save(1, {"again": False})
    both.settle()
    both.save(1, {"again": True})
    both.settle()
    assert both.far.last().load() == {"again": True}


def test_saving_does_not_wait_for_a_slow_copy_and_overtaken_ones_are_not_copied(places, monkeypatch):
    both, begun, go_on = places(keep_last=1), threading.Event(), threading.Event()
    real, copied = checkpoints.copy_file, []

    def slow(source, target):
        begun.set()
        go_on.wait()
        copied.append(source.parent.name)
        real(source, target)

    monkeypatch.setattr(checkpoints, "copy_file", slow)
    both.save(1, state(1))
    begun.wait()
    for step in (2, 3, 4):
        both.save(step, state(step))  # returns while the first copy stands still
    assert steps(both.local) == [4]
    assert steps(both.far) == []
    go_on.set()
    both.settle()
    assert steps(both.far) == [4]
    assert set(copied) == {"step-00000001", "step-00000004"}
    assert both.seconds > 0


def test_local_ones_are_forgotten_only_when_all_are_copied(places, monkeypatch):
    both = places()
    with monkeypatch.context() as broken:
        refusing(broken, OSError(errno.EIO, "gone"))
        both.save(1, state(1))
        both.wait()
    both.forget_local()
    assert steps(both.local) == [1]
    both.settle()
    both.forget_local()
    assert not both.local.folder.parent.exists()
    assert both.last().step == 1


def test_an_error_that_is_no_disks_is_not_swallowed(places, monkeypatch, caplog):
    both = places()
    refusing(monkeypatch, ZeroDivisionError("a mistake"))
    with caplog.at_level(logging.ERROR):
        both.save(1, state(1))
        with pytest.raises(ZeroDivisionError):
            both.wait()
    assert "a mistake" in caplog.text


def test_local_folder_is_only_for_drive_or_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror.tempfile, "gettempdir", lambda: "/tmp/here")
    on_drive = Path("/content/drive/MyDrive/runs/shakespeare-1")
    assert local_folder(on_drive) == Path("/tmp/here/run_all/shakespeare-1/checkpoints")
    assert local_folder(Path("/content/runs/shakespeare-1")) is None
    assert local_folder(tmp_path / "run", tmp_path / "disk") == tmp_path / "disk" / "run" / "checkpoints"
