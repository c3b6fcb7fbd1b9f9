"""`find` a model by one line of text, and `load` it: an example, a Gist, a Python file, or a Hugging Face model.

    found = find("gist:0123456789abcdef0123")   # nothing of it has run
    loaded = load(found, trust_code=True)       # its code runs here

Never another model in place of the one asked for: what cannot be found or built is a `SourceError`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from utils.core.config import ConfigError
from utils.models import gist, huggingface, local
from utils.models.build import load_code, seeded
from utils.models.found import KINDS, Loaded, Source, SourceError, check_kind, kind_of
from utils.models.imported import Package
from utils.models.published import is_ours, load_published

__all__ = ["EXAMPLES", "KINDS", "Loaded", "Source", "SourceError", "find", "load"]

_TEXT = {"vocab_size": 4096, "context_length": 256}
_SHAPE = {"num_layers": 6, "num_heads": 6, "width": 384}
EXAMPLES: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # name -> module, class, its config's class, its config
    "gpt": ("transformer", "GPT", "TransformerConfig", {**_TEXT, **_SHAPE}),
    "bert": ("bert", "BERT", "TransformerConfig", {**_TEXT, **_SHAPE}),
    "t5": ("t5", "T5", "T5Config", {**_TEXT, **_SHAPE, "num_layers": 3}),
    "classifier": ("bert", "TextClassifier", "ClassifierConfig", {**_TEXT, **_SHAPE}),
    "vit": ("vit", "ViT", "ViTConfig", {**_SHAPE, "image_size": 64, "patch_size": 8, "num_classes": 10}),
}  # about 10 million parameters each
ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # of a Hugging Face model
HUB = re.compile(
    r"(?:https?://)?(?:huggingface\.co|hf\.co)/(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:/tree/(?P<revision>[^/?#]+))?/?"
)
FORMS = (
    "example:gpt, gist:ID, a path to a .py file, an export, a pulled run or another folder, or a Hugging Face id such"
    " as gpt2 or owner/name"
)


def find(source: str, *, revision: str = "") -> Source:
    """What `source` names, in one of the `FORMS`. `revision` pins a Gist or a Hugging Face model.

    Reads code and config, and executes nothing. A file or folder of that name comes before a Hugging Face id.
    """
    text, revision = source.strip(), revision.strip()
    parsed = gist.parse(text)
    if parsed is not None:
        return gist.fetch(parsed[0], _one_revision(parsed[1], revision))
    prefix, _, rest = text.partition(":")
    rest = rest if prefix in ("example", "file", "hf") else text
    address = HUB.fullmatch(rest)
    if prefix != "example" and address:
        return huggingface.find_id(address["id"], _one_revision(address["revision"] or "", revision))
    local_first = prefix != "hf" and (
        _is_path(rest) or prefix == "file" or (ID.fullmatch(rest) and Path(rest).exists())
    )
    if prefix != "example" and ID.fullmatch(rest) and not local_first:
        return huggingface.find_id(rest, revision)
    if revision:
        raise SourceError(f"revision is {revision!r}, and {text} has no revisions; leave it empty.")
    if prefix == "example":
        return _find_example(rest)
    if prefix == "hf" and _is_path(rest):
        return huggingface.find_folder(Path(rest).expanduser().absolute())
    if local_first:
        return local.find_path(Path(rest))
    raise SourceError(f"{source!r} is no source of a model; expected {FORMS}.")


def _is_path(text: str) -> bool:
    """Whether a text can only be meant as a path."""
    return text.startswith(("/", ".", "~")) or "\\" in text or text.endswith((".py", "/")) or text.count("/") > 1


def _one_revision(in_address: str, given: str) -> str:
    if in_address and given and in_address != given:
        raise SourceError(f"The address says revision {in_address}, and revision says {given}; drop one of them.")
    return given or in_address


def _find_example(name: str) -> Source:
    if name not in EXAMPLES:
        raise SourceError(f"There is no example {name!r}; there are {', '.join(f'example:{one}' for one in EXAMPLES)}.")
    module, _, _, config = EXAMPLES[name]
    folder = Path(__file__).parent
    trunk = ("transformer.py",) if module == "bert" else ()
    used = (f"{module}.py", *trunk, "blocks.py", "positions.py", "model.py")
    files = {file: (folder / file).read_bytes().decode() for file in used}
    return Source(f"example:{name}", "example", {"owner": "this project"}, files, dict(config))


def load(
    found: Source,
    *,
    trust_code: bool = False,
    overrides: Mapping[str, Any] | None = None,
    kind: str = "",
    seed: int = 0,
) -> Loaded:
    """Build the model that was found, with `overrides` laid over its config. The caller's generators stay as they are.

    Code from elsewhere runs only with `trust_code`. `kind` says what the model does where it does not say so itself,
    and which head a Hugging Face model gets. `seed` decides what is newly initialised.
    """
    check_kind(kind)
    overrides = dict(overrides or {})
    if found.where == "example":
        return _load_example(found, overrides, kind, seed)
    if found.where == "published":
        return load_published(found, overrides=overrides, kind=kind, seed=seed)
    if found.where == "hf" and is_ours(found.config):
        name = found.name.removeprefix("hf:")
        told = (
            f"name it without hf: {name}"
            if _is_path(name)
            else f"pull it first: python -m utils pull {name}, and name the folder that it prints"
        )
        raise SourceError(f"{name} is a model of this project, which transformers does not know; {told}.")
    if found.where == "hf":
        return huggingface.load(found, trust_code=trust_code, overrides=overrides, kind=kind, seed=seed)
    if found.where == "gist":
        found.require_trust(trust_code)
        return load_code(found, Package.written(found.files), overrides=overrides, kind=kind, seed=seed)
    folder = Path(found.facts["path"]).parent
    found.check_unchanged(folder)
    return load_code(found, Package(folder), overrides=overrides, kind=kind, seed=seed)


def _load_example(found: Source, overrides: dict[str, Any], kind: str, seed: int) -> Loaded:
    module, name, config_name, _ = EXAMPLES[found.name.removeprefix("example:")]
    code = importlib.import_module(f"utils.models.{module}")
    try:
        config = getattr(code, config_name).load(None, (), **{**found.config, **overrides})
    except ConfigError as error:
        raise SourceError(f"{found.name}: {error}") from None

    def build() -> nn.Module:
        return getattr(code, name)(config)

    with seeded(seed):
        model = build()
    chosen = f"{name}, the class of {found.name}, called with its {config_name}."
    return Loaded(model, found, config.model_dump(), kind_of(model, kind), False, build, chosen)
