"""What became of the programs of a rollout, over all processes: to be logged, and for the curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from utils.rl.reward import Scored, summary
from utils.rl.rollout import Rollout

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Episodes:
    """P tasks and n programs for each, side by side in N = P n."""

    levels: list[int]
    """(P) of the tasks"""
    programs: list[str]
    scored: list[Scored]
    tokens: list[int]
    """of each program, its end included"""
    finished: list[bool]
    """False where a program was cut off"""

    @property
    def passed(self) -> np.ndarray:
        """(P, n) whether each program solved its task."""
        return np.array([one.passed == 1 for one in self.scored]).reshape(len(self.levels), -1)

    def metrics(self) -> dict[str, float]:
        """Means over programs; `solved`: share of tasks that some program solves; pass@1 also of each level's tasks."""
        passed, levels, summed = self.passed, np.array(self.levels), summary(self.scored)
        return {
            "score": summed.pop("reward"),
            "pass@1": summed.pop("perfect"),
            "solved": float(passed.any(1).mean()),
            "length": float(np.mean(self.tokens)),
            "truncated": 1 - float(np.mean(self.finished)),
            "distinct": len(set(self.programs)) / len(self.programs),
            **summed,
            **{f"level{name}/pass@1": float(passed[levels == name].mean()) for name in sorted(set(self.levels))},
        }


def episodes_of(rollout: Rollout, fabric: Fabric) -> Episodes:
    """The episodes of every process's rollout, in all of them. A collective call."""
    drawn = rollout.responses
    own = Episodes(
        [one.level for one in rollout.problems],
        rollout.programs,
        rollout.scored,
        drawn.mask.sum(1).tolist(),
        drawn.finished.tolist(),
    )
    if fabric.world_size == 1:
        return own
    parts: list[Episodes] = [own] * fabric.world_size
    torch.distributed.all_gather_object(parts, own)
    names = ("levels", "programs", "scored", "tokens", "finished")
    return Episodes(*([value for part in parts for value in getattr(part, name)] for name in names))
