"""The table of export formats, and `export`: a run's best weights in each of them, proven, in one folder.

Leaves out the rest of the folder (`publish.folder`), and the Hub (`publish.hub`).
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from utils.core.check import Check, Report
from utils.core.redact import redacted
from utils.models.exportable import Exportable
from utils.publish.compare import DEPRECATED, Proof
from utils.publish.folder import write_folder
from utils.publish.fresh import TIMEOUT
from utils.publish.graphs import OPSET, Graph, GraphError, file_of, quiet, reason
from utils.publish.parity import proofs
from utils.publish.weights import write_safetensors, write_state_dict

Write = Callable[[Exportable, Sequence[Graph], Path], Any]


@dataclass(frozen=True)
class Format:
    """One way to write a trained model."""

    name: str
    told: str
    """what it is, in a line"""
    write: Write
    """(exportable, its graphs, folder): writes the files"""
    needs: tuple[str, ...] = ()
    """modules, of packages of the same names, that writing and proving it import"""
    default: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    """more for metadata.json"""


def _graphs(name: str) -> Write:
    """Writes a file a part, by the method of `Graph`."""

    def write(exportable: Exportable, graphs: Sequence[Graph], folder: Path) -> None:
        for graph in graphs:
            getattr(graph, f"write_{name}")(folder / file_of(name, graph.part))

    return write


_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "safetensors",
            "weights for our code or from_pretrained; always written, for `pull` reads it",
            lambda exportable, graphs, folder: write_safetensors(exportable, folder),
            needs=("safetensors",),
        ),
        Format(
            "state_dict",
            "weights for torch.load",
            lambda exportable, graphs, folder: write_state_dict(exportable, folder),
        ),
        Format("onnx", "a graph for ONNX Runtime", _graphs("onnx"), needs=_ONNX, facts={"opset": OPSET}),
        Format("pt2", "a graph for torch.export.load", _graphs("pt2")),
        Format(
            "torchscript",
            "a graph for torch.jit.load, which torch calls deprecated",
            _graphs("torchscript"),
            facts={"deprecated": DEPRECATED["torchscript"]},
        ),
        Format(
            "int8",
            "a graph for ONNX Runtime with weights of a byte",
            _graphs("int8"),
            needs=_ONNX,
            default=False,
            facts={"opset": OPSET},
        ),
    )
}
DEFAULT: tuple[str, ...] = tuple(one.name for one in FORMATS.values() if one.default)
REPORT = "report"  # <folder>_report.html and .json, beside the folder


def export(
    exportable: Exportable,
    *,
    formats: Sequence[str] = DEFAULT,
    folder: Path | None = None,
    timeout: float = TIMEOUT,
) -> Report:
    """Write the export folder with all of `formats` in it, prove each, and say how it went.

    A format that cannot be written is a failed check with the reason, without files; one that is written and wrong
    fails and stays, and metadata.json says so. `folder` is `run.path / "export"` where none is given; the report is
    saved beside it, as `export_report.html` and `.json`. `timeout` in seconds of a process that proves.
    """
    from tqdm import tqdm

    chosen = select(formats)
    checks: dict[str, Check] = {}

    def fill(place: Path) -> dict[str, Any]:
        graphs, files = [Graph(part) for part in exportable.parts], {}
        shapes = _shapes(exportable)
        with tqdm(total=len(chosen) + 1, file=sys.stdout, unit="format", leave=False, dynamic_ncols=True) as bar:
            for one in chosen:
                bar.set_description(one.name)
                outcome = _written(one, exportable, graphs, place)
                (checks if isinstance(outcome, Check) else files)[one.name] = outcome
                bar.update()
            bar.set_description("proving")
            proven = {proof.format: proof for proof in proofs(exportable, place, list(files), timeout=timeout)}
            bar.update()
        checks.update({name: proof.check for name, proof in proven.items()})
        return {
            one.name: _facts(one, checks[one.name], files.get(one.name, []), proven.get(one.name), shapes, place)
            for one in chosen
        }

    written = write_folder(exportable, fill, to=folder)
    report = Report(f"Export of {exportable.name}", [checks[one.name] for one in chosen], word="faithful")
    if exportable.note:
        report.checks.insert(0, Check("weights", "warn", redacted(exportable.note)))
    report.facts |= {"folder": str(written), "weights": f"step {exportable.step}", "kind": exportable.kind}
    report.facts["parts"] = ", ".join(part.name for part in exportable.parts)
    report.facts["proven on"] = "; ".join(f"{part.name}: {len(part.others)} other inputs" for part in exportable.parts)
    report.save(written.parent, f"{written.name}_{REPORT}")
    return report


def select(names: Sequence[str]) -> list[Format]:
    """Formats in the order of the table, safetensors always among them. Raises ValueError for an unknown one."""
    unknown = [name for name in names if name not in FORMATS]
    if isinstance(names, str) or unknown:
        came = names if isinstance(names, str) else ", ".join(unknown)
        raise ValueError(f"Formats: {came!r} came; expected a list of some of {', '.join(FORMATS)}.")
    return [one for name, one in FORMATS.items() if name in names or name == "safetensors"]


def _written(one: Format, exportable: Exportable, graphs: Sequence[Graph], folder: Path) -> list[str] | Check:
    """The names of the files that a format wrote; or why it did not, and then it left none."""
    lacking = [name for name in one.needs if importlib.util.find_spec(name) is None]
    if lacking:
        told = f"not written: pip install {' '.join(lacking)}, then export again"
        return Check(one.name, "skip", told)
    before = set(folder.rglob("*"))
    try:
        with quiet():
            one.write(exportable, graphs, folder)
    except Exception as error:  # exporters raise errors of any class; the other formats still come
        for path in sorted(set(folder.rglob("*")) - before, reverse=True):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        told = str(error) if isinstance(error, GraphError) else f"{type(error).__name__}: {reason(error)}"
        return Check(one.name, "fail", redacted(f"not written: {told}"))
    new = sorted(set(folder.rglob("*")) - before)
    return [path.relative_to(folder).as_posix() for path in new if path.is_file()]


def _facts(
    one: Format, check: Check, files: Sequence[str], proof: Proof | None, shapes: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What metadata.json says of a format."""
    facts = {"status": check.status, "told": check.summary, "files": list(files), **one.facts}
    if files:
        facts["bytes"] = sum((folder / name).stat().st_size for name in files)
    if files and one.write not in (FORMATS["safetensors"].write, FORMATS["state_dict"].write):
        facts |= shapes
    if proof is not None and proof.rows:
        facts |= {"max_difference": proof.largest, "agreement": proof.agreement}  # times differ, and are in the report
    return facts


def _shapes(exportable: Exportable) -> dict[str, Any]:
    """Names, dtypes and shapes of what the graphs take and give, an axis that varies by its name; `parts` in order.

    A name stands for the same tensor in every part: what the encoder gives under it, the decoder takes.
    """
    inputs, outputs, parts = {}, {}, {}
    for part in exportable.parts:
        with torch.no_grad():
            output = part.module(*part.inputs.values())
        inputs |= {name: _shape(tensor, part.axes.get(name, {})) for name, tensor in part.inputs.items()}
        outputs[part.output] = _shape(output, part.axes.get(part.output, {}))
        parts[part.name] = {"inputs": list(part.inputs), "output": part.output}
    return {"inputs": inputs, "outputs": outputs, "parts": parts}


def _shape(tensor: torch.Tensor, axes: Mapping[int, str]) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": [axes.get(axis, size) for axis, size in enumerate(tensor.shape)]}
