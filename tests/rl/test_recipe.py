"""Recipes load, the form fills in what it says, and what decides the weights decides the run."""

import pytest

from utils.core.config import ConfigError
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.rl.recipe import SCALES, PPORecipe, keep_updates, load_recipe, recipe_from_form
from utils.training.runs import CONFIGS

FILES = sorted(file.stem for file in CONFIGS.glob("ppo_*.yaml"))
LATER = {"ppo": {"updates": 4}, "name": "a b"}
EMPTY = {"scale": "smoke", "policy": "", "model": "", "updates": 0, "learning_rate": 0.0, "seed": 0, "overrides": ""}


def form(**fields):
    return Settings({**EMPTY, **fields})


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_loads_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe == load_recipe(CONFIGS / f"{name}.yaml")
    again = PPORecipe.load(recipe.save(tmp_path / "copy.yaml"))
    assert again == recipe
    assert (again.identity(), again.warm_identity()) == (recipe.identity(), recipe.warm_identity())


def test_recipes_have_names_of_their_own_and_scales_have_recipes():
    assert len({load_recipe(name).name for name in FILES}) == len(FILES)
    assert set(SCALES.values()) <= set(FILES)


@pytest.mark.parametrize("scale", SCALES)
def test_an_empty_form_is_the_recipe_of_its_scale(scale):
    assert recipe_from_form(form(scale=scale)) == load_recipe(SCALES[scale])


