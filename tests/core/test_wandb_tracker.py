"""W&B: the real client, offline, with every socket but the local ones refused; what it wrote is read back."""

import base64
import http.server
import json
import logging
import math
import random
import socket
import struct
import threading
import zlib
from types import SimpleNamespace

import numpy
import pytest
import torch

from utils.core.checkpoints import Checkpoints
from utils.core.config import Config, ConfigError
from utils.core.run import Run
from utils.core.tracking import Tracking, WandbConfig, wandb_settings
from utils.core.wandb_artifacts import WandbArtifacts
from utils.core.wandb_tracker import WandbTracker

KEY = "0123456789abcdef" * 2 + "plantedkey"  # of the length that W&B asks for

BLOCK, HEADER = 32 * 1024, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(raw):
    """Each record's bytes. A crc that does not fit raises."""
    assert raw[:4] == b":W&B", raw[:7]
    at, whole = 7, b""
    while at + HEADER <= len(raw):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # the rest of a block is padding
            at += left
            continue
        crc, length, kind = struct.unpack("<IHB", raw[at : at + HEADER])
        piece = raw[at + HEADER : at + HEADER + length]
        assert zlib.crc32(bytes([kind]) + piece) == crc, "a damaged record"
        whole = piece if kind in (FULL, FIRST) else whole + piece
        if kind in (FULL, LAST):
            yield whole
        at += HEADER + length


def read(path):
    """What a .wandb file holds: LevelDB's log format (blocks of 32 KiB, each piece with crc, length and type) of
    protobufs. https://github.com/google/leveldb/blob/main/doc/log_format.md; 7 bytes of W&B's own come first."""
    from wandb.proto import wandb_internal_pb2

    found = SimpleNamespace(run=None, config={}, history=[], summary={}, artifacts=[], alerts=[], metrics=[], exit=None)
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            for item in record.config.update:
                found.config.setdefault(item.key or "/".join(item.nested_key), json.loads(item.value_json))
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found.history.append({"_step": record.history.step.num, **row})
        elif kind == "summary":
            for item in record.summary.update:
                found.summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "alert":
            found.alerts.append(record.alert)
        elif kind == "metric":
            found.metrics.append(record.metric)
        elif kind == "exit":
            found.exit = record.exit.exit_code
    return found


class Train(Config):
    lr: float = 0.1
    token: str = "none"


