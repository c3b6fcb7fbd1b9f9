"""Tracking: every reader shows one curve, equal to metrics.jsonl, whatever interrupts it."""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy
import pytest
import torch

from utils.core import jsonl
from utils.core.config import Config
from utils.core.deadline import AskedToStop
from utils.core.run import Run
from utils.core.tracking import TRACKERS, Tracker, Tracking

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


class Flaky(Tracker):
    """Takes what it is told, but for the calls that `fail` (a set of their numbers, or all)."""

    def __init__(self, run):
        self.told, self.calls, self.fail = [], 0, set()

    def _take(self, *event):
        self.calls += 1
        if self.fail == "all" or self.calls in self.fail:
            raise ConnectionError(f"no network for {SECRET}")
        self.told.append(event)

    def log(self, record):
        self._take("log", record["step"])

    def alert(self, alert):
        self._take("alert", alert.kind)

    def close(self, outcome="", failed=False):
        self._take("close", outcome, failed)


SECRET = "planted-secret-of-the-network"


@pytest.fixture
def flaky(run, monkeypatch):
    monkeypatch.setitem(TRACKERS, "wandb", Flaky)
    monkeypatch.setenv("NETWORK_TOKEN", SECRET)
    tracking = Tracking(run, ["wandb"])
    return tracking, tracking.trackers["wandb"]


def test_a_tracker_that_fails_for_a_while_is_told_everything_in_order_and_reported_once(run, flaky, caplog):
    tracking, tracker = flaky
    tracker.fail = {2, 3}
    for step in range(1, 6):
        tracking.log(step, {TAG: 1.0})
    tracking.close("done")
    assert tracker.told == [*(("log", step) for step in range(1, 6)), ("alert", "end"), ("close", "done", False)]
    assert caplog.text.count("wandb failed") == 1
    assert "lost" not in caplog.text
    assert SECRET not in caplog.text
    assert [step for step, _ in truth(run)] == [1, 2, 3, 4, 5]


def test_an_event_that_never_succeeds_is_given_up_and_counted_and_the_others_arrive(flaky, caplog):
    tracking, tracker = flaky
    tracker.fail = {2, 3, 4}  # three tries of the second record
    for step in range(1, 7):
        tracking.log(step, {TAG: 1.0})
    tracking.close()
    assert [one[1] for one in tracker.told if one[0] == "log"] == [1, 3, 4, 5, 6]
    assert "wandb lost 1 events" in caplog.text


def test_a_tracker_that_is_gone_for_good_costs_training_nothing(run, flaky, caplog):
    tracking, tracker = flaky
    tracker.fail = "all"
    for step in range(1, 8):
        tracking.log(step, {TAG: 1.0})
    tracking.close()
    assert tracker.told == []
    assert "wandb lost 8 events" in caplog.text  # seven records and the end
    assert "wandb could not be closed: ConnectionError: no network for ***" in caplog.text
    assert [step for step, _ in truth(run)] == list(range(1, 8))


def test_a_tracker_that_cannot_be_opened_is_reported_and_left_out(run, monkeypatch, caplog):
    def refuse(run):
        raise RuntimeError("no such service")

    monkeypatch.setitem(TRACKERS, "wandb", refuse)
    with Tracking(run, ["wandb"]) as tracking:
        tracking.log(1, {TAG: 1.0})
    assert tracking.trackers == {}
    assert "wandb could not be opened: RuntimeError: no such service" in caplog.text
    assert truth(run) == [(1, 1.0)]


def events(run):
    return [(event["kind"], event["step"]) for event in jsonl.read(run.path / "events.jsonl")]


def test_alerts_are_events_of_the_run_and_warnings_with_or_without_a_tracker(run, caplog):
    tracking = Tracking(run)
    tracking.log(3, {TAG: float("nan")})
    tracking.log(4, {TAG: float("nan")})
    tracking.alert("custom", "look here")
    tracking.alert("custom", "and again")
    tracking.close()
    assert events(run) == [("nan", 3), ("custom", 4), ("end", 4)]
    assert caplog.text.count("not a finite number") == 1
    assert caplog.text.count("look here") == 1


