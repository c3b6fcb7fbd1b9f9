"""`load`: the model of an export folder, from its safetensors. Copied into the folder, as `model_code/load.py`.

Needs torch, safetensors and pydantic alone, and for tokenizers what reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors.torch import load_model
from torch import nn

from utils.data.tokenizers import load_tokenizer
from utils.models.named import named


def load(folder: str | Path) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The model in eval mode on the CPU, its tokenizer (None where it has none), and what metadata.json says.

    Raises ValueError where the folder's model is not made by code that lies beside its weights.
    """
    folder = Path(folder)
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    if metadata["loader"] != "ours":
        raise ValueError(
            f"{folder} holds a model whose loader is {metadata['loader']!r}; expected 'ours'. Its README.md says how"
            " it is loaded."
        )
    kind = named(metadata["builds"], ("forward",))
    config = get_type_hints(kind.__init__)["config"].model_validate(metadata["config"])
    with torch.random.fork_rng(devices=[]):  # what it draws is overwritten
        model = kind(config)
    load_model(model, str(folder / "model.safetensors"))
    return model.eval(), tokenizer_in(folder / "tokenizer"), metadata


def tokenizer_in(folder: Path) -> Any:
    """Of the class that tokenizer.json names, else one that `load_tokenizer` knows; None where there is none."""
    if not folder.is_dir():
        return None
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "class" not in content:
        return load_tokenizer(folder)
    return named(content["class"], ("encode", "decode"))(**content["arguments"])
