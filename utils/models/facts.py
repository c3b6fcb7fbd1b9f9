"""What a model says of itself: its kind, vocabulary, context, padding and image size, and where it says it.

Nothing is guessed: what neither the config nor the model states raises, and the message says how to give it. A kind
that is not declared is told by what a call shows.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from utils.models.signature import AdapterError, Signature, logits_of, probe

Kind = Literal["causal_lm", "masked_lm", "seq2seq", "classifier", "image_classifier"]
KINDS: tuple[str, ...] = get_args(Kind)
ROWS = "rows of the embedding"
SEES_LATER = "inferred: its positions see later tokens"
HEADS = {  # ends of class names in transformers
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForMaskedLM": "masked_lm",
    "ForConditionalGeneration": "seq2seq",
    "ForSequenceClassification": "classifier",
    "ForImageClassification": "image_classifier",
}
CONFIGS = ("config", "cfg", "args", "hparams", "params")  # where a model keeps what it was built with
VOCABULARY = ("vocab_size", "n_vocab", "num_tokens", "vocabulary_size", "n_tokens", "ntoken")
CONTEXT = (
    "context_length", "max_seq_len", "max_seq_length", "seq_length", "seq_len", "block_size", "n_positions",
    "max_position_embeddings", "n_ctx", "ctx_len", "context_size", "context_window", "max_sequence_length",
    "sequence_length", "max_len",
)  # fmt: skip
PADDING = ("pad_token_id", "pad_id", "pad_idx", "padding_idx", "pad_token")
IMAGE_SIZE = ("image_size", "img_size")
CHANNELS = ("num_channels", "channels", "in_channels", "in_chans")
LABELS = {VOCABULARY: "vocabulary", PADDING: "padding id", CONTEXT: "context"}


class Facts:
    """Numbers that a config, the model's own config, or the model's attributes state; and where each was read."""

    def __init__(self, config: Mapping[str, Any], model: nn.Module):
        self.model, self.config = model, config
        own = [getattr(model, name) for name in CONFIGS if getattr(model, name, None) is not None]
        self.places = [("the config", config), *(("the model's config", one) for one in own), ("the model", model)]
        self.published = any(
            hasattr(one, "attribute_map") for one in own
        )  # a config of transformers', which is complete
        self.read: dict[str, str] = {}

    def find(self, names: tuple[str, ...], places: tuple[str, ...] = ()) -> tuple[Any, str] | None:
        """The first value of one of these names, in the order of the places, and where it stands."""
        for place, holder in self.places:
            for name in names if not places or place in places else ():
                value = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
                if value is None or callable(value) or (name == "pad_token" and isinstance(value, str)):
                    continue  # a pad_token is an id, or the text of a token
                if names is CONTEXT and value == -1 and hasattr(holder, "attribute_map"):
                    continue  # XLNet's way to say that it has no limit
                return value, f"{place}'s {name}" if place == "the model" else f"{name} in {place}"
        return None

    def integer(self, names: tuple[str, ...], places: tuple[str, ...] = ()) -> int | None:
        """As `find`, for a number: a padding id may be negative, a size may not."""
        found = self.find(names, places)
        if found is None:
            return None
        value, place = found
        if not _whole(value) or (names is not PADDING and value < 1):
            least = "" if names is PADDING else " of at least 1"
            raise AdapterError(f"{place} is {value!r}; expected a whole number{least}.")
        self.read[LABELS.get(names, names[0])] = place
        return int(value)

    def context(self) -> int | None:
        """Tokens at most; None where the config says null, or where a model of transformers' has no limit."""
        named = [name for name in CONTEXT if name in self.config]
        if named and all(self.config[name] is None for name in named) and not self.published:
            self.read["context"] = f"{named[0]} is null in the config"
            return None
        limit = self.integer(CONTEXT)
        if limit is None and not self.published:
            raise AdapterError(
                f"The context length of {type(self.model).__name__} is not known: its config has none of "
                f"{', '.join(CONTEXT)}. Give it in the config: context_length=N, or "
                "context_length=null if any length is right."
            )
        return limit

    def image(self) -> tuple[int, int, int]:
        """(channels, height, width). A convolution's channels go before an attribute, which may count another's."""
        size = self.find(IMAGE_SIZE)
        channels = self.integer(CHANNELS, ("the config", "the model's config"))
        first = next((module for module in self.model.modules() if isinstance(module, nn.Conv2d)), None)
        if channels is None and first is not None:
            channels, self.read[CHANNELS[0]] = first.in_channels, "channels of its first nn.Conv2d"
        elif channels is None:
            channels = self.integer(CHANNELS)
        if size is None or channels is None:
            missing = [name for name, value in (("image_size", size), ("channels", channels)) if value is None]
            raise AdapterError(
                f"{' and '.join(missing)} of {type(self.model).__name__} cannot be known from it or its config. Give "
                f"in the config: {' '.join(f'{name}=N' for name in missing)}."
            )
        value, place = size
        sides = list(value) if isinstance(value, (tuple, list)) else [value, value]
        if len(sides) != 2 or not all(_whole(side) and side > 0 for side in sides):
            raise AdapterError(f"{place} is {value!r}; expected a whole number, or two: height and width.")
        self.read["image"] = f"{place}, {self.read.pop(CHANNELS[0])}"
        return channels, int(sides[0]), int(sides[1])


