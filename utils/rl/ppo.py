"""Proximal policy optimisation of a language model, in the order in which the papers give it.

Schulman et al. 2017 (https://arxiv.org/abs/1707.06347) for the two clipped losses, Schulman et al. 2016
(https://arxiv.org/abs/1506.02438) for the advantages, Ziegler et al. 2019 (https://arxiv.org/abs/1909.08593) for the KL
penalty per token and its controller.

B is answers, T places of an answer. `mask` (B, T) is true at real tokens, the end token among them; what stands
elsewhere is never read, infinities and NaN (log-probabilities of padding) included, and never gets a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from utils.training.fit import NonFiniteError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from utils.rl.buffer import Trajectories
    from utils.rl.config import PPOConfig

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes that share a batch; it may do so in place."""


def leave_one_out(scores: Tensor, n: int) -> Tensor:
    """Each score (B,) less the mean of the others among its n neighbours, the answers to one prompt.

    What is taken off does not depend on the answer itself, so the gradient's mean stays as it is and its variance falls
    (Kool et al. 2019, https://openreview.net/forum?id=r1lgTGL5DE). Of a single answer nothing is taken off.
    """
    if len(scores) % n:
        raise ValueError(f"{len(scores)} scores are no groups of {n}; expected a multiple of it")
    if n == 1:
        return scores
    groups = scores.view(-1, n)
    return ((groups - groups.mean(1, keepdim=True)) * n / (n - 1)).flatten()


@torch.no_grad()
def penalised_rewards(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, kl_coefficient: float
) -> Tensor:
    """Rewards (B, T): at each real token -kl_coefficient * (log pi - log reference), at the last one the score besides.

    scores: (B,), one an answer. The difference is the estimate k1 of KL(pi || reference): right on average, and the
    only one of the three whose sum over an answer is the KL of the answer (Ziegler et al. 2019, equation 2).
    """
    _check(mask, logprobs=logprobs, reference_logprobs=reference_logprobs)
    if scores.shape != mask.shape[:1]:
        raise ValueError(f"scores of shape {tuple(scores.shape)}; expected ({len(mask)},), one score an answer")
    if not mask.any(1).all():
        raise ValueError("an answer without any real token has no place for its score; drop its row")
    rewards = -kl_coefficient * (logprobs - reference_logprobs).masked_fill(~mask, 0)  # (B, T)
    last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1, keepdim=True)  # (B, 1)
    return rewards.scatter_add(1, last, scores.to(rewards.dtype)[:, None])


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """KL(pi || reference) at each token, estimated from a token drawn from pi: r - 1 - log r, r = reference / pi.

    Right on average, never below 0 and of little variance (Schulman, http://joschu.net/blog/kl-approx.html). At
    padding it may be NaN: average it with `masked_mean`.
    """
    log_ratio = reference_logprobs - logprobs
    return log_ratio.expm1() - log_ratio


