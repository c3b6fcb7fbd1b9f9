"""`EndpointHandler`: an export folder's model, asked in the words of Hugging Face's Inference Endpoints.

What a model can do:

    causal_lm, seq2seq   text-generation      [{"generated_text": ...}], one an input
    masked_lm            fill-mask            [{"score", "token", "token_str", "sequence"}, ...]
    classifier           text-classification  [[{"label", "score"}, ...]], one list an input
    any model of texts   feature-extraction   [[...]]: the mean of the last hidden states over a text's tokens
    vae                  grid-sampling, grid-reconstruction   {"grids": [rows of colours], ...}

`"task"` in a request asks for another than the first of its kind. Inputs that come together are computed together, and
each gets what it gets alone: rows are masked, and each has a random generator of its own. Unlike `models.generate`,
text ends at an end-of-text token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .answers import answer
from .checks import BadRequest, FolderError
from .decoding import Causal, Seq2Seq, choose, padded, sound
from .graphs import Graph
from .models import Ours, Transformers, load_ours, load_transformers
from .requests import Reader, Request
from .rows import Row
from .sampling import Bounds
from .texts import Text, load_tokenizer

TASKS = {
    "causal_lm": ("text-generation", "feature-extraction"),
    "seq2seq": ("text-generation", "feature-extraction"),
    "masked_lm": ("fill-mask", "feature-extraction"),
    "classifier": ("text-classification", "feature-extraction"),
    "vae": ("grid-sampling", "grid-reconstruction"),
}


class EndpointHandler:
    """A model, its tokenizer and what they can do. `path` is an export folder.

    `load(folder)` gives a model of loader "ours", its tokenizer and metadata; None: the code in the folder does.
    `trust`: whether a .pt2 may be read, which can run code that it holds. Raises `FolderError`.
    """

    def __init__(
        self,
        path: str | Path = "",
        bounds: Bounds = Bounds(),
        load: Callable[[Path], tuple] | None = None,
        *,
        trust: bool = True,
    ):
        self.folder, self.bounds = Path(path).resolve(), bounds
        file = self.folder / "metadata.json"
        if not file.is_file():
            raise FolderError(f"{self.folder} has no metadata.json; expected a folder that the export wrote.")
        self.metadata = json.loads(file.read_text(encoding="utf-8"))
        self.kind, loader = self.metadata["kind"], self.metadata["loader"]
        if self.kind not in TASKS:
            raise FolderError(f"kind {self.kind!r} cannot be served; expected one of {', '.join(TASKS)}.")
        self.device = torch.device("cuda" if torch.cuda.is_available() and loader != "weights" else "cpu")
        tokenizer = None
        if loader == "ours":
            module, tokenizer, _ = (load or load_ours)(self.folder)
            self.model: Any = Ours(module.to(self.device), "model_code" if load is None else "installed code")
        elif loader == "transformers":
            self.model = Transformers(load_transformers(self.folder, self.kind).to(self.device))
        else:
            self.model = Graph(self.folder, self.kind, trust=trust)
        self.context = self.metadata.get("limits", {}).get("context_length") or self.model.context
        self.special = self.metadata.get("special", {})
        self.text = None if self.kind == "vae" else Text(tokenizer or load_tokenizer(self.folder), self.special)
        self.tasks = tuple(task for task in TASKS[self.kind] if task != "feature-extraction" or self.model.embeds)
        self.reader = Reader(self.kind, self.tasks, bounds, self.context, self.text, self.model)

    def __call__(self, data: dict[str, Any]) -> list | dict:
        """Answer one request: {"inputs": ..., "parameters": {...}}. Raises `BadRequest`."""
        request = self.read(data)
        if request.rows:
            for _ in self.decode(request.rows):
                pass
            return [row.result() for row in request.rows]
        return self.run([request])[0]

    def stream(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An event a token, as text-generation-inference streams them, for one prompt."""
        request = self.read(data)
        if len(request.rows) != 1:
            raise BadRequest(f"{request.task} of {request.size} inputs came to be streamed; expected one prompt.")
        request.rows[0].watched = True
        for rows in self.decode(request.rows):
            for row in rows:
                yield row.event()

    def info(self) -> dict[str, Any]:
        """What is served, for people and for the page."""
        names = ("name", "family", "kind", "classes", "step", "metrics", "limits", "license", "origin")
        mask = self.text.mask if self.text else None
        return {
            **{name: self.metadata.get(name) for name in names},
            "tasks": list(self.tasks),
            "read_with": self.model.told,
            "device": str(self.device),
            "context_length": self.context,
            "max_new_tokens": self.bounds.new_tokens,
            "max_inputs": self.bounds.inputs,
            "mask_token": None if mask is None else self.text.decode([mask]),
        }

    def read(self, data: Any, task: str | None = None) -> Request:
        """A request as JSON holds it, checked. Raises `BadRequest`."""
        return self.reader.read(data, task)

    def decode(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Generate for rows together, a token a row a step; yields the rows that got one.

        A row leaves when its `finish` is set, which may be done from outside between two steps (cancelled).
        """
        rows = [row for row in rows if row.finish is None]
        groups: dict[int, list[Row]] = {}
        for row in rows:  # an encoder that knows no padding reads sources of one length together
            groups.setdefault(len(row.ids) if self.kind == "seq2seq" and self.model.maskless else 0, []).append(row)
        for group in groups.values():
            yield from self._decode(group)

    def _decode(self, rows: list[Row]) -> Iterator[list[Row]]:
        state = self._begin(rows)
        while rows:
            for row, logits in zip(rows, sound(state.logits())):
                token = choose(logits, row)
                row.add(token, float(logits.log_softmax(-1)[token]))
            yield rows
            left = [at for at, row in enumerate(rows) if row.finish is None]
            if left and len(left) < len(rows):
                state.keep(left)
            rows = [rows[at] for at in left]
            if rows:
                state.push([row.tokens[-1] for row in rows])

    def _begin(self, rows: list[Row]) -> Causal | Seq2Seq:
        if self.kind == "seq2seq":
            return Seq2Seq(self.model, rows, self.special["decoder_start"], self.device)
        return Causal(self.model, rows, self.context, self.device)

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> list[list | dict]:
        """The answers to requests of one task that is not text-generation, computed together."""
        items = [item for request in requests for item in request.items]
        outputs: list[Tensor] = []
        for at in range(0, len(items), self.bounds.inputs):
            outputs += self._compute(requests[0].task, items[at : at + self.bounds.inputs])
        answers, at = [], 0
        classes = self.metadata.get("classes") or self.model.classes
        for request in requests:
            answers.append(answer(request, outputs[at : at + len(request.items)], self.text, classes))
            at += len(request.items)
        return answers

    def _compute(self, task: str, items: list[Any]) -> list[Tensor]:
        """One tensor an item: logits of the classes (C,), of the masks (M, V), a vector (H,), or a canvas (30, 30)."""
        if task == "grid-sampling":
            return list(self.model.module.decode(torch.stack(items).to(self.device)).mode.cpu())
        if task == "grid-reconstruction":
            return list(self.model.module.reconstruct({"grids": torch.stack(items).to(self.device)}).cpu())
        if self.model.maskless and len(set(map(len, items))) > 1:  # padding would be read as text
            return [output for item in items for output in self._compute(task, [item])]
        ids, mask = padded(items, self.device)
        if task == "feature-extraction":
            hidden = self.model.hidden(ids, mask).float()  # (B, T, H)
            token = mask.bool()[:, :, None]
            return list(sound(hidden.masked_fill(~token, 0).sum(1) / token.sum(1)).cpu())
        logits = sound(self.model.logits(ids, mask).float())
        if task == "text-classification":
            return list(logits.cpu())
        return [row[: len(item)][torch.tensor(item) == self.text.mask].cpu() for row, item in zip(logits, items)]
