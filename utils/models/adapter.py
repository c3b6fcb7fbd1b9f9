"""The one boundary between our code and any PyTorch model: its kind, its sizes, and one way to call it.

`adapt` inspects a model once; from then on it is called with batches whose keys are fixed: `input_ids` (B, T),
`attention_mask` (B, T; 1 for a token), `decoder_input_ids` (B, Td), `pixel_values` (B, channels, H, W), and `labels`,
(B, T) of a language model's positions with -100 where nothing is asked, or (B,) of classes. What a model declares is
read, never guessed; what it does not say is asked for in the error. Leaves out building models (`models.source`).
"""

from __future__ import annotations

import copy
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.facts import (
    CONTEXT,
    PADDING,
    ROWS,
    VOCABULARY,
    Facts,
    Kind,
    declared_kind,
    measured_kind,
    without_offset,
)
from utils.models.signature import AdapterError, Signature, inspect_forward, logits_of, probe


@dataclass(eq=False)
class Adapter:
    """A model of a known kind. Calling it with a batch gives its logits, (B, T, V) or (B, classes), in float32.

    `head` is False where the model ends in hidden states, `limit` is None where it states no context length, and
    `read` says for each fact where it comes from.
    """

    model: nn.Module
    kind: Kind
    signature: Signature
    device: torch.device
    outputs: int
    head: bool
    vocab_size: int | None = None
    target_size: int | None = None
    """ids of the decoder, where a seq2seq model has a vocabulary of its own for them"""
    limit: int | None = None
    pad_id: int | None = None
    image: tuple[int, int, int] | None = None
    embedding: nn.Embedding | None = None
    build: Callable[[], nn.Module] | None = None
    pretrained: bool = False
    read: dict[str, str] = field(default_factory=dict)

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        return logits_of(self.raw(batch))[0].float()

    def raw(self, batch: Mapping[str, Tensor]) -> Any:
        """The model's own output for a batch."""
        targets = {self.signature.targets: batch[self.varied]} if self.signature.targets else {}
        return self.signature.call(self.model, batch, **targets)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats over the labels that are not -100."""
        logits = self(batch)
        return F.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten(), ignore_index=-100)

    def batch(self, rows: int, length: int, *, seed: int) -> dict[str, Tensor]:
        """Random inputs with random labels, independent of them: `rows` of `length` tokens, or of images."""
        generator = torch.Generator().manual_seed(seed)
        if self.kind == "image_classifier":
            pixels = torch.randn(rows, *self.image, generator=generator, device="cpu")
            inputs = {"pixel_values": pixels.to(_dtype(self.model))}
        else:
            inputs = self._text(rows, length, generator)
        size = (rows, length) if self.per_token else (rows,)
        inputs["labels"] = torch.randint(self.labels, size, generator=generator, device="cpu")
        return {key: value.to(self.device) for key, value in inputs.items()}

    def _text(self, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = {"input_ids": self.random_ids((rows, length), generator)}
        for key in ("attention_mask", "decoder_attention_mask"):
            if self.signature.takes(key):
                inputs[key] = torch.ones(rows, length, dtype=torch.long)
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = self.random_ids((rows, length), generator, self.target_size)
        return inputs

    def random_ids(self, size: tuple[int, ...], generator: torch.Generator, below: int | None = None) -> Tensor:
        """Token ids that the model has an embedding for (or `below`), none of them padding."""
        number = (below or self.usable_ids) - (self.pad_id is not None)
        ids = torch.randint(number, size, generator=generator, device="cpu")
        return ids if self.pad_id is None else ids + (ids >= self.pad_id)

    @property
    def usable_ids(self) -> int:
        """Ids below the vocabulary size that have a row in the embedding."""
        rows = self.embedding.num_embeddings if self.embedding is not None else self.vocab_size
        return min(self.vocab_size, rows)

    @property
    def labels(self) -> int:
        """Classes of the cross-entropy: the vocabulary, or what the head has of it."""
        return min(self.target_size or self.vocab_size, self.outputs) if self.language else self.outputs

    @property
    def text(self) -> bool:
        return self.kind != "image_classifier"

    @property
    def language(self) -> bool:
        """Whether the outputs are logits over the vocabulary, a row for each position."""
        return self.kind in ("causal_lm", "masked_lm", "seq2seq")

    @property
    def per_token(self) -> bool:
        return self.language or (self.text and not self.head)

    @property
    def varied(self) -> str:
        """The input at whose positions the outputs stand."""
        return {"image_classifier": "pixel_values", "seq2seq": "decoder_input_ids"}.get(self.kind, "input_ids")

    def on(self, model: nn.Module) -> Adapter:
        """The same adapter around another instance of the model, where that lies."""
        device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), self.device)
        name = next((name for name, module in self.model.named_modules() if module is self.embedding), None)
        embedding = None if name is None else model.get_submodule(name)
        return replace(self, model=model, device=device, embedding=embedding)

    def on_cpu(self) -> Adapter:
        """The same adapter around a copy of the model on the CPU; itself where it is there."""
        return self if self.device.type == "cpu" else self.on(copy.deepcopy(self.model).cpu())

    def facts(self) -> dict[str, str]:
        """What is known of the model and where it was read, as text."""
        limit = str(self.limit) if self.limit is not None else "states none"
        values = {"kind": self.kind, "called as": self.signature.shown, "logits are": f"its {self.read['output']}"}
        if self.text:
            told = "told by the mask alone" if self.signature.takes("attention_mask") else "not known to the model"
            pad = f"none: padding is {told}" if self.pad_id is None else str(self.pad_id)
            values |= {"vocabulary": f"{self.vocab_size:,}", "context": limit, "padding id": pad}
            values |= {} if self.target_size is None else {"decoder's vocabulary": f"{self.target_size:,}"}
        else:
            values["image"] = " x ".join(map(str, self.image))
        count = sum(parameter.numel() for parameter in self.model.parameters())
        values |= {"outputs": f"{self.outputs:,}", "parameters": f"{count:,}", "device": str(self.device)}
        return {name: f"{value} ({self.read[name]})" if name in self.read else value for name, value in values.items()}

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{html.escape(value)}</td></tr>'
            for name, value in self.facts().items()
        )
        return f"<table>{rows}</table>"


def adapt(
    model: nn.Module,
    *,
    kind: str = "",
    config: Mapping[str, Any] | None = None,
    build: Callable[[], nn.Module] | None = None,
    pretrained: bool = False,
    device: torch.device | str = "cpu",
) -> Adapter:
    """Learn a model's kind and sizes from what it declares, its signature, and one call on two tiny rows.

    `kind` and `config` (vocab_size, context_length, pad_id, image_size, channels, kind, under their usual names)
    go before what the model itself says. `build` makes a fresh instance. The model is moved to `device`. Raises
    AdapterError, which names what is missing and how to give it.
    """
    device = torch.device(device)
    model = model.to(device)
    signature = inspect_forward(model)
    facts = Facts(config or {}, model)
    declared, why = declared_kind(model, kind, facts, signature)
    learn = _learn_image if declared == "image_classifier" else _learn_text
    found = learn(model, signature.for_kind(declared), facts, declared, why, device)
    return replace(found, build=build, pretrained=pretrained)


def _learn_image(
    model: nn.Module, signature: Signature, facts: Facts, kind: str, why: str, device: torch.device
) -> Adapter:
    image = facts.image()
    signature = replace(signature, targets="")
    pixels = torch.zeros(2, *image, device=device, dtype=_dtype(model))
    logits, where = logits_of(probe(model, signature, {"pixel_values": pixels})[0])
    _require_shape(signature, kind, logits, (2,))
    read = facts.read | {"kind": why, "output": where}
    return Adapter(model, kind, signature, device, logits.shape[-1], True, image=image, read=read)


def _learn_text(
    model: nn.Module, signature: Signature, facts: Facts, kind: str, why: str, device: torch.device
) -> Adapter:
    stated, pad_id = facts.integer(VOCABULARY), facts.integer(PADDING)
    length = min(3, facts.integer(CONTEXT) or 3)
    ids = _two_ids(model, pad_id, length).to(device)
    batch = {"input_ids": ids, "decoder_input_ids": ids}
    batch |= {key: torch.ones_like(ids) for key in ("attention_mask", "decoder_attention_mask")}
    output, embeddings = probe(model, signature, batch)
    logits, where = logits_of(output)
    head = where != "last_hidden_state"
    if signature.targets and logits.dim() == 3 and logits.shape[1] == 1 < length:  # the last position's alone
        logits, where = logits_of(probe(model, signature, batch, targets=ids)[0])
        where += f", every position's because it is given {signature.targets}"
    else:
        signature = replace(signature, targets="")
    if not kind:
        kind, why = measured_kind(model, signature, batch, logits)
    _require_shape(signature, kind, logits, (2,) if kind == "classifier" and head else (2, length))

    embedding = embeddings[0] if embeddings else None
    limit, read, target = facts.context(), dict(facts.read), None
    if stated is None:
        if embedding is None:
            raise AdapterError(
                f"The vocabulary size of {type(model).__name__} is not known: neither its config nor an nn.Embedding "
                "that takes the ids says it. Give it in the config: vocab_size=N."
            )
        stated, read["vocabulary"] = embedding.num_embeddings, ROWS
        own = [one.num_embeddings for one in embeddings if one.num_embeddings != stated] if kind == "seq2seq" else []
        target = own[-1] if own else None
    if pad_id is None and embedding is not None and embedding.padding_idx is not None:
        pad_id, read["padding id"] = embedding.padding_idx, "the embedding's padding_idx"
    rows = embedding.num_embeddings if embedding is not None else stated
    if pad_id is not None and not -rows <= pad_id < max(rows, stated):
        raise AdapterError(
            f"The padding id is {pad_id} ({read['padding id']}), outside the vocabulary of {stated:,}; give the id of "
            "the padding token, or make the vocabulary and the embedding larger."
        )
    if pad_id is not None and pad_id < 0:
        pad_id += rows  # as nn.Embedding counts
    return Adapter(
        model, kind, signature, device, logits.shape[-1], head, vocab_size=stated, target_size=target,
        limit=without_offset(model, limit, read), pad_id=pad_id, embedding=embedding,
        read=read | {"kind": why, "output": where},
    )  # fmt: skip


def _two_ids(model: nn.Module, pad_id: int | None, length: int) -> Tensor:
    """Two rows (2, `length`) of two of the ids 0, 1 and 2 that no padding is: a model may leave padding out."""
    padding = {module.padding_idx for module in model.modules() if isinstance(module, nn.Embedding)} | {pad_id}
    low, high = [identity for identity in range(4) if identity not in padding or identity > 2][:2]
    return torch.where(torch.arange(2 * length).view(2, length) // 2 % 2 == 0, high, low)


def _require_shape(signature: Signature, kind: str, logits: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise AdapterError where an output has not the shape that its kind's have."""
    if tuple(logits.shape[:-1]) != wanted or logits.dim() < 2:
        last = "classes" if kind in ("classifier", "image_classifier") else "V"
        raise AdapterError(
            f"{signature.shown} gave an output of shape {tuple(logits.shape)}; kind={kind!r} gives "
            f"({', '.join(map(str, wanted))}, {last}) for this batch. Declare the kind that it is, or let forward "
            "return that: logits, for every position of a language model, with no loss or pooling in their place."
        )
    if kind in ("classifier", "image_classifier") and logits.shape[-1] < 2:
        raise AdapterError(
            f"{signature.shown} gives one number a row; kind={kind!r} needs one for each class, two at least, for its "
            "cross-entropy."
        )


def _dtype(model: nn.Module) -> torch.dtype:
    """Of the model's numbers, which its pixels must have."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
