"""Tracking: every reader shows one curve, equal to metrics.jsonl, whatever interrupts it."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from utils.core.config import Config
from utils.core.run import Run
from utils.core.tracking import Tracking

TAG = "train/loss"


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "name", Config())


def session(run, start, end, slope):
    """Take the run up at step `start` and leave it at `end` as a kill would: written, but not closed."""
    newest = max((int(file.name.split(".")[3]) for file in (run.path / "tb").iterdir()), default=0)
    while int(time.time()) <= newest:  # event files are ordered by the second they begin in
        time.sleep(0.05)
    run.begin_session(start)
    tracking = Tracking(run, ["tensorboard"])
    for step in range(start + 1, end + 1):
        tracking.log(step, {TAG: step * slope})
    tracking.trackers["tensorboard"].writer.flush()
    return tracking


def truth(run):
    metrics = run.metrics()
    return list(zip(metrics.index.tolist(), metrics[TAG].tolist()))


def accumulated(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.path / "tb"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(TAG)]


class Server:
    """A real TensorBoard over `root`, asked through its HTTP interface."""

    def __init__(self, root, load_fast):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--logdir", str(root), "--port", str(self.port), "--load_fast", load_fast, "--reload_interval", "1"]
        command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def curve(self, run):
        query = urllib.parse.urlencode({"run": f"{run.path.name}/tb", "tag": TAG})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/data/plugin/scalars/scalars?{query}") as answer:
                return [(step, value) for _, step, value in json.load(answer)]
        except urllib.error.URLError:  # not started, or the run is not read yet
            return None

    def settle(self, run):
        """What it shows once it shows the truth, or at the end of its patience."""
        deadline = time.monotonic() + 60
        while (shown := self.curve(run)) != truth(run) and time.monotonic() < deadline:
            time.sleep(0.1)
        return shown

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_every_reader_shows_one_curve_after_any_number_of_interruptions(tmp_path, run, load_fast):
    if load_fast == "true":
        data_server = pytest.importorskip("tensorboard_data_server")
        if data_server.server_binary() is None:
            pytest.skip("no data server for this platform")
    servers = [Server(tmp_path, load_fast)]  # open before the first interruption
    try:
        session(run, 0, 20, 1.0)
        assert servers[0].settle(run) == [(step, float(step)) for step in range(1, 21)]
        for start, end, slope in ((10, 15, 2.0), (12, 30, 3.0), (5, 8, 4.0)):
            tracking = session(run, start, end, slope)
            assert servers[0].settle(run) == truth(run) == accumulated(run)
        servers.append(Server(tmp_path, load_fast))  # opened after all of them
        for step in range(9, 12):
            tracking.log(step, {TAG: 0.5})
        tracking.close()
        # Steps 1 to 5 of the first session, 6 to 8 of the last, and three more.
        expected = [(step, step * 1.0) for step in range(1, 6)] + [(step, step * 4.0) for step in range(6, 9)]
        expected += [(step, 0.5) for step in range(9, 12)]
        assert truth(run) == accumulated(run) == expected
        assert [server.settle(run) for server in servers] == [expected, expected]
    finally:
        for server in servers:
            server.stop()


def test_metrics_that_the_disk_refuses_are_written_later_everywhere(run, caplog):
    tracking = Tracking(run, ["tensorboard"])
    tracking.log(1, {TAG: 1.0})
    kept = run.metrics_file.rename(run.path / "kept")
    run.metrics_file.symlink_to("/dev/full")
    tracking.log(2, {TAG: 2.0})
    tracking.log(3, {TAG: 3.0})
    assert len(tracking.pending) == 2
    assert caplog.text.count("held in memory") == 2
    kept.replace(run.metrics_file)
    tracking.log(4, {TAG: 4.0})
    tracking.close()
    assert truth(run) == accumulated(run) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_records_that_were_never_written_are_reported_at_the_end(run, caplog):
    run.metrics_file.symlink_to("/dev/full")
    tracking = Tracking(run)
    tracking.log(1, {TAG: 1.0})
    tracking.close()
    assert "1 records could not be written" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tracker_that_fails_is_reported_and_the_metrics_go_on(run, file_size_limit, caplog):
    tracking = Tracking(run, ["tensorboard"])
    # 30 lines of metrics.jsonl are under 5,000 bytes; 30 x 4 events, of some 50 bytes each, are above.
    with file_size_limit(5000):
        for step in range(1, 31):
            tracking.log(step, {TAG: float(step), "b": 1.0, "c": 1.0, "d": 1.0})
            for tracker in tracking.trackers.values():
                tracker.writer.file_writer.event_writer._async_writer._byte_queue.join()
        tracking.close()
    assert "tensorboard could not be" in caplog.text
    assert truth(run) == [(step, float(step)) for step in range(1, 31)]
    session(run, 30, 31, 1.0).close()
    assert accumulated(run) == truth(run)
