"""A recipe becomes a run that is opened again exactly."""

import sys

import pytest
import torch

from utils.core.config import ConfigError
from utils.core.run import Run
from utils.rl import recipes
from utils.rl.loop import train_ppo
from utils.rl.models import PolicyConfig, build_policy
from utils.rl.recipes import (
    PPORecipe,
    WarmRecipe,
    build,
    load_recipe,
    open_trained,
    prepare,
    start_run,
    train,
    warm_start,
)
from utils.rl.reference import reference_of
from utils.rl.sampling import pad_left
from utils.rl.sandbox import Sandbox
from utils.training.runs import best_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def weights_of(policy):
    return {name: one.clone() for name, one in policy.state_dict().items()}


def alike(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


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
