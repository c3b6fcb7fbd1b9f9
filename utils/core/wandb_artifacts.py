"""A run's checkpoints and data as W&B artifacts: versions of one model, and the data that they were learned from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.checkpoints import Checkpoint, Checkpoints, judged, union
from utils.core.redact import redacted

if TYPE_CHECKING:
    from utils.core.run import Run

log = logging.getLogger(__name__)


class WandbArtifacts:
    """The artifacts of one session. Online they are sent by a thread, so that a slow network holds up no step."""

    def __init__(self, run: Run, wandb_run: Any, *, patience: float):
        """`patience`: seconds that `close` waits for uploads."""
        self.run, self.wandb_run, self.patience = run, wandb_run, patience
        self.offline: bool = wandb_run.offline
        self.told: set[int] = set()
        self.uploads: list[Future] = []
        self.uploader = ThreadPoolExecutor(1, "wandb-upload")

    def uses(self, fingerprint: str, facts: Mapping[str, Any], folder: Path | None) -> None:
        """The data as an artifact that this run takes in: its facts, and the files of `folder`."""
        import wandb

        artifact = wandb.Artifact(f"data-{self.run.name}", "dataset", metadata=redacted(dict(facts)))
        with artifact.new_file("data.json") as file:
            json.dump({"fingerprint": fingerprint, **redacted(dict(facts))}, file, indent=2, default=str)
        if folder is not None:
            artifact.add_dir(str(folder), policy="immutable")
        aliases = ["latest", fingerprint.replace("/", "-").replace(":", "-")]  # W&B takes neither in an alias
        if self.offline:  # `use_artifact` asks the server for what `wandb sync` does later; this is its offline half
            self.wandb_run._log_artifact(artifact, aliases=aliases, is_user_created=True, use_after_commit=True)
        else:
            self._upload(self.wandb_run.use_artifact, artifact, aliases=aliases)

    def model(self, checkpoint: Checkpoint) -> None:
        """A new version of the run's model, under the aliases step-N, last and best as it deserves."""
        import wandb

        every = self._every(checkpoint)
        aliases = [f"step-{checkpoint.step}"]
        aliases += ["last"] if checkpoint.step == every[-1].step else []
        aliases += ["best"] if checkpoint.step in [one.step for one in judged(every)[:1]] else []
        facts = {"step": checkpoint.step, "metric": checkpoint.metric}
        artifact = wandb.Artifact(f"model-{self.run.id}", "model", metadata=facts)
        # Offline the files are read where they lie when they are synced; online a copy is made, that pruning spares.
        artifact.add_dir(str(self._lasting(checkpoint)), policy="immutable" if self.offline else "mutable")
        if self.offline:
            self.wandb_run.log_artifact(artifact, aliases=aliases)
        else:
            self._upload(self.wandb_run.log_artifact, artifact, aliases=aliases)
        self.told.add(checkpoint.step)

    def idle(self) -> bool:
        """Whether every upload is done, so that a slow network never has more than one checkpoint in line."""
        return all(upload.done() for upload in self.uploads)

    def close(self) -> None:
        """Tell the last and the best checkpoint, wait for the uploads, and raise what one of them raised."""
        for checkpoint in self._kept():
            self.model(checkpoint)
        _, late = wait(self.uploads, timeout=self.patience)
        self.uploader.shutdown(wait=False, cancel_futures=True)
        if late:
            raise TimeoutError(f"{len(late)} artifacts were not uploaded in {self.patience:g} s")
        for upload in self.uploads:
            upload.result()

    def _every(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """The run's checkpoints by step, `checkpoint` and those beside it among them: it may lie on this machine's own
        disk, and not yet in the run's folder (`core.mirror`)."""
        there = Checkpoints(self.run.path / "checkpoints").all()
        here = Checkpoints(checkpoint.path.parent).all()
        return union([*here, checkpoint], there)

    def _kept(self) -> Sequence[Checkpoint]:
        """The last and the best checkpoint, as far as they are not there yet."""
        every = Checkpoints(self.run.path / "checkpoints").all()
        kept = {one.step: one for one in (*every[-1:], *judged(every)[:1])}
        return [one for step, one in sorted(kept.items()) if step not in self.told]

    def _lasting(self, checkpoint: Checkpoint) -> Path:
        """A folder of the checkpoint's files that pruning spares, by links that take no room while it is there; the
        checkpoint itself online, or where the disk has no links (then it has to be synced before it is pruned)."""
        if not self.offline:
            return checkpoint.path
        folder = self.run.path / "wandb" / "checkpoints" / f"{self.wandb_run.settings.timespec}-{checkpoint.path.name}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for file in checkpoint.path.iterdir():
                os.link(file, folder / file.name)
        except OSError:
            log.info("%s has no links: sync W&B before step %d is pruned.", folder, checkpoint.step)
            return checkpoint.path
        return folder

    def _upload(self, call: Any, artifact: Any, **options: Any) -> None:
        self.uploads.append(self.uploader.submit(call, artifact, **options))
