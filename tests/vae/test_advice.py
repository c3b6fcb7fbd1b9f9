"""What to change is the first thing that is wrong."""

from types import SimpleNamespace

import pandas as pd
import pytest

from utils.core.check import Check
from utils.vae.advice import TARGETS, targets_check
from utils.vae.collapse import COLLAPSE
from utils.vae.metrics import Estimate
from utils.vae.recipes import VAERecipe

RECIPE = VAERecipe()


def found(shape=1.0, collapsed=False, **rates):
    values = {"shape": shape, "non_padding": 0.99, "exact": 0.99, **rates}
    status = "fail" if collapsed else "pass"
    return SimpleNamespace(
        reconstruction={name: Estimate(value, value, value) for name, value in values.items()},
        checks=[Check(COLLAPSE, status, "collapsed: lower beta")],
    )


def history(*losses, ahead=0.0):
    return SimpleNamespace(
        metrics=lambda: pd.DataFrame(
            {"validation/loss": losses, "validation/non_padding": 0.8, "train/non_padding": 0.8 + ahead}
        )
    )


def test_the_targets_met_pass():
    check = targets_check({"validation": found(), "test": found()}, RECIPE, history(2.0, 1.0))
    assert check.status == "pass"
    assert len(check.table) == len(TARGETS)
    assert (check.table["short of it, points"] == 0).all()


@pytest.mark.parametrize(
    ("evaluation", "run", "first"),
    [
        (found(collapsed=True, shape=0.5, exact=0), history(2.0, 1.0), "latents are not used"),
        (found(shape=0.9, exact=0), history(2.0, 1.0), "10% of the sizes are wrong"),
        (found(exact=0), history(2.0, 1.0), "train.max_steps="),
        (found(exact=0), history(1.0, 2.0, ahead=0.1), "learns by heart"),
        (found(exact=0), history(1.0, 2.0), "lower model.beta"),
    ],
)
def test_what_falls_short_names_the_first_thing_to_change(evaluation, run, first):
    check = targets_check({"validation": evaluation, "test": found()}, RECIPE, run)
    assert check.status == "warn"
    assert "validation exact grids 0.0% of 60%" in check.summary
    assert "test" not in check.summary.split(".")[0]
    assert first in check.summary
