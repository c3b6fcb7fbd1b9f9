"""Recipes load, the form fills in what it says, and a recipe becomes a run that is opened again exactly."""

import sys

import pytest
import torch

from utils.core.config import ConfigError
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.rl import recipes
from utils.rl.loop import train_ppo
from utils.rl.models import PolicyConfig, build_policy
from utils.rl.policy import pad_left
from utils.rl.recipes import (
    SCALES,
    PPORecipe,
    WarmRecipe,
    build,
    load_recipe,
    open_trained,
    prepare,
    recipe_from_form,
    start_run,
    train,
    warm_start,
)
from utils.rl.reference import reference_of
from utils.rl.sandbox import Sandbox
from utils.training.runs import CONFIGS, best_checkpoint

FILES = sorted(file.stem for file in CONFIGS.glob("ppo_*.yaml"))
LATER = {"ppo": {"updates": 4}, "name": "a b"}
EMPTY = {"scale": "smoke", "policy": "", "model": "", "updates": 0, "learning_rate": 0.0, "seed": 0, "overrides": ""}


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def form(**fields):
    return Settings({**EMPTY, **fields})


def weights_of(policy):
    return {name: one.clone() for name, one in policy.state_dict().items()}


def alike(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


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
        ("ppo_arc", ["ppo.prompts=6"], "prompts 6 is not a multiple of minibatches 4"),
        ("ppo_arc", ["policy.quantise=4bit"], "quantise is for smollm2 and hub; drop it"),
        ("ppo_arc", ["evaluation.samples=2"], "need samples of at least 8, not 2; change either"),
    ],
)
def test_settings_that_contradict_each_other_say_which_to_drop(name, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)


def test_only_what_decides_the_weights_makes_another_run(ppo_recipe):
    for same in (
        {"evaluation": {"samples": 30, "arc": 3}},
        {"workers": 7},
        {"ppo": {"keep_last": 9, "precision": "bf16", "checkpoint_every": 1}},
    ):
        assert ppo_recipe.replace(**same).identity() == ppo_recipe.identity()
    for other in (
        {"name": "another"},
        {"pool": {"seed": 1}},
        {"policy": {"tiny": {"width": 64}}},
        {"prompt_tokens": 140},
        {"warm_start": {"seed": 1}},
        {"ppo": {"updates": 4}},
        {"ppo": {"sample": {"temperature": 0.9}}},
        {"reward": {"length_bonus": 0.0}},
        {"sandbox": {"timeout": 3.0}},
    ):
        assert ppo_recipe.replace(**other).identity() != ppo_recipe.identity()


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


def test_first_weights_are_a_function_of_the_seed(ppo_recipe):
    one, again, other = (weights_of(build(ppo_recipe.replace(warm_start={"seed": seed}))) for seed in (1, 1, 2))
    assert alike(one, again)
    assert not alike(one, other)


def test_a_package_that_is_missing_is_told_in_a_line(ppo_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="policy.kind=tiny cannot be built: lora needs peft.*pip install peft"):
        build(ppo_recipe.replace(policy={"lora": {"rank": 2}}))


def test_settings_that_do_not_suit_the_model_are_told_in_a_line(ppo_recipe):
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="lora.targets nowhere are no linear layers of the model; it has"):
        build(ppo_recipe.replace(policy={"lora": {"rank": 2, "targets": ("nowhere",)}}))


def test_prompts_longer_than_a_pretrained_models_context_are_refused(monkeypatch):
    tiny = build_policy(PolicyConfig(tiny={"context_length": 64, "width": 32, "num_heads": 2}), names=("crop",), seed=0)
    monkeypatch.setattr(recipes, "build_policy", lambda *args, **kwargs: tiny)
    small = load_recipe("ppo_smollm2", ["prompt_tokens=40", "ppo.sample.max_new_tokens=24"])
    assert build(small) is tiny
    with pytest.raises(ConfigError, match="prompt_tokens 41 and ppo.sample.max_new_tokens 24 exceed .* 64 tokens"):
        build(small.replace(prompt_tokens=41))


def test_a_pretrained_policy_is_told_of_the_primitives_where_the_recipe_says_so(ppo_recipe, monkeypatch):
    class Chatting:
        def prompt(self, messages):
            return [0] * len(str(messages))

    def told(setting, one):
        return "flip_rows(" in str(setting.dialogue.prompt(one.task).content)

    policy = build(ppo_recipe)
    monkeypatch.setattr(policy, "tokenizer", Chatting())
    pool = ppo_recipe.pool.model_dump()
    for says in (True, False):
        recipe = PPORecipe.load(pool=pool, policy={"kind": "smollm2"}, prompt_tokens=20_000, primitives_told=says)
        setting = prepare(recipe, policy)
        assert told(setting, setting.pool.train[0]) == says


