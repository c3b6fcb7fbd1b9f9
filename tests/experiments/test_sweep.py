"""A sweep runs every variation of a base config, in order, and its table says what each came to."""

import logging

import pytest

from utils.core.config import ConfigError
from utils.experiments.sweep import grid, override, sweep


def test_a_grid_holds_every_combination_once_the_last_key_fastest():
    assert grid({"a.b": [1, 2], "c": ["x", None]}) == [
        ["a.b=1", 'c="x"'],
        ["a.b=1", "c=null"],
        ["a.b=2", 'c="x"'],
        ["a.b=2", "c=null"],
    ]
    with pytest.raises(ConfigError, match="no values for c"):
        grid({"a": [1], "c": []})


@pytest.mark.parametrize("value", [1e-05, 3, True, None, "1e5", "a: b", [0.9, 0.95]])
def test_an_override_reads_back_as_its_value(base, value):
    from utils.core.config import parse_overrides

    assert parse_overrides([override("x", value)]) == {"x": value}


def test_every_variation_is_run_on_the_base_config_and_nothing_else_changes(base):
    seen = []

    def run_one(config):
        seen.append(config)
        return {"loss": config.train.lr * config.model.width}

    table = sweep(base, {"train.lr": [0.5, 0.25], "model.width": [8, 16]}, run_one)
    assert seen == [base.replace(train={"lr": lr}, model={"width": width}) for lr in (0.5, 0.25) for width in (8, 16)]
    assert list(table.columns) == ["train.lr", "model.width", "loss", "seconds", "error"]
    assert table["loss"].tolist() == [4.0, 8.0, 2.0, 4.0]  # 0.5 * 8, 0.5 * 16, 0.25 * 8, 0.25 * 16
    assert (table["error"] == "").all()


def test_settings_that_a_variation_leaves_are_shown_as_the_base_has_them(base):
    table = sweep(base, ["train.lr=0.5", ["model.width=64", "train.lr=0.1"], []], lambda config: {})
    assert table["train.lr"].tolist() == [0.5, 0.1, 0.01]
    assert table["model.width"].tolist() == [32, 64, 32]


def test_a_failure_is_recorded_in_its_row_without_its_secrets_and_stops_no_other(base, monkeypatch, caplog):
    monkeypatch.setenv("SOME_API_KEY", "s3cret-of-the-test")

    def run_one(config):
        if config.train.steps == 2:
            raise ValueError("no luck with s3cret-of-the-test")
        return {"loss": float(config.train.steps)}

    with caplog.at_level(logging.WARNING):
        table = sweep(base, {"train.steps": [1, 2, 0, 3]}, run_one)
    assert table["loss"].fillna(-1).tolist() == [1, -1, -1, 3]
    assert table["error"][1].startswith("ValueError: no luck with ***")
    assert table["error"][2].startswith("ConfigError: train.steps: Input should be greater than or equal to 1")
    assert "Traceback" in caplog.text
    assert "s3cret" not in caplog.text + table.to_string()


def test_an_interrupt_stops_the_sweep(base):
    def run_one(config):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(base, {"train.steps": [1, 2]}, run_one)


def test_a_metric_named_like_a_setting_is_refused_in_its_row(base):
    table = sweep(base, ["train.lr=0.5"], lambda config: {"train.lr": 1.0})
    assert "rename one" in table["error"][0]
    assert table["train.lr"].tolist() == [0.5]


def test_a_variation_that_runs_out_of_time_leaves_the_others_for_the_next_session(base):
    from utils.core.deadline import OutOfTime

    begun = []

    def run_one(config):
        begun.append(config.train.lr)
        if len(begun) == 2:
            raise OutOfTime("stopped for train.max_hours 1 after 3 steps")
        return {"loss": 1.0}

    table = sweep(base, {"train.lr": [0.1, 0.2, 0.3, 0.4]}, run_one)
    assert begun == [0.1, 0.2]
    assert table["error"].tolist()[:2] == ["", "stopped for train.max_hours 1 after 3 steps"]
    assert all(error.startswith("not begun") for error in table["error"][2:])
