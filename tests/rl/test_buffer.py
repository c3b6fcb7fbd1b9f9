"""A rollout cut into minibatches: nothing lost, nothing twice, answers beside their prompts, no padding for nothing."""

import pytest
import torch

from utils.rl.buffer import Trajectories

P, N, L, T, V = 6, 3, 5, 4, 7


def trajectories(support=True):
    """Prompt p (1, 2, ...) is p tokens p (4 at most); answer r of it holds the number 10 p + r everywhere."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.arange(1, P + 1)
    prompt_mask = (torch.arange(L) >= L - numbers.clamp(max=4)[:, None]).long()
    answers = (10 * numbers[:, None] + torch.arange(N)).flatten()
    lengths = torch.randint(1, T, (P * N, 1), generator=draw)  # no answer is T long
    mask = torch.arange(T) < lengths
    columns = (answers[:, None].expand(-1, T) * mask for _ in range(6))
    ids, logprobs, values, advantages, returns, drawn = columns
    kept = drawn[..., None].expand(-1, -1, V) if support else None
    return Trajectories(
        numbers[:, None] * prompt_mask, prompt_mask, ids, mask, logprobs, values, advantages, returns, kept
    )


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_minibatches_hold_each_prompt_once_with_all_its_answers(count):
    whole = trajectories()
    parts = list(whole.minibatches(count, torch.Generator().manual_seed(3)))
    assert [len(part.prompts) for part in parts] == [P // count] * count
    found = torch.cat([part.ids[:, 0] for part in parts]).view(P, N)
    assert found[:, 0].sort().values.tolist() == [10, 20, 30, 40, 50, 60]
    assert (found == found[:, :1] + torch.arange(N)).all()
    for part in parts:
        prompts = part.prompts.amax(1).repeat_interleave(N)
        assert (part.ids[:, 0] // 10 == prompts).all()  # beside its own prompt
        for column in (part.logprobs, part.values, part.advantages, part.returns, part.support[..., 0]):
            assert torch.equal(column, part.ids)
        assert torch.equal(part.mask, part.ids > 0)


def test_a_part_has_no_padding_that_all_its_rows_share():
    whole = trajectories()
    rows = torch.tensor([4, 1])
    part = whole.part(rows)
    assert torch.equal(part.prompts, torch.tensor([[5, 5, 5, 5], [0, 0, 2, 2]]))
    assert torch.equal(part.prompt_mask, torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]))
    longest = int(whole.mask.view(P, N, T)[rows].sum(2).max())
    assert part.ids.shape == part.mask.shape == part.returns.shape == part.support.shape[:2] == (2 * N, longest)
    assert trajectories(support=False).part(rows).support is None


def test_micro_batches_hold_each_prompt_once_those_of_like_length_together():
    whole = trajectories()
    assert whole.micro_batches(None) == whole.micro_batches(6) == [whole]
    parts = whole.part(torch.tensor([5, 0, 3, 1])).micro_batches(3)
    assert [part.prompts.amax(1).tolist() for part in parts] == [[1, 2, 6], [4]]  # of 1, 2, 4 and 4 tokens
    assert [len(part.ids) for part in parts] == [3 * N, N]


def test_the_order_is_a_function_of_the_generator():
    def order(seed):
        return [
            part.prompts.amax(1).tolist() for part in trajectories().minibatches(3, torch.Generator().manual_seed(seed))
        ]

    assert order(0) == order(0)
    assert len({str(order(seed)) for seed in range(5)}) > 1


def test_minibatches_of_unlike_sizes_are_refused():
    with pytest.raises(ValueError, match="6 prompts cannot be cut into 4 minibatches alike"):
        next(trajectories().minibatches(4, torch.Generator()))
