"""Alerts: what a history shows, once."""

import math

import pytest

from utils.core.alerts import AlertConfig, Watch

CONFIG = AlertConfig(divergence=2.0, window=2, confirm=2, patience=3, min_improvement=0.1)


def history(name, values, start=1):
    return [{"step": step, "time": 0.0, name: value} for step, value in enumerate(values, start)]


def found(records, config=CONFIG):
    watch = Watch(config)
    return [(alert.kind, alert.step) for record in records for alert in watch.see(record)]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])  # metrics.jsonl writes null for both
def test_a_loss_that_is_not_finite_is_told_at_its_first_step(value):
    assert found(history("train/policy_loss", [1.0, value, value])) == [("nan", 2)]


def test_another_metric_may_be_infinite():
    assert found(history("validation/perplexity", [math.inf, math.nan])) == []


def test_divergence_is_a_loss_above_k_times_its_lowest_running_mean_several_records_in_a_row():
    # Running means of two: 4, 3, 1.5, 1.0 (the lowest); 2 x 1.0 is passed at records 5, 6 and the second of them tells.
    assert found(history("train/loss", [4.0, 2.0, 1.0, 1.0, 2.1, 2.1])) == [("divergence", 6)]
    assert found(history("train/loss", [4.0, 2.0, 1.0, 1.0, 2.0, 2.0])) == []  # not above it
    assert found(history("train/loss", [4.0, 2.0, 1.0, 1.0, 9.0, 1.0, 9.0, 1.0])) == []  # never two in a row


def test_a_loss_that_may_be_negative_has_no_such_multiple():
    assert found(history("train/loss", [-1.0, -1.0, -0.1, 5.0, 5.0])) == []


def test_a_plateau_is_an_evaluation_value_that_falls_by_too_little_for_too_long():
    # The best is 1.0 at step 2; 0.95, 0.91 and 1.2 are no 10% below it.
    assert found(history("validation/loss", [2.0, 1.0, 0.95, 0.91, 1.2])) == [("plateau", 5)]
    assert found(history("validation/loss", [2.0, 1.0, 0.95, 0.91, 0.89, 0.88, 0.87])) == []


def test_a_pass_rate_stands_still_where_it_does_not_rise():
    assert found(history("validation/pass@1", [0.1, 0.5, 0.5, 0.52, 0.3])) == [("plateau", 5)]
    assert found(history("validation/pass@1", [0.1, 0.2, 0.3, 0.4, 0.5])) == []


def test_each_kind_is_told_once_whatever_comes_after_it():
    values = [1.0, 1.0, 3.0, 3.0, 1.0, 3.0, 3.0, math.nan, 1.0, math.nan]
    assert found(history("train/loss", values)) == [("divergence", 4), ("nan", 8)]


def test_kinds_of_several_metrics_are_told_each_at_its_step():
    records = history("train/loss", [1.0, 1.0, 3.0, 3.0, math.nan]) + history("validation/loss", [1.0] * 5, 6)
    assert found(records) == [("divergence", 4), ("nan", 5), ("plateau", 9)]


def test_what_was_told_before_is_not_told_again():
    watch = Watch(CONFIG, told=["nan"])
    assert watch.see({"step": 1, "train/loss": None}) == []
