"""Models at other betas differ from the recipe in beta and steps alone, and none is trained twice."""

import pytest

from utils.core.run import Run
from utils.vae.betas import kept_baselines, recipe_at, train_betas
from utils.vae.recipes import prepare

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_recipe_at_another_beta_keeps_all_but_steps(vae_recipe):
    beside = recipe_at(vae_recipe, 0.7)
    assert beside.model == vae_recipe.model.replace(beta=0.7)
    assert beside.corpus == vae_recipe.corpus
    assert beside.train.max_steps == beside.train.eval_every == 4
    assert beside.train.replace(max_steps=14, eval_every=7, warmup_steps=2) == vae_recipe.train


def test_more_beta_buys_a_lower_rate_and_the_runs_are_kept(vae_recipe, tmp_path):
    recipe = vae_recipe.replace(betas=(0.0, 100.0), beta_steps=30, model={"schedule": "constant"})
    data = prepare(recipe, tmp_path)
    assert kept_baselines(recipe, tmp_path) == {}
    found = train_betas(recipe, data, tmp_path)
    assert list(found.table["beta"]) == list(found.models) == [0.0, 100.0]
    assert found.table["kl"][0] > found.table["kl"][1]
    assert list(found.baselines) == list(kept_baselines(recipe, tmp_path)) == ["autoencoder (beta 0, 30 steps)"]
    again = train_betas(recipe, data, tmp_path)
    assert again.table.equals(found.table)
    assert len(Run.all(tmp_path)) == 2


def test_an_unfinished_autoencoder_is_no_baseline(vae_recipe, tmp_path):
    beside = recipe_at(vae_recipe, 0.0)
    Run.start(tmp_path, beside.name, beside)
    assert kept_baselines(vae_recipe, tmp_path) == {}
