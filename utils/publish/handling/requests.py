"""`Reader`: requests as JSON holds them become a `Request`. Everything of a request that can be wrong is found here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .checks import BadRequest, TooLong, fits, flag, known, number, shown
from .grids import canvases, draws
from .rows import Row
from .sampling import Bounds, Sampling
from .texts import Text

OF_ITEMS = {
    "fill-mask": ("top_k",),
    "text-classification": ("top_k", "function_to_apply", "truncate"),
    "feature-extraction": ("normalize", "truncate"),
}


@dataclass
class Request:
    """A request that was read: a row a prompt, or an item an input, and how its results are told."""

    task: str
    single: bool
    """whether one input came, not a list"""
    items: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.items)


@dataclass(frozen=True)
class Reader:
    """Reads requests to one model."""

    kind: str
    tasks: tuple[str, ...]
    bounds: Bounds
    context: int | None
    text: Text | None
    """None where the model reads grids"""
    model: Any

    def read(self, data: Any, task: str | None = None) -> Request:
        """Raises `BadRequest`."""
        if not isinstance(data, dict):
            raise BadRequest(f'{shown(data)} came; expected an object such as {{"inputs": ..., "parameters": {{}}}}.')
        data = dict(data)
        task = data.pop("task", None) or task
        inputs, parameters = data.pop("inputs", None), data.pop("parameters", None) or {}
        data.pop("stream", None)  # how it is told, not what
        if not isinstance(parameters, dict):
            raise BadRequest(f"parameters={shown(parameters)}; expected an object.")
        if task is None:
            task = self.tasks[0]
            if self.kind == "vae" and inputs not in (None, "", []):
                task = "grid-reconstruction"
        if task not in self.tasks:
            raise BadRequest(f"task {shown(task)} came; this {self.kind} does {', '.join(self.tasks)}.")
        if task == "feature-extraction":  # their parameters come beside the inputs
            parameters = {**parameters, **{name: data.pop(name) for name in ("normalize", "truncate") if name in data}}
        known(data, ("inputs", "parameters", "task", "stream"), what="keys")
        if task == "grid-sampling":
            items, options = draws(inputs, parameters, self.bounds.samples, self.model.module.config.latent_size)
            return Request(task, False, items=items, options=options)
        if task == "grid-reconstruction":
            items, single = canvases(inputs, parameters, self.bounds.samples)
            return Request(task, single, items=items)
        texts = self._texts(inputs)
        single = isinstance(inputs, str)
        if task == "text-generation":
            sampling = Sampling.read(parameters, self.bounds.new_tokens)
            return Request(task, single, rows=[self._row(text, sampling) for text in texts])
        return self._items(task, texts, parameters, single=single)

    def _items(self, task: str, texts: list[str], parameters: dict[str, Any], *, single: bool) -> Request:
        """Of a task that computes each text once."""
        given = known(parameters, OF_ITEMS[task])
        if "top_k" in given:
            given["top_k"] = number("top_k", given["top_k"], 1, 10**9, whole=True)
        for name in ("normalize", "truncate"):
            flag(name, given.get(name, False))
        if given.get("function_to_apply", "softmax") not in ("softmax", "sigmoid", "none"):
            name = shown(given["function_to_apply"])
            raise BadRequest(f"function_to_apply={name}; expected softmax, sigmoid or none.")
        items = [self.around(text, cut=given.get("truncate", False)) for text in texts]
        mask = self.text.mask
        if task == "fill-mask" and (mask is None or any(mask not in item for item in items)):
            name = None if mask is None else self.text.decode([mask])
            raise BadRequest(f"Every input needs {name} where a word is missing." if name else "No mask token here.")
        return Request(task, single, items=items, options=given)

    def _texts(self, inputs: Any) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadRequest(f"inputs={shown(inputs)}; expected a text, or a list of texts.")
        if len(texts) > self.bounds.inputs:
            raise TooLong(f"{len(texts)} inputs came; at most {self.bounds.inputs} are answered together.")
        for text in texts:
            if len(text) > self.bounds.prompt_characters:
                raise TooLong(f"{len(text):,} characters came; at most {self.bounds.prompt_characters:,} are read.")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise BadRequest(f"inputs hold half a surrogate pair at character {error.start}; send UTF-8.") from None
        return texts

    def _ids(self, text: str) -> list[int]:
        try:
            return self.text.encode(text)
        except ValueError as error:
            raise BadRequest(f"The tokenizer cannot read {shown(text)}: {error}") from None

    def _most(self) -> int | None:
        return min((one for one in (self.bounds.prompt_tokens, self.context) if one), default=None)

    def _row(self, text: str, sampling: Sampling) -> Row:
        ids, most = self._ids(text), self._most()
        if self.kind == "seq2seq":
            ids = [*self.text.before, *ids, *self.text.after]
        if sampling.truncate is not None:
            ids = ids[-sampling.truncate :]
        fits(len(ids), most, "shorten the prompt, or set truncate to read its last tokens alone")
        ends = self.model.ends | self.text.ends(line=self.kind == "seq2seq")
        if self.kind == "seq2seq":
            if self.context:  # bounds the target as well
                sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, self.context))
            return Row(text, ids, sampling, self.text.said, ends)
        ids = ids or [self.text.start]
        return Row(text, ids, sampling, lambda tokens: self.text.said(tokens, after=ids[-4:]), ends)

    def around(self, text: str, *, cut: bool) -> list[int]:
        """Ids with what stands around a text; cut at the text's end to what the model reads, where that is allowed."""
        ids, most = self._ids(text), self._most()
        around = len(self.text.before) + len(self.text.after)
        if cut and most:
            ids = ids[: max(0, most - around)]
        fits(len(ids) + around, most, "shorten the text" + (", or set truncate=true" if not cut else ""))
        return [*self.text.before, *ids, *self.text.after] or [self.text.start]
