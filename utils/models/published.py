"""Models of this project as they are published: an export folder, a run that was pulled, or one that was exported.

Their classes are named by text, and only classes of our models can be (`models.named`). Leaves out exports of models
from elsewhere, which `models.huggingface` reads or nothing does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from utils.core.checkpoints import Checkpoints
from utils.core.config import ConfigError
from utils.core.run import STAMP
from utils.models.build import seeded
from utils.models.exported import read_json
from utils.models.facts import KINDS
from utils.models.found import Loaded, Source, SourceError, kind_of, read_text
from utils.models.named import named

ABOUT = ("architectures", "builds", "kind")  # in the config.json of ours, beside what the class is built with
WEIGHTS = "model.safetensors"


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model of ours."""
    return str(config.get("builds", "")).startswith("utils.")


def find_published(folder: Path) -> Source | None:
    """The model of an export folder or of a run; None for another folder.

    Raises `SourceError` for a run that was never exported, and for one whose model is not ours: with what to name.
    """
    if not (folder / STAMP).is_file():
        config = _config(folder / "config.json")
        return _source(folder, folder, config, {"weights": WEIGHTS}) if is_ours(config) else None
    config = _config(folder / "source" / "config.json")
    if is_ours(config):
        return _source(folder, folder / "source", config, {"weights": "checkpoints"})
    try:
        pulled = json.loads(read_text(folder / STAMP)).get("pulled") or {}
    except (ValueError, AttributeError):
        raise SourceError(f"{folder / STAMP} is no stamp of a run.") from None
    if pulled.get("repo_id"):
        raise SourceError(
            f"{folder} was pulled, and its model is not ours; name where it is from: hf:{pulled['repo_id']}."
        )
    export = folder / "export"
    config = _config(export / "config.json")
    if is_ours(config):
        return _source(export, export, config, {"weights": WEIGHTS})
    if config:
        raise SourceError(f"{folder} is a run whose model is not ours; name its export: hf:{export}.")
    raise SourceError(f"{folder} is a run; export it first: python -m utils export {folder}.")


def _config(path: Path) -> dict[str, Any]:
    return read_json(read_text(path), str(path)) if path.is_file() else {}


def _source(folder: Path, place: Path, config: dict[str, Any], facts: dict[str, str]) -> Source:
    files = {"config.json": read_text(place / "config.json")}
    facts = {"owner": "this project", "path": str(folder), "config": str(place), **facts}
    return Source(f"file:{folder}", "published", facts, files, config)


def load_published(found: Source, *, overrides: Mapping[str, Any], kind: str = "", seed: int = 0) -> Loaded:
    """The model with its weights. Raises `SourceError` where overrides give it another shape, and for the VAE."""
    found.check_unchanged(Path(found.facts["config"]))
    if found.config.get("kind") not in KINDS:
        raise SourceError(
            f"{found.name} is a {found.config.get('kind')}; expected a {', '.join(KINDS)}. A VAE's own command judges"
            " it: python -m utils vae evaluate."
        )
    try:
        made = named(found.config["builds"], ("forward",))
        values = {name: value for name, value in found.config.items() if name not in ABOUT}
        config = get_type_hints(made.__init__)["config"].load(None, (), **{**values, **overrides})
    except (ImportError, ValueError, ConfigError) as error:
        raise SourceError(f"{found.name}: {error}") from None

    def build() -> nn.Module:
        return made(config)

    with seeded(seed):
        model = build()
    told = _fill(model, Path(found.facts["path"]), found.facts["weights"], found.name)
    chosen = f"{made.__name__}, as config.json names it, with the weights of {told}."
    return Loaded(model, found, config.model_dump(), kind_of(model, kind or found.config["kind"]), True, build, chosen)


def _fill(model: nn.Module, folder: Path, weights: str, name: str) -> str:
    """Read the weights into the model, in place; where they came from."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        if weights == WEIGHTS:
            load_model(model, str(folder / WEIGHTS))
            return WEIGHTS
        checkpoints = Checkpoints(folder / "checkpoints")
        saved = checkpoints.best() or checkpoints.last()
        if saved is None:
            raise SourceError(f"{name} has no sound checkpoint; remove {folder}, and pull it again.")
        model.load_state_dict(saved.load()["model"])
    except (RuntimeError, OSError, KeyError, SafetensorError) as error:
        first = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{name}: its weights do not fit, or cannot be read: {first}. Leave out overrides that change its shape."
        ) from None
    return f"step {saved.step}"
