"""What a model says of itself: its kind, vocabulary, context, padding, classes and image size, and where it says it.

Nothing is guessed: what neither the config nor the model states raises, and the message says how to give it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from utils.models.signature import AdapterError, Signature

Kind = Literal["causal_lm", "masked_lm", "seq2seq", "classifier", "image_classifier"]
KINDS: tuple[str, ...] = get_args(Kind)
SEES_LATER = "inferred: its positions see later tokens"
HEADS = {  # ends of class names in transformers
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForMaskedLM": "masked_lm",
    "ForConditionalGeneration": "seq2seq",
    "ForSequenceClassification": "classifier",
    "ForImageClassification": "image_classifier",
}
VOCABULARY = ("vocab_size", "n_vocab", "num_tokens", "vocabulary_size", "n_tokens", "ntoken")
CONTEXT = (
    "context_length", "max_seq_len", "max_seq_length", "seq_length", "seq_len", "block_size", "n_positions",
    "max_position_embeddings", "n_ctx", "context_size", "max_len",
)  # fmt: skip
PADDING = ("pad_token_id", "pad_id", "pad_idx", "padding_idx", "pad_token")
CLASSES = ("num_labels", "num_classes", "n_classes")
CHANNELS = ("num_channels", "channels", "in_channels", "in_chans")


class Facts:
    """Numbers that a config, the model's own config, or the model's attributes state; and where each was read."""

    def __init__(self, config: Mapping[str, Any], model: nn.Module):
        self.model = model
        own = next((getattr(model, name) for name in ("config", "cfg") if hasattr(model, name)), None)
        self.places = [("the config", config), ("the model's config", own), ("the model", model)]
        self.read: dict[str, str] = {}

    def find(self, names: tuple[str, ...]) -> tuple[Any, str] | None:
        for place, holder in self.places:
            for name in names:
                value = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
                if value is not None and not callable(value):
                    return value, f"{place}'s {name}" if place == "the model" else f"{name} in {place}"
        return None

    def integer(self, names: tuple[str, ...]) -> int | None:
        found = self.find(names)
        if found is None:
            return None
        value, place = found
        if isinstance(value, bool) or not isinstance(value, int):
            raise AdapterError(f"{place} is {value!r}; expected a whole number.")
        label = {VOCABULARY: "vocabulary", PADDING: "padding id", CONTEXT: "context"}.get(names)
        if label:
            self.read[label] = place
        return value

    def context(self) -> int | None:
        limit = self.integer(CONTEXT)
        own = self.places[1][1]
        given = self.places[0][1]
        stated = any(name in given for name in CONTEXT) or hasattr(own, "model_type")
        if limit is None and not stated:  # a model of transformers' that has no length has no limit
            raise AdapterError(
                f"The context length of {type(self.model).__name__} is not known: its config has none of "
                f"{', '.join(CONTEXT)}. Give it in the config: context_length=N, or "
                "context_length=null if any length is right."
            )
        return limit

    def image(self) -> tuple[int, int, int]:
        size, channels = self.find(("image_size", "img_size")), self.integer(CHANNELS)
        if channels is None:
            first = next((module for module in self.model.modules() if isinstance(module, nn.Conv2d)), None)
            channels = first.in_channels if first is not None else None
        if size is None or channels is None:
            missing = [name for name, value in (("image_size", size), ("channels", channels)) if value is None]
            raise AdapterError(
                f"{' and '.join(missing)} of {type(self.model).__name__} cannot be known from it or its config. Give "
                f"in the config: {' '.join(f'{name}=N' for name in missing)}."
            )
        side = size[0]
        height, width = (side, side) if isinstance(side, int) else side
        self.read["image"] = size[1]
        return channels, height, width


def declared_kind(model: nn.Module, kind: str, facts: Facts, signature: Signature) -> tuple[str, str]:
    """The kind and how it is known, from all but a call; "" where only a call can tell."""
    given = facts.places[0][1].get("kind")
    for value, why in (
        (kind, "declared"),
        (given, "declared in the config"),
        (getattr(model, "kind", None), "declared by the model"),
    ):
        if isinstance(value, str) and value:
            if value not in KINDS:
                raise AdapterError(f"kind={value!r}: expected one of {', '.join(KINDS)}.")
            return value, why
    name = type(model).__name__
    for end, value in HEADS.items():
        if name.endswith(end):
            return value, f"by its class's name, {name}"
    if signature.takes("pixel_values") and not signature.takes("input_ids"):
        return "image_classifier", f"forward takes {signature.arguments['pixel_values']}"
    if signature.takes("decoder_input_ids"):
        return "seq2seq", f"forward takes {signature.arguments['decoder_input_ids']}"
    has = [type(module) for module in model.modules()]
    if nn.Embedding not in has and (nn.Conv2d in has or facts.find(("image_size", "img_size")) is not None):
        return "image_classifier", "it has no nn.Embedding, and reads images"
    return "", ""


def without_offset(model: nn.Module, limit: int | None, read: dict[str, str]) -> int | None:
    """RoBERTa's family numbers positions from padding_idx + 1 on, and counts those rows in max_position_embeddings."""
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Embedding)
            and "position" in name
            and module.padding_idx is not None
            and limit == module.num_embeddings
        ):
            read["context"] += f", less the {module.padding_idx + 1} rows up to its padding_idx"
            return limit - module.padding_idx - 1
    return limit
