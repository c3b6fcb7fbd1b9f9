"""All that the next step depends on: taken down for a checkpoint, put back from one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.core import repro
from utils.core.config import flatten
from utils.core.run import RunError
from utils.training.config import TrainConfig
from utils.training.ema import Average

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Progress:
    """Where training stands."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """batches of the epoch that are done"""
    targets: int = 0
    """targets learned from so far"""
    best: float = math.inf
    """lowest validation loss"""
    best_step: int = 0
    improved_from: float = math.inf
    """validation loss of the last improvement by `min_delta`"""
    evaluations_since: int = 0
    """evaluations since that improvement"""
    finished: str = ""
    """why training ended; empty while it goes on"""
    rows: int = 0
    """rows a pass that training came to where memory ran out; 0: it never did"""
    eval_rows: int = 0
    """rows a pass that evaluation came to"""
    rows_device: str = ""
    """the device that this was on"""


@dataclass
class TrainState:
    """Weights, their average, optimiser, scaler, generators and progress, as one dict of tensors and plain values."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    fabric: Fabric
    config: TrainConfig
    data: str
    """fingerprint of the data"""
    progress: Progress = field(default_factory=Progress)
    average: Average | None = None
    """of the weights, where there is one; it is then the checkpoint's model"""

    def capture(self) -> dict[str, Any]:
        """What a checkpoint holds. A collective call: each process gives its generators' state."""
        average = {}
        if self.average is not None:
            average = {"average": {"updates": self.average.updates, "training_weights": self.model.state_dict()}}
        return {
            "model": (self.average.model if self.average else self.model).state_dict(),
            **average,
            "optimizer": self.optimizer.state_dict(),
            # The rate is a function of the step; what it was is kept for the record.
            "schedule": {"step": self.progress.step, "lr": self.optimizer.param_groups[0]["lr"]},
            "scaler": self.fabric.strategy.precision.state_dict(),
            "rng": generators(self.fabric),
            "progress": asdict(self.progress),
            "config": self.config.model_dump(mode="json"),
            "data": self.data,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything back. Raises `RunError` where the settings or the data are not those it was trained with."""
        self._check_same(state)
        self._put_back(state)
        self.progress = Progress(**state["progress"])

    def branch_from(self, state: dict[str, Any], total: int) -> None:
        """Start where another run stood, with settings of our own, which end at step `total`."""
        step, saved = state["progress"]["step"], state["config"]
        if step >= total:
            raise RunError(
                f"The branch would start at step {step}, and its settings end it at step {total}; give it more"
                " train.max_steps (or max_epochs)."
            )
        self._put_back(state)
        fresh = Progress()
        self.progress = replace(
            fresh, **{name: state["progress"][name] for name in ("step", "epoch", "batch", "targets")}
        )
        if state["data"] != self.data:
            self.progress.epoch = self.progress.batch = 0
        elif (saved["batch_size"], saved["seed"]) != (self.config.batch_size, self.config.seed):
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0  # its batches are others

    def _put_back(self, state: dict[str, Any]) -> None:
        averaged = state.get("average")
        self.model.load_state_dict(averaged["training_weights"] if averaged else state["model"])
        if self.average and averaged:
            self.average.restore(state["model"], averaged["updates"])
        elif self.average:  # a branch of a run that had none
            self.average.start(self.model)
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:  # empty in bf16 and fp32
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        restore_generators(self.fabric, state["rng"])

    def _check_same(self, state: dict[str, Any]) -> None:
        defaults = {name: one.default for name, one in TrainConfig.model_fields.items()}  # of settings that came later
        changed = differences({**defaults, **state["config"]}, self.config.arithmetic(), "train.")
        if changed:
            raise RunError(
                f"The run was trained with other settings: {'; '.join(changed)}. Put them back to go on with it, or"
                " make a branch of it (Run.branch, or: python -m utils resume RUN key=value)."
            )
        if state["data"] != self.data:
            raise RunError(
                f"The run was trained on data {state['data']}, and this is {self.data}: the corpus, its tokenizer or"
                " its splits have changed. Bring the data back, or start a new run."
            )


def generators(fabric: Fabric) -> list[dict[str, Any]]:
    """The state of every process's generators. A collective call."""
    if fabric.world_size == 1:
        return [repro.rng_state()]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, repro.rng_state())
    return found


def restore_generators(fabric: Fabric, states: Sequence[Mapping[str, Any]]) -> None:
    """Put back the generators of this process, where it was there before."""
    if fabric.global_rank < len(states):
        repro.set_rng_state(states[fabric.global_rank])


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put back an optimiser's moments, and leave its own settings.

    They are checked, or meant to differ; and `fused`, which says where the state of AdamW has to lie, may differ with
    the device.
    """
    groups = [
        {**group, **{name: value for name, value in own.items() if name != "params"}}
        for group, own in zip(saved["param_groups"], optimizer.param_groups)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def differences(saved: Mapping[str, Any], own: Mapping[str, Any], prefix: str) -> list[str]:
    """`train.lr was 0.01, now 0.02` for each of our `own` settings that is another among the `saved` ones."""
    before = dict(flatten({name: saved[name] for name in own if name in saved}, prefix))
    after = dict(flatten(own, prefix))
    return [
        f"{name} was {before.get(name)!r}, now {after.get(name)!r}"
        for name in {**after, **before}
        if before.get(name) != after.get(name)
    ]
