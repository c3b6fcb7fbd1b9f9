"""Configs: frozen pydantic models read from YAML, changed by dotted overrides, saved with the run, and hashed.

One precedence everywhere: field defaults < YAML file < dotted overrides < keywords. Leaves out environment
variables (`core.notebook` owns those) and interpolation between keys.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from typing_extensions import Self


class ConfigError(ValueError):
    """A setting that cannot be used: the message names its path, what came, and the nearest valid key."""


class Config(BaseModel):
    """Base of every config. The line under a field says what it means, and is that field's description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Iterable[str] = (), **keywords: Any) -> Self:
        """Build from a YAML file, then `a.b=value` overrides, then keywords (which may hold nested mappings)."""
        values = _read_yaml(Path(path)) if path is not None else {}
        _merge(values, parse_overrides(overrides))
        _merge(values, keywords)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(cls, error, path)) from None

    def replace(self, overrides: Iterable[str] = (), **keywords: Any) -> Self:
        """A validated copy with dotted overrides, then keywords, laid over this config."""
        values = _merge(self.model_dump(), parse_overrides(overrides))
        return type(self).load(None, (), **_merge(values, keywords))

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        path.write_text(self.to_yaml(), encoding="utf-8")
        return path

    def fingerprint(self) -> str:
        """12 hex digits of the sha256 of every value; equal configs have equal fingerprints, in any key order."""
        return digest(self.model_dump(mode="json"))

    def identity(self) -> str:
        """Equal for configs whose runs are one experiment; a config with settings that decide nothing narrows it."""
        return self.fingerprint()

    def _repr_html_(self) -> str:
        """The settings that were given, and all of them folded away."""
        given, every = (dict(flatten(self.model_dump(exclude_unset=unset))) for unset in (True, False))
        return f"{_table(given)}<details><summary>all {len(every)} settings</summary>{_table(every)}</details>"


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(key)}</code></td><td>{html.escape(_shown(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table><tr><th>setting</th><th>value</th></tr>{rows}</table>"


def _shown(value: Any) -> str:
    """A value as text; quoted where it would be invisible."""
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


def digest(value: Any) -> str:
    """12 hex digits of the sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` -> `{"a": {"b": 1}, "c": "x"}`; values are YAML."""
    values: dict[str, Any] = {}
    for override in overrides:
        _merge(values, _parse_override(override))
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"train": {"lr": 1}}` -> `("train.lr", 1)`, in order."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two surprises removed: `3e-4` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(f"{node.start_mark.name}: key given twice: {', '.join(twice)}; keep one of them.")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers, such as the revision "1234e5"."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"No config file at {path}; expected a YAML file.")
    with path.open(encoding="utf-8") as file:
        try:
            values = yaml.load(file, _Loader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected settings such as 'train:'.")
    return values


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"Override {override!r} is not of the form key=value, such as train.lr=3e-4.")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"Override {override!r} has a value that is not valid YAML: {error}") from None
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return value


def _merge(base: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `new` over `base`, in place: mappings are merged key by key, anything else is replaced."""
    for key, value in new.items():
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
    return base


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that a config class accepts."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")


def _explain(model: type[BaseModel], error: ValidationError, path: str | Path | None) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = _nearest(key, list(_keys(model)))
            lines.append(f"unknown setting {key!r}" + (f"; did you mean {near!r}?" if near else ""))
        elif fault["type"] == "missing":
            lines.append(f"{key} is missing; give it a value")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            got = "" if isinstance(fault["input"], Mapping) else f" (got {fault['input']!r})"
            lines.append(f"{key}: {message}{got}" if key else message)
    where = f"{path}: " if path is not None else ""
    return where + "; ".join(lines)


def _nearest(key: str, valid: list[str]) -> str | None:
    """The valid key closest to `key` in spelling, or the one of the same last part elsewhere in the tree."""
    leaf = key.rpartition(".")[2]
    elsewhere = [other for other in valid if other.rpartition(".")[2] == leaf]
    near = elsewhere or difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if not near:
        leaves = {other.rpartition(".")[2]: other for other in valid}
        near = [leaves[name] for name in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)]
    return near[0] if near else None
