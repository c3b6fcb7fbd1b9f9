"""`Arguments`: what a model's class or function is given, read from its signature and a config.

Each parameter takes the config's value of its name. A parameter for a whole config takes one object: a dataclass or
pydantic model of the file, a dict, or `Settings`. Leaves out names that merely resemble each other.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from torch import nn

from utils.models.exported import LENGTHS, METADATA
from utils.models.found import SourceError
from utils.models.imported import Package

CONFIG_NAMES = ("config", "cfg", "args", "hparams")  # parameters that hold a whole config
CONFIG_ENDINGS = ("config", "cfg", "args", "hparams", "settings")  # of class names, in lower case


@dataclass(frozen=True)
class Arguments:
    """Positional arguments and keywords, and which config keys they took."""

    positional: list[Any]
    keywords: dict[str, Any]
    taken: frozenset[str]

    def spare(self, config: Mapping[str, Any]) -> list[str]:
        """The config keys that nothing took, but for those about the file and the length's second name."""
        same = {key for key in LENGTHS if any(config.get(key) == config.get(one) for one in self.taken & {*LENGTHS})}
        return [key for key in config if key not in self.taken | same and key not in METADATA]

    def defaults(self, call: Callable[..., Any]) -> dict[str, Any]:
        """The plain values (numbers, texts, flags) that parameters keep where nothing was given for them."""
        kept = {p.name: p.default for p in _parameters(call) if p.name not in self.taken}
        return {name: value for name, value in kept.items() if isinstance(value, (int, float, str))}

    def fields(self) -> list[str]:
        """Names of the values of the config objects among the arguments."""
        records = [value for value in (*self.positional, *self.keywords.values()) if hasattr(value, "__dict__")]
        return [name for record in records for name in vars(record)]

    def __str__(self) -> str:
        names = [*map(_told, self.positional), *(f"{key}={_told(value)}" for key, value in self.keywords.items())]
        return ", ".join(names) or "no arguments"


class Settings(types.SimpleNamespace):
    """A config for code that reads `config.width`, `config["width"]` or `config.get("width")`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the config has no {name!r}; it has {', '.join(vars(self)) or 'nothing'}")

    def __getitem__(self, name: str) -> Any:
        if name not in vars(self):
            raise KeyError(f"the config has no {name!r}; it has {', '.join(vars(self)) or 'nothing'}")
        return vars(self)[name]

    def __contains__(self, name: str) -> bool:
        return name in vars(self)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def keys(self) -> Any:
        return vars(self).keys()

    def get(self, name: str, default: Any = None) -> Any:
        return vars(self).get(name, default)


class Binder:
    """Fits configs to the signatures of one package's code."""

    def __init__(self, package: Package, module: types.ModuleType):
        self.package, self.module = package, module

    def bind(
        self, call: Callable[..., Any], name: str, config: Mapping[str, Any], within: tuple[Any, ...] = ()
    ) -> Arguments:
        """The arguments for `call`. Raises where the config lacks one that has no default."""
        hints, taken = _hints(call), set()
        positional, keywords, missing, rest = [], {}, [], False
        for parameter in _parameters(call):
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True
                continue
            optional = parameter.default is not parameter.empty
            holder = self._holder(call, parameter.name, hints.get(parameter.name))
            given = config.get(parameter.name)
            if holder is not None and holder not in within and (parameter.name not in config or _is_mapping(given)):
                values = given if _is_mapping(given) else config
                value, used = self._hold(holder, values, (*within, holder), lenient=optional)
                if optional and not used - {*METADATA}:
                    continue
                taken |= {parameter.name} if _is_mapping(given) else used
            elif parameter.name in config:
                value = given
                taken.add(parameter.name)
            else:
                missing += [] if optional else [parameter.name]
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                keywords[parameter.name] = value
        if missing:
            raise SourceError(
                f"{name}() needs {', '.join(missing)}, which the config lacks; it has "
                f"{', '.join(config) or 'no values'}. "
                "Add them to config.json or to the overrides."
            )
        if rest:
            more = {key: value for key, value in config.items() if key not in taken and key not in METADATA}
            keywords |= more
            taken |= set(more)
        return Arguments(positional, keywords, frozenset(taken))

    def _hold(
        self, holder: type, values: Mapping[str, Any], within: tuple[Any, ...], *, lenient: bool
    ) -> tuple[Any, set[str]]:
        """One config object of the class `holder`, and the keys it took."""
        if holder in (dict, Settings):
            return holder(**values), set(values)
        try:
            arguments = self.bind(holder, holder.__name__, values, within)
        except SourceError:
            if lenient:  # the parameter has a default, which this config is not enough to replace
                return None, set()
            raise
        made = holder(*arguments.positional, **arguments.keywords)
        taken = set(arguments.taken)
        if self.package.owns(holder) and not (dataclasses.is_dataclass(holder) or issubclass(holder, BaseModel)):
            for key in values:  # a plain class: its class attributes are the settings
                if key not in taken and hasattr(made, key):
                    setattr(made, key, values[key])
                    taken.add(key)
        return made, taken

    def _holder(self, call: Callable[..., Any], name: str, hint: Any) -> type | None:
        """The class of the one config object that a parameter asks for; None where it asks for a single value."""
        options = [one for one in (typing.get_args(hint) or (hint,)) if one is not type(None)]
        origin = typing.get_origin(hint)
        hinted = options[0] if len(options) == 1 and origin in (None, typing.Union, types.UnionType) else None
        if inspect.isclass(hinted) and self.package.owns(hinted) and _is_record(hinted):
            return hinted
        if name not in CONFIG_NAMES:
            return None
        if origin in (dict, Mapping) or hinted in (dict, Mapping) or typing.is_typeddict(hinted):
            return dict
        hinted = hinted or getattr(call, "config_class", None)
        if inspect.isclass(hinted) and hinted.__module__ != "builtins" and not issubclass(hinted, nn.Module):
            return Settings if issubclass(hinted, types.SimpleNamespace) else hinted
        records = [
            value
            for value in vars(self.module).values()
            if inspect.isclass(value) and self.package.owns(value) and _is_record(value)
        ]
        records = [record for record in records if record.__name__.lower().endswith(CONFIG_ENDINGS)]
        return records[0] if len(records) == 1 else Settings


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    if inspect.isclass(call) and call.__init__ is nn.Module.__init__:
        return []  # its signature takes anything, and the constructor nothing
    return list(inspect.signature(call).parameters.values())


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters; none where an annotation names what only a type checker imports."""
    plain = inspect.isclass(call) and not (dataclasses.is_dataclass(call) or issubclass(call, BaseModel))
    try:
        return typing.get_type_hints(call.__init__ if plain else call)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_record(value: type) -> bool:
    """A dataclass or a pydantic model that is no network."""
    return (dataclasses.is_dataclass(value) or issubclass(value, BaseModel)) and not issubclass(value, nn.Module)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _told(value: Any) -> str:
    """A value in a sentence: short ones as they are, objects by their class."""
    plain = isinstance(value, (str, int, float, bool, type(None)))
    return (
        repr(value)[:40] if plain else f"{'an' if type(value).__name__[0] in 'AEIOU' else 'a'} {type(value).__name__}"
    )
