"""Recipes load, the form fills in what it says, and a recipe becomes a run that can be opened and gone on with."""

import pytest
import torch

from utils.core.checkpoints import Checkpoints
from utils.core.config import ConfigError
from utils.core.notebook import Settings
from utils.core.run import Run, RunError
from utils.training.form import RECIPES, SCALES, SIZES, TRAINING, recipe_from_form
from utils.training.recipe import Recipe, load_recipe
from utils.training.recipes import build_model, go_on, open_trained, train
from utils.training.runs import CONFIGS, newest_checkpoint
from utils.training.studies import load_search

EMPTY = {
    "scale": "smoke", "recipe": "", "corpus": "", "source": "", "trust_code": False, "tokenizer": "", "model_size": "",
    "max_steps": 0, "learning_rate": 0.0, "max_hours": 0.0, "trackers": "",
}  # fmt: skip


def form(**fields):
    return Settings({**EMPTY, **dict.fromkeys(TRAINING, 0), "seed": 1337, "overrides": "", **fields})


@pytest.mark.parametrize("name", [*SCALES.values(), *RECIPES, *(f"{name}_smoke" for name in RECIPES)])
def test_every_recipe_loads_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe == load_recipe(CONFIGS / f"{name}.yaml")
    assert Recipe.load(recipe.save(tmp_path / "copy.yaml")) == recipe


def test_a_misspelt_recipe_is_met_with_the_nearest_of_its_family():
    with pytest.raises(
        ConfigError, match="^No recipe 'minimal_tset'; did you mean minimal_test.* one of minimal_test, "
    ) as e:
        load_recipe("minimal_tset")
    shown = set(str(e.value).partition("one of ")[2].rstrip(".").split(", "))
    assert {"minimal_test", "classifier", "bert_mlm"} < shown
    assert not [name for name in shown if name.startswith(("search", "vae", "ppo"))]
    with pytest.raises(ConfigError, match="^No search 'nothing': expected a YAML file, or one of search_smoke, ") as e:
        load_search("nothing")
    assert "classifier" not in str(e.value)


def test_a_corpus_given_to_a_recipe_of_rows_is_met_with_its_own_setting():
    with pytest.raises(ConfigError, match=r"unknown setting 'corpus'.*'rows\.source=reviews\.csv'"):
        load_recipe("classifier_smoke", ["corpus=reviews.csv"])
    with pytest.raises(ConfigError, match=r"'data\.corpus'"):
        load_recipe("minimal_test", ["corpus=reviews.txt"])


def test_every_size_names_a_model():
    assert all(Recipe(model=size).model.width == size["width"] for size in SIZES.values())


@pytest.mark.parametrize("scale", SCALES)
def test_empty_form_is_the_recipe_of_its_scale(scale):
    assert recipe_from_form(form(scale=scale)) == load_recipe(SCALES[scale])


@pytest.mark.parametrize(
    ("fields", "overrides"),
    [
        ({"corpus": "a file: with spaces.txt"}, {"data": {"corpus": "a file: with spaces.txt"}}),
        ({"tokenizer": "bpe"}, {"data": {"tokenizer": {"kind": "bpe"}}}),
        ({"tokenizer": "gpt2"}, {"data": {"tokenizer": {"kind": "hf", "name": "gpt2"}}}),
        ({"model_size": "base"}, {"model": SIZES["base"]}),
        ({"max_steps": 77, "learning_rate": 1e-05}, {"train": {"max_steps": 77, "lr": 1e-05}}),
        ({"seed": 0}, {"train": {"seed": 0}}),
        ({"max_steps": 77, "overrides": "train.max_steps=88 name='a b'"}, {"train": {"max_steps": 88}, "name": "a b"}),
    ],
)
def test_form_changes_only_what_is_filled_in(fields, overrides):
    assert recipe_from_form(form(**fields)) == load_recipe("minimal_test").replace(**overrides)


