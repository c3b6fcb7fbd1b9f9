"""What metadata.json says of a model beside its files: what it is, its limits, and where it was made.

Leaves out the files (`publish.manifest`) and the formats, each of which says its own.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata as installed
from typing import Any

from utils.core.redact import redacted
from utils.core.repro import git_facts
from utils.data.special import special_of
from utils.data.tokenizers import TokenizerError
from utils.models.exportable import Exportable
from utils.models.facts import CONTEXT, Facts, without_offset
from utils.publish import bundle
from utils.publish.loading import tokenizer_in
from utils.publish.manifest import FORMAT_VERSION
from utils.publish.places import unplaced

PACKAGES = {"yaml": "pyyaml"}  # imported as -> installed as
STATED = ("numpy", "safetensors", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


def describe(exportable: Exportable) -> dict[str, Any]:
    """metadata.json but for the formats and the files; known secrets masked."""
    run, git = exportable.run, git_facts()
    return redacted(
        {
            "format_version": FORMAT_VERSION,
            "name": exportable.name,
            "family": exportable.family,
            "kind": exportable.kind,
            "loader": exportable.loader,
            "builds": exportable.builds,
            "config": exportable.config,
            "origin": exportable.origin,
            "classes": list(exportable.classes),
            "step": exportable.step,
            "note": unplaced(exportable.note, run),
            "metrics": exportable.metrics,
            "limits": _limits(exportable),
            "special": _special(exportable),
            "license": exportable.license,
            "environment": _environment(),
            "git": None if git is None else {name: git[name] for name in ("commit", "dirty")},
            "run": {"id": run.id, "fingerprint": run.stamp["config_hash"]}
            | ({"data": one} if (one := exportable.data) else {}),
        }
    )


def example_text(exportable: Exportable) -> str:
    """A text that the model's tokenizer takes: the recipe's prompt, the tokenizer's own, or its first ids."""
    if exportable.tokenizer is None:
        return ""
    path = exportable.tokenizer / "tokenizer.json"
    own = json.loads(path.read_text(encoding="utf-8")).get("prompt") if path.is_file() else None
    tokenizer = tokenizer_in(exportable.tokenizer)
    for text in (exportable.run.config.get("prompt"), own, "The first of them is"):
        if text and _encodes(tokenizer, text):
            return text
    return tokenizer.decode(range(min(8, tokenizer.vocab_size)))


def _encodes(tokenizer: Any, text: str) -> bool:
    try:
        return len(tokenizer.encode(text)) > 0
    except TokenizerError:  # characters that it does not know
        return False


def requirements(exportable: Exportable) -> str:
    """What handler.py imports, of the versions that everything was tried with, or later ones."""
    names = {"torch", "numpy", "safetensors"}
    if exportable.loader == "ours":
        names |= bundle.third_party(bundle.closure(bundle.roots(exportable)))
    if exportable.loader == "weights":
        names.add("onnxruntime")
    tokenizer = exportable.tokenizer
    if exportable.loader == "transformers" or (tokenizer and (tokenizer / "tokenizer_config.json").is_file()):
        names.add("transformers")
    elif tokenizer is not None and hasattr(tokenizer_in(tokenizer), "inner"):
        names.add("tokenizers")
    packages = sorted(PACKAGES.get(name, name) for name in names)
    return "".join(f"{name}>={_version(name).partition('+')[0]}\n" for name in packages)


def _limits(exportable: Exportable) -> dict[str, int | None]:
    """Ids that the tokenizer gives, and tokens that the model sees at once; None where there are none."""
    if exportable.tokenizer is None:
        return {"vocab_size": None, "context_length": None}
    if exportable.loader == "ours":
        longest = exportable.config["context_length"]
    else:
        facts = Facts({}, exportable.model)
        longest = without_offset(exportable.model, facts.integer(CONTEXT), facts.read)
    return {"vocab_size": tokenizer_in(exportable.tokenizer).vocab_size, "context_length": longest}


def _special(exportable: Exportable) -> dict[str, Any]:
    """Ids that stand for no text: what fills and ends rows, hides a token, and starts a decoder."""
    if exportable.tokenizer is None:
        return {}
    tokenizer = tokenizer_in(exportable.tokenizer)
    if hasattr(tokenizer, "banned"):  # a policy's, which says itself
        return {"padding": tokenizer.pad_id, "end": tokenizer.eos_id, "start": tokenizer.start_id}
    special = special_of(tokenizer)
    start = (exportable.run.config.get("rows") or {}).get("decoder_start_id")
    found = {"padding": special.padding, "end": special.end, "mask": special.mask, "start": tokenizer.start_id}
    if exportable.kind == "seq2seq":
        found["decoder_start"] = special.padding if start is None else start
    return {**found, "before": list(special.before), "after": list(special.after)}


def _environment() -> dict[str, str]:
    versions = {name: _version(name) for name in ("torch", *STATED)}
    return {"python": platform.python_version(), **{name: value for name, value in versions.items() if value}}


def _version(name: str) -> str:
    try:
        return installed.version(name)
    except installed.PackageNotFoundError:
        return ""
