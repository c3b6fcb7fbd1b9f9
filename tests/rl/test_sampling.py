"""What is kept of draws: padding, bits of what could be drawn, parts put together."""

from types import SimpleNamespace

import pytest
import torch

from utils.rl.sampling import Growing, Responses, SampleConfig, joined, packed, pad_left, unpacked


def test_prompts_are_padded_on_the_left():
    ids, mask = pad_left([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("V", [1, 7, 8, 9, 64, 151])
def test_what_could_be_drawn_comes_back_from_its_bits(V):
    kept = torch.rand(3, 5, V, generator=torch.Generator().manual_seed(V)) < 0.3
    bits = packed(kept)
    assert bits.shape == (3, 5, -(-V // 8))
    assert bits.dtype == torch.uint8
    assert torch.equal(unpacked(bits, V), kept)


def test_the_first_id_is_the_lowest_bit():
    assert packed(torch.tensor([True, False, True] + [False] * 6 + [True])).tolist() == [0b101, 0b10]


@pytest.mark.parametrize(
    ("config", "narrows"),
    [
        ({}, False), ({"top_p": 1.0}, False), ({"top_p": 0.99}, True), ({"top_k": 20}, False), ({"top_k": 21}, False),
        ({"top_k": 19}, True), ({"top_k": 19, "temperature": 0}, False),
    ],
)  # fmt: skip
def test_only_what_leaves_something_out_is_kept(config, narrows):
    sample = SampleConfig(**config)
    assert sample.narrows(20) == narrows
    grown = Growing(6, 4, 0, 20, sample, torch.device("cpu"))
    assert (grown.support is None) != narrows
    if narrows:
        assert grown.support.nbytes == 6 * 4 * 3  # 20 ids in 3 bytes


def test_all_of_the_probability_is_no_cut():
    assert SampleConfig(top_p=1.0) == SampleConfig()


def test_parts_are_put_together_in_the_order_that_is_asked_for():
    def part(rows, T):
        ids = torch.tensor(rows)[:, None].expand(-1, T)
        numbers = ids.float()
        return Responses(ids, ids > 0, numbers, -numbers, packed(ids[..., None] > torch.arange(9)), ids[:, 0] > 2)

    whole = joined([part([5, 2], 2), part([7, 1, 3], 4)], torch.tensor([4, 1, 0, 3, 2]), pad=9)
    assert whole.ids[:, 0].tolist() == [7, 2, 3, 1, 5]
    assert whole.ids[4].tolist() == [5, 5, 9, 9]
    assert whole.mask[4].tolist() == [True, True, False, False]
    assert whole.logprobs[4].tolist() == [5, 5, 0, 0]
    assert whole.values[1].tolist() == [-2, -2, 0, 0]
    assert whole.finished.tolist() == [True, False, True, False, True]
    kept = unpacked(whole.support, 9)
    assert kept[0].sum(1).tolist() == [7, 7, 7, 7]
    assert kept[4].sum(1).tolist() == [5, 5, 9, 9]  # all where nothing was drawn
    one = SimpleNamespace()
    assert joined([one], torch.arange(3), 0) is one