@pytest.mark.parametrize(
    ("fields", "overrides"),
    [
        ({}, {}),
        ({"corpus": "hf:glue"}, {"rows": {"source": "hf:glue"}}),
        ({"tokenizer": "bert-base-uncased"}, {"rows": {"tokenizer": {"kind": "hf", "name": "bert-base-uncased"}}}),
        ({"source": "gist:1", "trust_code": True}, {"source": {"name": "gist:1", "trust_code": True}}),
        ({"model_size": "tiny"}, {"source": {"config": SIZES["tiny"]}}),
        ({"trackers": "wandb, tensorboard"}, {"train": {"trackers": ("wandb", "tensorboard")}}),
        ({"max_hours": 1.5}, {"train": {"max_hours": 1.5}}),
    ],
)
def test_a_form_with_a_recipe_changes_that_one(fields, overrides):
    assert recipe_from_form(form(recipe="classifier", **fields)) == load_recipe("classifier_smoke").replace(**overrides)
    assert recipe_from_form(form(recipe="classifier", scale="standard")) == load_recipe("classifier")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "masked_lm"}, "learns from rows; give rows.source"),
        ({"rows": {"source": "x.csv"}, "task": "seq2seq"}, "needs source.name, such as example:t5"),
        ({"rows": {"source": "x.csv"}, "data": {"corpus": "y.txt"}}, "both data and rows are given"),
        ({"rows": {"source": "x", "block_size": 99}, "model": {"context_length": 32}}, "99 exceeds model.context_"),
    ],
)
def test_contradictory_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.load(None, (), **changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "huge"}, "scale='huge': expected one of smoke"),
        ({"model_size": "giant"}, "model_size='giant'"),
        ({"overrides": "train.lrr=1"}, "did you mean 'train.lr'"),
    ],
)
def test_form_that_names_nothing_real_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_form(form(**fields))


def test_blocks_longer_than_the_context_are_refused():
    with pytest.raises(ConfigError, match=r"data\.block_size 64 exceeds model\.context_length 32"):
        load_recipe("char_lm_cpu", ["model.context_length=32"])


@pytest.fixture
def recipe(tmp_path, data):
    """The smallest recipe, on the tiny corpus."""
    changes = {"max_steps": 6, "batch_size": 6, "warmup_steps": 2, "eval_every": 2, "sample_every": 3, "device": "cpu"}
    text = data.metadata["source"]
    return load_recipe("minimal_test").replace(
        data={"corpus": text, "block_size": 8}, train={**changes, "trackers": ()}, sample={"max_new_tokens": 5}
    )


def test_weights_are_a_function_of_the_seed_and_sized_to_the_data(recipe, data):
    one, again, other = (build_model(recipe.replace(train={"seed": seed}), data) for seed in (1, 1, 2))
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert (one.config.vocab_size, one.config.context_length) == (data.tokenizer.vocab_size, 8)
    with pytest.raises(ConfigError, match=r"model\.vocab_size 5 is less than the tokenizer's 10"):
        build_model(recipe.replace(model={"vocab_size": 5}), data)


def test_recipe_is_trained_taken_up_opened_and_branched(recipe, tmp_path):
    result = train(recipe, tmp_path)
    assert train(recipe, tmp_path).run.path == result.run.path  # resume="auto" finds the run complete
    assert len(Run.all(tmp_path)) == 1
    trained = open_trained(result.run.path)
    best = Checkpoints(result.run.path / "checkpoints").best()
    assert trained.step == best.step == result.weights_step
    assert all(torch.equal(value, best.load()["model"][name]) for name, value in trained.model.state_dict().items())
    assert trained.recipe == recipe
    assert not trained.model.training
    assert trained.data().fingerprint == best.load()["data"]

    longer = go_on(result.run, recipe.replace(train={"max_steps": 9}))
    assert longer.run.parent_id == result.run.id
    assert list(longer.run.metrics().index)[-1] == longer.progress.step == 9
    assert go_on(longer.run, open_trained(longer.run.path).recipe).progress.step == 9
    with pytest.raises(RunError, match="start at step 6"):
        go_on(result.run, recipe.replace(train={"lr": 0.1}))


def test_run_without_a_checkpoint_cannot_be_opened(new_run):
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        newest_checkpoint(new_run())


def test_settings_that_do_not_decide_the_weights_take_up_the_same_run(recipe, tmp_path):
    first = train(recipe, tmp_path)
    other = recipe.replace(train={"keep_last": 5, "checkpoint_every": 2}, sample={"max_new_tokens": 3})
    assert train(other, tmp_path).run.id == go_on(first.run, other).run.id == first.run.id
    assert train(recipe.replace(train={"lr": 0.5}), tmp_path).run.id != first.run.id
