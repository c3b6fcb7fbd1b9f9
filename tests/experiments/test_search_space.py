"""A space says what a search varies; what cannot be is refused with its key before anything runs."""

import optuna
import pytest

from utils.core.config import ConfigError
from utils.experiments.search_space import check_space, draw, parse_space

SPACE = {
    "train.lr": {"log": [1e-4, 1e-1]},
    "train.steps": {"log_int": [1, 64]},
    "model.width": {"int": [16, 64], "step": 16},
    "train.schedule": ["cosine", "linear"],
    "train.floor": {"float": [0, 1], "step": 0.25, "when": {"train.schedule": "cosine"}},
    "train.betas": {"choice": [[0.9, 0.95], [0.9, 0.99]]},
}


def drawn(space, base, number):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    dimensions = parse_space(space)
    check_space(dimensions, base)
    return [draw(dimensions, base, study.ask()) for _ in range(number)]


def test_every_draw_lies_in_the_space(base):
    draws = drawn(SPACE, base, 200)
    assert all(1e-4 <= one["train.lr"] <= 1e-1 for one in draws)
    assert {one["model.width"] for one in draws} == {16, 32, 48, 64}
    assert {one["train.schedule"] for one in draws} == {"cosine", "linear"}
    assert {tuple(one["train.betas"]) for one in draws} == {(0.9, 0.95), (0.9, 0.99)}
    assert all(isinstance(one["train.steps"], int) for one in draws)
    assert {one.get("train.floor") for one in draws} == {None, 0, 0.25, 0.5, 0.75, 1.0}
    base.replace(train={"betas": draws[0]["train.betas"]})


def test_logarithmic_ranges_are_drawn_evenly_in_the_logarithm(base):
    """Of 300 draws from [1e-4, 1e-1], a third lies below 1e-3: 100 expected, standard deviation 8.2; 4 of it allowed.

    Drawn evenly on the plain scale, (1e-3 - 1e-4) / (1e-1 - 1e-4) = 0.9% would.
    """
    draws = drawn({"train.lr": {"log": [1e-4, 1e-1]}}, base, 300)
    assert 67 <= sum(one["train.lr"] < 1e-3 for one in draws) <= 133


def test_a_conditional_setting_varies_exactly_where_its_condition_holds(base):
    draws = drawn(SPACE, base, 50)
    assert all(("train.floor" in one) == (one["train.schedule"] == "cosine") for one in draws)
    both = {**SPACE, "train.floor": {"float": [0, 1], "when": {"train.schedule": ["cosine", "linear"]}}}
    assert all("train.floor" in one for one in drawn(both, base, 10))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "the space is empty"),
        ({"train.lr": {"log": [1, 1]}}, r"train\.lr: log \[1, 1\] is an empty range"),
        ({"train.lr": {"float": [2, 1]}}, r"train\.lr: float \[2, 1\] is an empty range"),
        ({"train.lr": {"log": [0, 1]}}, "begins at 0, which has no logarithm"),
        ({"train.lr": {"log": [1]}}, "expected two numbers"),
        ({"train.lr": {"log": ["a", 2]}}, "expected two numbers"),
        ({"train.lr": {"float": [0, float("inf")]}}, "both finite"),
        ({"model.width": {"int": [1.5, 3]}}, "expected two whole numbers"),
        ({"model.width": {"int": [True, 3]}}, "expected two whole numbers"),
        ({"model.width": {"int": [1, 3], "step": 0}}, "step 0; expected a positive whole number"),
        ({"train.lr": {"log": [1, 3], "step": 1}}, "step goes with int and float, not with log"),
        ({"train.lr": {"log": [1, 3], "float": [1, 3]}}, "expected exactly one of log, float"),
        ({"train.lr": {"range": [1, 3]}}, "got range; expected exactly one of"),
        ({"train.lr": 3}, "got 3, expected one of"),
        ({"train.schedule": ["cosine"]}, "at least two values"),
        ({"train.schedule": ["cosine", "cosine"]}, "a value twice"),
        ({"train.lrr": {"log": [1, 3]}}, r"unknown setting 'train\.lrr'; did you mean 'train\.lr'"),
        ({"optimiser.lr": {"log": [1, 3]}}, "unknown setting 'optimiser'"),
        ({"train.steps": {"float": [1, 4]}}, r"train\.steps: .* is refused: Input should be a valid integer"),
        ({"train.lr": {"float": [-1, 4]}}, r"train\.lr: -1\.0 is refused: Input should be greater than 0"),
        ({"train.schedule": ["cosine", "square"]}, r"train\.schedule: 'square' is refused"),
        ({"train.lr": {"log": [1, 2], "when": {"model.width": 3}}}, "not a setting further up in the space"),
        (
            {"train.schedule": ["cosine", "linear"], "train.lr": {"log": [1, 2], "when": {"train.schedule": "cosin"}}},
            r"train\.schedule is 'cosin' never holds; it is one of \['cosine', 'linear'\]",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_by_its_key(base, space, message):
    with pytest.raises(ConfigError, match=message):
        check_space(parse_space(space), base)


def test_every_fault_is_named_at_once(base):
    with pytest.raises(ConfigError, match=r"train\.lr: .*; model\.width: "):
        parse_space({"train.lr": {"log": [2, 1]}, "model.width": {"int": [2, 1]}})


def test_settings_that_only_fit_together_are_not_refused_alone(base):
    """heads 3 does not divide the base's width of 32, and does divide 48."""
    check_space(parse_space({"model.heads": [3, 4], "model.width": {"int": [48, 96], "step": 48}}), base)
