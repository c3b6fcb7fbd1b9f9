"""`Graph`: a model whose code is not in the folder, by its graphs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from .checks import FolderError

Call = tuple[list[str], Callable[[list[Tensor]], Tensor]]
"""names of the inputs, and what takes them in this order"""


class Graph:
    """A model whose code is not in the folder: its graphs, by ONNX Runtime where both are there, else by torch.export.

    Without a cache: every token reads the whole text again. torch.export.load unpickles where a file asks it to (torch
    2.13, torch/_export/serde/serialize.py), and so runs what its maker wished: a .pt2 is read only with `trust`.
    """

    embeds, caches, context, classes, ends = False, False, None, None, frozenset()

    def __init__(self, folder: Path, kind: str, *, trust: bool):
        if kind == "vae":
            raise FolderError("A VAE is served by its own code (loader ours), not by its graphs.")
        self.graphs: dict[str, Call] = {}
        shapes = [("encoder", "decoder"), ("model",)] if kind == "seq2seq" else [("model",)]
        for names in shapes:
            onnx, exported = ([folder / f"{name}.{ending}" for name in names] for ending in ("onnx", "pt2"))
            if all(path.is_file() for path in onnx) and find_spec("onnxruntime") is not None:
                self.told, self.graphs = "ONNX, by ONNX Runtime", dict(zip(names, map(_onnx, onnx)))
            elif all(path.is_file() for path in exported):
                if not trust:
                    raise FolderError(
                        f"{folder} is served by {', '.join(path.name for path in exported)}, and reading a .pt2 can run"
                        f" code that it holds. Safe is {', '.join(path.name for path in onnx)}, with pip install"
                        " onnxruntime; if you trust who made the folder, say so: python -m utils serve --trust."
                    )
                self.told, self.graphs = ".pt2, by torch.export", dict(zip(names, map(_pt2, exported)))
            if self.graphs:
                break
        else:
            raise FolderError(
                f"The code of this model is not in {folder}, so it is served by a graph: expected"
                f" {', '.join(f'{name}.onnx' for name in shapes[0])}, with pip install onnxruntime, or"
                f" {', '.join(f'{name}.pt2' for name in shapes[0])}. Export the run with one of these formats."
            )
        self.maskless = all("attention_mask" not in names for names, _ in self.graphs.values())

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._call("model", {"input_ids": ids, "attention_mask": mask})

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.logits(ids, mask)[torch.arange(len(ids)), at]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, T, C); the ids themselves where encoder and decoder are one graph."""
        return self._call("encoder", {"input_ids": ids, "attention_mask": mask}) if "encoder" in self.graphs else ids

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        name, source = ("decoder", "encoder_hidden") if "decoder" in self.graphs else ("model", "input_ids")
        return self._call(name, {"decoder_input_ids": ids, source: memory, "attention_mask": mask})

    def _call(self, name: str, given: dict[str, Tensor]) -> Tensor:
        """By the names of the graph's inputs."""
        names, call = self.graphs[name]
        return call([given[one] for one in names])


def _onnx(path: Path) -> Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    kinds = {"tensor(int64)": torch.int64, "tensor(int32)": torch.int32, "tensor(bool)": torch.bool}

    def call(values: list[Tensor]) -> Tensor:
        feed = {
            one.name: value.to(kinds.get(one.type, torch.float32)).contiguous().numpy()
            for one, value in zip(inputs, values)
        }
        return torch.from_numpy(session.run(None, feed)[0])

    return [one.name for one in inputs], call


def _pt2(path: Path) -> Call:
    program = torch.export.load(path)
    module = program.module()
    return list(program.graph_signature.user_inputs), lambda values: module(*values)
