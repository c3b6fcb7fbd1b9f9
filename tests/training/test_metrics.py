"""Means are weighted by targets; perplexity and bits have closed forms."""

import math

import pytest
import torch

from utils.training.metrics import WeightedMeans, language_metrics
from utils.training.objectives import count_targets, token_metrics


def test_means_are_weighted_by_targets():
    means = WeightedMeans()
    means.update({"loss": torch.tensor(2.0), "accuracy": torch.tensor(1.0)}, 3)
    means.update({"loss": torch.tensor(5.0), "accuracy": torch.tensor(0.0)}, 1)
    means.update({"loss": torch.tensor(9.0), "accuracy": torch.tensor(9.0)}, 0)
    assert means.compute() == {"loss": (3 * 2 + 5) / 4, "accuracy": 3 / 4}


def test_ragged_batches_give_the_mean_over_all_targets():
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 5, 4, generator=draw), torch.randint(4, (7, 5), generator=draw)
    labels[torch.rand(7, 5, generator=draw) < 0.4] = -100
    means = WeightedMeans()
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        means.update(token_metrics(logits[rows], labels[rows]), count_targets({"labels": labels[rows]}))
    kept = labels != -100
    expected = -logits.double().log_softmax(-1)[kept].gather(1, labels[kept][:, None]).mean()
    assert means.compute()["loss"] == pytest.approx(expected.item())


def test_sums_do_not_lose_small_batches_beside_many():
    means = WeightedMeans()
    means.update({"loss": torch.tensor(1.0)}, 2**24)
    for _ in range(64):
        means.update({"loss": torch.tensor(1.0)}, 1)  # in fp32, 2^24 + 1 is 2^24
    assert means.compute()["loss"] == 1


def test_nothing_to_average_raises():
    with pytest.raises(ValueError, match="No targets"):
        WeightedMeans().compute()


def test_perplexity_and_bits_follow_from_the_loss():
    # ln 16 nats a token are 4 bits a token; with 2 characters and 5 bytes a token, 2 and 0.8.
    values = language_metrics({"loss": math.log(16), "accuracy": 0.5}, {"character": 2.0, "byte": 5.0})
    expected = {"perplexity": 16, "bits_per_character": 2, "bits_per_byte": 0.8, "accuracy": 0.5, "loss": math.log(16)}
    assert values == pytest.approx(expected)


def test_perplexity_of_a_huge_loss_is_infinite():
    assert language_metrics({"loss": 1e4}, {})["perplexity"] == math.inf


def test_text_without_units_has_perplexity_alone():
    # As of masked and of target tokens, whose loss is not that of the text: ln 7 nats are as good as 7 tokens.
    assert language_metrics({"loss": math.log(7)}, {}) == pytest.approx({"loss": math.log(7), "perplexity": 7})
