"""Search spaces: which settings of a config a search varies, and over what.

    train.lr:            {log: [1.0e-5, 1.0e-2]}            a number, even in its logarithm
    train.weight_decay:  {float: [0, 0.3]}                  a number; `step` makes a ladder of it
    model.width:         {int: [64, 512], step: 64}         a whole number
    train.batch_size:    {log_int: [4, 256]}                a whole number, even in its logarithm
    train.schedule:      [cosine, linear]                   one of these; also {choice: [...]}
    train.min_lr_ratio:  {float: [0, 0.5], when: {train.schedule: cosine}}      only where that holds

`when` names settings further up in the space, with the value or the values they must have; where it does not hold, the
setting keeps what the base config says. Leaves out how values are chosen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from utils.core.config import Config, ConfigError, flatten

if TYPE_CHECKING:
    import optuna

RANGES = ("log", "float", "int", "log_int")
KINDS = (*RANGES, "choice")


@dataclass(frozen=True)
class Dimension:
    """One setting: its dotted key, its kind, (low, high) or the choices, and the conditions under which it varies."""

    key: str
    kind: str
    values: tuple[Any, ...]
    step: float | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether its conditions are met by the settings, given flat."""
        return all(settings.get(key) in wanted for key, wanted in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value for this trial."""
        if self.kind == "choice":
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(value) for value in self.values]))
        low, high = self.values
        if self.kind in ("int", "log_int"):
            return trial.suggest_int(self.key, low, high, step=self.step or 1, log=self.kind == "log_int")
        return trial.suggest_float(self.key, low, high, step=self.step, log=self.kind == "log")

    def probes(self) -> tuple[Any, ...]:
        """Values that stand for all of it: every choice, or the ends and one in between."""
        if self.kind == "choice":
            return self.values
        low, high = self.values
        inner = low + 0.381966 * (high - low)
        if self.kind in ("int", "log_int"):
            inner = low + int(inner - low) // int(self.step or 1) * int(self.step or 1)
        elif self.step:
            inner = low + self.step
        return (low, inner, high)


def parse_space(space: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a space as YAML gives it. Raises `ConfigError` with every fault of it."""
    dimensions, faults = [], []
    for key, given in space.items():
        try:
            dimensions.append(_dimension(str(key), given))
        except ConfigError as fault:
            faults.append(str(fault))
    if not space:
        faults.append("the space is empty; name at least one setting, such as train.lr: {log: [1e-4, 1e-2]}")
    if faults:
        raise ConfigError("; ".join(faults))
    return tuple(dimensions)


def check_space(dimensions: Sequence[Dimension], base: Config) -> None:
    """Raise `ConfigError`, with every fault, unless the config has these settings and takes their values.

    A combination that the config refuses is not looked for: its trial fails, and says so.
    """
    own = dict(flatten(base.model_dump(mode="json")))
    faults: list[str] = []
    above: dict[str, Dimension] = {}
    for dimension in dimensions:
        conditions = list(_conditions(dimension, above, own))
        faults += conditions or _refused(dimension, base)
        above[dimension.key] = dimension
    if faults:
        raise ConfigError("; ".join(faults))


def draw(dimensions: Sequence[Dimension], base: Config, trial: optuna.Trial) -> dict[str, Any]:
    """The settings of one trial, by dotted key: those whose conditions hold, each after the ones it depends on."""
    settings = dict(flatten(base.model_dump(mode="json")))
    drawn = {}
    for dimension in dimensions:
        if dimension.holds(settings):
            settings[dimension.key] = drawn[dimension.key] = dimension.suggest(trial)
    return drawn


def _dimension(key: str, given: Any) -> Dimension:
    given = {"choice": given} if isinstance(given, list) else given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}: got {given!r}, expected one of {', '.join(KINDS)}, such as {{log: [1e-5, 1e-2]}}")
    kinds = [name for name in given if name in KINDS]
    unknown = [str(name) for name in given if name not in (*KINDS, "step", "when")]
    if len(kinds) != 1 or unknown:
        came = ", ".join(map(str, given)) or "nothing"
        raise ConfigError(f"{key}: got {came}; expected exactly one of {', '.join(KINDS)}, and perhaps step and when")
    kind, step, when = kinds[0], given.get("step"), given.get("when", {})
    values = _choices(key, given[kind]) if kind == "choice" else _range(key, kind, given[kind])
    if step is not None:
        _check_step(key, kind, step)
    if not isinstance(when, Mapping):
        raise ConfigError(f"{key}: when is {when!r}; expected a setting and its value, such as {{train.ema: true}}")
    wanted = {name: tuple(one) if isinstance(one, list) else (one,) for name, one in when.items()}
    return Dimension(key, kind, values, step, wanted)


