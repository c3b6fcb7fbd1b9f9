"""Several recipes in one go: each its own run, each failure recorded, none stopping the others."""

import os
import signal

import pytest

from utils.core.config import ConfigError
from utils.core.run import Run
from utils.training import many
from utils.training.many import outcome, train_many
from utils.training.recipes import load_recipe, train


@pytest.fixture
def recipe(data):
    """The smallest recipe, on the tiny corpus."""
    changes = {"max_steps": 4, "batch_size": 6, "warmup_steps": 2, "eval_every": 2, "sample_every": 0}
    return load_recipe("minimal_test").replace(
        data={"corpus": data.metadata["source"], "block_size": 8},
        model={"width": 16},
        train={**changes, "device": "cpu", "trackers": ()},
    )


def several(recipe):
    """Three recipes, of which the second has no corpus."""
    return [
        recipe,
        recipe.replace(name="no-corpus", data={"corpus": "/nowhere.txt"}),
        recipe.replace(train={"seed": 7}),
    ]


def dying(recipe, root):
    """A `train` whose process is killed once it has a run, for the recipe named so."""
    if recipe.name == "dies":
        Run.create(root, recipe.name, recipe)
        os.kill(os.getpid(), signal.SIGKILL)
    return train(recipe, root)


def breaking(recipe, root):
    """A `train` that fails once it has a run, for seed 7."""
    if recipe.train.seed == 7:
        Run.create(root, recipe.name, recipe)
        raise RuntimeError(f"broken with {os.environ['SOME_API_KEY']}")
    return train(recipe, root)


def test_each_recipe_is_its_own_run_and_its_row_says_what_training_said(recipe, tmp_path):
    table = train_many(several(recipe), tmp_path)
    assert table["name"].tolist() == ["minimal-test", "no-corpus", "minimal-test"]
    assert table["error"].str.contains("No corpus '/nowhere.txt'").tolist() == [False, True, False]
    assert len(Run.all(tmp_path)) == 2
    for row, one in ((0, recipe), (2, recipe.replace(train={"seed": 7}))):
        run = Run.open(table["run"][row])
        assert run.stamp["identity"] == one.identity()
        best = run.metrics()["validation/loss"].min()
        assert table["loss"][row] == best
        assert table["ended"][row] == "complete after 4 steps"
        assert outcome(train(one, tmp_path))["loss"] == best  # the same where it was complete already
    assert table["loss"][0] != table["loss"][2]


def test_a_failed_run_keeps_its_traceback_without_secrets_until_it_succeeds(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "s3cret-of-the-test")
    table = train_many(several(recipe)[::2], tmp_path, train=breaking)
    assert table["error"].tolist() == ["", "RuntimeError: broken with ***"]
    file = Run.open(table["run"][1]).path / many.ERROR
    assert "Traceback" in file.read_text()
    assert "s3cret" not in file.read_text()
    again = train_many(several(recipe)[::2], tmp_path)
    assert again["run"].tolist() == table["run"].tolist()  # taken up
    assert again["error"].tolist() == ["", ""]
    assert not file.exists()


def test_over_processes_each_run_is_the_same_and_one_that_is_killed_takes_no_other_with_it(recipe, tmp_path):
    recipes = [recipe, recipe.replace(name="dies"), recipe.replace(train={"seed": 7})]
    table = train_many(recipes, tmp_path / "apart", processes=2, train=dying)
    assert table["error"].tolist() == ["", "its process was killed by signal 9", ""]
    assert Run.open(table["run"][1]).name == "dies"
    here = train_many(recipes[::2], tmp_path / "here")
    assert here["loss"].tolist() == table["loss"].dropna().tolist()


def test_recipes_that_would_share_a_run_are_refused_before_anything_runs(recipe, tmp_path):
    with pytest.raises(ConfigError, match="Recipes 0 and 2 are one experiment"):
        train_many([recipe, recipe.replace(train={"seed": 7}), recipe], tmp_path / "none")
    with pytest.raises(ConfigError, match="expected at least 1"):
        train_many([recipe], tmp_path / "none", processes=0)
    assert not (tmp_path / "none").exists()
