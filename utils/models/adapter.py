"""The one boundary between our code and any PyTorch model: its kind, its sizes, and one way to call it.

`adapt` inspects a model once; from then on it is called with batches whose keys are fixed: `input_ids` (B, T),
`attention_mask` (B, T; 1 for a token), `decoder_input_ids` (B, Td), `pixel_values` (B, channels, H, W), and `labels`,
(B, T) of a language model's positions with -100 where nothing is asked, or (B,) of classes. What a model declares is
read, never guessed; what it does not say is asked for in the error. Leaves out building models (`models.source`).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.core.repro import preserved_rng
from utils.models.facts import KINDS, PADDING, SEES_LATER, VOCABULARY, Facts, Kind, declared_kind, without_offset
from utils.models.signature import AdapterError, Signature, inspect_forward, logits_of


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
        if self.signature.targets and self.read.get("output") == "every position, given targets":
            return self.signature.call(self.model, batch, **{self.signature.targets: batch["input_ids"]})
        return self.signature.call(self.model, batch)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats over the labels that are not -100."""
        logits = self(batch)
        return F.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten(), ignore_index=-100)

    def batch(self, rows: int, length: int, *, seed: int) -> dict[str, Tensor]:
        """Random inputs with random labels, independent of them: `rows` of `length` tokens, or of images."""
        generator = torch.Generator().manual_seed(seed)
        if self.kind == "image_classifier":
            inputs = {"pixel_values": torch.randn(rows, *self.image, generator=generator)}
        else:
            inputs = self._text(rows, length, generator)
        size = (rows, length) if self.per_token else (rows,)
        inputs["labels"] = torch.randint(self.labels, size, generator=generator)
        return {key: value.to(self.device) for key, value in inputs.items()}

    def _text(self, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = {"input_ids": self.random_ids((rows, length), generator)}
        for key in ("attention_mask", "decoder_attention_mask"):
            if self.signature.takes(key):
                inputs[key] = torch.ones(rows, length, dtype=torch.long)
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = self.random_ids((rows, length), generator)
        return inputs

    def random_ids(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Token ids that the model has an embedding for, none of them padding."""
        ids = torch.randint(self.usable_ids - (self.pad_id is not None), size, generator=generator)
        return ids if self.pad_id is None else ids + (ids >= self.pad_id)

    @property
    def usable_ids(self) -> int:
        """Ids below the vocabulary size that have a row in the embedding."""
        rows = self.embedding.num_embeddings if self.embedding is not None else self.vocab_size
        return min(self.vocab_size, rows)

    @property
    def labels(self) -> int:
        """Classes of the cross-entropy: the vocabulary, or what the head has of it."""
        return min(self.vocab_size, self.outputs) if self.language else self.outputs

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
        return replace(self, model=model, device=device)

    def facts(self) -> dict[str, str]:
        """What is known of the model and where it was read, as text."""
        limit = str(self.limit) if self.limit is not None else "states none"
        values = {"kind": self.kind, "called as": self.signature.shown, "logits are": f"its {self.read['output']}"}
        if self.text:
            pad = "none: padding is told by the mask alone" if self.pad_id is None else str(self.pad_id)
            values |= {"vocabulary": f"{self.vocab_size:,}", "context": limit, "padding id": pad}
        else:
            values["image"] = " x ".join(map(str, self.image))
        trained = sum(parameter.numel() for parameter in self.model.parameters())
        values |= {"outputs": f"{self.outputs:,}", "parameters": f"{trained:,}", "device": str(self.device)}
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

    `kind` and `config` (vocab_size, context_length, pad_id, num_classes, image_size, channels, under their usual names)
    go before what the model itself says. `build` makes a fresh instance. The model is moved to `device`. Raises
    AdapterError, which names what is missing and how to give it.
    """
    device = torch.device(device)
    model = model.to(device)
    signature = inspect_forward(model)
    facts = Facts(config or {}, model)
    declared, why = declared_kind(model, kind, facts, signature)
    if declared == "image_classifier":
        return _adapt_image(model, signature, facts, device, build, pretrained, why)
    if not (signature.takes("input_ids") or signature.takes("decoder_input_ids")):
        raise AdapterError(f"{signature.shown} takes images, but kind={declared!r} reads token ids; declare its kind.")
    if declared == "seq2seq" and not signature.takes("decoder_input_ids"):
        raise AdapterError(f"{signature.shown} has no decoder_input_ids, which a seq2seq model is given.")

    limit, pad_id = facts.context(), facts.integer(PADDING)
    stated = facts.integer(VOCABULARY)
    length = min(3, limit or 3)
    ids = (torch.arange(2 * length, device=device).view(2, length) // 2 + 1) % 2
    batch = {"input_ids": ids, "decoder_input_ids": ids}
    batch |= {key: torch.ones_like(ids) for key in ("attention_mask", "decoder_attention_mask")}
    if declared != "seq2seq":
        signature.arguments.pop("decoder_input_ids", None)
    output, embedding = _probe(model, signature, batch)
    logits, where = logits_of(output)
    if signature.targets and logits.dim() == 3 and logits.shape[1] == 1 < length:
        output, _ = _probe(model, signature, batch, {signature.targets: ids})
        logits, where = logits_of(output)[0], "every position, given targets"
    read = dict(facts.read)
    if stated is None:
        if embedding is None:
            raise AdapterError(
                f"The vocabulary size of {type(model).__name__} is not known: neither its config nor an nn.Embedding "
                "that takes the ids says it. Give it in the config: vocab_size=N."
            )
        stated, read["vocabulary"] = embedding.num_embeddings, "rows of the embedding"
    if pad_id is None and embedding is not None and embedding.padding_idx is not None:
        pad_id, read["padding id"] = embedding.padding_idx, "the embedding's padding_idx"
    if pad_id is not None and pad_id < 0:
        pad_id += stated
    if embedding is not None:
        limit = without_offset(model, limit, read)
    if not declared:
        declared, why = _measured_kind(model, signature, batch, logits)
    return Adapter(
        model, declared, signature, device, logits.shape[-1], where != "last_hidden_state",
        vocab_size=stated, limit=limit, pad_id=pad_id, embedding=embedding, build=build, pretrained=pretrained,
        read=read | {"kind": why, "output": where},
    )  # fmt: skip


def _adapt_image(model, signature, facts, device, build, pretrained, why) -> Adapter:
    if not signature.takes("pixel_values"):
        name = next(iter(signature.arguments.values()))
        signature = replace(signature, arguments={"pixel_values": name})
    else:
        signature.arguments.pop("input_ids", None)
    image = facts.image()
    pixels = torch.zeros(2, *image, device=device)
    output, _ = _probe(model, signature, {"pixel_values": pixels})
    logits, where = logits_of(output)
    read = dict(facts.read) | {"kind": why, "output": where}
    return Adapter(
        model, "image_classifier", signature, device, logits.shape[-1], where != "last_hidden_state",
        image=image, build=build, pretrained=pretrained, read=read,
    )  # fmt: skip


def _measured_kind(model: nn.Module, signature: Signature, batch: dict[str, Tensor], logits: Tensor) -> tuple[str, str]:
    """A language model by whether its first positions see the last; a classifier by its one output a row."""
    rows, length = batch["input_ids"].shape
    if logits.dim() == 2 and logits.shape[0] == rows:
        return "classifier", "inferred: one output a row"
    if logits.dim() != 3 or tuple(logits.shape[:2]) != (rows, length):
        raise AdapterError(
            f"{signature.shown} gave an output of shape {tuple(logits.shape)} for ids of shape ({rows}, "
            f"{length}); expected ({rows}, {length}, V) or ({rows}, classes). If its kind is known, declare it: "
            f"kind=one of {', '.join(KINDS)}."
        )
    changed = dict(batch, input_ids=batch["input_ids"].clone())
    changed["input_ids"][:, -1] = 1 - changed["input_ids"][:, -1]
    extra = {signature.targets: batch["input_ids"]} if signature.targets else {}
    first, second = (logits_of(_probe(model, signature, one, extra)[0])[0][:, :-1] for one in (batch, changed))
    if torch.allclose(first, second, atol=1e-6, rtol=1e-5):
        return "causal_lm", "inferred: no position sees a later token"
    return "masked_lm", SEES_LATER


def _probe(
    model: nn.Module, signature: Signature, batch: dict[str, Tensor], extra: Mapping[str, Any] | None = None
) -> tuple[Any, nn.Embedding | None]:
    """One call in eval mode; its output, and the nn.Embedding that was given the very ids (the encoder's, if two)."""
    found: list[nn.Embedding] = []
    ids = batch.get("input_ids")

    def watch(module: nn.Module, arguments: tuple) -> None:
        given = arguments[0] if arguments else None
        if isinstance(given, Tensor) and ids is not None and given.shape == ids.shape and torch.equal(given, ids):
            found.append(module)

    hooks = [m.register_forward_pre_hook(watch) for m in model.modules() if isinstance(m, nn.Embedding)]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with preserved_rng(), torch.no_grad():
            torch.manual_seed(0)
            return signature.call(model, batch, **(extra or {})), found[0] if found else None
    except Exception as error:  # whatever a stranger's forward raises is the answer to whether it can be called
        shapes = ", ".join(f"{key} {tuple(batch[key].shape)}" for key in signature.arguments if key in batch)
        raise AdapterError(
            f"{signature.shown} raised {type(error).__name__} on a first batch ({shapes}): {error}. Check the kind, "
            "and the sizes in the config."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
