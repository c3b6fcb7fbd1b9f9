"""A recipe of another family is refused by name, faults are told apart, and a length of training is as it is meant."""

import pytest

from utils.core.config import ConfigError
from utils.training import recipes
from utils.training.families import MARKS, as_meant, family_of
from utils.training.recipes import Recipe
from utils.training.runs import CONFIGS
from utils.vae.recipes import VAERecipe, load_recipe


def test_the_marks_of_a_family_are_settings_that_it_alone_has():
    fields = {"language model": set(Recipe.model_fields), "VAE": set(VAERecipe.model_fields)}
    for family, own in fields.items():
        assert MARKS[family] <= own
        for other in set(MARKS) - {family}:
            assert not MARKS[other] & own
    assert family_of({"name": "x", "train": {}}) is None
    assert family_of({"data": {}, "corpus": {}}) is None


@pytest.mark.parametrize("name", ["vae_smoke", "vae_classic"])
def test_a_vae_recipe_is_not_taken_for_a_language_model_and_the_reverse(name, tmp_path):
    with pytest.raises(ConfigError, match=f"{name}.yaml is a VAE recipe.*python -m utils vae"):
        recipes.load_recipe(name)
    saved = load_recipe(name).save(tmp_path / "config.yaml")  # as in a run's folder
    with pytest.raises(ConfigError, match="config.yaml is a VAE recipe"):
        Recipe.load(saved)
    with pytest.raises(ConfigError, match="is a language model recipe, and this takes a VAE one"):
        load_recipe("char_lm_cpu")


def test_an_override_is_to_blame_for_its_own_fault_and_the_file_for_its_own(tmp_path):
    with pytest.raises(ConfigError, match=r"^train.lrr=1 \(laid over .*vae_smoke.yaml\): unknown setting"):
        load_recipe("vae_smoke", ["train.lrr=1"])
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\ntrian: {}\n")
    with pytest.raises(ConfigError, match=r"^[^=]*broken.yaml: unknown setting 'trian'"):
        VAERecipe.load(broken, ["train.lr=1"])


def test_steps_take_the_place_of_epochs_and_a_short_run_keeps_a_tenth_of_warm_up(caplog):
    caplog.set_level("INFO")
    train = load_recipe("vae_full", ["train.max_steps=6"]).train
    assert (train.max_steps, train.max_epochs, train.warmup_steps) == (6, None, 1)
    assert "takes the place of the recipe's max_epochs, 50" in caplog.text
    assert "The warm-up is 1 steps" in caplog.text
    dense = load_recipe("vae_full", ["train.max_steps=600", "model.architecture=dense"]).train
    assert (dense.max_steps, dense.max_epochs, dense.warmup_steps) == (600, None, 60)
    epochs = load_recipe("vae", ["train.max_epochs=2"]).train
    assert (epochs.max_steps, epochs.max_epochs) == (None, 2)
    given = load_recipe("vae_full", ["train.max_steps=6", "train.warmup_steps=3"]).train
    assert given.warmup_steps == 3


def test_nothing_goes_with_other_overrides():
    content = {"train": {"max_steps": 100, "warmup_steps": 10}}
    assert as_meant(content, ["train.lr=1", "train.max_steps=200"]) == []
    assert CONFIGS.is_dir()