class Settings(Config):
    train: Train = Train()
    name: str = "x"


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """W&B's caches in the test's folder, no settings from outside, and no way out of this machine."""
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    connect = socket.socket.connect

    def local(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise OSError(f"blocked: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    yield
    wandb.teardown()


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs", "name", Settings())


def begin(run, step):
    run.begin_session(step)
    return Tracking(run, ("wandb",))


def written(run):
    """What each session wrote, oldest first; W&B's service writes the last of it when it ends."""
    import wandb

    wandb.teardown()
    return [read(path) for path in sorted(run.path.glob("wandb/offline-run-*/*.wandb"))]


def curve(found, name):
    return [(row["_step"], row["step"], row[name]) for row in found.history if name in row]


def tables(run, name):
    files = sorted(
        run.path.glob(f"wandb/offline-run-*/files/media/table/{name}*.json"), key=lambda one: one.stat().st_mtime_ns
    )
    return [json.loads(file.read_text()) for file in files]


def named(found, name):
    return [one for one in found.artifacts if one.name == name]


def files(artifact):
    return {one.path: one.local_path for one in artifact.manifest.contents}


def test_a_session_without_a_key_is_whole_in_the_file_that_is_synced_later(run, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "shelf")
    monkeypatch.setenv("WANDB_TAGS", "small, first")
    caplog.set_level(logging.INFO, "utils")
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.tokens.bin").write_bytes(b"\1\2")
    run.begin_session(0)
    with wandb_settings(group="study", gradients_every=2, data_files=True):
        tracking = Tracking(run, ("wandb",))
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    step = 0
    tracking.watch(model, optimizer, lambda: step + 1)
    tracking.uses("abc123/64", {"train": 90, "validation": 10}, folder=data)
    checkpoints = Checkpoints(run.path / "checkpoints", keep_last=1)
    for step in range(4):
        optimizer.zero_grad()
        (model(torch.tensor([[1.0, 3.0]])) * (step + 1)).sum().backward()  # the gradient is (step + 1) * [1, 3]
        optimizer.step()
        tracking.log(step + 1, {"train/loss": 4.0 - step})
        if step % 2:
            tracking.log(step + 1, {"validation/loss": 5.0 + step})
            tracking.checkpoint(checkpoints.save(step + 1, {"w": torch.zeros(1)}, 5.0 + step))
            tracking.sample(step + 1, {"To be": f"{step}"})
    tracking.log(5, {"train/loss": float("nan")})
    tracking.close("complete after 5 steps")

    (found,) = written(run)
    assert (found.run.run_id, found.run.project, found.run.run_group) == (run.id, "shelf", "study")
    assert found.run.display_name == run.path.name
    assert list(found.run.tags) == ["small", "first"]
    assert {"train": {"lr": 0.1, "token": "none"}, "name": "x"}.items() <= found.config.items()
    *finite, (_, _, broken) = curve(found, "train/loss")
    assert finite == [(1, 1, 4.0), (2, 2, 3.0), (3, 3, 2.0), (4, 4, 1.0)]
    assert math.isnan(broken)
    assert curve(found, "validation/loss") == [(2, 2, 6.0), (4, 4, 8.0)]
    axes = {one.glob_name or one.name: one.step_metric for one in found.metrics}
    assert axes["train/*"] == axes["validation/*"] == axes["validation/loss"] == "step"
    assert found.summary["validation/loss"] == {"min": 6.0, "last": 8.0}
    assert found.exit == 0

    # Steps 2 and 4: the gradients [2, 6] and [4, 12], in 64 bins from the lowest to the highest.
    rows = {row["_step"]: row for row in found.history if "gradients/weight/values" in row}
    assert list(rows) == [2, 4]
    for at, low, high in ((2, 2, 6), (4, 4, 12)):
        counts = rows[at]["gradients/weight/values"]
        assert (counts[0], counts[-1], sum(counts), len(counts)) == (1, 1, 2, 64)
        assert [rows[at]["gradients/weight/bins"][end] for end in (0, -1)] == [low, high]

    assert tables(run, "samples")[-1]["data"] == [[2, "To be", "1"], [4, "To be", "3"]]
    (chart,) = tables(run, "charts/loss")
    assert chart["data"] == [[2, "train", 3.0], [4, "train", 1.0], [2, "validation", 6.0], [4, "validation", 8.0]]
    assert "lineseries" in json.dumps(found.config["_wandb/visualize/charts/loss"])

    (used,) = named(found, "data-name")
    assert used.use_after_commit
    assert used.type == "dataset"
    assert set(used.aliases) == {"latest", "abc123-64"}
    assert set(files(used)) == {"data.json", "train.tokens.bin"}
    best, last = named(found, f"model-{run.id}")
    assert not best.use_after_commit
    assert set(best.aliases) == {"latest", "best", "step-2"}
    assert set(last.aliases) == {"latest", "last", "step-4"}
    assert json.loads(best.metadata) == {"step": 2, "metric": 6.0}
    checkpoints.save(6, {"w": torch.zeros(1)}, 1.0)  # prunes both
    assert not (run.path / "checkpoints" / "step-00000004").exists()
    for artifact in (best, last):
        for name, path in files(artifact).items():
            with open(path, "rb") as file:
                assert file.read(), name

    assert [alert.title for alert in found.alerts] == ["name: nan", "name: end"]
    assert "complete after 5 steps" in found.alerts[1].text
    assert f"wandb sync {run.path}/wandb/offline-run-*" in caplog.text


def test_a_run_taken_up_again_goes_on_in_the_same_wandb_run_and_repeats_no_step_it_kept(run):
    first = begin(run, 0)
    for step in range(1, 8):
        first.log(step, {"train/loss": float(step)})
    first.close()
    again = begin(run, 4)  # steps 5 to 7 are lost with the session, and come again
    for step in range(5, 10):
        again.log(step, {"train/loss": float(step)})
    again.close()
    before, after = written(run)
    assert before.run.run_id == after.run.run_id == run.id
    assert after.run.resume
    assert [step for step, _, _ in curve(before, "train/loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert curve(after, "train/loss") == [(step, step, float(step)) for step in range(5, 10)]


def test_a_run_that_wandb_joins_late_is_told_its_history(run):
    run.begin_session(0)
    alone = Tracking(run)
    alone.log(1, {"train/loss": 3.0})
    alone.log(2, {"train/loss": 2.0})
    alone.close()
    joined = begin(run, 2)
    joined.log(3, {"train/loss": 1.0})
    joined.close()
    (found,) = written(run)
    assert curve(found, "train/loss") == [(1, 1, 3.0), (2, 2, 2.0), (3, 3, 1.0)]


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 401 and the key it was sent, as a careless server might."""

    seen: list[str] = []

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scheme, _, sent = (self.headers.get("Authorization") or "").partition(" ")
        key = base64.b64decode(sent).decode().partition(":")[2] if scheme == "Basic" else ""
        self.seen.append(key)
        answer = json.dumps({"errors": [{"message": f"the key {key} is not known"}]}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing_server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    Refusing.seen = []
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def leaks(folder):
    needles = [KEY.encode(), base64.b64encode(f"api:{KEY}".encode())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]


def test_a_server_that_refuses_the_key_leaves_the_run_offline_and_the_key_nowhere(
    tmp_path, monkeypatch, refusing_server, capfd, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = Run.create(tmp_path / "runs", "name", Settings(train=Train(token=f"Bearer {KEY}")))
    tracking = begin(run, 0)
    tracking.log(1, {"train/loss": 1.0})
    tracking.sample(1, f"my key is {KEY}")
    tracking.alert("custom", f"it failed with {KEY}")
    tracking.close()
    assert KEY in Refusing.seen  # the client did try with it
    (found,) = written(run)
    assert curve(found, "train/loss") == [(1, 1, 1.0)]
    assert found.config["train"] == {"lr": 0.1, "token": "Bearer ***"}
    assert "W&B could not be reached" in caplog.text
    out, err = capfd.readouterr()
    assert KEY not in out + err + caplog.text
    (run.path / "config.yaml").unlink()  # where this test, and not the project, put it
    assert leaks(tmp_path) == []


def test_a_key_in_the_environment_of_an_offline_run_is_in_no_file_and_no_traceback(tmp_path, run, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")

    def loop():
        with begin(run, 0) as tracking:
            tracking.log(1, {"train/loss": 1.0})
            raise RuntimeError("the loop failed")

    with pytest.raises(RuntimeError, match="the loop failed") as caught:
        loop()
    (found,) = written(run)
    assert found.exit == 1
    assert "the loop failed" in found.alerts[-1].text
    assert KEY not in "".join(capfd.readouterr()) + str(caught.getrepr(style="long"))
    assert leaks(tmp_path) == []


def test_wandb_draws_nothing_from_the_generators_that_training_draws_from(run):
    state = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    tracking = begin(run, 0)
    tracking.log(1, {"train/loss": 1.0})
    tracking.log(1, {"validation/loss": 1.0})
    tracking.sample(1, "text")
    tracking.uses("abc", {})
    tracking.close()
    assert (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == state


class Session:
    """A W&B run, online, that keeps what it is given to upload, and takes its time where `slow` is held."""

    offline = False

    def __init__(self):
        self.given, self.slow = [], threading.Lock()

    def log_artifact(self, artifact, aliases):
        with self.slow:
            self.given.append((artifact.metadata["step"], aliases))


def test_checkpoints_on_this_machines_own_disk_get_the_aliases_they_deserve(run, tmp_path):
    local = Checkpoints(tmp_path / "local", keep_last=1)
    local.folder.mkdir()
    artifacts = WandbArtifacts(run, session := Session(), patience=60)
    for step, metric in ((1, 3.0), (2, 1.0), (3, 2.0)):
        artifacts.model(local.save(step, {"w": torch.zeros(1)}, metric))
    artifacts.close()
    assert session.given == [
        (1, ["step-1", "last", "best"]), (2, ["step-2", "last", "best"]), (3, ["step-3", "last"])
    ]  # fmt: skip


def test_a_slow_network_has_one_checkpoint_in_line_at_most(run, tmp_path):
    checkpoints = Checkpoints(run.path / "checkpoints", keep_last=9)
    artifacts = WandbArtifacts(run, session := Session(), patience=60)
    tracker = SimpleNamespace(offline=False, artifacts=artifacts)
    with session.slow:
        for step in (1, 2, 3):
            WandbTracker.checkpoint(tracker, checkpoints.save(step, {"w": torch.zeros(1)}, 4.0 - step))
    artifacts.close()  # tells the last and the best, if they are not there yet
    assert [step for step, _ in session.given] == [1, 3]


def test_the_datas_files_go_to_wandb_only_where_that_is_asked_for(run, tmp_path, monkeypatch):
    for asked, names in ((None, {"data.json"}), ("true", {"data.json", "tokens.bin"})):
        if asked:
            monkeypatch.setenv("RUN_ALL_WANDB_DATA_FILES", asked)
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        (folder / "tokens.bin").write_bytes(b"12")
        tracking = begin(run, 0)
        tracking.uses("abc", {"source": "a corpus"}, folder=folder)
        tracking.close()
        (used,) = named(written(run)[-1], "data-name")
        assert set(files(used)) == names
        assert json.loads(used.metadata) == {"source": "a corpus"}


def test_settings_given_come_before_those_of_the_environment_and_others_are_refused(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "from-outside")
    monkeypatch.setenv("WANDB_RUN_GROUP", "team")
    found = WandbConfig.here(WandbConfig(project="mine", gradients_every=None))
    assert (found.project, found.group, found.gradients_every, found.mode) == ("mine", "team", None, None)
    assert WandbConfig.here().project == "from-outside"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigError, match="mode.*'online', 'offline' or 'disabled'.*sometimes"):
        WandbConfig.here()


def test_online_without_a_key_is_said_and_written_offline(run, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    tracking = begin(run, 0)
    tracking.log(1, {"train/loss": 1.0})
    tracking.close()
    assert "there is no WANDB_API_KEY" in caplog.text
    (found,) = written(run)
    assert curve(found, "train/loss") == [(1, 1, 1.0)]