def _whole(value: Any) -> bool:
    """Whether a value is a whole number; True and "12" are none, numpy's are."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def declared_kind(model: nn.Module, kind: str, facts: Facts, signature: Signature) -> tuple[str, str]:
    """The kind and how it is known, from all but a call; "" where only a call can tell."""
    own = getattr(model, "kind", None)
    for value, why in (
        (kind, "declared"),
        (facts.config.get("kind"), "declared in the config"),
        (own if own in KINDS else "", "declared by the model"),
    ):
        if value and value not in KINDS:
            raise AdapterError(f"kind={value!r} ({why}): expected one of {', '.join(KINDS)}. Declare its kind.")
        if value:
            return value, why
    name = type(model).__name__
    for end, value in HEADS.items():
        if name.endswith(end) and (value != "seq2seq" or signature.open or signature.takes("decoder_input_ids")):
            return value, f"by its class's name, {name}"
    if signature.takes("pixel_values") and not signature.takes("input_ids"):
        return "image_classifier", f"forward takes {signature.arguments['pixel_values']}"
    if signature.takes("decoder_input_ids"):
        return "seq2seq", f"forward takes {signature.arguments['decoder_input_ids']}"
    has = list(model.modules())
    if not any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in has):
        if any(isinstance(module, nn.Conv2d) for module in has) or facts.find(IMAGE_SIZE) is not None:
            return "image_classifier", "it has no nn.Embedding, and reads images"
    elif facts.find(IMAGE_SIZE) is not None and facts.find(VOCABULARY) is None:
        return "image_classifier", "it states an image_size and no vocabulary"
    return "", ""


def measured_kind(model: nn.Module, signature: Signature, batch: dict[str, Tensor], logits: Tensor) -> tuple[str, str]:
    """A classifier by its one output a row; a language model by whether its first positions see the last.

    `batch` is of two different ids. Where no position sees another, or the output is constant, parameters that are all
    zero (a zero-initialised head, or residual branch) hide what the model does: they are set to small numbers for the
    time of a second look.
    """
    rows, length = batch["input_ids"].shape
    if logits.dim() == 2 and logits.shape[0] == rows:
        return "classifier", "inferred: one output a row"
    if tuple(logits.shape[:-1]) != (rows, length):
        raise AdapterError(
            f"{signature.shown} gave an output of shape {tuple(logits.shape)} for ids of shape ({rows}, "
            f"{length}); expected ({rows}, {length}, V) or ({rows}, classes). If its kind is known, declare it: "
            f"kind=one of {', '.join(KINDS)}."
        )
    later, earlier = _sees(model, signature, batch)
    if not later and not earlier:
        with _without_zeros(model):
            later, _ = _sees(model, signature, batch)
    if not later:
        return "causal_lm", "inferred: no position sees a later token"
    name = type(model).__name__  # a leak is told from a masked language model's sight by it alone
    if re.search(r"gpt|llama|causal", name, re.IGNORECASE):
        return "causal_lm", f"by its class's name, {name}"
    return "masked_lm", SEES_LATER


def _sees(model: nn.Module, signature: Signature, batch: dict[str, Tensor]) -> tuple[bool, bool]:
    """Whether positions before the last see it, and whether those after the first see that."""
    ids = batch["input_ids"]

    def ask(ids: Tensor) -> Tensor:
        output, _ = probe(model, signature, {**batch, "input_ids": ids}, targets=ids if signature.targets else None)
        return logits_of(output)[0].float()

    other = int(ids.min()) + int(ids.max()) - ids  # the other of the two ids
    last, first = ids.clone(), ids.clone()
    last[:, -1], first[:, 0] = other[:, -1], other[:, 0]
    base = ask(ids)
    finite = base[base.isfinite()].abs()
    least = 1e-6 * (finite.max().item() if finite.numel() else 0.0)

    def differ(new: Tensor, places: slice) -> bool:
        return bool(((new - base).abs() > least)[:, places].any())  # equal infinities differ by NaN: not more

    return differ(ask(last), slice(None, -1)), differ(ask(first), slice(1, None))


@contextlib.contextmanager
def _without_zeros(model: nn.Module) -> Iterator[None]:
    """Parameters that are all zero are small random numbers meanwhile."""
    generator = torch.Generator().manual_seed(0)
    zeros = [(parameter, parameter.detach().clone()) for parameter in model.parameters() if not parameter.any()]
    with torch.no_grad():
        for parameter, _ in zeros:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zeros:
                parameter.copy_(value)


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