def test_pools_of_two_recipes_of_the_same_tasks_are_made_once(ppo_recipe):
    policy = build(ppo_recipe)
    one, other = (prepare(ppo_recipe.replace(ppo={"seed": seed}), policy) for seed in (1, 2))
    assert one.pool is other.pool


def test_a_warm_start_keeps_its_part_of_the_recipe(ppo_trained, tmp_path):
    (run,) = (one for one in Run.all(ppo_trained.run.path.parent) if one.name == "tiny-ppo-warm")
    kept = WarmRecipe.load(run.path / "config.yaml")
    assert kept.recipe == ppo_trained.recipe
    assert kept.identity() == run.stamp["identity"] == ppo_trained.recipe.warm_identity()
    assert WarmRecipe.load(kept.save(tmp_path / "copy.yaml")) == kept


def test_a_run_without_a_warm_start_trains_none(ppo_recipe, tmp_path):
    policy = build(ppo_recipe)
    setting = prepare(load_recipe("ppo_smollm2"), policy)
    before = weights_of(policy)
    assert warm_start(policy, setting, tmp_path) is None
    assert alike(before, weights_of(policy))
    assert not list(tmp_path.iterdir())


def test_recipes_that_differ_in_ppo_only_share_a_warm_start_and_the_run_opens_with_the_trained_weights(ppo_trained):
    """The second recipe's own steps, as the notebook takes them, in the root of the first one's run."""
    root = ppo_trained.run.path.parent
    (warm,) = (one for one in Run.all(root) if one.name == "tiny-ppo-warm")
    sessions, weights = warm.stamp["sessions"], best_checkpoint(warm).load()["model"]
    recipe = ppo_trained.recipe.replace(ppo={"updates": 1, "seed": 7, "restore_best": False})

    policy = build(recipe)
    setting = prepare(recipe, policy)
    assert warm_start(policy, setting, root).path == warm.path
    assert warm.stamp["sessions"] == sessions  # nothing was trained again
    assert alike(policy.actor.model.state_dict(), weights)

    run = start_run(recipe, root)
    assert run.path != ppo_trained.run.path
    with Sandbox(recipe.sandbox, recipe.workers) as sandbox:
        result = train_ppo(policy, reference_of(policy), setting.game(sandbox), run, recipe.ppo)
    assert result.weights_update == 1
    assert not alike(policy.actor.model.state_dict(), weights)

    opened = open_trained(run.path, 1)
    assert (opened.recipe, opened.update) == (recipe, 1)
    assert not opened.policy.training
    assert [one.prompt for one in opened.setting.test] == [one.prompt for one in setting.test]
    prompts, prompt_mask = pad_left([one.prompt for one in setting.test], policy.tokenizer.pad_id)
    drawn = policy.sample(prompts, prompt_mask, 2, recipe.ppo.sample, torch.Generator().manual_seed(0))
    given = (prompts, prompt_mask, drawn.ids, drawn.mask, recipe.ppo.sample)
    with torch.no_grad():
        ours, theirs = policy.eval()(*given), opened.policy(*given)
    assert drawn.mask.any()
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.values, theirs.values)

    before = open_trained(run.path, 0).policy
    assert alike(before.actor.model.state_dict(), weights)  # update 0 is the warm start


def test_a_run_is_taken_up_by_its_recipe_and_made_anew_where_asked(ppo_trained):
    root, recipe = ppo_trained.run.path.parent, ppo_trained.recipe
    sessions = ppo_trained.run.stamp["sessions"]
    assert train(recipe, root).run.path == ppo_trained.run.path
    assert ppo_trained.run.stamp["sessions"] == sessions  # it was complete
    anew = start_run(recipe, root, resume="never")
    assert anew.path != ppo_trained.run.path
    assert start_run(recipe, root).path == anew.path  # the newest
    (anew.path / "env_stamp.json").unlink()  # out of the others' way


def test_an_update_without_a_checkpoint_is_refused_with_those_there_are(ppo_trained):
    with pytest.raises(ConfigError, match=r"no checkpoint of update 99; it has: .*3"):
        open_trained(ppo_trained.run.path, 99)
