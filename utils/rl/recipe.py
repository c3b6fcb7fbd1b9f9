"""`PPORecipe`: a YAML file that names tasks, policy, warm start and PPO; read from `configs/`, or from a form.

Leaves out what is made of one (`rl.recipes`).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from utils.core.config import Config, ConfigError, digest
from utils.core.notebook import Settings
from utils.core.run import Run
from utils.rl.config import PPOConfig
from utils.rl.dialogue import Format
from utils.rl.evaluate import EvaluationConfig
from utils.rl.models import PolicyConfig
from utils.rl.problems import PoolConfig
from utils.rl.reward import RewardConfig
from utils.rl.sandbox import SandboxConfig
from utils.training.config import TrainConfig
from utils.training.families import FamilyRecipe
from utils.training.runs import CONFIGS, find_recipe

log = logging.getLogger(__name__)
SCALES = {"smoke": "ppo_arc_smoke", "standard": "ppo_arc", "full": "ppo_arc_full"}


class PPORecipe(FamilyRecipe):
    """Everything that decides a run. What decides its weights is its `identity`."""

    family: ClassVar[str] = "PPO"

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


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> PPORecipe:
    """A recipe from a YAML file, or from `configs/` by its bare name, with `key=value` overrides.

    Raises `ConfigError` where there is none, or an override takes its place.
    """
    overrides = list(overrides)
    if not (CONFIGS / f"{path}.yaml").is_file() and not Path(path).is_file():
        if "=" in str(path):
            line = shlex.join(["python", "-m", "utils", "ppo", "train", SCALES["standard"], str(path), *overrides])
            raise ConfigError(f"{str(path)!r} is a setting, where a recipe is expected; put the recipe first: {line}")
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("ppo_*.yaml")))
        raise ConfigError(f"No recipe {str(path)!r}: expected a YAML file, or one of {names}.")
    for key in (one.partition("=")[0] for one in overrides):
        if key.endswith(".learning_rate"):
            raise ConfigError(f"unknown setting {key!r}; did you mean {key.removesuffix('learning_rate') + 'lr'!r}?")
    return PPORecipe.load(find_recipe(path), overrides)


def check_trained(path: Path) -> None:
    """Raises `ConfigError` where a run folder is that of a warm start: its recipe names the runs that go on from it."""
    config = Run.open(path).config
    if "recipe" in config:
        raise ConfigError(
            f"{path} is a warm start; give the run of PPO that goes on from it: {config['recipe']['name']}-... beside"
            " it."
        )


def keep_updates(run: Run, updates: int) -> dict[str, str]:
    """Let the recipe in a run's folder say for how many updates it is trained now; what its stamp is to say of that.

    Only a run that goes on beyond its end changes, and a run of something else than a `PPORecipe` has no such recipe.
    """
    path = run.path / "config.yaml"
    if run.config.get("ppo", {}).get("updates", updates) == updates:
        return {}
    recipe = PPORecipe.load(path, [f"ppo.updates={updates}"])
    os.replace(recipe.save(path.with_suffix(".tmp")), path)
    return {"config_hash": recipe.fingerprint()}


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
