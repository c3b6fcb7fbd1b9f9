"""Tracking: where metrics go while a run is under way.

`metrics.jsonl` is always written, and is the truth; the trackers are views of it, and are told its history when a run
is taken up again. A tracker that fails is reported and never stops training. Alerts are found in the metrics here,
and kept in the run's `events.jsonl` whether or not a tracker takes them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.core import jsonl
from utils.core.alerts import Alert, AlertConfig, Level, Watch
from utils.core.deadline import AskedToStop
from utils.core.delivery import Delivery, told
from utils.core.monitor import Monitor
from utils.core.redact import redacted
from utils.core.trackers import Histogram, TensorBoard, Tracker
from utils.core.wandb_config import WandbConfig
from utils.core.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    import torch

    from utils.core.checkpoints import Checkpoint
    from utils.core.run import Run

__all__ = ["TRACKERS", "Tracker", "TrackerName", "Tracking", "WandbConfig", "wandb_settings"]
log = logging.getLogger(__name__)
TrackerName = Literal["tensorboard", "wandb"]
LEVELS: dict[Level, int] = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
BINS = 64  # of a gradient histogram
_wandb: contextvars.ContextVar[WandbConfig | None] = contextvars.ContextVar("wandb", default=None)
TRACKERS: dict[str, Callable[[Run], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda run: WandbTracker(run, _wandb.get()),
}


@contextlib.contextmanager
def wandb_settings(**settings: Any) -> Iterator[None]:
    """Within it, runs go to W&B with these settings of `WandbConfig`, such as the group of a study."""
    before = _wandb.set(WandbConfig.load(None, (), **settings))
    try:
        yield
    finally:
        _wandb.reset(before)


class Tracking:
    """A run's `metrics.jsonl` and the trackers beside it. As a context it tells the trackers of an error that ends it.

    Records that the disk refuses are kept in memory, and written with the next one that it takes.
    """

    def __init__(
        self,
        run: Run,
        names: Iterable[TrackerName] = (),
        *,
        alerts: AlertConfig = AlertConfig(),
        system_seconds: float = 5.0,
    ):
        self.run = run
        sessions = run.stamp["sessions"]
        self.step: int = sessions[-1]["from_step"] if sessions else 0
        self.pending: list[dict[str, Any]] = []
        self.events_file = run.path / "events.jsonl"
        jsonl.cut(self.events_file, self.step)  # as `begin_session` cuts the metrics
        self._watch = Watch(alerts, (event.get("kind", "") for event in jsonl.read(self.events_file)))
        before = jsonl.read(run.metrics_file) if sessions else ()
        history = [alert for record in before for alert in self._watch.see(record)]
        self._deliveries = [Delivery(name, functools.partial(TRACKERS[name], run)) for name in names]
        self._monitor = Monitor(system_seconds)
        self._unwatch: list[Callable[[], None]] = []
        self._closed = False
        for alert in history:  # of records from before there were alerts
            self._tell_alert(alert)

    @property
    def trackers(self) -> dict[str, Tracker]:
        """Those that are open, by name."""
        return {one.name: one.tracker for one in self._deliveries if one.tracker is not None}

    # What a loop tells

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers by name, of one step; with them goes what the machine did since the last ones."""
        self.step = step
        record = {"step": step, "time": round(time.time(), 3), **metrics, **self._system()}
        self.pending.append(record)
        written = []
        try:
            while self.pending:
                jsonl.append(self.run.metrics_file, self.pending[0])
                written.append(self.pending.pop(0))
        except OSError as error:
            log.warning(
                "Metrics of step %d are held in memory: %s. They are written when the disk allows.", step, error
            )
        for one in written:
            self._tell("log", one)
        for alert in self._watch.see(record):
            self._tell_alert(alert)

    def sample(self, step: int, texts: Mapping[str, str] | str) -> None:
        """What the model writes at `step`: text by prompt, or one text."""
        self._tell("sample", step, {"": texts} if isinstance(texts, str) else dict(texts))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A checkpoint that was written. The last and the best of a session are told at its end in any case."""
        self._tell("checkpoint", checkpoint)

    def uses(self, fingerprint: str, facts: Mapping[str, Any], *, folder: Path | None = None) -> None:
        """The data that the run learns from: what it is, and the folder of its prepared files, for trackers that are
        set to keep them."""
        self._tell("uses", fingerprint, dict(facts), folder)

    def alert(self, kind: str, text: str, *, level: Level = "WARN", step: int | None = None) -> None:
        """Something to know about the run, at `step` (by default that of the last metrics).

        A `kind` is told once in a run, and again where its step was lost with a session.
        """
        if kind not in self._watch.told:
            self._watch.told.add(kind)
            self._tell_alert(Alert(kind, self.step if step is None else step, level, redacted(text)))

    def watch(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], int]) -> None:
        """From now on, histograms of the gradients that `optimizer` is about to apply, for the trackers that want them.

        `step()` is the number of the step under way. The gradients are those of the whole batch, clipped.
        """
        every = [one.gradients_every for one in self.trackers.values() if one.gradients_every]
        if not every:
            return
        last: list[int] = []

        def measure(*_: Any) -> None:
            number = step()
            if number % min(every) or number in last:
                return
            last[:] = [number]
            try:
                found = gradient_histograms(model)
            except Exception as error:  # a picture of the gradients is no reason to lose them
                log.warning("The gradients of step %d could not be drawn: %s", number, told(error))
            else:
                self._tell("gradients", number, found)

        self._unwatch.append(optimizer.register_step_pre_hook(measure).remove)

    def close(self, outcome: str = "", *, failed: bool = False) -> None:
        """End of the session: `outcome` says how, such as "complete after 100 steps". A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for remove in self._unwatch:
            remove()
        self._monitor.close()
        text = f"{self.run.path.name}: {outcome or 'session over'}, at step {self.step}."
        self._tell_alert(Alert("end", self.step, "ERROR" if failed else "INFO", redacted(text)))
        for one in self._deliveries:
            one.close(outcome, failed)
        if self.pending:
            log.error("%d records could not be written to %s.", len(self.pending), self.run.metrics_file)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, AskedToStop):
            self.close(str(error))
        elif isinstance(error, Exception):
            self.close(told(error), failed=True)
        else:
            self.close("" if error is None else "interrupted")

    # How

    def _tell(self, event: str, *args: Any) -> None:
        for one in self._deliveries:
            one.tell(event, *args)

    def _tell_alert(self, alert: Alert) -> None:
        log.log(LEVELS[alert.level], "%s: %s", alert.kind, alert.text)
        try:
            jsonl.append(self.events_file, {**alert.event(), "time": round(time.time(), 3)})
        except OSError as error:
            log.warning("%s could not be written to %s: %s", alert.kind, self.events_file, error)
        self._tell("alert", alert)

    def _system(self) -> dict[str, float]:
        seen = self._monitor.take()
        if self._monitor.fault is not None:
            log.warning("The machine is not sampled any more: %s", told(self._monitor.fault))
            self._monitor.fault = None
        return seen


def gradient_histograms(model: torch.nn.Module) -> dict[str, Histogram]:
    """Counts and edges of `BINS` bins over the finite values of each parameter's gradient, on the CPU."""
    import numpy

    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            values = parameter.grad.detach().float().cpu().numpy().ravel()
            found[name] = numpy.histogram(values[numpy.isfinite(values)], bins=BINS)
    return found
