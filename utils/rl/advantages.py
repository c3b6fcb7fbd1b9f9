"""From what programs earned to what each of their tokens is held to be worth: rewards, advantages, returns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.rl import ppo
from utils.rl.buffer import Trajectories
from utils.rl.config import PPOConfig
from utils.rl.policy import CodePolicy
from utils.rl.rollout import Rollout

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def trajectories_of(
    rollout: Rollout,
    policy: CodePolicy,
    reference: nn.Module,
    config: PPOConfig,
    *,
    coefficient: float,
    fabric: Fabric,
    seed: int,
    exact: bool = True,
) -> tuple[Trajectories, dict[str, float]]:
    """The rollout as a buffer to pass over, its advantages whitened over all processes.

    A program's last token is rewarded with its score, less the mean score of its task's other programs where the
    baseline is those; every token pays `coefficient` a nat for leaving `reference`. `exact`: the policy computes in
    float32, and scores its programs as it drew them; else it scores them again, as reading token by token rounds
    otherwise. `seed` is of the control that shuffles scores.

    Also returns, over all processes: `kl` and `kl_k1`, from the reference in nats a program, by k3 (of little variance)
    and by k1 (log pi - log reference, what the coefficient is steered by); `explained_variance`, of the returns by the
    values; and, of programs that were scored again, `rounding`, by how many nats a token's log-probability then differs
    from that it was drawn with, on average. A collective call.
    """
    drawn, total = rollout.responses, partial(fabric.all_reduce, reduce_op="sum")
    mask, scores = drawn.mask, rollout.scores.to(drawn.mask.device)
    if config.shuffle_rewards:
        order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
        scores = scores[order.to(scores.device)]
    if config.baseline == "task":
        scores = ppo.leave_one_out(scores, len(scores) // len(rollout.prompts))
    held, _ = _score(reference, rollout, config, fabric)
    logprobs, values = (drawn.logprobs, drawn.values) if exact else _score(policy, rollout, config, fabric)
    rewards = ppo.penalised_rewards(scores, logprobs, held, mask, coefficient)
    advantages, returns = ppo.gae(rewards, values, mask, config.gamma, config.lam)
    whitened = ppo.whiten(advantages, mask, total=total)
    trajectories = Trajectories(
        rollout.prompts, rollout.prompt_mask, drawn.ids, mask, logprobs, values, whitened, returns, drawn.support
    )
    estimates = {"kl": ppo.kl_k3(logprobs, held), "kl_k1": logprobs - held}
    told = {
        name: fabric.all_reduce(one.masked_fill(~mask, 0).sum(1).mean(), reduce_op="mean")
        for name, one in estimates.items()
    }
    told["explained_variance"] = ppo.explained_variance(values, returns, mask, total=total)
    if not exact:
        gap = (logprobs - drawn.logprobs).abs().masked_fill(~mask, 0).sum()
        told["rounding"] = total(gap) / total(mask.sum())
    return trajectories, {name: float(value) for name, value in told.items()}


@torch.no_grad()
def _score(net: nn.Module, rollout: Rollout, config: PPOConfig, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values (N, T) by `net`, of as many prompts at once as in a pass over a minibatch.

    Prompts of like length are read together, so that little is padding.
    """
    drawn, mode, count = rollout.responses, net.training, len(rollout.prompts)
    n, size = len(drawn.ids) // count, min(-(-count // config.minibatches), config.micro_batch_prompts or count)
    logprobs, values = torch.zeros_like(drawn.logprobs), torch.zeros_like(drawn.values)
    net.eval()
    for some in rollout.prompt_mask.sum(1).argsort().split(size):
        rows = (some[:, None] * n + torch.arange(n, device=some.device)).flatten()
        start = rollout.prompts.shape[1] - int(rollout.prompt_mask[some].sum(1).max())
        support = None if drawn.support is None else drawn.support[rows]
        prompts, mask = rollout.prompts[some, start:], rollout.prompt_mask[some, start:]
        with fabric.autocast():
            scores = net(prompts, mask, drawn.ids[rows], drawn.mask[rows], config.sample, support)
        logprobs[rows], values[rows] = scores.logprobs.float(), scores.values.float()
    net.train(mode)
    return logprobs, values
