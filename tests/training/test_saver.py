"""When a checkpoint is due, and which would be kept as one of the best; `test_fit_resume.py` has the refusing disk."""

import logging
import time
from types import SimpleNamespace

import pytest
from lightning_fabric import Fabric

from utils.core.run import RunError
from utils.training.saver import RETRY_SECONDS, Saver


@pytest.fixture
def saver(new_run, settings):
    return lambda **changes: Saver(new_run(), settings(**changes), Fabric(accelerator="cpu", devices=1))


def test_due_where_wanted_at_its_step_and_by_the_clock(saver):
    every = saver(checkpoint_every=4)
    assert [step for step in range(10) if every.due(step, wanted=False)] == [0, 4, 8]
    assert every.due(3, wanted=True)
    clock = saver(checkpoint_minutes=2.0)
    assert not clock.due(1, wanted=False)
    clock.saved_at -= 121
    assert clock.due(1, wanted=False)
    clock.save(1, {}, None, final=False)
    assert not clock.due(2, wanted=False)


def test_a_refused_one_is_tried_again_after_a_while(saver, caplog):
    refused = saver()
    refused.checkpoints.folder.rmdir()
    with caplog.at_level(logging.WARNING):
        refused.save(3, {}, None, final=False)
    assert "Checkpoint of step 3 was not written" in caplog.text
    assert not refused.due(4, wanted=False)
    refused.tried_at = time.monotonic() - RETRY_SECONDS
    assert refused.due(4, wanted=False)
    refused.checkpoints.folder.mkdir()
    refused.save(4, {}, None, final=False)
    assert not refused.due(5, wanted=False)
    assert refused.newest().step == 4


def test_among_the_best_are_as_many_as_are_kept_and_later_ones_of_equals(saver):
    three = saver(keep_best=2, keep_last=9)
    for step, metric in enumerate((0.5, None, 0.3)):
        assert three.among_best(0.9)  # fewer than two are judged so far
        three.save(step, {}, metric, final=False)
    three.save(3, {}, 0.3, final=False)
    assert three.best().step == 3
    assert [three.among_best(metric) for metric in (0.2, 0.3, 0.31)] == [True, True, False]


def test_a_model_in_parts_is_refused(new_run, settings):
    sharded = SimpleNamespace(strategy=type("FSDPStrategy", (), {})())
    with pytest.raises(RunError, match="one device or DDP; FSDP shards them"):
        Saver(new_run(), settings(), sharded)
