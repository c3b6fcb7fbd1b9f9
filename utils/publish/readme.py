"""README.md of an export folder: what each file is, until a model card takes its place (`publish.card`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.publish.manifest import BESIDE, names
from utils.publish.measured import shown


def readme(folder: Path, about: Mapping[str, Any]) -> str:
    """What the folder holds, until a model card takes its place."""
    numbers = "".join(f"| {name} | {shown(value)} |\n" for name, value in about["metrics"].items())
    which = (
        f"of run {about['run']['id']}. {about['note']}" if about["note"] else f"the best of run {about['run']['id']}."
    )
    sizes = {name: (folder / name).stat().st_size for name in names(folder, BESIDE)}
    top: dict[str, int] = {}
    for name, size in sizes.items():
        first, slash, _ = name.partition("/")
        top[first + slash] = top.get(first + slash, 0) + size
    rows = "".join(f"| `{name}` | {size:,} | {_meaning(name)} |\n" for name, size in top.items())
    states = "".join(f"- {name}: {dict(one).get('status', 'written')}\n" for name, one in about["formats"].items())
    return _README.format(
        **about, rows=rows, which=which, numbers=numbers or "| none were logged | |\n", states=states or "- none\n"
    )


def _meaning(name: str) -> str:
    return next((told for end, told in _MEANINGS if name == end or (end[0] in ".*" and name.endswith(end[1:]))), "")


_MEANINGS = (
    ("model_code/", "code that makes the model from its weights"),
    ("run/", "config, environment and curves of the run that it comes from"),
    ("tokenizer/", "between text and ids"),
    ("load_example.py", "loads the model and uses it"),
    ("handler.py", "answers requests, as Hugging Face Inference Endpoints ask it to"),
    ("handling/", "what handler.py answers with"),
    ("requirements.txt", "what handler.py needs"),
    ("config.json", "the model's shape"),
    ("*.int8.onnx", "ONNX, weights of linear layers in 8 bits"),
    ("*.onnx", "ONNX, batch and length free"),
    ("*.pt2", "torch.export"),
    ("*.torchscript.pt", "TorchScript, deprecated upstream"),
    ("*.safetensors", "the weights"),
    ("state_dict.pt", "the weights, for torch.load(..., weights_only=True)"),
)
_README = """\
# {name}

A {kind} of the family {family}: the weights of step {step}, {which}

    pip install -r requirements.txt
    python load_example.py

| | bytes | |
|---|---|---|
{rows}
metadata.json lists every file with its size and sha256.

Formats:

{states}
| at step {step} | in brackets: 95% intervals |
|---|---|
{numbers}"""
