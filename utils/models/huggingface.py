"""Models of `transformers`, by the id of a repository on the Hub or from a folder: found, then loaded.

Code in a repository (`auto_map`) and pickled weights need `trust_code`; what is found on the Hub is pinned to the
commit it had then. Weights are read in float32, whatever they are stored in. Leaves out tokenizers and processors.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from utils.models import hub
from utils.models.build import seeded
from utils.models.exported import read_json
from utils.models.found import Loaded, Source, SourceError, check_kind, one_line, read_text

AUTO = {  # kind -> auto class; an encoder-decoder that can fill masks too is seq2seq
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "image_classifier": "AutoModelForImageClassification",
}
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
UNREAD = (".safetensors", ".bin", ".h5", ".msgpack", ".gguf", ".onnx", ".pt", ".pth", ".ckpt")


def find_folder(folder: Path) -> Source:
    """The model of a folder that `save_pretrained` wrote, or that was cloned."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is no Hugging Face model: it has no config.json.")
    return _found(f"hf:{folder}", folder, os.listdir(folder), {})


def find_id(model: str, revision: str = "") -> Source:
    """The model of a repository on the Hub, at `revision` (a branch, a tag or a commit). Reads config and code only."""
    there = hub.look(model, revision)
    return _found(f"hf:{model}", there.folder, there.names, there.facts)


def _found(name: str, folder: Path, names: list[str], facts: dict[str, str]) -> Source:
    text = read_text(folder / "config.json")
    config = read_json(text, f"config.json of {name}")
    files = {"config.json": text}
    if not isinstance(config.get("auto_map") or {}, dict):
        raise SourceError(f"config.json of {name}: auto_map is {config['auto_map']!r}; expected an object.")
    if config.get("auto_map"):
        files = {file.name: read_text(file) for file in sorted(folder.glob("*.py"), key=_main_first)} | files
    weights = next((one for one in (*SAFE, *PICKLED) if one in names), "none")
    if "adapter_config.json" in names and (weights == "none" or not facts):
        raise SourceError(f"{name} is an adapter to another model; merge it into that model, and save the result.")
    facts = {**facts, "folder": str(folder), "weights": weights}
    other = [one for one in names if one.endswith(UNREAD)]
    if weights == "none" and other:
        facts["not read"] = ", ".join(other[:8])
    return Source(name, "hf", facts, files, config)


def _main_first(file: Path) -> tuple[bool, str]:
    return not file.name.startswith("model"), file.name


def load(
    found: Source, *, trust_code: bool = False, overrides: Mapping[str, Any], kind: str = "", seed: int = 0
) -> Loaded:
    """The model with its weights where there are any, else newly initialised from its config."""
    check_kind(kind)
    transformers = _transformers()
    code = found.config.get("auto_map") or {}
    if code:
        found.require_trust(trust_code)
        elsewhere = sorted(str(value) for value in code.values() if "--" in str(value))
        if elsewhere:
            raise SourceError(
                f"{found.name} takes its code from another repository ({elsewhere[0]}), which is refused."
            )
    weights = found.facts["weights"]
    if weights in PICKLED:
        found.require_trust(trust_code, f"Its weights ({weights}) are pickled, and unpickling can run code")
    kind, reason = _kind(found, kind, transformers)
    auto = getattr(transformers, AUTO[kind])
    with _one_line(found.name), seeded(seed):
        folder = _complete(found)
        config = _config(found, folder, overrides, trust_code=bool(code))
        build = _builder(auto, config, trust_code=bool(code))
        if weights == "none":
            other = f" ({found.facts['not read']}: not read)" if "not read" in found.facts else ""
            model, told = build(), f"newly initialised, as it has no {' or '.join(SAFE)}{other}"
        else:
            options = {"config": copy.deepcopy(config), "trust_remote_code": bool(code), "local_files_only": True}
            options |= {"use_safetensors": weights in SAFE, "dtype": torch.float32}
            model, info = auto.from_pretrained(folder, **options, output_loading_info=True)
            told = f"with the weights of {weights}{_differences(info)}"
    chosen = f"{type(model).__name__}, by {AUTO[kind]} {reason}; {told}."
    return Loaded(model, found, config.to_dict(), kind, weights != "none", build, chosen)