@dataclass(frozen=True)
class KLController:
    """The coefficient of the KL penalty, steered so that the KL comes to `target` (Ziegler et al. 2019, section 2.2).

    Frozen: `update` returns the next one. `dataclasses.asdict` of it goes in a checkpoint, `KLController(**state)`
    comes back.
    """

    coefficient: float  # beta
    target: float | None = None  # nats an answer; None: the coefficient stays
    horizon: float = 10_000  # answers over which an error of 20% or more changes the coefficient by about 20%

    def __post_init__(self):
        if self.coefficient < 0 or self.horizon <= 0 or (self.target is not None and self.target <= 0):
            raise ValueError(f"{self}: expected a coefficient of at least 0, a horizon and a target above 0")

    def update(self, kl: float, count: int) -> KLController:
        """After `count` answers of mean KL `kl` in nats an answer (both over all processes).

        e = clip((kl - target) / target, -0.2, 0.2) and beta <- beta * (1 + K e); K = count / horizon, as in the
        authors' code (https://github.com/openai/lm-human-preferences), about the 0.1 of the paper at its batch size.
        """
        if self.target is None:
            return self
        if not math.isfinite(kl):
            raise ValueError(f"a KL of {kl}; expected a number: the policy gives sampled tokens a probability of 0")
        if not 0 <= count < 5 * self.horizon:
            raise ValueError(
                f"{count} answers at a horizon of {self.horizon:g} could turn the coefficient negative; expected fewer"
                f" than {5 * self.horizon:g}: raise the horizon"
            )
        error = min(max((kl - self.target) / self.target, -0.2), 0.2)
        return KLController(self.coefficient * (1 + error * count / self.horizon), self.target, self.horizon)


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
    *,
    dones: Tensor | None = None,
    last_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) from rewards and values (B, T), 0 at padding (Schulman et al. 2016, equation 16).

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lam A_{t+1},    returns = A + V

    values[:, t] is of the state before token t. What follows a row's last real token is worth `last_values` (B,), the
    value of a state where an episode was cut off; None: the row ended there, and 0 follows. dones (B, T): true where an
    episode ends within a row, so that the next real token starts another.
    """
    _check(mask, rewards=rewards, values=values, **({} if dones is None else {"dones": dones}))
    following = values.new_zeros(len(values)) if last_values is None else last_values.to(values.dtype)  # V_{t+1}
    if following.shape != mask.shape[:1]:
        raise ValueError(f"last_values of shape {tuple(following.shape)}; expected ({len(mask)},), one a row")
    advantages, advantage = torch.zeros_like(values), torch.zeros_like(following)
    for t in reversed(range(mask.shape[1])):
        real = mask[:, t]
        if dones is not None:
            following, advantage = (each.masked_fill(real & dones[:, t], 0) for each in (following, advantage))
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = torch.where(real, delta + gamma * lam * advantage, advantage)  # (B,): padding is passed over
        following = torch.where(real, values[:, t], following)
        advantages[:, t] = advantage
    return advantages.masked_fill(~mask, 0), (advantages + values).masked_fill(~mask, 0)


def whiten(values: Tensor, mask: Tensor, epsilon: float = 1e-8, *, total: Total | None = None) -> Tensor:
    """Shifted and scaled to mean 0 and variance 1 over the real tokens (of all processes), (B, T), 0 at padding.

    The variance is that of the numbers themselves (divided by n). Values that are all alike become 0; a variance not
    far above `epsilon` is left below 1, so that rounding is not blown up into a signal.
    """
    centred = (values - _mean(values, mask, total)).masked_fill(~mask, 0)
    return centred * torch.rsqrt(_mean(centred.square(), mask, total) + epsilon)


class PolicyLoss(NamedTuple):
    """The clipped surrogate as a loss, and how far the policy has moved (scalars; all but loss without gradient)."""

    loss: Tensor
    clip_fraction: Tensor  # share of real tokens whose ratio is outside 1 - clip to 1 + clip
    approx_kl: Tensor  # nats a token, k3 of KL(old || new) on the tokens drawn from the old policy


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    *,
    count: float | Tensor | None = None,
) -> PolicyLoss:
    """-mean min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) over real tokens: equation 7 as something to minimise.

    The gradient is exactly 0 at a token whose ratio left the interval on the side its advantage pushes to. `count`: by
    what sums are divided, where a batch is computed in parts; None: by the number of real tokens here.
    """
    _check(mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0)
    advantages = advantages.masked_fill(~mask, 0).detach()
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    left = torch.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
    surrogate = torch.where(left, bounded.detach(), ratio) * advantages  # the minimum of equation 7, without ties
    with torch.no_grad():
        clipped = masked_mean((ratio != bounded).to(ratio.dtype), mask, count)
        approx_kl = masked_mean(kl_k3(old_logprobs, logprobs), mask, count)
    return PolicyLoss(-masked_mean(surrogate, mask, count), clipped, approx_kl)


class ValueLoss(NamedTuple):
    """The clipped value loss, and the share of real tokens whose value moved further than `clip`."""

    loss: Tensor
    clip_fraction: Tensor


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None,
    *,
    count: float | Tensor | None = None,
) -> ValueLoss:
    """Half the mean over real tokens of max((V - R)^2, (V_clipped - R)^2), V_clipped within `clip` of the old value.

    As in the authors' code (https://github.com/openai/baselines, ppo2), not in the paper. clip None: half the plain
    mean square. `count`: as in `clipped_surrogate`.
    """
    _check(mask, values=values, old_values=old_values, returns=returns)
    values, old_values, returns = (each.masked_fill(~mask, 0) for each in (values, old_values, returns))
    error, clipped = (values - returns).square(), torch.zeros_like(values)
    if clip is not None:
        bounded = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (bounded - returns).square())
        clipped = ((values - old_values).abs() > clip).to(values.dtype)
    return ValueLoss(0.5 * masked_mean(error, mask, count), masked_mean(clipped, mask, count).detach())


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, *, total: Total | None = None) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over real tokens (of all processes): 1 perfect, 0 no better than a
    constant, NaN where the returns do not vary."""
    _check(mask, values=values, returns=returns)
    left, whole = ((each - _mean(each, mask, total)).square() for each in (returns - values, returns))
    left, whole = _mean(left, mask, total), _mean(whole, mask, total)
    return torch.where(whole > 0, 1 - left / whole, math.nan)


