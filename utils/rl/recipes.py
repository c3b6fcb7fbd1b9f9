"""From a recipe to a trained run, step by step: policy, tasks, warm start, PPO; and back from a run's folder.

The notebook takes the steps one by one, the command line takes them all with `train`. The warm start is a run of its
own, which every recipe of the same tasks, policy and warm start shares. Leaves out what a recipe is (`rl.recipe`).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.arc.dsl import PRIMITIVES
from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.config import ConfigError, digest
from utils.core.device import choose, make_fabric
from utils.core.run import Run
from utils.models.found import one_line
from utils.rl.dialogue import ChatDialogue, Dialogue, PieceDialogue
from utils.rl.game import Game
from utils.rl.loop import Result, train_ppo
from utils.rl.models import build_policy
from utils.rl.policy import CodePolicy
from utils.rl.problems import Pool, make_pool, problems
from utils.rl.recipe import SCALES, PPORecipe, WarmRecipe, load_recipe, recipe_from_form
from utils.rl.reference import reference_of
from utils.rl.sandbox import Sandbox
from utils.rl.warm import WarmData, warm_data
from utils.training.fit import fit
from utils.training.objectives import next_token
from utils.training.runs import best_checkpoint

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
__all__ = [
    "SCALES", "PPORecipe", "Setting", "Trained", "WarmRecipe", "build", "load_recipe", "open_trained", "prepare",
    "recipe_from_form", "start_run", "train", "warm_start",
]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A recipe's tasks, and the way between them and a policy's tokens."""

    recipe: PPORecipe
    pool: Pool
    dialogue: Dialogue

    @cached_property
    def train(self):
        return problems(self.pool.train, self.dialogue.encode, levels=self.recipe.ppo.levels)

    @cached_property
    def validation(self):
        return problems(self.pool.validation, self.dialogue.encode)

    @cached_property
    def test(self):
        return problems(self.pool.test, self.dialogue.encode)

    def warm_data(self) -> WarmData:
        return warm_data(self.pool, self.dialogue.encode, self.dialogue.answer, self.dialogue.tokenizer.pad_id)

    def game(self, sandbox: Sandbox) -> Game:
        """What PPO plays, with an open sandbox."""
        fingerprint = digest([self.pool.fingerprint, list(self.train[0].prompt)])
        return Game(self.train, self.validation, self.dialogue.read, sandbox, self.recipe.reward, fingerprint)


def build(recipe: PPORecipe) -> CodePolicy:
    """The recipe's policy; what is new in it drawn from the seed of its first training.

    Raises `ConfigError` where it cannot be had: no such model, a package is missing, settings that do not suit it.
    """
    seed = recipe.ppo.seed if recipe.warm_start is None else recipe.warm_start.seed
    try:
        policy = build_policy(recipe.policy, names=PRIMITIVES, seed=seed)
    except ConfigError:
        raise
    except (ImportError, ValueError) as error:
        raise ConfigError(f"policy.kind={recipe.policy.kind} cannot be built: {one_line(error)}") from error
    needed, context = recipe.prompt_tokens + recipe.ppo.sample.max_new_tokens, policy.actor.context_length
    if needed > context:
        raise ConfigError(
            f"prompt_tokens {recipe.prompt_tokens} and ppo.sample.max_new_tokens {recipe.ppo.sample.max_new_tokens}"
            f" exceed the model's context of {context} tokens; lower them."
        )
    return policy


def prepare(recipe: PPORecipe, policy: CodePolicy) -> Setting:
    """The recipe's tasks, as the policy is told of them."""
    tokenizer, budget = policy.tokenizer, recipe.prompt_tokens
    if recipe.policy.kind == "tiny":
        dialogue: Dialogue = PieceDialogue(tokenizer, budget)
    else:
        functions = PRIMITIVES if recipe.primitives_told else {}
        dialogue = ChatDialogue(tokenizer, budget, format=recipe.format, functions=functions)
    return Setting(recipe, make_pool(recipe.pool), dialogue)


