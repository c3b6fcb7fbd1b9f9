"""Models of text as graphs of tensors alone: whole, or encoder and decoder, with rows of ids to export and prove them.

Leaves out which model a run has (`training.exportable`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.models.called import Called
from utils.models.exportable import Part
from utils.models.model import Model
from utils.models.signature import inspect_forward

LONGEST = 64  # tokens of the rows that parity is proven on, where the model's context has room for them


def of_transformers(model: nn.Module) -> bool:
    """Whether a model's class comes with `transformers`, so that `from_pretrained` knows it without other code."""
    return type(model).__module__.startswith("transformers.") and hasattr(model, "save_pretrained")


@dataclass(frozen=True)
class Rows:
    """Random rows of ids: what a model is exported with, and others to prove it on. The same every time."""

    vocab_size: int
    limit: int
    """tokens of a row at most"""

    def __post_init__(self):
        if self.limit < 4:
            raise ValueError(f"The model sees {self.limit} tokens at once; rows of several lengths need 4 at least.")

    @property
    def sizes(self) -> tuple[tuple[int, int, str], ...]:
        """(rows, tokens, side of the padding or nothing) of each, the one it is exported with first."""
        most = min(self.limit, LONGEST)
        length = most // 2
        return ((2, length, ""), (1, most, ""), (3, length + 1, "right"), (4, length - 1, "left"), (1, 1, ""))

    def ids(self, rows: int, length: int, seed: int = 0) -> Tensor:
        """(rows, length) int64."""
        generator = torch.Generator().manual_seed(1000 * rows + length + 7919 * seed)
        return torch.randint(self.vocab_size, (rows, length), generator=generator)

    @staticmethod
    def mask(rows: int, length: int, side: str) -> Tensor:
        """(rows, length) int64: 1 for a token, 0 for padding; each row is one token shorter than that before it."""
        lengths = torch.tensor([max(1, length - row * bool(side)) for row in range(rows)])
        mask = (torch.arange(length) < lengths[:, None]).long()
        return mask.flip(1) if side == "left" else mask


def text_parts(model: nn.Module, kind: str, rows: Rows) -> tuple[Part, ...]:
    """The graphs of a model of text, as `fit` trains it: one, or encoder and decoder where the model has both apart."""
    foreign = isinstance(model, Called) and not of_transformers(model.model)
    inner = model.model if isinstance(model, Called) else model
    masked = inspect_forward(inner).for_kind(kind).takes("attention_mask")
    # A query that sees no key is defined in our models alone; with padding on the right there is none.
    sides = ("", "right", "left") if isinstance(inner, Model) else ("", "right")
    sizes = [(count, length, side if side in sides else "right") for count, length, side in rows.sizes]
    inputs = []
    for count, length, side in sizes:
        given = {"input_ids": rows.ids(count, length)}
        inputs.append(given | ({"attention_mask": rows.mask(count, length, side)} if masked else {}))
    axes = {name: {0: "batch", 1: "length"} for name in inputs[0]}
    if kind != "seq2seq":
        axes["logits"] = {0: "batch"} if kind == "classifier" else {0: "batch", 1: "length"}
        return (Part("model", (Masked if masked else Bare)(model), inputs[0], tuple(inputs[1:]), axes),)
    targets = [rows.ids(count, max(1, length - 2), seed=1) for count, length, _ in sizes]
    targets_axes = {"decoder_input_ids": {0: "batch", 1: "decoder_length"}}
    logits_axes = {"logits": {0: "batch", 1: "decoder_length"}}
    if foreign:
        whole = [{"decoder_input_ids": target, **given} for target, given in zip(targets, inputs)]
        module = (MaskedPair if masked else BarePair)(model)
        return (Part("model", module, whole[0], tuple(whole[1:]), {**targets_axes, **axes, **logits_axes}),)
    encoder, decoder = Encoder(inner).eval(), Decoder(inner).eval()
    with torch.no_grad():
        hidden = [encoder(**given) for given in inputs]
    memory_axes = {"encoder_hidden": {0: "batch", 1: "length"}}
    decoded = [
        {"decoder_input_ids": target, "encoder_hidden": memory, "attention_mask": given["attention_mask"]}
        for target, memory, given in zip(targets, hidden, inputs)
    ]
    return (
        Part("encoder", encoder, inputs[0], tuple(inputs[1:]), {**axes, **memory_axes}, "encoder_hidden"),
        Part(
            "decoder", decoder, decoded[0], tuple(decoded[1:]),
            {**targets_axes, **memory_axes, "attention_mask": axes["attention_mask"], **logits_axes},
        ),
    )  # fmt: skip


class _Graph(nn.Module):
    """A model called with tensors by place, which gives one tensor. Abstract."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.model if isinstance(model, Called) and of_transformers(model.model) else model
        # transformers' would give keys and values besides, which nothing reads
        takes = of_transformers(self.model) and "use_cache" in inspect.signature(self.model.forward).parameters
        self._more = {"use_cache": False} if takes else {}
        self.eval()

    def call(self, **batch: Any) -> Tensor:
        output = self.model(**batch, **self._more)
        return output if isinstance(output, Tensor) else output.logits


class Bare(_Graph):
    """For a model that knows no padding."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits (B, T, V), or (B, classes), of ids (B, T)."""
        return self.call(input_ids=input_ids)


class Masked(_Graph):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, T, V), or (B, classes), of ids (B, T) and their mask (B, T)."""
        return self.call(input_ids=input_ids, attention_mask=attention_mask)


class BarePair(_Graph):
    """For an encoder-decoder that knows no padding and is not ours to take apart."""

    def forward(self, decoder_input_ids: Tensor, input_ids: Tensor) -> Tensor:
        """Logits (B, Td, V)."""
        return self.call(decoder_input_ids=decoder_input_ids, input_ids=input_ids)


class MaskedPair(_Graph):
    """For an encoder-decoder that is not ours to take apart."""

    def forward(self, decoder_input_ids: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, Td, V)."""
        return self.call(decoder_input_ids=decoder_input_ids, input_ids=input_ids, attention_mask=attention_mask)


class Encoder(_Graph):
    """The encoder of an encoder-decoder: our T5's, or one of transformers'."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states (B, T, C) of the source, for the decoder."""
        if isinstance(self.model, Model):
            return self.model.encode(input_ids, attention_mask)
        return self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class Decoder(_Graph):
    """The decoder with the head: logits of a target, from what the encoder made of its source."""

    def forward(self, decoder_input_ids: Tensor, encoder_hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, Td, V) from hidden states (B, T, C), whose padding `attention_mask` (B, T) marks."""
        if isinstance(self.model, Model):
            return self.model.decode(decoder_input_ids, encoder_hidden, attention_mask)
        from transformers.modeling_outputs import BaseModelOutput

        source = BaseModelOutput(last_hidden_state=encoder_hidden)
        return self.call(decoder_input_ids=decoder_input_ids, encoder_outputs=source, attention_mask=attention_mask)
