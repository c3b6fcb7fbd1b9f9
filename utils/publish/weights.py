"""An exportable's weights as safetensors, which hold numbers and names alone, and as a plain state dict.

Leaves out graphs, which need no code of the model's to run (`publish.graphs`).
"""

from __future__ import annotations

from pathlib import Path

import torch

from utils.models.exportable import Exportable

SAFETENSORS, STATE_DICT = "model.safetensors", "state_dict.pt"


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
    return [path]


def write_state_dict(exportable: Exportable, folder: Path) -> list[Path]:
    """Write `state_dict.pt`, for `torch.load(..., weights_only=True)` and `load_state_dict`; give the file."""
    path = folder / STATE_DICT
    torch.save({name: value.detach().cpu() for name, value in exportable.model.state_dict().items()}, path)
    return [path]
