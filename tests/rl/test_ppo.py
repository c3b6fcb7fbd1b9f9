"""The mathematics of PPO against torchrl, stable-baselines3 and closed forms."""

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch.distributions import Categorical, kl_divergence

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.advantages import trajectories_of
from utils.rl.buffer import Trajectories
from utils.rl.config import PPOConfig
from utils.rl.policy import CodePolicy
from utils.rl.ppo import (
    KLController,
    clipped_surrogate,
    clipped_value_loss,
    explained_variance,
    gae,
    kl_k3,
    leave_one_out,
    masked_mean,
    optimise,
    penalised_rewards,
    whiten,
)
from utils.rl.reference import reference_of
from utils.rl.reward import Scored
from utils.rl.rollout import Rollout
from utils.rl.sampling import SampleConfig
from utils.training.fit import NonFiniteError
from utils.training.optim import make_optimizer

ORACLES = "an oracle of the extra test-oracles: pip install torchrl stable-baselines3"
CLIP = 0.2


def draws(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lengths_mask(*lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def every(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def case(seed):
    """Rewards, values, dones, last values, gamma, lambda of B rows of T steps; an episode ends with chance 1 in 5."""
    random = np.random.default_rng(seed)
    rows, steps = random.integers(1, 6), random.integers(1, 30)
    rewards, values = (torch.from_numpy(random.normal(size=(rows, steps))) for _ in range(2))
    dones = torch.from_numpy(random.random((rows, steps)) < 0.2)
    return rewards, values, dones, torch.from_numpy(random.normal(size=rows)), *random.random(2)


@pytest.mark.parametrize("padded", [False, True])
def test_gae_is_that_of_torchrl_in_100_random_cases(padded):
    functional = pytest.importorskip("torchrl.objectives.value.functional", reason=ORACLES)
    for seed in range(100):
        rewards, values, dones, last, gamma, lam = case(seed)
        following = torch.cat((values[:, 1:], last[:, None]), 1)
        wide = [each[..., None] for each in (values, following, rewards, dones)]
        expected = functional.generalized_advantage_estimate(gamma, lam, *wide)
        mask, inside = every(*values.shape), slice(None)
        if padded:  # what stands before and after a row counts for nothing
            blank = torch.full((len(values), 3), math.nan, dtype=values.dtype)
            rewards, values = (torch.cat((blank, each, blank), 1) for each in (rewards, values))
            dones = torch.cat((every(len(values), 3), dones, every(len(values), 3)), 1)
            mask, inside = ~values.isnan(), slice(3, -3)
        advantages, returns = gae(rewards, values, mask, gamma, lam, dones=dones, last_values=last)
        torch.testing.assert_close(advantages[:, inside], expected[0][..., 0], rtol=0, atol=1e-6)
        torch.testing.assert_close(returns[:, inside], expected[1][..., 0], rtol=0, atol=1e-6)
        assert not advantages[~mask].any()
        assert not returns[~mask].any()


def test_gae_is_that_of_stable_baselines3_in_100_random_cases():
    buffers = pytest.importorskip("stable_baselines3.common.buffers", reason=ORACLES)
    from gymnasium.spaces import Discrete

    for seed in range(100):
        rewards, values, dones, last, gamma, lam = case(seed)
        buffer = buffers.RolloutBuffer(
            values.shape[1], Discrete(2), Discrete(2), "cpu", gae_lambda=lam, gamma=gamma, n_envs=len(values)
        )
        buffer.rewards, buffer.values = rewards.T.numpy(), values.T.numpy()  # in float64, where it has float32
        buffer.advantages = np.zeros_like(buffer.values)
        buffer.episode_starts = np.concatenate((np.zeros((1, len(values))), dones.T[:-1].numpy()))
        buffer.compute_returns_and_advantage(last, dones[:, -1].numpy())
        advantages, returns = gae(rewards, values, every(*values.shape), gamma, lam, dones=dones, last_values=last)
        np.testing.assert_allclose(advantages.T.numpy(), buffer.advantages, rtol=0, atol=1e-6)
        np.testing.assert_allclose(returns.T.numpy(), buffer.returns, rtol=0, atol=1e-6)


def test_at_lambda_0_an_advantage_is_the_temporal_difference():
    rewards, values, mask = draws(0, 3, 6), draws(1, 3, 6), lengths_mask(6, 4, 1)
    advantages, returns = gae(rewards, values, mask, 0.9, 0.0)
    for row, length in enumerate((6, 4, 1)):
        for t in range(length):
            following = values[row, t + 1] if t + 1 < length else 0.0  # the row ended: nothing follows
            expected = rewards[row, t] + 0.9 * following - values[row, t]  # Schulman et al. 2016, equation 17
            torch.testing.assert_close(advantages[row, t], expected)
            torch.testing.assert_close(returns[row, t], expected + values[row, t])


def test_at_lambda_1_a_return_is_the_discounted_sum_of_rewards():
    rewards, values, mask = draws(0, 3, 6), draws(1, 3, 6), lengths_mask(6, 4, 1)
    _, ended = gae(rewards, values, mask, 0.9, 1.0)
    last = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    _, cut_off = gae(rewards, values, mask, 0.9, 1.0, last_values=last)
    for row, length in enumerate((6, 4, 1)):
        for t in range(length):
            expected = sum(0.9 ** (k - t) * rewards[row, k] for k in range(t, length))  # equation 18, plus V
            torch.testing.assert_close(ended[row, t], expected)
            torch.testing.assert_close(cut_off[row, t], expected + 0.9 ** (length - t) * last[row])


def test_padding_between_real_tokens_is_passed_over():
    # Real tokens 0, 2, 3 of a row are an episode of three tokens.
    rewards, values = draws(0, 1, 4), draws(1, 1, 4)
    mask = torch.tensor([[True, False, True, True]])
    advantages, _ = gae(rewards, values, mask, 0.9, 0.8)
    dense, _ = gae(rewards[mask][None], values[mask][None], every(1, 3), 0.9, 0.8)
    torch.testing.assert_close(advantages[mask], dense[0])


def test_penalised_rewards_of_three_tokens_are_as_computed_by_hand():
    # Differences 0.5, -1, 2 at a coefficient of 0.1 cost 0.05, -0.1, 0.2; the score 3 comes at the last real token.
    policy = torch.tensor([[-1.0, -2.0, -1.0, -math.inf], [-1.0, -math.inf, 0.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.0, -3.0, -math.inf], [-1.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    rewards = penalised_rewards(torch.tensor([3.0, -1.0]), policy, reference, mask, 0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1, 2.8, 0.0], [-1.0, 0.0, 0.0, 0.0]]))


def test_k1_and_k3_estimate_the_kl_of_the_distributions_and_k3_varies_less():
    policy, reference = Categorical(logits=draws(0, 8)), Categorical(logits=draws(0, 8) + draws(1, 8, scale=0.2))
    torch.manual_seed(0)
    tokens = policy.sample((200_000,))
    logprobs, others = policy.log_prob(tokens), reference.log_prob(tokens)
    k1, k3 = logprobs - others, kl_k3(logprobs, others)
    expected = kl_divergence(policy, reference)
    for estimate in (k1, k3):
        assert abs(estimate.mean() - expected) < 4 * estimate.std() / 200_000**0.5  # four standard errors
    assert k3.min() >= 0
    assert k3.std() < k1.std() / 3


def test_whitened_values_have_mean_0_and_variance_1_over_real_tokens():
    values, mask = draws(0, 4, 9, scale=7.0) + 3, lengths_mask(9, 1, 5, 2)
    values[~mask] = math.nan
    white = whiten(values, mask)
    assert white[mask].mean().item() == pytest.approx(0.0, abs=1e-12)
    assert white[mask].var(correction=0).item() == pytest.approx(1.0)
    assert not white[~mask].any()
    assert not whiten(torch.full((2, 3), 0.1), every(2, 3)).any()  # all alike: no signal


def policy_case(seed):
    """Features (B, T, 5), a mask, actions, advantages, old log-probabilities, and a linear policy away from the old."""
    torch.manual_seed(seed)
    mask = lengths_mask(12, 3, 7, 1)
    features, advantages = draws(seed, 4, 12, 5), draws(seed + 1, 4, 12)
    old, actor = (torch.nn.Linear(5, 6, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        actor.weight.copy_(old.weight + 0.3 * torch.randn_like(old.weight))
        actor.bias.copy_(old.bias)
        chances = Categorical(logits=old(features))
        actions = chances.sample()
    return features, mask, actions, advantages, chances.log_prob(actions).detach(), actor


def chosen(actor, features, actions):
    return actor(features).log_softmax(-1).gather(-1, actions[..., None])[..., 0]


@pytest.fixture(scope="module")
def oracle():
    """(loss of torchrl, its gradients) of a linear actor or critic on real tokens alone, as a function."""
    objectives = pytest.importorskip("torchrl.objectives", reason=ORACLES)
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ProbabilisticActor, ValueOperator

    def losses(actor, critic, batch):
        policy = ProbabilisticActor(
            TensorDictModule(actor, in_keys=["observation"], out_keys=["logits"]),
            in_keys=["logits"],
            distribution_class=Categorical,
        )
        loss = objectives.ClipPPOLoss(
            policy,
            ValueOperator(critic, in_keys=["observation"]),
            clip_epsilon=CLIP,
            clip_value=CLIP,
            critic_coeff=0.5,
            loss_critic_type="l2",
            entropy_coeff=0.01,
        )
        return loss(TensorDict(batch, batch_size=[len(batch["action"])]))

    return losses


@pytest.mark.parametrize("seed", range(20))
def test_the_losses_and_their_gradients_are_those_of_torchrl(seed, oracle):
    features, mask, actions, advantages, old, actor = policy_case(seed)
    critic = torch.nn.Linear(5, 1, dtype=torch.float64)
    old_values, returns = critic(features)[..., 0].detach() + draws(seed, 4, 12, scale=0.3), draws(seed + 2, 4, 12)

    def padded(values):  # nothing of this may be read
        return values.masked_fill(~mask, math.nan)

    values = padded(critic(features)[..., 0])
    logprobs = chosen(actor, features, actions).masked_fill(~mask, -math.inf)
    policy = clipped_surrogate(logprobs, old.masked_fill(~mask, -math.inf), padded(advantages), mask, CLIP)
    value = clipped_value_loss(values, padded(old_values), padded(returns), mask, CLIP)
    assert 0 < policy.clip_fraction < 1
    assert 0 < value.clip_fraction < 1

    batch = {
        "observation": features[mask],
        "action": actions[mask],
        "action_log_prob": old[mask],
        "advantage": advantages[mask][:, None],
        "value_target": returns[mask][:, None],
        "state_value": old_values[mask][:, None],
    }
    expected = oracle(actor, critic, batch)
    pairs = [
        (policy.loss, expected["loss_objective"]),
        (policy.clip_fraction, expected["clip_fraction"]),
        (value.loss, expected["loss_critic"]),
        (value.clip_fraction, expected["value_clip_fraction"]),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-6)
        if ours.requires_grad:
            module = critic if ours is value.loss else actor
            gradients = [
                torch.autograd.grad(each, list(module.parameters()), retain_graph=True) for each in (ours, theirs)
            ]
            for gradient, other in zip(*gradients, strict=True):
                assert gradient.abs().max() > 0
                torch.testing.assert_close(gradient, other, rtol=0, atol=1e-6)


def test_the_gradient_is_exactly_zero_where_the_ratio_is_clipped_and_minus_ratio_advantage_elsewhere():
    # Ratios 1.5 and 0.5 against both signs of the advantage, and 1.1: only what goes further out is cut.
    ratios = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1, 1.1]], dtype=torch.float64)
    advantages = torch.tensor([[2.0, -2.0, 2.0, -2.0, 2.0, -2.0]], dtype=torch.float64)
    logprobs = ratios.log().requires_grad_()
    found = clipped_surrogate(logprobs, torch.zeros_like(ratios), advantages, every(1, 6), CLIP)
    found.loss.backward()
    cut = torch.tensor([[True, False, False, True, False, False]])
    assert (logprobs.grad[cut] == 0).all()
    torch.testing.assert_close(logprobs.grad[~cut], (-ratios * advantages / 6)[~cut])
    assert found.loss.item() == pytest.approx(-(1.2 * 2 - 1.5 * 2 + 0.5 * 2 - 0.8 * 2 + 0) / 6)
    assert found.clip_fraction.item() == pytest.approx(4 / 6)


def test_just_past_the_bound_the_gradient_is_zero_too():
    # In float32 a ratio just past 1.2 can have the very product with the advantage that 1.2 has: a tie for min().
    logprobs = torch.tensor(1.2).log() + torch.arange(-400, 400) * 1e-8
    for sign in (1.0, -1.0):
        moved = (sign * logprobs)[None].requires_grad_()
        clip = 0.2 if sign > 0 else 1 - 1 / 1.2
        advantages = sign * (0.1 + torch.rand(1, 800, generator=torch.Generator().manual_seed(0)))
        clipped_surrogate(moved, torch.zeros(1, 800), advantages, every(1, 800), clip).loss.backward()
        ratio = moved.detach().exp()
        outside = ratio > 1 + clip if sign > 0 else ratio < 1 - clip
        assert outside.any()
        assert (moved.grad[outside] == 0).all()


def test_on_the_first_minibatch_the_ratio_is_1_the_kl_0_and_the_gradient_that_of_the_policy():
    features, mask, actions, advantages, _, actor = policy_case(0)
    logprobs = chosen(actor, features, actions)
    found = clipped_surrogate(logprobs, logprobs.detach(), advantages, mask, CLIP)
    assert found.clip_fraction.item() == 0
    assert found.approx_kl.item() == 0
    torch.testing.assert_close(found.loss, -advantages[mask].mean())
    plain = -(logprobs * advantages)[mask].mean()  # REINFORCE: the gradient of log pi times the advantage
    for ours, theirs in zip(
        *(torch.autograd.grad(x, list(actor.parameters()), retain_graph=True) for x in (found.loss, plain))
    ):
        torch.testing.assert_close(ours, theirs)


def test_parts_of_a_batch_that_know_its_count_add_up_to_the_whole():
    features, mask, actions, advantages, old, actor = policy_case(3)
    logits = actor(features)
    logprobs = logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    values, returns = draws(4, 4, 12), draws(5, 4, 12)
    count = mask.sum()

    def losses(rows, count=None):
        return torch.stack(
            (
                *clipped_surrogate(logprobs[rows], old[rows], advantages[rows], mask[rows], CLIP, count=count),
                *clipped_value_loss(values[rows], 0 * values[rows], returns[rows], mask[rows], CLIP, count=count),
            )
        )

    torch.testing.assert_close(losses(slice(0, 1), count) + losses(slice(1, 4), count), losses(slice(None)))


def test_without_a_clip_the_value_loss_is_half_the_mean_square():
    values, returns, mask = draws(0, 3, 5), draws(1, 3, 5), lengths_mask(5, 2, 4)
    found = clipped_value_loss(values, draws(2, 3, 5), returns, mask, None)
    torch.testing.assert_close(found.loss, 0.5 * torch.nn.functional.mse_loss(values[mask], returns[mask]))
    assert found.clip_fraction.item() == 0


def test_padding_of_any_content_leaves_losses_and_gradients_alone():
    features, mask, actions, advantages, old, actor = policy_case(1)
    found = []
    for filler in (0.0, math.nan, math.inf, -math.inf):
        leaf = chosen(actor, features, actions).detach().masked_fill(~mask, filler).requires_grad_()
        pad = old.masked_fill(~mask, filler)
        loss = clipped_surrogate(leaf, pad, advantages.masked_fill(~mask, filler), mask, CLIP)
        value = clipped_value_loss(leaf, pad, advantages.masked_fill(~mask, filler), mask, CLIP)
        (loss.loss + value.loss).backward()
        found.append(torch.cat((torch.stack((*loss, *value)).detach(), leaf.grad.flatten())))
        assert (leaf.grad[~mask] == 0).all()
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


def test_explained_variance_is_that_of_stable_baselines3():
    utils = pytest.importorskip("stable_baselines3.common.utils", reason=ORACLES)
    mask = lengths_mask(9, 4, 6)
    for seed in range(20):
        returns = draws(seed, 3, 9)
        values = (returns + draws(seed + 1, 3, 9)).masked_fill(~mask, math.nan)
        expected = utils.explained_variance(values[mask].numpy(), returns[mask].numpy())
        assert explained_variance(values, returns, mask).item() == pytest.approx(expected)
    assert explained_variance(returns, returns, mask).item() == 1
    assert explained_variance(returns, torch.ones_like(returns), mask).isnan()


def test_the_controller_follows_its_equations_and_comes_back_from_a_checkpoint():
    # K = 256 / 10000. An error of 10% counts as it is, of 300% and -100% as 20% and -20%.
    controller = KLController(0.2, target=6.0)
    assert controller.update(6.6, 256).coefficient == pytest.approx(0.2 * (1 + 0.1 * 0.0256))
    assert controller.update(24.0, 256).coefficient == pytest.approx(0.2 * (1 + 0.2 * 0.0256))
    assert controller.update(0.0, 256).coefficient == pytest.approx(0.2 * (1 - 0.2 * 0.0256))
    assert KLController(0.2).update(24.0, 256) == KLController(0.2)
    moved = controller.update(24.0, 256)
    assert KLController(**json.loads(json.dumps(asdict(moved)))) == moved


def test_the_controller_brings_the_kl_to_its_target():
    # A policy whose KL is 1 / coefficient, as where a reward of fixed slope meets the penalty: the target 5 wants 0.2.
    controller = KLController(3.0, target=5.0, horizon=1000)
    for _ in range(400):
        controller = controller.update(1 / controller.coefficient, 100)
    assert controller.coefficient == pytest.approx(0.2, rel=0.01)


# Baseline, passes, and all of it together


def test_leave_one_out_is_each_score_less_the_mean_of_its_neighbours():
    scores = draws(0, 12)
    found = leave_one_out(scores, 4).view(3, 4)
    for group, row in zip(scores.view(3, 4), found):
        for at in range(4):
            others = [float(one) for number, one in enumerate(group) if number != at]
            assert row[at].item() == pytest.approx(group[at].item() - sum(others) / 3)
    torch.testing.assert_close(leave_one_out(scores, 1), scores)
    with pytest.raises(ValueError, match="12 scores are no groups of 5"):
        leave_one_out(scores, 5)


TWO_ARMS = SimpleNamespace(pad_id=0, eos_id=1, vocab_size=5, banned=(0, 1, 4))  # 2 and 3 can be drawn; 4 is a prompt
FABRIC = Fabric(accelerator="cpu", devices=1)


def arms_policy(seed):
    torch.manual_seed(seed)
    return CodePolicy(
        GPT(TransformerConfig(vocab_size=5, context_length=8, num_layers=1, num_heads=2, width=16)), TWO_ARMS
    )


def lesson(policy, prompts=8, n=4, T=3):
    """Trajectories of random answers whose old log-probabilities and values are a little off the policy's own."""
    draw = torch.Generator().manual_seed(0)
    shown = torch.full((prompts, 2), 4)
    ids = torch.randint(2, 4, (prompts * n, T), generator=draw)
    mask = torch.arange(T) < torch.randint(1, T + 1, (prompts * n, 1), generator=draw)
    with torch.no_grad():
        logprobs, _, values = policy(shown, torch.ones_like(shown), ids, mask, SampleConfig())
    noise, advantages, returns = (torch.randn(prompts * n, T, generator=draw) for _ in range(3))
    return Trajectories(
        shown, torch.ones_like(shown), ids, mask, logprobs + 0.2 * noise, values + 0.3 * noise, advantages, returns
    )


def test_one_minibatch_takes_the_step_of_the_loss_written_out():
    policy, other = arms_policy(0), arms_policy(0)
    config = PPOConfig(
        prompts=8, samples=4, minibatches=1, epochs=1, value_weight=0.7, entropy_weight=0.2, max_grad_norm=0.5,
        stop_kl=None,
    )  # fmt: skip
    batch = lesson(policy)
    wrapped = FABRIC.setup(policy, torch.optim.SGD(policy.parameters(), lr=0.1))
    told = optimise(*wrapped, batch, config, fabric=FABRIC, generator=torch.Generator())

    logprobs, entropy, values = other(batch.prompts, batch.prompt_mask, batch.ids, batch.mask, config.sample)
    real = batch.mask
    ratio, advantage = (logprobs - batch.logprobs)[real].exp(), batch.advantages[real]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()  # equation 7
    old, returns, new = batch.values[real], batch.returns[real], values[real]
    near = old + (new - old).clamp(-0.2, 0.2)
    value = 0.5 * torch.maximum((new - returns) ** 2, (near - returns) ** 2).mean()
    (-surrogate + 0.7 * value - 0.2 * entropy[real].mean()).backward()
    norm = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.5)
    torch.optim.SGD(other.parameters(), lr=0.1).step()

    torch.testing.assert_close(policy.state_dict(), other.state_dict())
    expected = {
        "policy_loss": -surrogate, "value_loss": value, "entropy": entropy[real].mean(), "grad_norm": norm,
        "approx_kl": (ratio - 1 - ratio.log()).mean(), "clip_fraction": ((ratio - 1).abs() > 0.2).float().mean(),
        "value_clip_fraction": ((new - old).abs() > 0.2).float().mean(),
    }  # fmt: skip
    assert told == pytest.approx(
        {**{k: v.item() for k, v in expected.items()}, "minibatches": 1, "skipped": 0, "early_stop": 0}, rel=1e-4
    )


def gradients_of_a_minibatch(micro, prompts=7):
    """The gradient before it is clipped, the step taken, and what was told, by parts of `micro` prompts."""
    policy = arms_policy(0)
    batch = lesson(policy, prompts=prompts)
    config = PPOConfig(
        prompts=prompts, samples=4, minibatches=1, epochs=1, entropy_weight=0.2, stop_kl=None, max_grad_norm=1e9,
        micro_batch_prompts=micro,
    )  # fmt: skip
    read, found = [], {}
    policy.register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    wrapped = FABRIC.setup(policy, torch.optim.SGD(policy.parameters(), lr=0.1))
    wrapped[1].register_step_pre_hook(
        lambda *_: found.update({name: one.grad.clone() for name, one in policy.named_parameters()})
    )
    told = optimise(*wrapped, batch, config, fabric=FABRIC, generator=torch.Generator())
    return read, found, policy.state_dict(), told


@pytest.mark.parametrize(("micro", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (50, [7])])
def test_gradients_of_a_minibatch_do_not_depend_on_the_parts_it_is_read_in(micro, sizes):
    """Answers are 1 to 3 tokens long, so means over parts of as many prompts would weigh tokens unlike."""
    _, whole, weights, expected = gradients_of_a_minibatch(None)
    read, found, after, told = gradients_of_a_minibatch(micro)
    assert read == sizes
    for name, one in whole.items():
        torch.testing.assert_close(found[name], one, rtol=0, atol=1e-6, msg=name)
    assert max(one.abs().max() for one in whole.values()) > 1e-2
    torch.testing.assert_close(after, weights, rtol=0, atol=1e-6)
    assert told == pytest.approx(expected, abs=1e-6)


def test_a_minibatch_that_is_too_far_away_is_not_learned_from_in_any_parts():
    policy = arms_policy(0)
    batch, before = lesson(policy), {name: one.clone() for name, one in policy.state_dict().items()}
    config = PPOConfig(prompts=8, samples=4, minibatches=2, stop_kl=1e-6, micro_batch_prompts=1)
    wrapped = FABRIC.setup(policy, torch.optim.SGD(policy.parameters(), lr=0.1))
    told = optimise(*wrapped, batch, config, fabric=FABRIC, generator=torch.Generator())
    assert (told["minibatches"], told["early_stop"]) == (0, 1)
    torch.testing.assert_close(policy.state_dict(), before, rtol=0, atol=0)
    assert all(one.grad is None for one in policy.parameters())


def test_minibatches_that_the_scaler_of_fp16_refuses_are_not_counted_as_learned():
    policy = arms_policy(0)
    # The first minibatch's gradient is infinite; the scale falls from 2^10 to 1, and the others' are not.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6, backoff_factor=2.0**-10)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    wrapped = fabric.setup(policy, torch.optim.SGD(policy.parameters(), lr=0.1))
    batch, steps = lesson(policy), []
    policy.value.bias.register_hook(lambda gradient: gradient * torch.inf if scaler.get_scale() > 1 else gradient)
    wrapped[1].register_step_post_hook(lambda *_: steps.append(scaler.get_scale()))
    config = PPOConfig(prompts=8, samples=4, minibatches=4, epochs=1, stop_kl=None)
    told = optimise(*wrapped, batch, config, fabric=fabric, generator=torch.Generator())
    assert (told["minibatches"], told["skipped"]) == (3, 1)
    assert len(steps) == 3
    assert math.isfinite(told["grad_norm"])


def test_each_pass_goes_over_every_prompt_once_in_another_order():
    policy = arms_policy(0)
    shown = 2 + (torch.arange(8)[:, None] >> torch.arange(3)) % 2  # 8 different prompts
    batch = replace(lesson(policy), prompts=shown, prompt_mask=torch.ones_like(shown))
    read = []
    policy.register_forward_pre_hook(lambda _, given: read.extend(map(tuple, given[0].tolist())))
    config = PPOConfig(prompts=8, samples=4, minibatches=4, epochs=3, stop_kl=None)
    wrapped = FABRIC.setup(policy, torch.optim.SGD(policy.parameters(), lr=1e-3))
    told = optimise(*wrapped, batch, config, fabric=FABRIC, generator=torch.Generator().manual_seed(0))
    assert told["minibatches"] == 12
    passes = [read[start : start + 8] for start in (0, 8, 16)]
    assert [sorted(one) for one in passes] == [sorted(map(tuple, shown.tolist()))] * 3
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize("spoiled", ["logprobs", "returns", "advantages"])
def test_passes_over_what_is_not_finite_touch_no_weight(spoiled):
    policy = arms_policy(0)
    batch, before = lesson(policy), {name: one.clone() for name, one in policy.state_dict().items()}
    getattr(batch, spoiled)[0, 0] = -math.inf
    wrapped = FABRIC.setup(policy, torch.optim.SGD(policy.parameters(), lr=1e-3))
    config = PPOConfig(prompts=8, samples=4, minibatches=1)  # an infinite KL is no reason to stop in silence
    with pytest.raises(NonFiniteError, match="in a minibatch, after 0 that the policy has learned from"):
        optimise(*wrapped, batch, config, fabric=FABRIC, generator=torch.Generator())
    torch.testing.assert_close(policy.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_of_two_arms_the_better_one_is_drawn_with_probability_above_095_within_60_updates(seed):
    """An answer is one of two tokens, which earn 1 with probability 0.8 and 0.2."""
    policy = arms_policy(seed)
    reference = reference_of(policy)
    config = PPOConfig(prompts=8, samples=8, minibatches=2, sample={"max_new_tokens": 1}, lr=3e-3, kl_coefficient=0.0)
    wrapped = FABRIC.setup(policy, make_optimizer(policy, config, torch.device("cpu"), "fp32"))
    draw = torch.Generator().manual_seed(seed)
    prompts, mask = torch.full((8, 2), 4), torch.ones(8, 2, dtype=torch.long)
    arm, better = torch.tensor([[2]]), seed % 2 + 2
    with torch.no_grad():
        chance = policy(prompts[:1], mask[:1], arm, arm == 2, config.sample).logprobs.exp().item()
    assert 0.2 < chance < 0.8
    for _ in range(60):
        answers = policy.sample(prompts, mask, 8, config.sample, draw)
        paid = torch.rand(64, generator=draw) < torch.where(answers.ids[:, 0] == better, 0.8, 0.2)
        scored = [Scored(float(one), float(one), {}) for one in paid]
        rollout = Rollout([None] * 8, prompts, mask, answers, [""] * 64, scored)
        batch, _ = trajectories_of(rollout, policy, reference, config, coefficient=0.0, fabric=FABRIC, seed=0)
        optimise(*wrapped, batch, config, fabric=FABRIC, generator=draw)
    with torch.no_grad():
        chance = policy(prompts[:1], mask[:1], torch.tensor([[better]]), arm == 2, config.sample).logprobs.exp().item()
    assert chance > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masked_mean(torch.zeros(2, 3), torch.ones(2, 3)), r"mask of torch.float32 .* expected booleans"),
        (
            lambda: gae(torch.zeros(2, 3), torch.zeros(2, 4), every(2, 3)),
            r"values of shape \(2, 4\); expected \(2, 3\)",
        ),
        (
            lambda: gae(torch.zeros(2, 3), torch.zeros(2, 3), every(2, 3), last_values=torch.zeros(2, 1)),
            r"last_values of shape \(2, 1\); expected \(2,\)",
        ),
        (
            lambda: penalised_rewards(torch.zeros(2, 1), *[torch.zeros(2, 3)] * 2, every(2, 3), 0.1),
            r"scores of shape \(2, 1\); expected \(2,\)",
        ),
        (
            lambda: penalised_rewards(torch.zeros(2), *[torch.zeros(2, 3)] * 2, lengths_mask(3, 0), 0.1),
            "without any real token",
        ),
        (lambda: KLController(0.1, target=1.0).update(math.inf, 1), "a KL of inf"),
        (lambda: KLController(0.1, target=1.0, horizon=10).update(1.0, 50), "raise the horizon"),
        (lambda: KLController(-0.1), "coefficient of at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
