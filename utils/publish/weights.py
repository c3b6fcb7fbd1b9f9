"""An exportable's weights as safetensors, which hold numbers and names alone, and as a plain state dict.

Leaves out graphs, which need no code of the model's to run (`publish.graphs`).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from utils.models.exportable import Exportable

SAFETENSORS, STATE_DICT = "model.safetensors", "state_dict.pt"
START = "run/start.safetensors"  # weights that training began with, where judging compares with them


def write_safetensors(exportable: Exportable, folder: Path) -> list[Path]:
    """Write the weights, tied ones once, and give the files.

    A model of transformers' saves itself, with its config, for `from_pretrained(folder)`; of others model.safetensors
    is what `safetensors.torch.load_model` reads.
    """
    if exportable.loader == "transformers":
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        exportable.model.save_pretrained(folder)
        return sorted(path for path in folder.iterdir() if before.get(path) != path.stat().st_mtime_ns)
    from safetensors.torch import save_model

    path = folder / SAFETENSORS
    save_model(exportable.model, str(path), metadata={"format": "pt"})
    _in_order(path)
    return [path]


def _in_order(path: Path) -> None:
    """Sort what a file says of itself, which safetensors writes in a new order every time: equal models, equal bytes.

    A file begins with the length of its header in 8 bytes and the header as JSON, filled up with spaces
    (https://github.com/huggingface/safetensors#format). The header keeps its length.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(content) > size:
            raise ValueError(f"{path}: its header of {size} bytes becomes {len(content)} when it is sorted.")
        file.seek(8)
        file.write(content.ljust(size))


def write_start(exportable: Exportable, folder: Path) -> None:
    """Write the weights that training began with, where the exportable has them."""
    if exportable.start:
        from safetensors.torch import save_file

        path = folder / START
        path.parent.mkdir(exist_ok=True)
        save_file({name: value.detach().cpu().clone() for name, value in exportable.start.items()}, str(path))


def write_state_dict(exportable: Exportable, folder: Path) -> list[Path]:
    """Write `state_dict.pt`, for `torch.load(..., weights_only=True)` and `load_state_dict`; give the file."""
    path = folder / STATE_DICT
    torch.save({name: value.detach().cpu() for name, value in exportable.model.state_dict().items()}, path)
    return [path]
