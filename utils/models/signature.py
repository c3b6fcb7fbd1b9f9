"""How a model is called: its forward's parameters matched, once, to the keys of our batches.

Leaves out what the values mean (`models.adapter`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from utils.core.config import ConfigError
from utils.core.repro import preserved_rng

TEXT = (
    "input_ids", "x", "idx", "ids", "tokens", "token_ids", "input_tokens", "src", "src_ids", "input", "inputs", "text",
)  # fmt: skip
IMAGE = ("pixel_values", "images", "image", "img", "imgs")
DECODER = ("decoder_input_ids", "decoder_ids", "decoder_tokens", "decoder_input", "tgt", "tgt_ids", "trg", "target_ids")
MASKS = ("attention_mask", "decoder_attention_mask")
TRUE_IS_PADDING = ("src_key_padding_mask", "key_padding_mask")  # torch's names, and their meaning
TARGETS = ("targets", "labels", "target", "target_ids", "y")
KEYS = {  # of a batch, by kind; the other kinds' are the last
    "image_classifier": ("pixel_values",),
    "seq2seq": ("input_ids", "decoder_input_ids", *MASKS),
    "": ("input_ids", "attention_mask"),
}
CALLS = "(input_ids), (x), (input_ids, attention_mask=None), (input_ids, decoder_input_ids), (pixel_values) or **kwargs"
INTERMEDIATE = re.compile(
    r"(^|_)\d+_(output|out|hidden|residual)$|^(mhsa|attn|attention|residual|norm|ffn|mlp|block)_?\d+"
)


class AdapterError(ConfigError):
    """A model that cannot be called as any of the five kinds; the message says what its forward asks for."""


@dataclass(frozen=True)
class Signature:
    """`arguments` maps the keys of a batch to the names of forward's parameters; a key it lacks is not passed."""

    arguments: dict[str, str]
    shown: str
    required: tuple[str, ...] = ()
    """names of the parameters without a default"""
    positional: tuple[str, ...] = ()
    """the keys that are passed by their place, in this order; the others go by name"""
    targets: str = ""
    """an optional parameter for the labels (nanoGPT's forward gives every position's logits only with it)"""
    open: bool = False
    """whether forward names none of its inputs and takes any keyword: then it is given what its kind has"""

    def takes(self, key: str) -> bool:
        return key in self.arguments

    def needs(self, key: str) -> bool:
        """Whether the model cannot be called without this key."""
        return self.arguments.get(key) in self.required

    def call(self, model: nn.Module, batch: Mapping[str, Tensor], **extra: Any) -> Any:
        """The model's output. Of the keys passed by place, one that the batch lacks ends the row."""
        by_place = []
        for key in self.positional:
            if key not in batch:
                break
            by_place.append(batch[key])
        named = {key: name for key, name in self.arguments.items() if key in batch and key not in self.positional}
        values = {name: batch[key] == 0 if name in TRUE_IS_PADDING else batch[key] for key, name in named.items()}
        return model(*by_place, **values, **extra)

    def for_kind(self, kind: str) -> Signature:
        """With the keys that a kind's batches have, and no others; "" stands for a kind of text that is not known yet.

        Raises AdapterError where forward lacks one that the kind must give it, or requires one that it does not have.
        """
        keys = KEYS.get(kind, KEYS[""])
        arguments = {key: key for key in keys} if self.open else self.arguments
        positional = self.positional
        if kind == "image_classifier" and "pixel_values" not in arguments and "input_ids" in arguments:
            arguments = {"pixel_values": arguments["input_ids"]}  # forward(x): whatever it calls its one input
            positional = ("pixel_values",) if positional else ()
        arguments = {key: name for key, name in arguments.items() if key in keys}
        spoken = f"kind={kind!r}" if kind else "a model of text"
        lacking = [key for key in keys if key not in MASKS and key not in arguments]
        if lacking:
            raise AdapterError(
                f"{self.shown} has no parameter for {' and '.join(lacking)}, which {spoken} is given; it takes "
                f"{', '.join(self.arguments) or 'none that we know'}. Declare the kind that it is."
            )
        missing = [name for name in self.required if name not in arguments.values()]
        if missing:
            raise AdapterError(
                f"{self.shown} requires {', '.join(missing)}, but {spoken} is given {', '.join(keys)} alone. Declare "
                "the kind that it is, or give the other parameters a default."
            )
        return replace(self, arguments=arguments, positional=tuple(key for key in positional if key in arguments))


