"""Recipes of PPO: a YAML file that names tasks, policy, warm start and PPO; and the steps from one to a trained run.

The notebook takes the steps one by one, the command line takes them all with `train`. The warm start is a run of its
own, which every recipe of the same tasks, policy and warm start shares.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from utils.arc.dsl import PRIMITIVES
from utils.core.checkpoints import Checkpoint
from utils.core.config import Config, ConfigError, digest
from utils.core.device import choose, make_fabric
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.models.found import one_line
from utils.rl.config import PPOConfig
from utils.rl.dialogue import ChatDialogue, Dialogue, Format, PieceDialogue
from utils.rl.evaluate import EvaluationConfig
from utils.rl.loop import Game, Result, train_ppo
from utils.rl.models import PolicyConfig, build_policy
from utils.rl.policy import CodePolicy
from utils.rl.problems import Pool, PoolConfig, make_pool, problems
from utils.rl.reference import reference_of
from utils.rl.reward import RewardConfig
from utils.rl.sandbox import Sandbox, SandboxConfig
from utils.rl.warm import WarmData, warm_data
from utils.training.config import TrainConfig
from utils.training.fit import fit
from utils.training.objectives import next_token
from utils.training.runs import best_checkpoint, find_recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
SCALES = {"smoke": "ppo_arc_smoke", "standard": "ppo_arc", "full": "ppo_arc_full"}


class PPORecipe(Config):
    """Everything that decides a run. What decides its weights is its `identity`."""

    name: str = "ppo-arc"
    """first part of the run folder's name"""
    pool: PoolConfig = PoolConfig()
    """tasks to learn from and to be judged by"""
    policy: PolicyConfig = PolicyConfig()
    """what writes the programs"""
    prompt_tokens: int = Field(200, ge=1)
    """most tokens of a prompt; longer ones lose whole pairs"""
    format: Format = "digits"
    """how grids are written for a policy that chats"""
    primitives_told: bool = True
    """tell a policy that chats which functions there are to be called"""
    warm_start: TrainConfig | None = None
    """how the policy first learns programs of ours by heart; None: not at all"""
    ppo: PPOConfig = PPOConfig()
    """how it is then trained"""
    reward: RewardConfig = RewardConfig()
    """what programs earn"""
    sandbox: SandboxConfig = SandboxConfig()
    """where they run"""
    workers: int = Field(2, ge=1)
    """processes that run them"""
    evaluation: EvaluationConfig = EvaluationConfig()
    """how the policy is judged"""

    @model_validator(mode="after")
    def _consistent(self):
        tiny = self.policy.kind == "tiny"
        needed = self.prompt_tokens + self.ppo.sample.max_new_tokens
        if tiny and needed > self.policy.tiny.context_length:
            raise ValueError(
                f"prompt_tokens {self.prompt_tokens} and ppo.sample.max_new_tokens"
                f" {self.ppo.sample.max_new_tokens} exceed policy.tiny.context_length"
                f" {self.policy.tiny.context_length}; lower them or raise it"
            )
        if tiny and self.warm_start is None:
            raise ValueError("a tiny policy is untrained and writes no program by chance; give it a warm_start")
        if not tiny and self.warm_start is not None:
            raise ValueError("a warm_start is for the tiny policy; a pretrained one writes Python already: drop it")
        if tiny and (self.format != "digits" or not self.primitives_told):
            name = "primitives_told" if self.format == "digits" else "format"
            raise ValueError(f"{name} is for a policy that chats; drop it, the tiny one reads rows of digits")
        return self

    def identity(self) -> str:
        decided = [self.name, self.warm_identity(), self.format, self.primitives_told, self.ppo.arithmetic()]
        return digest([*decided, self.reward.fingerprint(), self.sandbox.fingerprint()])

    def warm_identity(self) -> str:
        """Equal for recipes that start from the same weights; those of one name share them."""
        warm = None if self.warm_start is None else self.warm_start.arithmetic()
        return digest([self.pool.fingerprint(), self.policy.fingerprint(), self.prompt_tokens, warm])


class WarmRecipe(Config):
    """What a warm start's run keeps: the part of a recipe that decides it."""

    recipe: PPORecipe

    def identity(self) -> str:
        return self.recipe.warm_identity()


@dataclass(frozen=True)
class Setting:
    """A recipe's tasks, and the way between them and a policy's tokens."""

    recipe: PPORecipe
    pool: Pool
    dialogue: Dialogue

    @cached_property
    def train(self):
        return problems(self.pool.train, self.dialogue.encode)

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


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> PPORecipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides."""
    return PPORecipe.load(find_recipe(path), overrides)


def recipe_from_form(form: Settings) -> PPORecipe:
    """The recipe of the form's scale or policy, changed by the fields that are filled in, then by its overrides."""
    base = _base(form)
    changes = {
        "policy.kind": form.policy,
        "policy.model": form.model,
        "ppo.updates": form.updates,
        "ppo.lr": form.learning_rate,
        "ppo.seed": form.seed,
    }
    if load_recipe(base).warm_start is not None:
        changes["warm_start.seed"] = form.seed
    filled = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value]
    return load_recipe(base, [*filled, *shlex.split(form.overrides, posix=os.name == "posix")])


def _base(form: Settings) -> str:
    """The name of the recipe that a form starts from. Raises `ConfigError` where its fields contradict each other."""
    if form.scale not in SCALES:
        raise ConfigError(f"scale={form.scale!r}: expected one of {', '.join(SCALES)}.")
    if form.policy == "smollm2":
        log.info("policy=smollm2 has a recipe of its own, configs/ppo_smollm2.yaml, the same at every scale.")
        base = "ppo_smollm2"
    else:
        base = SCALES[form.scale]
    kind = load_recipe(base).policy.kind
    if form.policy == "hub" != kind:
        raise ConfigError(f"policy=hub is too large for scale={form.scale}: take scale=full, or leave policy empty.")
    if form.policy == "tiny" != kind:
        raise ConfigError("policy=tiny has no recipe at scale=full: take scale=standard, or leave policy empty.")
    if form.model and kind != "hub":
        raise ConfigError(f"model={form.model!r} is for policy=hub at scale=full; leave model empty, or take those.")
    return base


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
    policy.reset_critic()
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


def open_trained(path: str | Path, update: int | None = None) -> Trained:
    """The policy of a run folder: the weights of its best checkpoint, or those of one update."""
    run = Run.open(path)
    recipe = PPORecipe.load(run.path / "config.yaml")
    checkpoint = best_checkpoint(run) if update is None else _of_update(run, update)
    policy = build(recipe)
    policy.load_state_dict(checkpoint.load()["policy"])
    return Trained(run, recipe, policy.eval(), prepare(recipe, policy), checkpoint.step)


def _of_update(run: Run, update: int) -> Checkpoint:
    from utils.core.checkpoints import Checkpoints

    kept = {one.step: one for one in Checkpoints(run.path / "checkpoints").all()}
    if update not in kept:
        raise ConfigError(f"{run.path} has no checkpoint of update {update}; it has: {', '.join(map(str, kept))}.")
    return kept[update]
