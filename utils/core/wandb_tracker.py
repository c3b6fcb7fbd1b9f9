"""Weights & Biases: a run's config, curves, samples, gradients, checkpoints, data and alerts in its W&B run.

The W&B run has the run's own id, so a run taken up again goes on in the same one; its local files lie in
`run.path/wandb`. Without a key (WANDB_API_KEY in the environment or Colab's secrets) it is written there only, for
`wandb sync` to send later. Leaves out what happens when any of this fails: `core.delivery`.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core import jsonl, notebook
from utils.core.alerts import Alert
from utils.core.checkpoints import Checkpoint
from utils.core.delivery import told
from utils.core.redact import RedactingFilter, keep_secret, redact_files, redacted
from utils.core.trackers import Histogram, Tracker
from utils.core.wandb_artifacts import WandbArtifacts
from utils.core.wandb_config import WandbConfig

if TYPE_CHECKING:
    from utils.core.run import Run

log = logging.getLogger(__name__)
CHARTED = ("loss", "pass@1")  # drawn for both splits in one chart
CHARTS_LIVE = 100  # evaluations up to which that chart is drawn anew online at each of them, and not only at the end


class WandbTracker(Tracker):
    """One session of a run in its W&B run. Steps that an earlier session told are not told twice."""

    def __init__(self, run: Run, config: WandbConfig | None = None):
        self.run, self.config = run, WandbConfig.here(config)
        self.gradients_every = self.config.gradients_every
        self.folder = run.path / "wandb"
        self.folder.mkdir(exist_ok=True)
        records = list(jsonl.read(run.metrics_file))
        self.wandb_run = self._start()
        self.offline: bool = self.wandb_run.offline
        self.known = self._known(records[-1]["step"] if records else -1)
        self.newest = -1  # step
        self.rows = [[one["step"], one.get("prompt", ""), one["text"]] for one in jsonl.read(run.samples_file)]
        self.latest: dict[str, float] = {}
        self.curves: dict[str, list[tuple[int, float, float]]] = {}
        self.artifacts = WandbArtifacts(run, self.wandb_run, patience=self.config.finish_seconds)
        self._axes()
        self._show()
        for record in records:
            self._take(record)
        if records:
            self._note(records[-1]["step"])

    # What is told while a run is under way

    def log(self, record: Mapping[str, Any]) -> None:
        self._take(record)
        self._note(record["step"])

    def _note(self, step: int) -> None:
        """Keep how far W&B has been told, for the next session."""
        (self.folder / "told").write_text(str(max(step, self.known)))

    def _take(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        values = {name: value for name, value in record.items() if name not in ("step", "time") and value is not None}
        self._history(step, values)
        self.latest.update(values)
        for name in CHARTED:
            if f"validation/{name}" in values and f"train/{name}" in self.latest:
                curve = self.curves.setdefault(name, [])
                curve.append((step, self.latest[f"train/{name}"], values[f"validation/{name}"]))
                if not self.offline and len(curve) <= CHARTS_LIVE:
                    self._chart(name)

    def sample(self, step: int, texts: Mapping[str, str]) -> None:
        import wandb

        self.rows += [[step, prompt, text] for prompt, text in redacted(texts).items()]
        self._history(step, {"samples": wandb.Table(columns=["step", "prompt", "text"], data=[*self.rows])})

    def gradients(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        import wandb

        self._history(
            step, {f"gradients/{name}": wandb.Histogram(np_histogram=one) for name, one in histograms.items()}
        )

    def alert(self, alert: Alert) -> None:
        self.wandb_run.alert(f"{self.run.name}: {alert.kind}"[:63], redacted(alert.text), level=alert.level)

    def uses(self, fingerprint: str, facts: Mapping[str, Any], folder: Path | None) -> None:
        self.artifacts.uses(fingerprint, facts, folder if self.config.data_files else None)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A new version of the run's model. Offline only the last and the best are told, when the session ends: the
        others are pruned before anyone syncs them; online those are left out that come while one is still uploaded."""
        if not self.offline and self.artifacts.idle():
            self.artifacts.model(checkpoint)

    def close(self, outcome: str = "", failed: bool = False) -> None:
        """Raises what went wrong with an upload, or TimeoutError where some are not done in `finish_seconds`."""
        unsent = True
        try:
            try:
                for name in self.curves:
                    self._chart(name)
                self.artifacts.close()
            finally:
                self.wandb_run.finish(exit_code=int(failed))
                self._clean_logs()
            unsent = self.offline
        finally:
            if unsent:
                log.info("Send this run to W&B later with: %s", self.sync_command)

    @property
    def sync_command(self) -> str:
        return f"wandb sync {shlex.quote(str(self.folder))}/{'offline-' if self.offline else ''}run-*"

    # How

    def _start(self) -> Any:
        """The W&B run: online where there is a key and a server that answers, else offline, which is said."""
        key = keep_secret(notebook.secret("WANDB_API_KEY"))
        mode = self.config.mode or ("online" if key else "offline")
        if mode == "online" and not key:
            log.warning("W&B was asked to be online, and there is no WANDB_API_KEY: it is written offline.")
            mode = "offline"
        if mode == "online":
            try:
                return self._init(mode, api_key=key)
            except Exception as error:  # a bad key, a server that does not answer: whatever it is, the run goes on
                log.warning("W&B could not be reached (%s): it is written offline.", told(error))
                self._let_go()
                mode = "offline"
        return self._init(mode)

    def _let_go(self) -> None:
        """After a failed start: W&B's service still holds the run's id, and lets it go only when it ends."""
        import wandb

        if wandb.run is None:
            wandb.teardown()
        self._clean_logs()

    def _clean_logs(self) -> None:
        """W&B's own logs hold what a server answered, whatever that was."""
        redact_files(self.folder.glob("*run-*/logs/*.log"))

    def _init(self, mode: str, **settings: Any) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's reports about itself would hold our texts
        import wandb

        client = logging.getLogger("wandb")
        if not any(isinstance(one, RedactingFilter) for one in client.filters):
            client.addFilter(RedactingFilter())
        config = self.config
        return wandb.init(
            dir=str(self.run.path), id=self.run.id, name=self.run.path.name, resume="allow", reinit="create_new",
            project=config.project, entity=config.entity, group=config.group, tags=list(config.tags) or None,
            mode=mode, config=redacted(self.run.config), allow_val_change=True,
            settings=wandb.Settings(
                # Output, code and the git remote may hold secrets of others; the run's own stamp has the commit.
                console="off", disable_code=True, disable_git=True, save_code=False, silent=True,
                init_timeout=config.start_seconds, finish_timeout=config.finish_seconds,
                finish_timeout_raises=True, **settings,
            ),
        )  # fmt: skip

    def _known(self, last: int) -> int:
        """The last step that W&B has from earlier sessions: what its server says, else what they noted."""
        if not self.offline:
            return self.wandb_run.starting_step - 1
        note = self.folder / "told"
        try:
            return min(int(note.read_text()), last) if note.exists() else -1
        except ValueError:
            log.warning("%s is damaged: W&B is told the run's whole history again.", note)
            return -1

    def _axes(self) -> None:
        self.wandb_run.define_metric("step", hidden=True)
        for name in ("train/*", "validation/*", "system/*", "gradients/*"):
            self.wandb_run.define_metric(name, step_metric="step")
        self.wandb_run.define_metric("validation/loss", step_metric="step", summary="min,last")

    def _history(self, step: int, values: Mapping[str, Any]) -> None:
        """Values of a step. W&B takes no step before the newest: what comes late is told with that one."""
        if step <= self.known or not values:
            return
        late = step < self.newest
        self.newest = max(step, self.newest)
        self.wandb_run.log(dict(values) if late else {**values, "step": step}, step=self.newest)

    def _chart(self, name: str) -> None:
        import wandb

        steps, train, validation = zip(*self.curves[name])
        chart = wandb.plot.line_series(
            steps, [train, validation], ["train", "validation"], f"{name}: validation against train", "step"
        )
        self._history(steps[-1], {f"charts/{name}": chart})

    def _show(self) -> None:
        """The link, in the log and under the cell; offline the command that sends the run later."""
        if self.offline:
            log.info("W&B is offline: the run is written to %s. Send it later with: %s", self.folder, self.sync_command)
            return
        url = self.wandb_run.url
        log.info("W&B: %s", url)
        if notebook.displays():
            from html import escape

            from IPython.display import HTML, display

            display(HTML(f'<a href="{escape(url)}" target="_blank">{escape(self.run.path.name)} in W&amp;B</a>'))
