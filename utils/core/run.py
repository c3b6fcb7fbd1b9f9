"""A `Run` is one folder: config, environment, metrics, checkpoints, figures, predictions, report.

    runs/shakespeare-20260801-101500-3f9a2c/
      config.yaml  env_stamp.json  metrics.jsonl  events.jsonl  checkpoints/  tb/  wandb/  figures/  predictions/
      export/  report.md  RETENTION.txt

Its id is given once and kept through every resume; a branch gets its own and names its parent. `metrics.jsonl` is
the truth about the curves, and everything that draws them is made from it. Leaves out any registry: a view over
several runs is computed from their folders.
"""

from __future__ import annotations

import contextlib
import html
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.core import jsonl, repro
from utils.core.config import Config
from utils.core.folders import written_whole

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
STAMP = "env_stamp.json"
FOLDERS = ("checkpoints", "tb", "figures", "predictions", "export")


class RunError(RuntimeError):
    """A run that cannot be made, opened or gone on with; the message says what to do."""


class Run:
    """One experiment's folder. Make it with `create`, `start` or `branch`; take it up again with `open`."""

    def __init__(self, path: Path, stamp: dict[str, Any]):
        self.path = path
        self.id: str = stamp["run_id"]
        self.name: str = stamp["name"]
        self.created: str = stamp["created"]
        self.parent_id: str | None = stamp["parent_id"]

    @classmethod
    def create(cls, root: str | Path, name: str, config: Config, *, parent_id: str | None = None) -> Run:
        """A new folder `<name>-<id>` under `root` (made if missing), stamped with the config and the environment.

        It is there whole or not at all, so a process that is stopped meanwhile leaves no run that cannot be read.
        """
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise RunError(f"Run name {name!r}: expected letters, digits, '_', '-' and '.' only.")
        created = datetime.now(timezone.utc)
        run_id = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        path = Path(root).expanduser().resolve() / f"{name}-{run_id}"
        stamp = {
            "run_id": run_id,
            "name": name,
            "parent_id": parent_id,
            "config_hash": config.fingerprint(),
            "identity": config.identity(),
            "created": created.isoformat(timespec="microseconds"),  # orders runs of one second
            "sessions": [],
            **repro.environment(),
        }
        if path.exists():  # never shared
            raise RunError(f"{path} exists already; make the run again, and it gets another id.")
        with written_whole(path) as folder:
            for inner in FOLDERS:
                (folder / inner).mkdir()
            config.save(folder / "config.yaml")
            (folder / "RETENTION.txt").write_text(_RETENTION.format(path=path, run_id=run_id), encoding="utf-8")
            repro.save_changes(folder)
            _write_stamp(folder, stamp)
        return cls(path, stamp)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder. Raises `RunError` where there is none."""
        path = Path(path).expanduser().resolve()
        if not (path / STAMP).is_file():
            raise RunError(f"No run at {path}; expected a folder with {STAMP} and config.yaml in it.")
        return cls(path, json.loads((path / STAMP).read_text(encoding="utf-8")))

    @classmethod
    def start(cls, root: str | Path, name: str, config: Config, *, resume: str = "auto") -> Run:
        """The newest run of this name and identity under `root` (`resume="auto"`), or a new one (also: `"never"`).

        So the same notebook cell, run again after a disconnect, takes up its own run. A branch is not taken up: its
        config says only how it went on.
        """
        if resume not in ("auto", "never"):
            raise RunError(f"resume={resume!r}: expected 'auto' or 'never'.")
        ours = [run for run in cls.all(root) if run.name == name and run.parent_id is None]
        found = [run for run in ours if run.stamp["identity"] == config.identity()]
        return found[-1] if found and resume == "auto" else cls.create(root, name, config)

    @classmethod
    def all(cls, root: str | Path) -> list[Run]:
        """The runs directly under `root`, oldest first. A folder whose stamp cannot be read is reported."""
        runs = []
        for stamp in Path(root).expanduser().glob(f"[!.]*/{STAMP}"):  # a name with a point is one being made
            try:
                runs.append(cls.open(stamp.parent))
            except (ValueError, KeyError) as error:
                log.warning("%s is passed over, its stamp is damaged: %s", stamp.parent, error)
        return sorted(runs, key=lambda run: (run.created, run.id))

    def branch(self, config: Config, name: str | None = None) -> Run:
        """A new run beside this one, with its own id, that names this one as its parent."""
        return Run.create(self.path.parent, name or self.name, config, parent_id=self.id)

    # What is in the folder

    @property
    def stamp(self) -> dict[str, Any]:
        return json.loads((self.path / STAMP).read_text(encoding="utf-8"))

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "predictions" / "samples.jsonl"

    def metrics(self) -> pandas.DataFrame:
        """One row a step (the index, strictly increasing), one column a metric; NaN where none was logged."""
        import pandas

        rows: dict[int, dict[str, Any]] = {}
        for record in jsonl.read(self.metrics_file):
            rows.setdefault(record["step"], {}).update(record)
        frame = pandas.DataFrame(list(rows.values()), columns=None if rows else ["step"])
        return frame.drop(columns=["time"], errors="ignore").set_index("step").sort_index()

    def save_figure(self, figure: Figure, name: str) -> Path:
        path = self.path / "figures" / f"{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        return path

    # What a session does to it

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held by the one process that writes the run; the system lets it go when that process dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.path.name} is being written by another process; wait for it or stop it.") from None
        except NotImplementedError:
            log.warning("%s cannot be locked on this file system; do not train it twice at once.", self.path.name)
        try:
            yield
        finally:
            lock.release()

    def begin_session(self, step: int, **facts: Any) -> None:
        """Note that a process takes up the run at `step`: cut back what a lost session wrote after its checkpoint."""
        jsonl.cut(self.metrics_file, step)
        jsonl.cut(self.samples_file, step)
        stamp = self.stamp
        stamp["sessions"].append(
            {"started": repro.now(), "from_step": step, **facts, **repro.environment(packages=False)}
        )
        self._write_stamp({**stamp, **facts})

    def _write_stamp(self, stamp: dict[str, Any]) -> None:
        _write_stamp(self.path, stamp)

    def __repr__(self) -> str:
        return f"Run({self.path})"

    def _repr_html_(self) -> str:
        rows = ""
        for entry in sorted(self.path.iterdir()):
            files = [file for file in entry.rglob("*") if file.is_file()] if entry.is_dir() else [entry]
            size = sum(file.stat().st_size for file in files) / 1024
            if size and not entry.name.startswith("."):
                rows += f"<tr><td><code>{entry.name}</code></td><td>{len(files)}</td><td>{size:,.1f}</td></tr>"
        head = f"<p><code>{html.escape(str(self.path))}</code></p><table><tr><th></th><th>files</th><th>KiB</th></tr>"
        return f"{head}{rows}</table>"


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    temporary = folder / f"{STAMP}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / STAMP)


_RETENTION = """\
Run {run_id}, at {path}

How long: nothing here is deleted by the project except surplus checkpoints; the folder stays until you remove it.
On Colab, a folder under /content is erased with the runtime: choose Google Drive as storage to keep it.

What:
  config.yaml, env_stamp.json, metrics.jsonl   kept for the life of the run; small
  checkpoints/    the newest (train.keep_last) and the best (train.keep_best), each with a sha256; older ones are
                  removed only after a newer one is safely written
  tb/             TensorBoard event files, rewritten from metrics.jsonl when the run is resumed
  figures/, predictions/, export/, report.md   rewritten by later stages of the same run
"""
