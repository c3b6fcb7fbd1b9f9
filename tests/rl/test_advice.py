"""Advice follows from what fell short, is never empty, and can be followed as it stands."""

import re

import pytest

from utils.core.check import Check
from utils.rl.advice import next_steps
from utils.rl.recipes import PPORecipe, load_recipe

GOOD = {"pass@1": "pass", "New programs": "pass", "Honest programs": "pass", "Real ARC tasks": "pass"}


def advice(recipe, **changed):
    statuses = {**GOOD, **{name.replace("_", " "): status for name, status in changed.items()}}
    check = next_steps([Check(name, status, "") for name, status in statuses.items()], recipe)
    assert check.name == "What to try next"
    return check.summary


@pytest.fixture
def recipe():
    return load_recipe("ppo_arc")


def test_where_all_is_well_there_still_is_something_to_try(recipe):
    assert advice(recipe) == "Another seed tells how much of all this is chance (ppo.seed=1)."
    assert "evaluation.arc=400" in advice(recipe.replace(evaluation={"arc": 0}), Real_ARC_tasks="skip")


@pytest.mark.parametrize("status", ["warn", "fail"])
def test_each_finding_that_falls_short_has_its_advice(recipe, status):
    statuses = [Check("pass@1", status, "")]
    assert "ppo.updates=400" in next_steps(statuses, recipe).summary
    assert "pool.train=40000" in advice(recipe, New_programs=status)
    assert "reward.trick=-0.2" in advice(recipe, Honest_programs="warn")
    assert "scale=full" in advice(recipe, Real_ARC_tasks="warn")
    assert "larger model" in advice(load_recipe("ppo_arc_full"), Real_ARC_tasks="warn")


@pytest.mark.parametrize("name", ["ppo_arc_smoke", "ppo_arc", "ppo_arc_full", "ppo_smollm2"])
def test_every_setting_that_is_named_can_be_set_so(name):
    recipe = load_recipe(name)
    checks = [Check(each, "warn", "") for each in GOOD]
    settings = re.findall(r"[a-z]+\.\w+=[-\w.]*\w", next_steps(checks, recipe).summary)
    assert len(settings) >= 5
    changed = load_recipe(name, settings)
    assert isinstance(changed, PPORecipe)
    assert changed.ppo.updates > recipe.ppo.updates
    assert changed.reward.trick < recipe.reward.trick