def _choices(key: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or len(values) < 2:
        raise ConfigError(f"{key}: choice {values!r}; expected a list of at least two values")
    texts = [json.dumps(value, default=str) for value in values]
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}: choice {values!r} has a value twice; keep one of them")
    return tuple(values)


def _range(key: str, kind: str, values: Any) -> tuple[Any, Any]:
    number = int if kind in ("int", "log_int") else (int, float)
    fits = isinstance(values, list) and len(values) == 2
    if not fits or not all(isinstance(one, number) and not isinstance(one, bool) for one in values):
        what = "whole numbers" if number is int else "numbers"
        raise ConfigError(f"{key}: {kind} {values!r}; expected two {what}, [lowest, highest]")
    low, high = values
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{key}: {kind} [{low}, {high}] is an empty range; expected [lowest, highest], both finite")
    if kind in ("log", "log_int") and low <= 0:
        raise ConfigError(f"{key}: {kind} [{low}, {high}] begins at {low}, which has no logarithm; begin above 0")
    return (low, high) if number is int else (float(low), float(high))


def _check_step(key: str, kind: str, step: Any) -> None:
    if kind not in ("int", "float"):
        raise ConfigError(f"{key}: step goes with int and float, not with {kind}; leave it out")
    number = int if kind == "int" else (int, float)
    if isinstance(step, bool) or not isinstance(step, number) or step <= 0:
        raise ConfigError(f"{key}: step {step!r}; expected a positive {'whole ' if kind == 'int' else ''}number")


def _conditions(dimension: Dimension, above: Mapping[str, Dimension], own: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with its conditions."""
    for key, wanted in dimension.when.items():
        other = above.get(key)
        if other is None:
            yield f"{dimension.key}: when names {key!r}, which is not a setting further up in the space"
        elif other.kind == "choice":
            possible = [*other.values, *([own.get(key)] if other.when else [])]
            for one in wanted:
                if one not in possible:
                    yield f"{dimension.key}: when {key} is {one!r} never holds; it is one of {possible}"


def _refused(dimension: Dimension, base: Config) -> list[str]:
    """What the config says against the dimension's key or values on their own."""
    conditions = {key: wanted[0] for key, wanted in dimension.when.items()}
    for value in dimension.probes():
        settings = base.model_dump(mode="json")
        for key, one in {**conditions, dimension.key: value}.items():
            *parents, leaf = key.split(".")
            place: Any = settings
            for name in parents:
                if not isinstance(place.get(name), dict):
                    place[name] = {}
                place = place[name]
            place[leaf] = one
        try:
            type(base).model_validate(settings)
        except ValidationError as error:
            for fault in error.errors():
                where = ".".join(str(part) for part in fault["loc"])
                unknown = fault["type"] == "extra_forbidden"
                if unknown and (dimension.key + ".").startswith(where + "."):
                    return [_unknown(dimension.key, base)]
                if not unknown and (where + ".").startswith(dimension.key + "."):
                    return [f"{dimension.key}: {value!r} is refused: {fault['msg'].removeprefix('Value error, ')}"]
    return []


def _unknown(key: str, base: Config) -> str:
    try:
        base.replace([f"{key}=0"])
    except ConfigError as error:  # it knows the nearest setting
        return str(error)
    return f"unknown setting {key!r}"
