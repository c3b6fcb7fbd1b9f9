"""Schedules of beta at given points of training, and what each is made of."""

import math

import pytest

from utils.vae.config import VAEConfig
from utils.vae.schedules import classical, constant, cosine, cyclical, linear, share


@pytest.mark.parametrize(
    ("epoch", "beta"), [(0, 0.1), (1, 0.1), (5.5, 0.55), (10, 1.0), (20, 1.5), (30, 2.0), (40, 2.0), (50, 2.0)]
)
def test_the_classical_schedule_meets_its_points_and_is_straight_between_them(epoch, beta):
    assert classical(epoch / 50) == pytest.approx(beta)


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.1, 0.5), (0.2, 1), (0.7, 1), (1, 1)])
def test_the_linear_schedule_rises_over_its_share_and_stays(progress, expected):
    assert linear(progress, rise=0.2) == pytest.approx(expected)


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.1, 0.5), (0.2, 1), (0.7, 1), (1, 1)])
def test_the_cosine_schedule_is_half_way_in_the_middle_of_its_rise(progress, expected):
    assert cosine(progress, rise=0.2) == pytest.approx(expected)


def test_the_cosine_schedule_begins_and_ends_its_rise_flat():
    step = 1e-4
    for point in (0.0, 0.2 - step):
        assert cosine(point + step, rise=0.2) - cosine(point, rise=0.2) < step  # the straight rise has 5 steps


@pytest.mark.parametrize("progress", [0.0, 0.03, 0.1, 0.24])
def test_the_cyclical_schedule_repeats_itself(progress):
    values = [cyclical(progress + cycle / 4, cycles=4, rise=0.5) for cycle in range(4)]
    assert values == pytest.approx([values[0]] * 4)
    assert values[0] == pytest.approx(min(1, progress * 4 / 0.5))


def test_the_cyclical_schedule_ends_at_its_highest():
    assert cyclical(1.0, cycles=4, rise=0.5) == 1


def test_constant_is_one():
    assert [constant(progress) for progress in (0.0, 0.5, 1.0)] == [1, 1, 1]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cyclical", "classical"])
def test_no_schedule_jumps_beyond_its_range_or_past_the_end(schedule):
    config = VAEConfig(schedule=schedule)
    values = [share(config, step / 1000) for step in range(1001)]
    highest = 2.0 if schedule == "classical" else 1.0
    assert all(math.isfinite(value) and 0 <= value <= highest for value in values)
    assert share(config, 1.5) == share(config, 1.0) == highest
    assert share(config, -0.5) == share(config, 0.0)


def test_the_config_names_rise_and_cycles():
    assert share(VAEConfig(schedule="linear", rise=0.5), 0.25) == pytest.approx(0.5)
    assert share(VAEConfig(schedule="cyclical", rise=0.5, cycles=2), 0.625) == pytest.approx(0.5)
