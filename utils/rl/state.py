"""All that the next update depends on: taken down for a checkpoint, put back from one."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from utils.core.run import RunError
from utils.rl.config import PPOConfig
from utils.rl.curriculum import Curriculum
from utils.rl.game import Game
from utils.rl.policy import CodePolicy
from utils.rl.ppo import KLController
from utils.training.state import differences, generators, restore_generators, restore_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where training stands."""

    update: int = 0
    episodes: int = 0
    """programs drawn so far"""
    best: float = -1.0
    """highest pass rate on validation tasks"""
    best_update: int = 0
    """the last update of that rate"""
    evaluations_since: int = 0
    """evaluations since it was first reached"""
    finished: str = ""
    """why training ended; empty while it goes on"""


@dataclass
class PPOState:
    """Policy and value, optimiser, scaler, generators, KL controller, curriculum and progress of a run."""

    policy: CodePolicy
    optimizer: torch.optim.Optimizer
    fabric: Fabric
    config: PPOConfig
    game: Game
    curriculum: Curriculum
    controller: KLController
    progress: Progress = field(default_factory=Progress)

    def capture(self) -> dict[str, Any]:
        """What a checkpoint holds. A collective call: each process gives its generators' state."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            # The rate is a function of the update; what it was is kept for the record.
            "schedule": {"update": self.progress.update, "lr": self.optimizer.param_groups[0]["lr"]},
            "scaler": self.fabric.strategy.precision.state_dict(),
            "rng": generators(self.fabric),
            "progress": asdict(self.progress),
            "kl": asdict(self.controller),
            "curriculum": self.curriculum.state(),
            "config": self.config.model_dump(mode="json"),
            "reward": self.game.reward.model_dump(mode="json"),
            "sandbox": self.game.sandbox.config.model_dump(mode="json"),
            "data": self.game.fingerprint,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything back. Raises `RunError` where the settings or the tasks are not those it was trained with."""
        self._check_same(state)
        self.policy.load_state_dict(state["policy"])
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:  # empty in bf16 and fp32
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        restore_generators(self.fabric, state["rng"])
        self.progress = Progress(**state["progress"])
        self.controller = KLController(**state["kl"])
        self.curriculum.restore(state["curriculum"])
        if len(state["rng"]) != self.fabric.world_size:
            log.warning(
                "The run was trained by %d processes and goes on with %d: from here on it draws other programs than it"
                " would have.", len(state["rng"]), self.fabric.world_size,
            )  # fmt: skip
        if state["config"]["sample_batch"] != self.config.sample_batch:
            log.warning(
                "The run was trained with ppo.sample_batch %s and goes on with %s: from here on it draws other programs"
                " than it would have.", state["config"]["sample_batch"], self.config.sample_batch,
            )  # fmt: skip

    def _check_same(self, state: dict[str, Any]) -> None:
        changed = differences(state["config"], self.config.arithmetic(), "ppo.")
        changed += differences(state["reward"], self.game.reward.model_dump(mode="json"), "reward.")
        changed += differences(state["sandbox"], self.game.sandbox.config.model_dump(mode="json"), "sandbox.")
        if changed:
            raise RunError(
                f"The run was trained with other settings: {'; '.join(changed)}. Put them back to go on with it, or"
                " start a new run."
            )
        if state["data"] != self.game.fingerprint:
            raise RunError(
                f"The run was trained on tasks {state['data']}, and these are {self.game.fingerprint}: the pool, its"
                " prompts or the tokenizer have changed. Bring them back, or start a new run."
            )