def _kind(found: Source, kind: str, transformers: Any) -> tuple[str, str]:
    """The kind and why: as declared, else as `architectures` or `auto_map` say."""
    if kind:
        return kind, "for the kind that was given"
    names = found.config.get("architectures") or []
    if isinstance(names, list) and names:
        from transformers.models.auto import modeling_auto as tables

        for one, table in (
            ("causal_lm", tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
            ("seq2seq", tables.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
            ("masked_lm", tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
            ("classifier", tables.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
            ("image_classifier", tables.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
        ):
            if any(names[0] == name or (isinstance(name, tuple) and names[0] in name) for name in table.values()):
                return one, f"for the architecture {names[0]}"
    mapped = [one for one, auto in AUTO.items() if auto in (found.config.get("auto_map") or {})]
    if len(mapped) == 1:
        return mapped[0], "for the auto_map"
    told = f"architectures {names}" if names else "no architectures"
    raise SourceError(
        f"{found.name}: its config has {told}, which names no kind; set kind to one of {', '.join(AUTO)}."
    )


def _complete(found: Source) -> str:
    """The folder of the model, with its weights downloaded where they are on the Hub."""
    folder, weights = Path(found.facts["folder"]), found.facts["weights"]
    found.check_unchanged(folder)
    here = found.name == f"hf:{folder}"
    if "hub" in found.facts and weights == "none":
        raise SourceError(f"{found.name}: its weights are not in the cache, and the Hub gave no answer.")

    def file(name: str) -> Path:
        if here or "hub" in found.facts:
            return folder / name
        return hub.fetch(found.name.removeprefix("hf:"), name, found.facts["revision"])

    if weights != "none":
        path, suffix = file(weights), ".safetensors" if weights in SAFE else ".bin"
        if weights.endswith(".index.json"):
            shards = set(map(str, read_json(read_text(path), weights).get("weight_map", {}).values()))
            wrong = sorted(name for name in shards if "/" in name or not name.endswith(suffix))
            if wrong:
                raise SourceError(f"{found.name}: {weights} names {wrong[0]}; expected files beside it, in {suffix}.")
            for name in sorted(shards):
                file(name)
    return str(folder)


def _config(found: Source, folder: str, overrides: Mapping[str, Any], *, trust_code: bool) -> Any:
    """The `PreTrainedConfig`, made anew where overrides change it, so that what it derives follows."""
    from transformers import AutoConfig

    kernels = [] if trust_code else _kernels({**found.config, **overrides})
    if kernels:
        raise SourceError(
            f"{found.name}: its config names {kernels[0]}, code from the Hub; tick trust_code (or --trust-code)."
        )
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_code, local_files_only=True)
    unknown = [key for key in overrides if not hasattr(config, key)]
    if unknown:
        known = ", ".join(key for key in config.to_dict() if not key.startswith("_"))
        raise SourceError(f"{found.name}: its config has no {', '.join(unknown)}; it has {known}.")
    if overrides:
        config = type(config).from_dict({**found.config, **overrides})
        config._name_or_path = folder
    return config


def _kernels(config: Mapping[str, Any]) -> list[str]:
    """Implementations (of attention, experts, ...) that a config takes from a repository, at any depth."""
    found = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _kernels(value)
        elif key.endswith("_implementation") and "/" in str(value):
            found.append(f"{key} {value!r}")
    return found


def _builder(auto: Any, config: Any, *, trust_code: bool) -> Callable[[], Any]:
    return lambda: auto.from_config(copy.deepcopy(config), trust_remote_code=trust_code, dtype=torch.float32)


def _differences(info: Mapping[str, Any]) -> str:
    """What of the model the weights did not have, and what of the weights the model did not."""
    told = ""
    for key, words in (("missing_keys", "newly initialised, as not in them"), ("unexpected_keys", "not used")):
        keys = sorted(info.get(key) or ())
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        told += f"; {words}: {', '.join(keys[:8])}{more}" if keys else ""
    return told


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Whatever `transformers` or the model's code raises becomes one line."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{name} cannot be loaded: {type(error).__name__}: {one_line(error)}") from None


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise SourceError(f"Hugging Face models need transformers ({error}): pip install transformers.") from None
    return transformers