def inspect_forward(model: nn.Module) -> Signature:
    """Match `model.forward`'s parameters. Raises AdapterError where it requires what no batch holds."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"The parameters of {type(model).__name__}.forward cannot be read: {error}.") from error
    parameters = list(signature.parameters.values())
    bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    shown = f"{type(model).__name__}.forward{inspect.Signature(bare)}"
    shown = shown if len(shown) < 300 else f"{shown[:300]}..."
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in plain]
    required = [p.name for p in plain if p.default is p.empty]
    _refuse_intermediates(required, shown)

    arguments = {"input_ids": _text(names, required), "pixel_values": _first(names, IMAGE)}
    optional = [name for name in names if name not in required]
    decoder = [name for name in DECODER if name in required or name not in TARGETS]  # optional target_ids are labels
    arguments["decoder_input_ids"] = _first(names, decoder)
    arguments |= {key: key if key in names else None for key in MASKS}
    arguments["attention_mask"] = arguments["attention_mask"] or _first(names, TRUE_IS_PADDING)
    arguments = {key: name for key, name in arguments.items() if name is not None}
    positional, open_to_any = [], False
    if not {"input_ids", "pixel_values", "decoder_input_ids"} & set(arguments):  # it names no input
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            arguments, positional = {"input_ids": "", **arguments}, ["input_ids"]
        elif any(p.kind is p.VAR_KEYWORD for p in parameters):
            open_to_any = True
            arguments |= {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    missing = [name for name in required if name not in arguments.values()]
    if missing or not arguments:
        raise AdapterError(
            f"{shown} requires {', '.join(missing)}, which no batch holds. Expected one of: {CALLS}; give the other "
            "parameters a default."
            if missing
            else f"{shown} has no parameter that we know for an input. Expected one of: {CALLS}."
        )
    keys = {name: key for key, name in arguments.items()}
    for parameter in plain:
        if parameter.kind is not parameter.POSITIONAL_ONLY or parameter.name not in keys:
            break
        positional.append(keys[parameter.name])
    return Signature(
        arguments, shown, tuple(required), tuple(positional), _first(optional, TARGETS) or "", open=open_to_any
    )


def _first(names: list[str], known: tuple[str, ...] | list[str]) -> str | None:
    """Of the known names, the first that is among `names`."""
    return next((name for name in known if name in names), None)


def _text(names: list[str], required: list[str]) -> str | None:
    """The parameter for token ids: a required one before an optional one, and the first whatever its name."""
    asked = next((name for name in required if name in TEXT), None)
    if asked is None and required and required[0] not in (*IMAGE, *DECODER, *MASKS):
        asked = required[0]
    if asked is None and not any(name in IMAGE for name in required):
        asked = _first(names, TEXT)
    return asked


def _refuse_intermediates(required: list[str], shown: str) -> None:
    wanted = [name for name in required if INTERMEDIATE.search(name)]
    if wanted:
        raise AdapterError(
            f"{shown} wants {', '.join(wanted)}: values that a model computes inside itself, as arguments. The export "
            "is incomplete: its graph was written without the wires between the layers. Connect the layers in the "
            "builder and export again, so that forward takes the token ids alone; nothing is invented in their place."
        )


def logits_of(output: Any) -> tuple[Tensor, str]:
    """The tensor of a model's output, and where it was: `logits`, `last_hidden_state`, `output` or `output[i]`.

    Of a tuple, list or dict without such names it is the first of two or more dimensions. Raises AdapterError where
    there is none: an output holds numbers, not the ids that they stand for.
    """
    if isinstance(output, Tensor):
        if output.is_floating_point():
            return output, "output"
        raise AdapterError(f"The model returns a tensor of {output.dtype}; expected logits, which are floating point.")
    named = isinstance(output, Mapping)
    for name in ("logits", "last_hidden_state"):
        found = output.get(name) if named else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found, name
    items = list(output.items()) if named else list(enumerate(output)) if isinstance(output, (tuple, list)) else []
    for key, value in items:
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return value, f"output[{key!r}]"
    held = f" with {', '.join(map(str, output)) or 'nothing'}" if named else ""
    raise AdapterError(
        f"The model returns a {type(output).__name__}{held}; expected a tensor, a tuple with one, or `logits` or "
        "`last_hidden_state` in a dict or an object."
    )


def tensors_of(output: Any) -> list[Tensor]:
    """Every floating-point tensor in a model's output, through tuples, lists, dicts and dataclasses, in their order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        inside = output.values()
    elif is_dataclass(output):
        inside = vars(output).values()
    else:
        inside = output if isinstance(output, (tuple, list)) else ()
    return [tensor for one in inside for tensor in tensors_of(one)]


def probe(
    model: nn.Module, signature: Signature, batch: Mapping[str, Tensor], *, targets: Tensor | None = None
) -> tuple[Any, list[nn.Embedding]]:
    """The output of one call in eval mode, and each nn.Embedding that was given the very ids, in the order of calls.

    Modes, buffers and generators are put back. Raises AdapterError with what the model raised.
    """
    found: list[nn.Embedding] = []
    ids = batch.get("input_ids")

    def watch(module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        given = arguments[0] if arguments else keywords.get("input")
        if isinstance(given, Tensor) and ids is not None and given.shape == ids.shape and torch.equal(given, ids):
            found.append(module)

    modules = list(model.modules())
    hooks = [m.register_forward_pre_hook(watch, with_kwargs=True) for m in modules if isinstance(m, nn.Embedding)]
    modes = [module.training for module in modules]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    extra = {} if targets is None else {signature.targets: targets}
    model.eval()
    try:
        with preserved_rng(), torch.no_grad():
            torch.manual_seed(0)
            return signature.call(model, batch, **extra), found
    except Exception as error:  # whatever a stranger's forward raises is the answer to whether it can be called
        shapes = ", ".join(f"{key} {tuple(batch[key].shape)}" for key in signature.arguments if key in batch)
        told = " ".join(str(error).split())[:300].rstrip(".") or "without a message"
        raise AdapterError(
            f"{signature.shown} raised {type(error).__name__} on a first batch ({shapes}): {told}. Check the kind, and "
            "the sizes in the config."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in zip(modules, modes):
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
