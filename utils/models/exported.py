"""`config.json` as model builders export it, flat or as a graph, read into one flat mapping.

Leaves out the configs of Hugging Face models, which `transformers` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from utils.models.found import SourceError

LENGTHS = ("max_seq_len", "seq_length")  # two names of the context length, in tokens
METADATA = ("model_name", "version")  # about the file, and not for the constructor


def read_json(text: str, name: str) -> dict[str, Any]:
    """The object in a JSON text. `name` says whose it is in the errors."""
    try:
        values = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{name} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise SourceError(f"{name} is not valid JSON: it is nested too deeply.") from None
    if not isinstance(values, dict):
        raise SourceError(f'{name} holds a {type(values).__name__}; expected an object such as {{"d_model": 512}}.')
    return values


def read_config(text: str, name: str = "config.json") -> dict[str, Any]:
    """The values of a `config.json`: a flat one as it is, a graph's with its nodes' params merged.

    Of a graph, a param is taken from its top level, or where all the nodes that have it agree. Raises where they
    disagree on the vocabulary or the context length, which a model has one of.
    """
    values = read_json(text, name)
    if "nodes" not in values:
        return values
    nodes = values["nodes"]
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise SourceError(f'{name}: "nodes" is not a list of objects; expected [{{"params": {{...}}}}, ...].')
    top = {key: value for key, value in values.items() if not isinstance(value, (dict, list))}
    params = {"the top level": top}
    for index, node in enumerate(nodes):
        own = node.get("params") or {}
        if not isinstance(own, dict):
            raise SourceError(f'{name}: "params" of node {index} is a {type(own).__name__}; expected an object.')
        params[_label(node, index)] = own
    _agree({label: own["vocab_size"] for label, own in params.items() if "vocab_size" in own}, "vocab_size", name)
    lengths = {
        label: next(own[key] for key in LENGTHS if key in own)
        for label, own in params.items()
        if any(key in own for key in LENGTHS)
    }
    _agree(lengths, "the context length (max_seq_len or seq_length)", name)
    merged = {}
    for key in dict.fromkeys(key for own in params.values() for key in own):
        held = [top[key]] if key in top else [own[key] for own in params.values() if key in own]
        if all(value == held[0] for value in held):
            merged[key] = held[0]
    if "max_seq_len" not in merged and lengths:
        merged["max_seq_len"] = next(iter(lengths.values()))
    return merged


def merge(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` laid over `config`. A context length given under one of its names changes the other too."""
    both = {key: overrides[other] for key in LENGTHS for other in LENGTHS if other in overrides and key in config}
    return {**config, **both, **overrides}


def _label(node: dict[str, Any], index: int) -> str:
    """How an error names a node: by its place, and its id, name or type where it has one."""
    known = next((str(node[key]) for key in ("id", "name", "type") if node.get(key)), "")
    return f"node {index} ({known})" if known else f"node {index}"


def _agree(values: dict[str, Any], what: str, name: str) -> None:
    if any(value != next(iter(values.values())) for value in values.values()):
        told = ", ".join(f"{label} says {value!r}" for label, value in values.items())
        raise SourceError(f"{name}: the nodes disagree on {what}: {told}. Give them one value.")
