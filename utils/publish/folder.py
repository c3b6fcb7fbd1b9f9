"""The export folder: written beside and renamed whole, every file of it listed with its size and sha256.

`write_folder` writes what belongs to every export and lets `fill` add the formats; `verify` proves that a folder is
what its metadata.json says (`publish.manifest`). Leaves out the formats (`publish.formats`) and the
model card (`publish.card`).
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from utils.core.redact import redact_files, redacted
from utils.data.special import special_of
from utils.models.exportable import Exportable
from utils.publish import bundle
from utils.publish.account import tell_tokens
from utils.publish.describe import describe, example_text, requirements
from utils.publish.example import example_for
from utils.publish.loading import tokenizer_in
from utils.publish.manifest import HUB, METADATA, ExportError, read_metadata, seal, verify, write_json
from utils.publish.places import unplaced
from utils.publish.readme import readme
from utils.publish.weights import write_start

__all__ = ["HUB", "METADATA", "ExportError", "read_metadata", "seal", "verify", "write_folder"]

REPORT = "report.md"
OF_RUN = ("config.yaml", "env_stamp.json", "metrics.jsonl", REPORT)
Fill = Callable[[Path], Mapping[str, Any]]


def write_folder(exportable: Exportable, fill: Fill, *, to: Path | None = None) -> Path:
    """Write an export whole, in place of an older one, and give its folder: `run.path / "export"`, or `to`.

    `fill(folder)` is called when the folder has everything but formats, a first metadata.json included; it writes them
    and returns metadata's `formats`. If it raises, nothing is left and an older export stays as it was.
    """
    tell_tokens()
    final = exportable.run.path / "export" if to is None else Path(to)
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        about = describe(exportable)
        _write_static(exportable, folder)
        write_json(folder / METADATA, {**about, "formats": {}, "files": {}})
        about["formats"] = redacted(dict(fill(folder)))
        text = redacted(example_text(exportable))
        (folder / "load_example.py").write_text(example_for(exportable, folder, text), encoding="utf-8")
        (folder / "README.md").write_text(readme(folder, about), encoding="utf-8")
        seal(folder, about)
        _replace(final, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return final


def _write_static(exportable: Exportable, folder: Path) -> None:
    """Everything but formats, metadata.json, README.md and load_example.py."""
    if exportable.loader == "ours":
        bundle.write_code(exportable, folder)
        name = exportable.builds.rpartition(":")[2]
        config = {**exportable.config, "architectures": [name], "builds": exportable.builds, "kind": exportable.kind}
        write_json(folder / "config.json", config)
    if exportable.tokenizer is not None:
        _write_tokenizer(exportable, folder)
    here = bundle.UTILS / "publish"
    shutil.copyfile(here / "handler.py", folder / "handler.py")
    shutil.copytree(here / "handling", folder / "handling", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements.txt").write_text(requirements(exportable), encoding="utf-8")
    kept = folder / "run"
    (kept / "figures").mkdir(parents=True)
    for name in OF_RUN:
        if (exportable.run.path / name).is_file():
            shutil.copyfile(exportable.run.path / name, kept / name)
    if (kept / REPORT).is_file():
        text = unplaced((kept / REPORT).read_text(encoding="utf-8"), exportable.run)
        (kept / REPORT).write_text(text, encoding="utf-8")
    for figure in sorted((exportable.run.path / "figures").glob("*.png")):
        shutil.copyfile(figure, kept / "figures" / figure.name)
    redact_files(path for path in kept.iterdir() if path.is_file())
    write_start(exportable, folder)


def _write_tokenizer(exportable: Exportable, folder: Path) -> None:
    """The tokenizer's files; of a model of transformers' beside its config, as `AutoTokenizer` reads them.

    One of characters stays as it is in `tokenizer/`: no class of transformers' reads it.
    """
    tokenizer = tokenizer_in(exportable.tokenizer)
    inner = getattr(tokenizer, "inner", None)
    if exportable.loader != "transformers" or inner is None:
        shutil.copytree(exportable.tokenizer, folder / "tokenizer")
    elif hasattr(inner, "save_pretrained"):
        inner.save_pretrained(folder)
    else:
        from transformers import PreTrainedTokenizerFast

        special = special_of(tokenizer)
        named = {"pad_token": special.pad, "eos_token": special.end, "mask_token": special.mask}
        named |= {"unk_token": special.unknown}
        tokens = {name: inner.id_to_token(index) for name, index in named.items() if index is not None}
        names = ["input_ids", "attention_mask"]
        PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=names, **tokens).save_pretrained(folder)


def _replace(final: Path, folder: Path) -> None:
    """Give `folder` the name `final`; what had it before comes back where that fails."""
    older = final.with_name(f".{final.name}-older-{secrets.token_hex(4)}")
    had = final.exists()
    if had:
        final.rename(older)
    try:
        folder.rename(final)
    except OSError:
        if had:
            older.rename(final)
        raise
    shutil.rmtree(older, ignore_errors=True)