def test_a_resumed_run_tells_an_alert_again_only_where_its_step_was_lost(run):
    run.begin_session(0)
    tracking = Tracking(run)
    tracking.log(3, {TAG: float("nan")})
    tracking.close()
    run.begin_session(3)  # after it
    tracking = Tracking(run)
    tracking.log(4, {TAG: float("nan")})
    tracking.close()
    assert events(run) == [("nan", 3), ("end", 3), ("end", 4)]
    run.begin_session(2)  # before it
    tracking = Tracking(run)
    assert events(run) == []
    tracking.log(3, {TAG: float("nan")})
    tracking.close()
    assert events(run) == [("nan", 3), ("end", 3)]


def test_an_error_that_ends_the_loop_is_told_and_travels_on(run):
    def loop():
        with Tracking(run) as tracking:
            tracking.log(1, {TAG: 1.0})
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        loop()
    (event,) = jsonl.read(run.path / "events.jsonl")
    assert (event["kind"], event["level"]) == ("end", "ERROR")
    assert "out of luck" in event["text"]


def test_the_machine_is_sampled_into_the_next_record_and_no_longer_than_the_session(run):
    before = threading.active_count()
    tracking = Tracking(run, system_seconds=0.01)
    while not tracking._monitor.samples:
        time.sleep(0.01)
    tracking.log(1, {TAG: 1.0})
    tracking.close()
    assert threading.active_count() == before
    (record,) = jsonl.read(run.metrics_file)
    assert record["system/memory_gib"] > 0
    assert 0 <= record["system/cpu_percent"] <= 100


def test_gradient_histograms_are_those_of_the_gradients_that_are_applied(run, monkeypatch):
    class Wanting(Flaky):
        gradients_every = 2

        def gradients(self, step, histograms):
            self.told.append((step, histograms))

    monkeypatch.setitem(TRACKERS, "wandb", Wanting)
    tracking = Tracking(run, ["wandb"])
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step, applied = 0, {}
    tracking.watch(model, optimizer, lambda: step)
    for step in range(1, 5):
        optimizer.zero_grad()
        for _ in range(2):  # two micro-batches
            model(torch.full((1, 3), float(step))).square().sum().backward()
        applied[step] = model.weight.grad.clone()
        optimizer.step()
    told = dict(tracking.trackers["wandb"].told)
    assert list(told) == [2, 4]
    for at, found in told.items():
        assert set(found) == {"weight", "bias"}
        counts, edges = numpy.histogram(applied[at].numpy(), bins=64)
        assert (found["weight"][0] == counts).all()
        assert found["weight"][1] == pytest.approx(edges)
    tracking.close()
    step = 6
    optimizer.step()
    assert [one[0] for one in tracking.trackers["wandb"].told] == [2, 4, "alert", "close"]


def test_a_session_that_was_asked_to_stop_has_not_failed(run, monkeypatch):
    monkeypatch.setitem(TRACKERS, "wandb", Flaky)
    tracking = Tracking(run, ["wandb"])

    def loop():
        with tracking:
            tracking.log(1, {TAG: 1.0})
            raise AskedToStop("stopped after 1 steps")

    with pytest.raises(AskedToStop):
        loop()
    (event,) = jsonl.read(run.path / "events.jsonl")
    assert (event["kind"], event["level"]) == ("end", "INFO")
    assert "stopped after 1 steps" in event["text"]
    assert tracking._deliveries[0].tracker.told[-1] == ("close", "stopped after 1 steps", False)


def test_an_alert_is_of_the_step_it_names_and_is_told_again_where_that_step_was_lost(run):
    for _ in range(2):
        run.begin_session(3)
        tracking = Tracking(run)
        tracking.alert("nan", "before step 4", step=4)
        tracking.close()
        assert events(run)[-2:] == [("nan", 4), ("end", 3)]
    assert events(run) == [("end", 3), ("nan", 4), ("end", 3)]
