"""How a model is called: its forward's parameters matched, once, to the keys of our batches.

Leaves out what the values mean (`models.adapter`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from utils.core.config import ConfigError

TEXT = (
    "input_ids", "x", "idx", "ids", "tokens", "token_ids", "input_tokens", "src", "src_ids", "input", "inputs", "text",
)  # fmt: skip
IMAGE = ("pixel_values", "images", "image", "img", "imgs")
DECODER = ("decoder_input_ids", "decoder_ids", "decoder_tokens", "decoder_input", "tgt", "tgt_ids", "trg", "target_ids")
TARGETS = ("targets", "labels")
INTERMEDIATE = re.compile(r"_(output|out|hidden|residual)$|^(mhsa|attn|attention|residual|norm|ffn|mlp|block)_?\d+")


class AdapterError(ConfigError):
    """A model that cannot be called as any of the five kinds; the message says what its forward asks for."""


@dataclass(frozen=True)
class Signature:
    """`arguments` maps the keys of a batch to the names of forward's parameters; a key it lacks is not passed."""

    arguments: dict[str, str]
    shown: str
    positional: bool = False
    required: tuple[str, ...] = ()
    """names of the parameters without a default"""
    targets: str = ""
    """an optional parameter for the labels (nanoGPT's forward gives every position's logits only with it)"""

    def takes(self, key: str) -> bool:
        return key in self.arguments

    def needs(self, key: str) -> bool:
        """Whether the model cannot be called without this key."""
        return self.arguments.get(key) in self.required

    def call(self, model: nn.Module, batch: Mapping[str, Tensor], **extra: Any) -> Any:
        if self.positional:
            return model(*(batch[key] for key in self.arguments), **extra)
        return model(**{name: batch[key] for key, name in self.arguments.items() if key in batch}, **extra)


def inspect_forward(model: nn.Module) -> Signature:
    """Match `model.forward`'s parameters. Raises AdapterError where it requires what no batch holds."""
    shown = f"{type(model).__name__}.forward{inspect.signature(model.forward)}"
    shown = shown if len(shown) < 300 else f"{shown[:300]}..."
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in plain]
    required = [p.name for p in plain if p.default is p.empty]
    _refuse_intermediates(required, shown)

    image = next((name for name in names if name in IMAGE), None)
    first = next((name for name in TEXT if name in names), None)
    if required and required[0] not in (*IMAGE, *TEXT, *DECODER):
        first = required[0]  # whatever its name, the one thing it must be given
    elif required and required[0] in TEXT:
        first = required[0]
    arguments: dict[str, str] = {}
    if first is not None:
        arguments["input_ids"] = first
    if image is not None:
        arguments["pixel_values"] = image
    decoder = next((name for name in names if name in DECODER), None)
    if decoder is not None:
        arguments["decoder_input_ids"] = decoder
    for key in ("attention_mask", "decoder_attention_mask", "position_ids"):
        if key in names:
            arguments[key] = key
    open_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not arguments and open_keywords:
        arguments = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    elif not arguments and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return Signature({"input_ids": ""}, shown, True, ("",))
    missing = [name for name in required if name not in arguments.values()]
    if missing or not arguments:
        raise AdapterError(
            f"{shown} requires {', '.join(missing) or 'nothing that we know'}, which no batch holds. Expected one of: "
            "(input_ids), (x), (input_ids, attention_mask=None), (input_ids, decoder_input_ids), (pixel_values) or "
            "**kwargs; give the other parameters a default."
        )
    if any(plain[names.index(name)].kind is inspect.Parameter.POSITIONAL_ONLY for name in arguments.values()):
        arguments = {key: name for key, name in arguments.items() if name in required}
        return Signature(arguments, shown, True, tuple(required))
    return Signature(
        arguments, shown, required=tuple(required), targets=next((name for name in TARGETS if name in names), "")
    )


def _refuse_intermediates(required: list[str], shown: str) -> None:
    wanted = [name for name in required if INTERMEDIATE.search(name)]
    if wanted:
        raise AdapterError(
            f"{shown} wants {', '.join(wanted)}: values that a model computes inside itself, as arguments. The export "
            "is incomplete: its graph was written without the wires between the layers. Connect the layers in the "
            "builder and export again, so that forward takes the token ids alone; nothing is invented in their place."
        )


def logits_of(output: Any) -> tuple[Tensor, str]:
    """The tensor of a model's output, and where it was: `logits`, `last_hidden_state`, `output` or `output[i]`."""
    if isinstance(output, Tensor):
        return output, "output"
    for name in ("logits", "last_hidden_state"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found, name
    values = (
        list(output.values()) if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    )
    for index, value in enumerate(values):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return value, f"output[{index}]"
    held = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise AdapterError(
        f"The model returns a {type(output).__name__}{held}; expected a tensor, a tuple with one, or `logits` or "
        "`last_hidden_state` in a dict or an object."
    )


def tensors_of(output: Any) -> list[Tensor]:
    """Every floating-point tensor of a model's output, however it is nested."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        parts = list(output.values())
    else:
        parts = output if isinstance(output, list | tuple) else list(getattr(output, "__dict__", {}).values())
    return [tensor for part in parts for tensor in tensors_of(part)]