def warm_start(policy: CodePolicy, setting: Setting, root: Path) -> Run | None:
    """Train the policy's model on the pool's programs, in a run of its own, or take the weights of that run.

    Nothing is done, and None returned, where the recipe has no warm start. Several processes train as one, and all end
    with the same weights.
    """
    recipe, config = setting.recipe, setting.recipe.warm_start
    if config is None:
        return None
    data, fabric = setting.warm_data(), make_fabric(choose(config.device, config.precision))
    run = _same_run(lambda: Run.start(root, f"{recipe.name}-warm", WarmRecipe(recipe=recipe)), fabric)
    fit(policy.actor.model, next_token, data, run, config, fabric=fabric)
    policy.reset_value()
    policy.start = ()
    return run


def start_run(recipe: PPORecipe, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Run:
    """The run of this recipe under `root`, taken up or made new."""
    return Run.start(root, recipe.name, recipe, resume=resume)


def train(recipe: PPORecipe, root: Path, *, resume: Literal["auto", "never"] = "auto") -> Result:
    """Recipe in, trained run out: policy, tasks, warm start, PPO. Works alike under torch.distributed.run."""
    fabric = make_fabric(choose(recipe.ppo.device, recipe.ppo.precision))
    with fabric.rank_zero_first():  # it may have to fetch the model
        policy = build(recipe)
    setting = prepare(recipe, policy)
    with Sandbox(recipe.sandbox, recipe.workers) as sandbox:  # what it refuses, it refuses before anything is trained
        game = setting.game(sandbox)
        warm_start(policy, setting, root)
        run = _same_run(lambda: start_run(recipe, root, resume=resume), fabric)
        return train_ppo(policy, reference_of(policy), game, run, recipe.ppo, fabric=fabric)


def _same_run(take: Callable[[], Run], fabric: Fabric) -> Run:
    """The run that the first of several processes takes, in all of them."""
    return Run.open(fabric.broadcast(str(take().path) if fabric.is_global_zero else None))


@dataclass(frozen=True)
class Trained:
    """A run's policy with the weights of one checkpoint, its recipe and its tasks."""

    run: Run
    recipe: PPORecipe
    policy: CodePolicy
    setting: Setting
    update: int
    note: str = ""
    """why these weights are not the best; empty where they are, or where an update was asked for"""


def open_trained(path: str | Path, update: int | None = None) -> Trained:
    """The policy of a run folder: the weights of its best checkpoint, or those of one update.

    A run that was pulled has its model alone: the value is 0, as before any training.
    """
    run = Run.open(path)
    recipe = PPORecipe.load(run.path / "config.yaml")
    checkpoint = best_checkpoint(run) if update is None else _of_update(run, update)
    policy = build(recipe)
    state = checkpoint.load()
    if "policy" in state:
        policy.load_state_dict(state["policy"])
    else:
        policy.actor.model.load_state_dict(state["model"])
        policy.reset_value()
        policy.facts["value"] = "new: it was not published"
        log.info("%s was pulled without its value, which is new here; programs are written without it.", run.path.name)
    note = substituted(run, checkpoint) if update is None else ""
    if note:
        log.warning(note)
    return Trained(run, recipe, policy.eval(), prepare(recipe, policy), checkpoint.step, note)


def substituted(run: Run, chosen: Checkpoint) -> str:
    """What to tell where a damaged checkpoint may have been better than the `chosen` one; or "".

    By the metric in its manifest, of which less is better; where that cannot be read, it may have been.
    """
    better = []
    for path in sorted((run.path / "checkpoints").glob("step-*.damaged")):
        try:
            metric = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["metric"]
        except (OSError, ValueError, KeyError, TypeError):
            metric = -math.inf
        step = int(path.stem.removeprefix("step-"))
        if step != chosen.step and (chosen.metric is None or (metric is not None and metric <= chosen.metric)):
            better.append(path.name)
    if not better:
        return ""
    return (
        f"The weights of update {chosen.step} stand in for better ones: {', '.join(better)} in"
        f" {run.path / 'checkpoints'} cannot be read and were set aside."
    )


def _of_update(run: Run, update: int) -> Checkpoint:
    kept = {one.step: one for one in Checkpoints(run.path / "checkpoints").all()}
    if update not in kept:
        raise ConfigError(f"{run.path} has no checkpoint of update {update}; it has: {', '.join(map(str, kept))}.")
    return kept[update]
