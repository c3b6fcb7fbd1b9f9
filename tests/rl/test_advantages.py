"""From scores to advantages: what a rollout becomes, held against the equations and a policy that reads it anew."""

import pytest
import torch
from lightning_fabric import Fabric

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.advantages import trajectories_of
from utils.rl.config import PPOConfig
from utils.rl.policy import CodePolicy
from utils.rl.ppo import kl_k3
from utils.rl.reference import reference_of
from utils.rl.reward import Scored
from utils.rl.rollout import Rollout
from utils.rl.sampling import SampleConfig, pad_left
from utils.rl.vocabulary import PieceTokenizer

PIECES = PieceTokenizer(["crop", "flip_rows"])
FABRIC = Fabric(accelerator="cpu", devices=1)
CONFIG = PPOConfig(prompts=4, samples=3, minibatches=2, device="cpu", precision="fp32")


def make_policy(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    shape = {"num_layers": 2, "num_heads": 2, "width": 32, "context_length": 40, "dropout": dropout}
    policy = CodePolicy(GPT(TransformerConfig(vocab_size=PIECES.vocab_size, **shape)), PIECES)
    with torch.no_grad():
        for one in policy.parameters():  # far from uniform, and values that are not 0
            one += 0.1 * torch.randn_like(one)
    return policy


def make_rollout(policy, sample, scores):
    prompts, mask = pad_left([[5], [5, 6, 7], [8, 5], [6, 6, 6, 6]], PIECES.pad_id)
    answers = policy.sample(prompts, mask, 3, sample, torch.Generator().manual_seed(0))
    scored = [Scored(float(one), 0.0, {}) for one in scores]
    return Rollout([None] * 4, prompts, mask, answers, [""] * 12, scored)


def prepared(
    policy, reference=None, *, scores=None, sample=SampleConfig(max_new_tokens=6), exact=True, fabric=FABRIC, **changes
):
    config = CONFIG.replace(**changes)
    scores = torch.arange(12.0).square() if scores is None else scores
    rollout = make_rollout(policy, sample, scores)
    held = reference or reference_of(policy)
    config = config.replace(sample=sample.model_dump())
    return trajectories_of(
        rollout, policy, held, config, coefficient=config.kl_coefficient, fabric=fabric, seed=0, exact=exact
    )


@pytest.mark.parametrize("sample", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 4, "temperature": 1.3}])
def test_the_policy_that_drew_a_rollout_has_ratio_1_and_kl_0_on_its_first_minibatch(sample):
    policy, sample = make_policy(), SampleConfig(max_new_tokens=6, **sample)
    trajectories, told = prepared(policy, sample=sample)
    part = next(trajectories.minibatches(2, torch.Generator().manual_seed(0)))
    scores = policy(part.prompts, part.prompt_mask, part.ids, part.mask, sample, part.support)
    ratio = (scores.logprobs - part.logprobs).exp()[part.mask]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)
    assert kl_k3(part.logprobs, scores.logprobs)[part.mask].mean() < 1e-10
    assert abs(told["kl"]) < 1e-9  # the reference is the policy itself


def test_without_a_baseline_or_a_penalty_every_return_is_the_score():
    """gamma = lambda = 1: the value falls out of A + V."""
    trajectories, _ = prepared(make_policy(), baseline="none", kl_coefficient=0.0, lam=1.0)
    expected = torch.arange(12.0).square()[:, None].expand_as(trajectories.returns)
    mask = trajectories.mask
    torch.testing.assert_close(trajectories.returns[mask], expected[mask])
    assert (trajectories.values[mask] != 0).all()
    raw = (trajectories.returns - trajectories.values)[mask]
    whitened = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(trajectories.advantages[mask], whitened)


def test_the_baseline_is_the_mean_of_the_tasks_other_programs():
    trajectories, _ = prepared(make_policy(), kl_coefficient=0.0, lam=1.0)
    scores = torch.arange(12.0).square().view(4, 3)
    expected = torch.stack([row - (row.sum() - row) / 2 for row in scores]).flatten()
    torch.testing.assert_close(trajectories.returns[:, 0], expected)


