"""Families of recipes: which command a recipe file belongs to, and how settings are laid over one.

Leaves out what is in a recipe (`training.recipes`, `vae.recipes`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from utils.core.config import Config, ConfigError, parse_overrides
from utils.training.config import TrainConfig

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)
MARKS = {
    "language model": {"data", "sample", "prompt"},
    "VAE": {"corpus", "sampler", "betas", "beta_steps"},
    "PPO": {"pool", "policy", "ppo", "reward", "sandbox"},
}
"""settings that recipes of one family alone have"""
COMMANDS = {"language model": "python -m utils", "VAE": "python -m utils vae", "PPO": "python -m utils ppo"}


class FamilyRecipe(Config):
    """A recipe of one family: a file of another is refused by name, and of steps and epochs the ones given count."""

    family: ClassVar[str]

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Iterable[str] = (), **keywords: Any) -> Self:
        """As `Config.load`, with `as_meant`; an error tells the file's faults from those of the overrides."""
        given = list(overrides)
        if path is None:
            return super().load(None, given, **keywords)
        values = content(Path(path))
        family = family_of(values)
        if family not in (None, cls.family):
            raise ConfigError(
                f"{path} is a {family} recipe, and this takes a {cls.family} one; use: {COMMANDS[family]} ..."
            )
        try:
            return super().load(path, [*given, *as_meant(values, given)], **keywords)
        except ConfigError as error:
            if not given:
                raise
            super().load(path, **keywords)  # raises where the file itself is at fault
            fault = str(error).removeprefix(f"{path}: ")
            raise ConfigError(f"{' '.join(given)} (laid over {path}): {fault}") from None


def family_of(values: Mapping[str, Any]) -> str | None:
    """Whose settings these are; None where they are of no family alone, or of several."""
    found = [family for family, marks in MARKS.items() if marks & set(values)]
    return found[0] if len(found) == 1 else None


def as_meant(values: Mapping[str, Any], overrides: Iterable[str]) -> list[str]:
    """What goes with overrides of the length of training, said in the log: further overrides.

    Steps take the place of a recipe's epochs, and epochs of its steps; a run of few steps keeps a warm-up of a tenth.
    """
    own, given = (mapping(found.get("train")) for found in (values, parse_overrides(overrides)))
    more = []
    for name, other in (("max_steps", "max_epochs"), ("max_epochs", "max_steps")):
        if given.get(name) and own.get(other) and other not in given:
            log.info("train.%s=%s takes the place of the recipe's %s, %s.", name, given[name], other, own[other])
            more.append(f"train.{other}=null")
    steps, warmup = given.get("max_steps"), own.get("warmup_steps", TrainConfig.model_fields["warmup_steps"].default)
    if isinstance(steps, int) and isinstance(warmup, int) and "warmup_steps" not in given:
        tenth = max(1, steps // 10)
        if warmup > tenth:
            log.info("The warm-up is %d steps, a tenth of %d; the recipe has %d.", tenth, steps, warmup)
            more.append(f"train.warmup_steps={tenth}")
    return more


def content(path: Path) -> dict[str, Any]:
    """The settings in a file; none where it cannot be read, which `Config.load` reports."""
    try:
        return mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def mapping(value: Any) -> dict[str, Any]:
    """Settings as a mapping; none where they are something else."""
    value = value.model_dump() if isinstance(value, Config) else value
    return value if isinstance(value, dict) else {}
