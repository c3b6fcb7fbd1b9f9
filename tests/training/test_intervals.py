"""Intervals of means over a split: as wide as theory says, and only where they are those of the means."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from utils.core.config import Config
from utils.core.run import Run
from utils.training.intervals import INTERVALS, LEAST, Recorder, write_metrics


def recorded(values, weights):
    """A recorder that has seen batches of these losses and numbers of targets; and the mean over targets."""
    losses = iter(values)
    recorder = Recorder(lambda model, batch, step: {"loss": torch.tensor(next(losses), dtype=torch.float64)})
    for weight in weights:
        recorder(nn.Identity(), {"labels": torch.zeros(1, weight, dtype=torch.long)}, 0)
    return recorder, float(np.average(values, weights=weights))


def test_the_interval_of_many_equal_batches_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(3.0, 0.5, 400)
    recorder, mean = recorded(values, [10] * 400)
    low, high = recorder.intervals({"loss": mean})["loss"]
    half = 1.96 * values.std() / 20  # of a normal mean
    assert low == pytest.approx(mean - half, abs=0.1 * half)
    assert high == pytest.approx(mean + half, abs=0.1 * half)


def test_batches_count_by_their_targets():
    """A batch of no weight to speak of moves nothing, however far out it lies."""
    recorder, mean = recorded([2.0] * 20 + [9.0], [1000] * 20 + [1])
    low, high = recorder.intervals({"loss": mean})["loss"]
    assert 2.0 <= low <= high < 2.01


def test_perplexity_and_bits_follow_the_loss():
    recorder, mean = recorded(np.linspace(1, 2, 30), [4] * 30)
    found = recorder.intervals({"loss": mean, "perplexity": math.exp(mean), "bits_per_byte": mean / math.log(2) / 3})
    assert found["perplexity"] == pytest.approx([math.exp(end) for end in found["loss"]])
    assert found["bits_per_byte"] == pytest.approx([end / math.log(2) / 3 for end in found["loss"]])


def test_equal_seeds_give_equal_intervals():
    recorder, mean = recorded(np.linspace(1, 2, 30), [4] * 30)
    assert recorder.intervals({"loss": mean}, seed=1) == recorder.intervals({"loss": mean}, seed=1)
    assert recorder.intervals({"loss": mean}, seed=1) != recorder.intervals({"loss": mean}, seed=2)


def test_too_few_batches_and_batches_that_do_not_make_the_mean_have_none():
    recorder, mean = recorded([1.0, 2.0, 3.0, 4.0], [1] * (LEAST - 1))
    assert recorder.intervals({"loss": mean}) == {}
    recorder, mean = recorded(np.linspace(1, 2, 30), [4] * 30)
    assert recorder.intervals({"loss": mean + 0.1}) == {}  # some were seen by another process


def test_results_hold_numbers_their_ends_and_the_step(tmp_path):
    run = Run.create(tmp_path, "a", Config())
    final = pandas.DataFrame({"validation": {"loss": 1.5, "macro_f1": 0.25, "perplexity": math.inf}})
    final.attrs[INTERVALS] = {"validation": {"loss": (1.0, 2.0)}}
    content = json.loads(write_metrics(run, final, 40).read_text())
    assert content["step"] == 40
    expected = {"loss": {"value": 1.5, "low": 1.0, "high": 2.0}, "macro_f1": 0.25, "perplexity": None}
    assert content["results"] == {"validation": expected}
