"""The machine while a run trains."""

import threading

import psutil
import pytest
import torch

from utils.core.monitor import GIB, Monitor


@pytest.fixture
def monitor():
    made = Monitor(3600)
    yield made
    made.close()


def test_a_sample_is_what_the_system_says_of_this_process(monitor):
    kept = bytearray(300 << 20)
    seen = monitor.sample()
    theirs = psutil.Process().memory_info().rss / GIB
    assert seen["memory_gib"] == pytest.approx(theirs, rel=0.05)
    assert 0 <= seen["cpu_percent"] <= 100
    assert seen["memory_percent"] == pytest.approx(psutil.virtual_memory().percent, abs=10)
    assert ("gpu_memory_gib" in seen) == torch.cuda.is_initialized()
    assert kept


def test_taking_gives_peaks_of_memory_and_means_of_use_and_begins_again(monitor):
    monitor.samples = [
        {"cpu_percent": 10.0, "memory_percent": 1.0, "memory_gib": 3.0},
        {"cpu_percent": 20.0, "memory_percent": 2.0, "memory_gib": 1.0, "gpu_percent": 50.0},
    ]
    assert monitor.take() == {
        "system/cpu_percent": 15.0,
        "system/memory_percent": 1.5,
        "system/memory_gib": 3.0,
        "system/gpu_percent": 50.0,
    }
    assert monitor.take() == {}


def test_the_thread_samples_until_it_is_closed(monkeypatch):
    twice = threading.Semaphore(0)
    sample = Monitor.sample

    def counted(self):
        twice.release()
        return sample(self)

    monkeypatch.setattr(Monitor, "sample", counted)
    before = threading.active_count()
    monitor = Monitor(0.01)
    for _ in range(3):  # when the third begins, two are kept
        twice.acquire()
    assert len(monitor.samples) >= 2
    monitor.close()
    assert threading.active_count() == before
    kept = len(monitor.samples)
    assert not monitor._thread.is_alive()
    assert len(monitor.samples) == kept


def test_a_machine_that_cannot_be_asked_is_kept_for_the_report_and_ends_the_sampling(monkeypatch):
    def fail(self):
        raise RuntimeError("no driver")

    monkeypatch.setattr(Monitor, "sample", fail)
    monitor = Monitor(0.001)
    monitor._thread.join()
    assert str(monitor.fault) == "no driver"
    assert monitor.take() == {}
    monitor.close()