def test_leaving_the_reference_costs_the_coefficient_a_nat_and_is_told():
    policy, reference = make_policy(), reference_of(make_policy(seed=1))
    trajectories, told = prepared(policy, reference, scores=torch.zeros(12), kl_coefficient=0.3, lam=1.0)
    mask = trajectories.mask
    with torch.no_grad():
        held = reference(
            trajectories.prompts, trajectories.prompt_mask, trajectories.ids, mask, SampleConfig(max_new_tokens=6)
        )
    gone = (trajectories.logprobs - held.logprobs).masked_fill(~mask, 0)
    torch.testing.assert_close(trajectories.returns[:, 0], -0.3 * gone.sum(1))
    k3 = torch.expm1(-gone) + gone
    assert told["kl"] == pytest.approx(k3.sum(1).mean().item(), rel=1e-4)
    assert told["kl"] > 0.1
    assert told["kl_k1"] == pytest.approx(gone.sum(1).mean().item(), rel=1e-4)


def test_shuffled_scores_have_the_same_mean_and_other_owners():
    plain, _ = prepared(make_policy(), baseline="none", kl_coefficient=0.0, lam=1.0)
    shuffled, _ = prepared(make_policy(), baseline="none", kl_coefficient=0.0, lam=1.0, shuffle_rewards=True)
    assert torch.equal(shuffled.ids, plain.ids)  # what is drawn stays
    torch.testing.assert_close(shuffled.returns[:, 0].sort().values, plain.returns[:, 0].sort().values)
    moved = (shuffled.returns[:, 0] - plain.returns[:, 0]).abs() > 1e-3
    assert moved.sum() >= 8  # of 12; about one stays where it is


def test_a_policy_that_rounds_is_read_again_and_the_difference_told():
    policy = make_policy(dropout=0.5).train()
    drawn, told = prepared(policy)
    assert "rounding" not in told
    again, told = prepared(policy, exact=False)
    assert policy.training
    assert not torch.equal(again.logprobs, drawn.logprobs)  # read at once, not token by token
    torch.testing.assert_close(again.logprobs, drawn.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(again.values, drawn.values, rtol=0, atol=1e-5)
    assert abs(told["kl"]) < 1e-9
    gap = (again.logprobs - drawn.logprobs)[drawn.mask].abs().mean().item()
    assert told["rounding"] == pytest.approx(gap)
    assert 0 < told["rounding"] < 1e-5


def test_rescoring_in_bf16_tells_what_it_rounds():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    policy = make_policy()
    drawn, _ = prepared(policy)  # in float32
    again, told = prepared(policy, exact=False, fabric=fabric)
    gap = (again.logprobs - drawn.logprobs)[drawn.mask].abs().mean().item()
    assert told["rounding"] == pytest.approx(gap)
    assert 1e-4 < gap < 0.1  # 8 bits of logits of a size of a few


def test_explained_variance_is_that_of_the_returns_by_the_values():
    trajectories, told = prepared(make_policy(), baseline="none")
    values, returns = (one[trajectories.mask] for one in (trajectories.values, trajectories.returns))
    expected = 1 - (returns - values).var(correction=0) / returns.var(correction=0)
    assert told["explained_variance"] == pytest.approx(expected.item(), abs=1e-5)


def test_parts_need_not_be_of_equal_size():
    whole, _ = prepared(make_policy(), minibatches=1)
    for minibatches in (2, 4):
        parts, _ = prepared(make_policy(), minibatches=minibatches)
        torch.testing.assert_close(parts.returns, whole.returns)
    three, _ = prepared(make_policy(), prompts=3, minibatches=3)  # 4 prompts are 2, 2
    torch.testing.assert_close(three.returns, whole.returns)


def test_no_more_prompts_are_scored_at_once_than_a_pass_may_read():
    policy, sizes = make_policy(), []
    policy.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole, _ = prepared(policy, minibatches=1, exact=False)
    parts, _ = prepared(policy, minibatches=1, exact=False, micro_batch_prompts=3)
    assert sizes == [4, 4, 3, 1, 3, 1]  # the reference, then the policy itself
    torch.testing.assert_close(parts.returns, whole.returns)
    torch.testing.assert_close(parts.logprobs, whole.logprobs)
