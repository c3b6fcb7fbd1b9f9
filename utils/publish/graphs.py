"""One `Part` as a graph in a file: ONNX, `torch.export`, TorchScript, and ONNX with int8 weights.

Every graph takes any batch and length that its model takes. Leaves out whether what it computes is right
(`publish.parity`) and what lies beside it (`publish.folder`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.exportable import Part

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 20  # of ONNX; what torch's exporter translates to without a converter
LARGEST = 2 * 10**9  # bytes of weights that one ONNX file holds: a protobuf ends at 2 GiB
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".torchscript.pt", "int8": ".int8.onnx"}


class GraphError(RuntimeError):
    """A part that cannot be written in some format; the message gives the exporter's reason."""


class Graph:
    """A part on its way into files. Its program is traced once, and serves several of them."""

    def __init__(self, part: Part):
        self.part = part
        self.example = tuple(tensor.detach().clone() for tensor in part.inputs.values())  # no view: its base is traced

    @functools.cached_property
    def program(self) -> ExportedProgram:
        """The part with the axes that vary left open. Raises GraphError where the model fixes one of them."""
        dynamic = torch.export.Dim.DYNAMIC
        open_axes = tuple(dict.fromkeys(self.part.axes.get(name, {}), dynamic) for name in self.part.inputs)
        # With gradients the attention kernel may be another, whose layout the later steps do not expect.
        with quiet(), torch.no_grad(), open_lengths(self.part.module), told("torch.export"):
            program = torch.export.export(self.part.module, self.example, dynamic_shapes=open_axes)
        for node in program.graph.nodes:  # where on this machine each line stands is nobody's business
            node.meta.pop("stack_trace", None)
        return program

    def write_pt2(self, path: Path) -> None:
        """For `torch.export.load(path).module()`."""
        program = self.program
        with quiet(), told("torch.export.save"):
            torch.export.save(program, path)

    def write_onnx(self, path: Path) -> None:
        """Opset 20, names of inputs and axes as the part has them, weights inside where they are below 2 GB."""
        import onnx

        names, axes = list(self.part.inputs), self.part.axes
        with quiet(), torch.no_grad(), told("torch.onnx.export"):
            written = torch.onnx.export(
                self.program,
                self.example,
                dynamo=True,
                input_names=names,
                output_names=[self.part.output],
                dynamic_shapes=tuple(axes.get(name, {}) for name in names),
                opset_version=OPSET,
                verbose=False,
            )
            for graph in (written.model.graph, *written.model.functions.values()):
                for node in graph.all_nodes():
                    node.metadata_props.clear()  # stack traces, most of a small file
                    node.doc_string = None
            written.save(path, external_data=weight(self.part) > LARGEST)
        with told("onnx.checker"):
            onnx.checker.check_model(str(path))

    def write_torchscript(self, path: Path) -> None:
        """A trace, for `torch.jit.load`. torch calls TorchScript deprecated, and points to torch.export."""
        with quiet(), torch.no_grad(), open_lengths(self.part.module), plain_flags(), told("torch.jit.trace"):
            torch.jit.save(torch.jit.trace(self.part.module, self.example, check_trace=False), str(path))
        _without_traces(path)

    def write_int8(self, path: Path) -> None:
        """ONNX whose linear layers and embeddings have int8 weights; activations are quantised as they come.

        From the ONNX file of the part beside `path`, or from one made for this. The weights are unsigned, with a scale
        a channel: signed ones saturate on x86 without VNNI (onnxruntime, "Quantize ONNX models"). Convolutions stay.
        """
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if weight(self.part) > LARGEST:
            raise GraphError(f"{self.part.name} is above 2 GB, which is not quantised here; leave int8 out.")
        with tempfile.TemporaryDirectory() as folder:
            source = path.with_name(file_of("onnx", self.part))
            if not source.is_file():
                source = Path(folder) / source.name
                self.write_onnx(source)
            model = onnx.load(source)
        weights = {tensor.name for tensor in model.graph.initializer}
        shapes = [value for value in model.graph.value_info if value.name not in weights]
        del model.graph.value_info[:]  # shapes of weights: the quantiser transposes some, and then they are wrong
        model.graph.value_info.extend(shapes)
        with quiet(), told("onnxruntime.quantization"):
            quantize_dynamic(
                model,
                path,
                per_channel=True,
                weight_type=QuantType.QUInt8,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            )


def _without_traces(path: Path) -> None:
    """Leave out of a TorchScript file where on this machine each line came from; it is for torch's messages alone."""
    whole = path.with_suffix(".traced")
    path.rename(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    whole.unlink()


def file_of(format: str, part: Part) -> str:
    """Name of the file: model.onnx, encoder.int8.onnx."""
    return part.name + SUFFIXES[format]


def weight(part: Part) -> int:
    """Bytes of a part's parameters and buffers; a shared one counts once."""
    module = part.module
    return sum(one.numel() * one.element_size() for one in (*module.parameters(), *module.buffers()))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing below an error is said: the exporters' progress, deprecations and advice."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def told(tool: str) -> Iterator[None]:
    """Whatever an exporter raises, as a GraphError with the first cause in a line."""
    try:
        yield
    except (GraphError, ImportError, OSError):
        raise
    except Exception as error:  # exporters raise errors of any class
        raise GraphError(f"{tool}: {type(error).__name__}: {reason(error)}") from error


def reason(error: BaseException, longest: int = 300) -> str:
    """What the innermost cause of an error says, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}..."


@contextlib.contextmanager
def plain_flags() -> Iterator[None]:
    """Flags of attention that a trace made of sizes (`T > 1`) are Python's again, as torch's own check asks."""
    attention = F.scaled_dot_product_attention

    def with_flags(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        flags = {"is_causal": bool(is_causal), "enable_gqa": bool(enable_gqa)}
        return attention(query, key, value, attn_mask, dropout_p, scale=scale, **flags)

    F.scaled_dot_product_attention = with_flags
    try:
        yield
    finally:
        F.scaled_dot_product_attention = attention


@contextlib.contextmanager
def open_lengths(module: nn.Module) -> Iterator[None]:
    """In the files of the model's own classes, `len(tensor)` is the size that a trace follows, and not a number."""
    forwards = [vars(kind).get("forward") for one in module.modules() for kind in type(one).__mro__]
    spaces = {id(space): space for one in forwards if (space := getattr(one, "__globals__", None)) is not None}
    own = [one for one in spaces.values() if one["__name__"].partition(".")[0] != "torch" and "len" not in one]
    for space in own:
        space["len"] = _length
    try:
        yield
    finally:
        for space in own:
            del space["len"]


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else len(value)