@pytest.mark.parametrize(
    ("fields", "name", "overrides"),
    [
        ({"policy": "tiny"}, "ppo_arc_smoke", {}),
        ({"scale": "standard", "updates": 40}, "ppo_arc", {"ppo": {"updates": 40}}),
        ({"learning_rate": 1e-05}, "ppo_arc_smoke", {"ppo": {"lr": 1e-05}}),
        ({"seed": 3}, "ppo_arc_smoke", {"ppo": {"seed": 3}, "warm_start": {"seed": 3}}),
        ({"scale": "full", "seed": 3}, "ppo_arc_full", {"ppo": {"seed": 3}}),
        ({"scale": "full", "model": "some/coder"}, "ppo_arc_full", {"policy": {"model": "some/coder"}}),
        ({"scale": "full", "policy": "hub", "updates": 2}, "ppo_arc_full", {"ppo": {"updates": 2}}),
        ({"policy": "smollm2", "seed": 1}, "ppo_smollm2", {"ppo": {"seed": 1}}),
        ({"scale": "full", "policy": "smollm2"}, "ppo_smollm2", {}),
        ({"updates": 9, "overrides": "ppo.updates=4 name='a b'"}, "ppo_arc_smoke", LATER),
    ],
)  # fmt: skip
def test_the_form_changes_only_what_is_filled_in(fields, name, overrides):
    assert recipe_from_form(form(**fields)) == load_recipe(name).replace(**overrides)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "huge"}, "scale='huge': expected one of smoke"),
        ({"policy": "hub"}, "policy=hub is too large for scale=smoke: take scale=full, or leave policy empty"),
        ({"policy": "tiny", "scale": "full"}, "policy=tiny has no recipe at scale=full: take scale=standard"),
        ({"model": "some/coder"}, "is for policy=hub at scale=full; leave model empty"),
        ({"model": "some/coder", "policy": "smollm2"}, "is for policy=hub at scale=full; leave model empty"),
        ({"policy": "poet"}, r"policy\.kind.*'poet'"),
        ({"overrides": "ppo.updatess=1"}, "did you mean 'ppo.updates'"),
        ({"overrides": "updates"}, "not of the form key=value"),
    ],
)
def test_a_form_that_contradicts_itself_or_names_nothing_real_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_form(form(**fields))


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ppo_arc", ["prompt_tokens=190"], "exceed policy.tiny.context_length 200; lower them or raise it"),
        ("ppo_arc", ["warm_start=null"], "writes no program by chance; give it a warm_start"),
        ("ppo_smollm2", ["warm_start={max_steps: 300}"], "a warm_start is for the tiny policy.*: drop it"),
        ("ppo_arc", ["format=compact"], "format is for a policy that chats; drop it"),
        ("ppo_arc", ["primitives_told=false"], "primitives_told is for a policy that chats; drop it"),
        (
            "ppo_arc",
            ["ppo.samples=1"],
            "samples 1 leaves a task no other program .* raise samples, or set baseline=none",
        ),
        ("ppo_arc", ["ppo.prompts=6"], "prompts 6 is not a multiple of minibatches 4"),
        ("ppo_arc", ["policy.quantise=4bit"], "quantise is for smollm2 and hub; drop it"),
        ("ppo_arc", ["evaluation.samples=2"], "need samples of at least 8, not 2; change either"),
    ],
)
def test_settings_that_contradict_each_other_say_which_to_drop(name, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "family"), [("char_lm", "language model"), ("vae", "VAE")])
def test_a_recipe_of_another_family_is_refused_by_name(name, family):
    with pytest.raises(ConfigError, match=rf"is a {family} recipe, and this takes a PPO one; use: python -m utils"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("path", "overrides", "message"),
    [
        (
            "ppo.lr=3e-4",
            ["ppo.seed=1"],
            "put the recipe first: python -m utils ppo train ppo_arc ppo.lr=3e-4 ppo.seed=1",
        ),
        ("nowhere", [], f"No recipe 'nowhere': expected a YAML file, or one of {', '.join(FILES)}."),
        ("ppo_arc", ["ppo.learning_rate=1"], "unknown setting 'ppo.learning_rate'; did you mean 'ppo.lr'?"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_told_with_what_to_write_instead(path, overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    assert str(caught.value).endswith(message)
    assert "shakespeare" not in str(caught.value)


def test_one_program_a_task_is_enough_without_the_baseline():
    assert load_recipe("ppo_arc", ["ppo.samples=1", "ppo.baseline=none"]).ppo.samples == 1


def test_only_what_decides_the_weights_makes_another_run(ppo_recipe):
    for same in (
        {"evaluation": {"samples": 30, "arc": 3}},
        {"workers": 7},
        {"ppo": {"keep_last": 9, "precision": "bf16", "checkpoint_every": 1}},
        {"ppo": {"micro_batch_prompts": 2, "sample_batch": 8}},
        {"ppo": {"updates": 4}},  # its schedule is constant: the run goes on
    ):
        assert ppo_recipe.replace(**same).identity() == ppo_recipe.identity()
    for other in (
        {"name": "another"},
        {"pool": {"seed": 1}},
        {"policy": {"tiny": {"width": 64}}},
        {"prompt_tokens": 140},
        {"warm_start": {"seed": 1}},
        {"pool": {"held_out_programs": True}},
        {"ppo": {"levels": "difficulty"}},
        {"ppo": {"sample": {"temperature": 0.9}}},
        {"reward": {"length_bonus": 0.0}},
        {"sandbox": {"timeout": 3.0}},
    ):
        assert ppo_recipe.replace(**other).identity() != ppo_recipe.identity()
    falling = ppo_recipe.replace(ppo={"schedule": "linear"})
    assert falling.replace(ppo={"updates": 4}).identity() != falling.identity()


def test_a_runs_recipe_says_for_how_many_updates_it_is_trained(ppo_recipe, tmp_path):
    run = Run.create(tmp_path, "x", ppo_recipe)
    before = (run.path / "config.yaml").read_bytes()
    assert keep_updates(run, ppo_recipe.ppo.updates) == {}
    assert (run.path / "config.yaml").read_bytes() == before
    more = ppo_recipe.replace(ppo={"updates": 60})
    assert keep_updates(run, 60) == {"config_hash": more.fingerprint()}
    assert PPORecipe.load(run.path / "config.yaml") == more
    assert sorted(file.name for file in run.path.glob("config*")) == ["config.yaml"]
    other = Run.create(tmp_path, "y", ppo_recipe.pool)
    assert keep_updates(other, 60) == {}


def test_recipes_that_differ_in_what_comes_after_it_start_from_one_warm_start(ppo_recipe):
    for same in (
        {"ppo": {"updates": 9, "lr": 1.0, "seed": 5}},
        {"reward": {"length_bonus": 0.0}},
        {"sandbox": {"timeout": 3.0}},
        {"warm_start": {"keep_last": 9}},
    ):
        assert ppo_recipe.replace(**same).warm_identity() == ppo_recipe.warm_identity()
    for other in (
        {"pool": {"train": 81}},
        {"pool": {"programs": {"max_depth": 1, "depth_weights": (1.0,)}}},
        {"policy": {"tiny": {"width": 64}}},
        {"prompt_tokens": 140},
        {"warm_start": {"lr": 1e-3}},
        {"warm_start": {"seed": 1}},
    ):
        assert ppo_recipe.replace(**other).warm_identity() != ppo_recipe.warm_identity()
