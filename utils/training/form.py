"""From a notebook's form to a recipe: what each field changes, and what one that would change nothing is told."""

from __future__ import annotations

import json
import logging
import os
import shlex

from utils.core.config import ConfigError, parse_overrides
from utils.core.notebook import Settings
from utils.data.text import holds_rows
from utils.training.families import mapping
from utils.training.recipe import Recipe, load_recipe

log = logging.getLogger(__name__)
SCALES = {"smoke": "minimal_test", "standard": "char_lm_cpu", "full": "char_lm"}
RECIPES = ("gpt_wikitext", "bert_mlm", "t5_seq2seq", "classifier")  # each with a smoke recipe of its own
TRAINING = {
    "max_steps": "max_steps",
    "learning_rate": "lr",
    "precision": "precision",
    "batch_size": "batch_size",
    "micro_batch_size": "micro_batch_size",
    "schedule": "schedule",
    "warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "patience": "patience",
    "label_smoothing": "label_smoothing",
    "ema_decay": "ema_decay",
    "compile_model": "compile",
    "gradient_checkpointing": "gradient_checkpointing",
    "max_hours": "max_hours",
}  # fields of the form, and the settings of `train` that they are
SIZES = {
    "tiny": {"num_layers": 4, "num_heads": 4, "width": 128},
    "small": {"num_layers": 6, "num_heads": 6, "width": 384},
    "base": {"num_layers": 12, "num_heads": 12, "width": 768},
}


def recipe_from_form(form: Settings) -> Recipe:
    """The recipe of the form, changed by the fields that are filled in, then by its overrides."""
    base, overrides = _base(form), shlex.split(form.overrides, posix=os.name == "posix")
    own = load_recipe(base)
    changes = {f"train.{setting}": getattr(form, field) for field, setting in TRAINING.items()}
    if form.source:
        changes |= {"source.name": form.source, "source.trust_code": form.trust_code}
    data = "data" if own.rows is None else "rows"
    filled = []
    if data == "data" and holds_rows(form.corpus):
        log.info("%s holds rows: they are read by rows.source, their text from the column rows.text.", form.corpus)
        data, filled = "rows", ["data=null"]
        changes |= {f"rows.{name}": getattr(own.data, name) for name in ("block_size", "splits")}
        changes |= {f"rows.tokenizer.{name}": value for name, value in own.data.tokenizer}
    changes["rows.source" if data == "rows" else "data.corpus"] = form.corpus
    if form.tokenizer in ("", "char", "bpe", "wordpiece", "t5"):
        changes |= {f"{data}.tokenizer.kind": form.tokenizer} if form.tokenizer else {}
    else:
        changes |= {f"{data}.tokenizer.kind": "hf", f"{data}.tokenizer.name": form.tokenizer}
    changes |= _size(form, own, overrides)
    if form.trackers:
        changes["train.trackers"] = form.trackers.replace(" ", "").split(",")
    filled += [f"{key}={json.dumps(value)}" for key, value in changes.items() if value]
    filled.append(f"train.seed={form.seed}")
    return load_recipe(base, [*filled, *overrides])


def _base(form: Settings) -> str:
    """The name of the recipe that a form starts from."""
    if form.scale not in SCALES:
        raise ConfigError(f"scale={form.scale!r}: expected one of {', '.join(SCALES)}.")
    if not form.recipe:
        return SCALES[form.scale]
    if form.recipe in RECIPES:
        if form.scale == "full":
            log.warning("%s has no larger size for scale=full: this is the one of scale=standard.", form.recipe)
        return f"{form.recipe}_smoke" if form.scale == "smoke" else form.recipe
    if form.scale != "standard":
        log.warning("scale=%s changes nothing: the recipe %s has one size, its own.", form.scale, form.recipe)
    return form.recipe


def _size(form: Settings, own: Recipe, overrides: list[str]) -> dict[str, int]:
    """The settings of a model size, where the model that learns has its shape."""
    if form.model_size and form.model_size not in SIZES:
        raise ConfigError(f"model_size={form.model_size!r}: expected one of {', '.join(SIZES)}, or nothing.")
    source = mapping(parse_overrides(overrides).get("source")).get("name", form.source or own.source.name)
    shape = "source.config" if source else "model"
    return {f"{shape}.{name}": value for name, value in SIZES.get(form.model_size, {}).items()}
