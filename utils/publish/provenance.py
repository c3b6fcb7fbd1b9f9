"""What a recipe tells of its data and of its tokenizer, for the model card. Leaves out numbers (`publish.measured`).

Of a local file or folder it gives the last name alone, not where it lay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DRAWN = "ARC tasks drawn from programs"  # a PPO run's, which are in no file
LEARNED = ("char", "bpe", "wordpiece", "t5")  # kinds of `data.tokenizers.TokenizerConfig` that a run makes itself


def dataset(recipe: Mapping[str, Any]) -> str:
    """The name of the data; "" where the recipe names none."""
    if "pool" in recipe:
        return DRAWN
    source = _source(recipe)
    return _public(str(source.get("source") or source.get("corpus") or ""))


def data(recipe: Mapping[str, Any]) -> str:
    """The data and their splits in a sentence."""
    pool = recipe.get("pool")
    if isinstance(pool, Mapping):
        counts = ", ".join(f"{pool[split]:,} for {split}" for split in ("train", "validation", "test") if split in pool)
        return f"{DRAWN} of the project's own, with the seed {pool.get('seed', 0)}: {counts}."
    name, shares = dataset(recipe), _source(recipe).get("splits")
    told = f"`{name}`" if name else "Not stated."
    return told + (f", split into {_shown(shares)} for train, validation and test." if name and shares else "")


def tokenizer(recipe: Mapping[str, Any]) -> str:
    """Where the tokenizer is from, as the end of a sentence about it; "" where the recipe does not say."""
    policy = recipe.get("policy")
    if isinstance(policy, Mapping):
        if policy.get("kind") == "tiny":
            return " and knows grids and programs alone"
        model = policy.get("model") if policy.get("kind") == "hub" else policy.get("kind")
        return f" and is that of `{_public(str(model), hub=True)}`" if model else ""
    settings = _source(recipe).get("tokenizer")
    settings = settings if isinstance(settings, Mapping) else {}
    if settings.get("name"):
        return f" and is that of `{_public(str(settings['name']), hub=True)}`"
    return " and was made for the training data alone" if settings.get("kind") in LEARNED else ""


def _source(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a recipe that names its data."""
    found = recipe.get("rows") or recipe.get("data") or recipe.get("corpus") or {}
    return found if isinstance(found, Mapping) else {"source": found}


def _public(name: str, *, hub: bool = False) -> str:
    """A name as others can use it: of a path its end. `hub`: owner/name is an id of the Hub without `hf:` too."""
    bare = name.removeprefix("hf:")
    an_id = (name.startswith("hf:") or (hub and re.fullmatch(r"[\w.-]+/[\w.-]+", bare))) and bare[:1] not in (
        "/",
        ".",
        "~",
    )
    return name if an_id else Path(bare).name


def _shown(values: Any) -> str:
    values = list(values.values()) if isinstance(values, Mapping) else list(values)
    return ", ".join(f"{value:g}" for value in values)
