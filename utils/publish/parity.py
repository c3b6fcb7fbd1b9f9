"""Proof that an export computes what the trained model computes: run by a stranger, compared with eager PyTorch.

Each format is loaded in a fresh process that can import neither this project nor what trains, and for ONNX not even
torch; it runs on other batches and lengths than were exported. Leaves out writing the formats (`publish.formats`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from utils.core.checksum import sha256_of
from utils.models.exportable import Exportable
from utils.publish.compare import Proof, compare_outputs, compare_tensors, expect
from utils.publish.fresh import TIMEOUT, answers
from utils.publish.graphs import SUFFIXES, file_of

CALLS = 5  # timed calls, of which the median is told
TRAINING = ("utils", "lightning_fabric", "lightning", "pytorch_lightning", "wandb", "optuna", "datasets")
ENGINES = {"onnx": "onnx", "int8": "onnx", "pt2": "pt2", "torchscript": "torchscript"}  # of graphs, by format
WITHOUT = {  # what is not to be there either, by engine
    "onnx": ("torch", "transformers", "safetensors"),
    "pt2": ("transformers", "onnxruntime", "safetensors"),
    "torchscript": ("transformers", "onnxruntime", "safetensors"),
    "state_dict": ("transformers", "onnxruntime", "safetensors"),
    "safetensors": ("onnxruntime",),
}
PROVABLE = ("onnx", "int8", "pt2", "torchscript", "state_dict", "safetensors")  # those that need least first


def proofs(exportable: Exportable, folder: Path, formats: Sequence[str], *, timeout: float = TIMEOUT) -> list[Proof]:
    """A proof of each format of an export folder, in the order given. `timeout` in seconds of a process.

    A format that dies, hangs or lacks its file fails, and no other with it.

    The weights and the state dict of whatever loader are compared bit by bit; the weights are run besides, where code
    that makes them a model again lies in the folder or in transformers.
    """
    unknown = sorted(set(formats) - set(PROVABLE))
    if unknown:
        raise ValueError(f"Nothing proves {', '.join(unknown)}; expected some of {', '.join(PROVABLE)}.")
    folder = Path(folder).resolve()
    found = {name: Proof(name, reasons=changed(exportable, name, folder)) for name in formats}
    jobs = [_job(exportable, name, folder) for name in PROVABLE if name in formats and not absent(found[name])]
    with tempfile.TemporaryDirectory(prefix="parity-") as place:
        out = Path(place)
        expected = [expect(part, inputs, CALLS) for part in exportable.parts for inputs in part.others]
        for at, one in enumerate(expected):
            numpy.savez(out / f"input-{at}.npz", **{name: tensor.numpy() for name, tensor in one.inputs.items()})
        runs = [
            {"part": one.part.name, "names": list(one.inputs), "input": str(out / f"input-{at}.npz")}
            for at, one in enumerate(expected)
        ]
        about = {"folder": str(folder), "calls": CALLS, "threads": torch.get_num_threads(), "runs": runs}
        graphs = [job for job in jobs if job["engine"] == "onnx"]
        for group in (graphs, [job for job in jobs if job not in graphs]):  # ONNX Runtime's process never sees torch
            for name, answer in answers(group, out, about, timeout=timeout).items():
                proof = found[name]
                proof.modules = tuple(answer.get("modules", ()))
                if "error" in answer:
                    proof.reasons.append(f"it does not load and run: {answer['error']}")
                    continue
                if "tensors" in answer:
                    compare_tensors(proof, answer["tensors"], exportable.model.state_dict())
                if "latency" in answer:
                    outputs = [numpy.load(out / f"{name}-{at}.npz")["output"] for at in range(len(runs))]
                    compare_outputs(proof, expected, outputs, answer["latency"], _sizes(exportable, name, folder))
    return [found[name] for name in formats]


def files_of(exportable: Exportable, format: str, folder: Path) -> list[Path]:
    """The files of a format, whether they are there or not."""
    if format in SUFFIXES:
        files = [folder / file_of(format, part) for part in exportable.parts]
        return files + [beside for file in files if (beside := file.with_name(f"{file.name}.data")).is_file()]
    if format == "state_dict":
        return [folder / "state_dict.pt"]
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors")) or [whole]


def changed(exportable: Exportable, format: str, folder: Path) -> list[str]:
    """The files of a format that are missing, or not what metadata.json says where the folder has one that does."""
    path = folder / "metadata.json"
    listed = json.loads(path.read_text(encoding="utf-8")).get("files", {}) if path.is_file() else {}
    reasons = []
    for file in files_of(exportable, format, folder):
        if not file.is_file():
            reasons.append(f"{file.name} {_MISSING}")
        elif file.name in listed and listed[file.name]["sha256"] != sha256_of(file):
            reasons.append(f"the sha256 of {file.name} is not the one in metadata.json")
    return reasons


def absent(proof: Proof) -> bool:
    """Whether some file of the format is not there, so that there is nothing to run."""
    return any(reason.endswith(_MISSING) for reason in proof.reasons)


_MISSING = "is not in the folder"


def _job(exportable: Exportable, format: str, folder: Path) -> dict[str, Any]:
    """What the fresh process is asked about a format."""
    engine = ENGINES.get(format, format)
    graphs = {part.name: str(folder / file_of(format, part)) for part in exportable.parts} if format in SUFFIXES else {}
    return {
        "name": format,
        "engine": engine,
        "without": [*TRAINING, *WITHOUT[engine]],
        "loader": exportable.loader,
        "kind": exportable.kind,
        "graphs": graphs,
        "files": [str(path) for path in files_of(exportable, format, folder)],
    }


def _sizes(exportable: Exportable, format: str, folder: Path) -> dict[str, int]:
    """Bytes of what each part needs: its graph, or the weights of all."""
    files = files_of(exportable, format, folder)
    total = sum(file.stat().st_size for file in files)
    if format not in SUFFIXES:
        return {part.name: total for part in exportable.parts}
    own = {part.name: file_of(format, part) for part in exportable.parts}
    return {
        name: sum(file.stat().st_size for file in files if file.name in (start, f"{start}.data"))
        for name, start in own.items()
    }
