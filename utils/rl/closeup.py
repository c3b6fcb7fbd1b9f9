"""A reward and a rollout looked at closely, for a person to follow: hand-made programs, and tokens one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas
from torch import nn

from utils.arc.programs import Example
from utils.core.device import choose, make_fabric
from utils.rl.advantages import trajectories_of
from utils.rl.baselines import constant, identity
from utils.rl.buffer import Trajectories
from utils.rl.closeup_plots import plot_rollout
from utils.rl.config import PPOConfig
from utils.rl.game import Game
from utils.rl.policy import CodePolicy
from utils.rl.reward import RewardConfig, Scored
from utils.rl.rollout import Rollout, collect, judge
from utils.rl.sandbox import Sandbox

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = 4  # that programs are drawn for


def hand_made(example: Example) -> dict[str, str]:
    """Four programs for a task, by what they are: one that solves it, and three that must not pay."""
    return {
        "the program that made the task": example.program,
        "the input given back": identity(example.task),
        "a shown output, whatever comes": constant(example.task),
        "a program that fails": "def solve(grid):\n    return grid[99]\n",
    }


def explain_reward(example: Example, sandbox: Sandbox, reward: RewardConfig) -> dict[str, Scored]:
    """What each of the hand-made programs earns on the task's hidden pairs."""
    programs = hand_made(example)
    scored = judge(list(programs.values()), [example.task] * len(programs), [True] * len(programs), sandbox, reward)
    return dict(zip(programs, scored))


@dataclass(frozen=True)
class CloseUp:
    """A rollout of a few tasks, and what PPO makes of it before anything is learned from it."""

    rollout: Rollout
    trajectories: Trajectories
    tokens: list[list[str]]
    """the text of each token of each program"""

    @property
    def table(self) -> pandas.DataFrame:
        """A row a program: task, its lines after the first, what it earned and why, the mean advantage of its tokens.

        Advantages are as PPO takes them: over the value, whitened over the batch, so 0 is the batch's mean token.
        """
        n = len(self.rollout.programs) // len(self.rollout.problems)
        rows = [
            {
                "task": self.rollout.problems[at // n].task.id,
                "program": "; ".join(filter(None, map(str.strip, program.splitlines()[1:]))),
                "reward": round(one.reward, 3),
                "why": ", ".join(filter(None, (one.trick, one.fault, f"{one.passed:.0%} of hidden pairs"))),
                "advantage a token": round(float(self.trajectories.advantages[at].sum()) / len(self.tokens[at]), 2),
            }
            for at, (program, one) in enumerate(zip(self.rollout.programs, self.rollout.scored))
        ]
        return pandas.DataFrame(rows)

    def plot(self, number: int | None = None) -> Figure:
        """One program token by token; without a number the one that earned most."""
        at = int(self.rollout.scores.argmax()) if number is None else number
        length = len(self.tokens[at])
        drawn = (self.trajectories.logprobs, self.trajectories.values, self.trajectories.advantages)
        return plot_rollout(self.tokens[at], *(one[at, :length].float().tolist() for one in drawn))


def look_closely(policy: CodePolicy, reference: nn.Module, game: Game, config: PPOConfig, *, seed: int = 0) -> CloseUp:
    """Draw programs for the first training tasks, as an update would, and learn nothing from them."""
    compute = choose(config.device, config.precision)
    fabric = make_fabric(compute)
    policy.to(fabric.device)
    reference.to(fabric.device)
    rollout = collect(
        policy, game.train[:TASKS], config.samples, config.sample, read=game.read, sandbox=game.sandbox,
        reward=game.reward, fabric=fabric, seed=seed, at_once=config.sample_batch,
    )  # fmt: skip
    trajectories, _ = trajectories_of(
        rollout, policy, reference, config, coefficient=config.kl_coefficient, fabric=fabric, seed=seed,
        exact=compute.precision == "fp32",
    )  # fmt: skip
    lengths = rollout.responses.mask.sum(1).tolist()
    rows = zip(rollout.responses.ids.tolist(), lengths)
    return CloseUp(rollout, trajectories, [[policy.tokenizer.decode([one]) for one in row[:n]] for row, n in rows])