def optimise(
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    trajectories: Trajectories,
    config: PPOConfig,
    *,
    fabric: Fabric,
    generator: torch.Generator,
) -> dict[str, float]:
    """`config.epochs` passes over a rollout in minibatches, each one step of the optimiser (algorithm 1).

    They end early at a minibatch that shows the policy further away than `config.stop_kl`, which is then not learned
    from. Of several processes each passes over its own prompts; a minibatch is all of theirs, and all are told the
    same. Returns means over the minibatches read (`grad_norm`: learned from); `minibatches`, how many were learned
    from; `skipped`, how many fp16's scaler refused for gradients that overflowed; `early_stop`, 1 where the passes
    ended early. Raises `NonFiniteError` before a step that would spoil the weights.
    """
    found: dict[str, list[float]] = {}
    done, skipped, stopped = 0, 0, False
    scaler = getattr(fabric.strategy.precision, "scaler", None)  # fp16: an infinite norm is the scaler's to answer
    for part in (one for _ in range(config.epochs) for one in trajectories.minibatches(config.minibatches, generator)):
        told = _backward(policy, part, config, fabric)
        _check_finite(told, done, optimizer)
        stopped = config.stop_kl is not None and told["approx_kl"] > config.stop_kl
        if not stopped:
            norm = fabric.clip_gradients(policy, optimizer, max_norm=config.max_grad_norm, error_if_nonfinite=False)
            if scaler is None:
                _check_finite({"grad_norm": float(norm)}, done, optimizer)
            scale = scaler and scaler.get_scale()
            optimizer.step()
            refused = scaler is not None and scaler.get_scale() < scale
            done, skipped = done + (not refused), skipped + refused
            if not refused:
                told["grad_norm"] = float(norm)
        optimizer.zero_grad()
        for name, one in told.items():
            found.setdefault(name, []).append(one)
        if stopped:
            break
    means = {name: sum(values) / len(values) for name, values in found.items()}
    return {**means, "minibatches": float(done), "skipped": float(skipped), "early_stop": float(stopped)}


def _backward(policy: nn.Module, part: Trajectories, config: PPOConfig, fabric: Fabric) -> dict[str, float]:
    """Gradients of a minibatch's loss, by which this process's share of it is read in parts; its terms, over all.

    Every sum over tokens is divided by the minibatch's number of them, so the gradient does not depend on the parts.
    """
    tokens = fabric.all_reduce(part.mask.sum().float(), reduce_op="sum")
    count = tokens / fabric.world_size  # processes average their gradients
    parts = part.micro_batches(config.micro_batch_prompts)
    sums: dict[str, Tensor] = {}
    for number, one in enumerate(parts):
        with fabric.no_backward_sync(policy, enabled=number < len(parts) - 1):
            loss, told = _loss(policy, one, config, count)
            fabric.backward(loss)
        for name, value in told.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float()
    values = fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean")
    return dict(zip(sums, values.tolist()))


def _loss(policy, part: Trajectories, config: PPOConfig, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of some answers of a minibatch of `count` tokens, and its terms."""
    scores = policy(part.prompts, part.prompt_mask, part.ids, part.mask, config.sample, part.support)
    surrogate = clipped_surrogate(scores.logprobs, part.logprobs, part.advantages, part.mask, config.clip, count=count)
    value = clipped_value_loss(scores.values, part.values, part.returns, part.mask, config.value_clip, count=count)
    entropy = masked_mean(scores.entropy, part.mask, count)
    told = {
        "policy_loss": surrogate.loss,
        "value_loss": value.loss,
        "entropy": entropy,
        "approx_kl": surrogate.approx_kl,
        "clip_fraction": surrogate.clip_fraction,
        "value_clip_fraction": value.clip_fraction,
    }
    return surrogate.loss + config.value_weight * value.loss - config.entropy_weight * entropy, told


def _check_finite(told: dict[str, float], done: int, optimizer: torch.optim.Optimizer) -> None:
    bad = ", ".join(f"{name} {value}" for name, value in told.items() if not math.isfinite(value))
    if bad:
        optimizer.zero_grad()
        raise NonFiniteError(f"{bad} in a minibatch, after {done} that the policy has learned from")


def masked_mean(values: Tensor, mask: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Sum of the values (B, T) at real tokens, over `count`; None: over their number. NaN where there are none."""
    _check(mask, values=values)
    return values.masked_fill(~mask, 0).sum() / (mask.sum() if count is None else count)


def _mean(values: Tensor, mask: Tensor, total: Total | None) -> Tensor:
    """`masked_mean` over all processes."""
    if total is None:
        return masked_mean(values, mask)
    return total(masked_mean(values, mask, total(mask.sum())))


def _check(mask: Tensor, **tensors: Tensor) -> None:
    """Every tensor must have the shape of the mask: one that is broadcast would give a wrong number in silence."""
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"mask of {mask.dtype} and shape {tuple(mask.shape)}; expected booleans of shape (B, T)")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}; expected {tuple(mask.shape)}, as of the mask")
