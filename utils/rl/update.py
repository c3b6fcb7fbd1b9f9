"""One update of PPO: a rollout, the passes over it, and what there is to log of them (algorithm 1).

What it draws is a function of the run's seed, the update's number and the process. Leaves out the arithmetic
(`rl.ppo`), and when updates are made and saved (`rl.session`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from utils.rl import ppo
from utils.rl.advantages import trajectories_of
from utils.rl.buffer import Trajectories
from utils.rl.episodes import episodes_of
from utils.rl.rollout import collect
from utils.training.fit import NonFiniteError
from utils.training.optim import learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from utils.rl.state import PPOState

log = logging.getLogger(__name__)
DRAWS, SHUFFLE, ORDER = range(3)  # what the seeds of an update are for


def update(
    state: PPOState,
    learner: tuple[nn.Module, torch.optim.Optimizer],
    reference: nn.Module,
    *,
    exact: bool,
) -> dict[str, float]:
    """Draw, judge, and learn: the policy, the controller, the curriculum and the progress in `state` move on by one.

    `learner` is the policy and its optimiser as Fabric wrapped them; `exact` is as in `trajectories_of`. Returns what
    there is to log. Raises `NonFiniteError` before a step that would spoil the weights. A collective call.
    """
    config, progress, game, fabric = state.config, state.progress, state.game, state.fabric
    begun = time.perf_counter()
    shares = state.curriculum.shares()
    drawn = state.curriculum.draw(config.prompts, step=progress.update)
    problems = [game.train[at] for at in drawn[fabric.global_rank :: fabric.world_size]]
    rollout = collect(
        state.policy, problems, config.samples, config.sample, read=game.read, sandbox=game.sandbox, reward=game.reward,
        fabric=fabric, seed=_seed(state, DRAWS), at_once=config.sample_batch,
    )  # fmt: skip
    episodes = episodes_of(rollout, fabric)
    trajectories, told = trajectories_of(
        rollout, state.policy, reference, config, coefficient=state.controller.coefficient, fabric=fabric,
        seed=_seed(state, SHUFFLE), exact=exact,
    )  # fmt: skip
    collected = time.perf_counter()
    rate = learning_rate(progress.update, config.updates, config)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    metrics = {**episodes.metrics(), **told, **_passes(state, learner, trajectories)}
    metrics |= {"lr": rate, "kl_coefficient": state.controller.coefficient}
    state.controller = state.controller.update(told["kl_k1"], len(episodes.scored))
    state.curriculum.update(episodes.levels, episodes.passed.mean(1))
    progress.update += 1
    progress.episodes += len(episodes.scored)
    speed, restarts = summed(fabric, len(rollout.programs) / rollout.judge_seconds, rollout.restarts)
    return {
        **metrics,
        "episodes": progress.episodes,
        **{f"level{name}/share": share for name, share in shares.items()},
        "programs_per_second": speed,
        "sandbox_restarts": restarts,
        "rollout_seconds": collected - begun,
        "passes_seconds": time.perf_counter() - collected,
    }


def _passes(
    state: PPOState, learner: tuple[nn.Module, torch.optim.Optimizer], trajectories: Trajectories
) -> dict[str, float]:
    number = state.progress.update + 1
    order = torch.Generator().manual_seed(_seed(state, ORDER))
    try:
        told = ppo.optimise(*learner, trajectories, state.config, fabric=state.fabric, generator=order)
    except NonFiniteError as error:
        raise NonFiniteError(
            f"Update {number} stopped: {error}. The weights are as that minibatch found them; the same train_ppo again"
            " starts from the newest checkpoint. A lower ppo.lr or fp32 often helps."
        ) from None
    if told["skipped"] and not told["minibatches"]:
        log.warning(
            "Update %d learned nothing: the gradients of its minibatches overflowed in fp16. The scale is lowered, and"
            " the next ones may do; bf16 or fp32 does not overflow.", number,
        )  # fmt: skip
    elif not told["minibatches"]:
        log.warning(
            "Update %d learned nothing: its first minibatch is %.3f nats a token from the policy that drew it, more"
            " than ppo.stop_kl. Raise it, or take rounding (fp32) away.", number, told["approx_kl"],
        )  # fmt: skip
    return told


def _seed(state: PPOState, purpose: int) -> int:
    """A seed for one purpose of the update under way, in this process."""
    entropy = (state.config.seed, purpose, state.progress.update, state.fabric.global_rank)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def summed(fabric: Fabric, *values: float) -> list[float]:
    """Each value summed over the processes."""
    return fabric.all_reduce(torch.tensor(values, device=fabric.device), reduce_op="sum").tolist()
