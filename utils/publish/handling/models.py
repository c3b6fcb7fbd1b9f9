"""Models with code, of this project and of transformers, called one way. Leaves out graphs (`graphs`)."""

from __future__ import annotations

import hashlib
import inspect
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checks import FolderError

AUTO = {
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}


class Ours:
    """A model of this project's own classes."""

    embeds, maskless, classes, ends = True, False, None, frozenset()

    def __init__(self, module: torch.nn.Module, told: str):
        self.told = told
        self.module, self.caches = module.eval(), hasattr(module, "new_cache")
        self.context = getattr(module.config, "context_length", None)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module(ids, attention_mask=needed(mask))

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.module.head(self.module.hidden(ids, needed(mask))[torch.arange(len(ids)), at.to(ids.device)])

    def cached(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        cache = self.module.new_cache() if cache is None else cache
        return self.module.head(self.module.hidden(ids, needed(mask), cache)[:, -1]), cache

    def keep(self, cache: Any, rows: Tensor) -> Any:
        cache.layers = [(keys[rows], values[rows]) for keys, values in cache.layers]
        return cache

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = self.module.encode if hasattr(self.module, "encode") else self.module.hidden
        return read(ids, needed(mask))

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module.encode(ids, mask)

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        return self.module.decode(ids, memory, mask)


class Transformers:
    """A model that `from_pretrained` read."""

    told, embeds, maskless = "transformers, by from_pretrained", True, False

    def __init__(self, module: Any):
        self.module, config = module.eval(), module.config
        self.takes = inspect.signature(module.forward).parameters
        self.caches = "past_key_values" in self.takes
        self.context = getattr(config, "max_position_embeddings", None)
        generation = getattr(module, "generation_config", None)
        ends = getattr(generation, "eos_token_id", None)
        self.ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        names = getattr(config, "id2label", None) or {}
        self.classes = [names[at] for at in sorted(names)]

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module(input_ids=ids, attention_mask=mask).logits

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.logits(ids, mask)[torch.arange(len(ids)), at.to(ids.device)]

    def cached(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        extra = {"position_ids": places, "logits_to_keep": 1}
        extra = {name: value for name, value in extra.items() if name in self.takes}
        output = self.module(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        return output.logits[:, -1], output.past_key_values

    def keep(self, cache: Any, rows: Tensor) -> Any:
        cache.batch_select_indices(rows)
        return cache

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        if self.module.config.is_encoder_decoder:
            return self.encode(ids, mask)
        return self.module(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        outputs = BaseModelOutput(last_hidden_state=memory)
        return self.module(encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=ids).logits


def load_ours(folder: Path) -> tuple[torch.nn.Module, Any, dict[str, Any]]:
    """By the code in the folder, as a package with a name of its own: another folder's has another."""
    code = folder / "model_code"
    if not (code / "load.py").is_file():
        raise FolderError(f"{folder} says that its own code loads it, but model_code/load.py is not there.")
    name = f"model_code_{hashlib.sha256(str(code).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, code / "__init__.py", submodule_search_locations=[str(code)])
        sys.modules[name] = module_from_spec(spec)
        if (code / "__init__.py").is_file():
            spec.loader.exec_module(sys.modules[name])
    return import_module(f"{name}.load").load(folder)


def load_transformers(folder: Path, kind: str) -> Any:
    if kind not in AUTO:
        raise FolderError(f"transformers has no class for kind {kind}; expected one of {', '.join(AUTO)}.")
    import transformers

    return getattr(transformers, AUTO[kind]).from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )


def needed(mask: Tensor) -> Tensor | None:
    return None if bool(mask.all()) else mask
