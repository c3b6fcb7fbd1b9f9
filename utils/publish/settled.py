"""The settings of a pulled run: what of its config.yaml must not, or cannot, hold here is changed, and said.

Leaves out what the model is (`publish.restored`).
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from utils.publish.errors import HubError
from utils.publish.restored import PPO

log = logging.getLogger(__name__)
CODE_HERE = re.compile(r"(file:|[/.~]).*|.*\.py")
TRUST = "trust_code"


def settle(
    writing: Path, folder: Path, metadata: Mapping[str, Any], here: list[str], final: Path, *, trust: bool
) -> dict[str, Any]:
    """Change config.yaml in `writing`, which will be `final`; dotted key -> what it was.

    Code from elsewhere is not trusted. A model of transformers' is built from what came with it, so that its base need
    not be fetched: its config, or, of a policy, config, weights and tokenizer.
    """
    path = writing / "config.yaml"
    content, was = yaml.safe_load(path.read_text(encoding="utf-8")), {}
    if not isinstance(content, dict):
        raise HubError("run/config.yaml holds no settings; it cannot be pulled.")
    if not trust:
        _distrust(content, "", was)
    source = content.get("source")
    if metadata["family"] == PPO:
        _policy(content, was, writing, folder, metadata, here, final)
    elif metadata["loader"] == "transformers" and isinstance(source, dict) and source.get("name"):
        (writing / "source").mkdir()
        shutil.copyfile(folder / "config.json", writing / "source" / "config.json")
        was |= {"source.name": source["name"], "source.revision": source.get("revision", "")}
        source |= {"name": f"hf:{final / 'source'}", "revision": ""}
    elif not trust and isinstance(source, dict) and CODE_HERE.fullmatch(str(source.get("name", ""))):
        raise HubError(
            f"The recipe names code on this machine, {source['name']}, which would run when the model is opened. Look"
            " at it, and pull with trust=True."
        )
    if was:
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        log.info("Settings of config.yaml that are changed here: %s.", ", ".join(was))
    return was


def _policy(
    content: dict[str, Any],
    was: dict[str, Any],
    writing: Path,
    folder: Path,
    metadata: Mapping[str, Any],
    here: list[str],
    final: Path,
) -> None:
    """A policy's model is the one that was published: adapters are part of its weights, and its base is not asked."""
    policy = content.get("policy") or {}
    kind = policy.get("kind", "tiny")
    if (kind == "tiny") != (metadata["loader"] == "ours"):
        raise HubError(f"policy.kind is {kind!r}, and the model's loader {metadata['loader']!r}; it cannot be pulled.")
    settings = {"lora": None, "quantise": "none"}
    if kind != "tiny":
        (writing / "source").mkdir()
        for name in here:
            if "/" not in name and not name.endswith(".pt"):
                shutil.copyfile(folder / name, writing / "source" / name)
        settings |= {"kind": "hub", "model": str(final / "source"), "revision": ""}
    changed = {name: value for name, value in settings.items() if name in policy and policy[name] != value}
    was |= {f"policy.{name}": policy[name] for name in changed}
    if kind != "tiny":
        was.setdefault("policy.model", policy.get("model", ""))
        changed |= {name: settings[name] for name in ("kind", "model", "revision")}
    if changed:
        content["policy"] = policy | changed


def _distrust(content: Any, prefix: str, was: dict[str, Any]) -> None:
    """Switch every trust_code off, at any depth."""
    if isinstance(content, list):
        for place, one in enumerate(content):
            _distrust(one, f"{prefix}{place}.", was)
    if isinstance(content, dict):
        for key, value in content.items():
            if key == TRUST and value:
                was[f"{prefix}{key}"], content[key] = value, False
            _distrust(value, f"{prefix}{key}.", was)
