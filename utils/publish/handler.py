"""`EndpointHandler`: an export folder as the custom handler of Hugging Face's Inference Endpoints, and nothing else.

    handler = EndpointHandler("path/to/folder")
    handler({"inputs": "Once", "parameters": {"max_new_tokens": 20, "temperature": 0.8, "seed": 0}})

One file, copied into the folder it reads; it needs torch and what the folder's loader needs. What a model can do:

    causal_lm, seq2seq   text-generation      [{"generated_text": ...}], one an input
    masked_lm            fill-mask            [{"score", "token", "token_str", "sequence"}, ...]
    classifier           text-classification  [[{"label", "score"}, ...]], one list an input
    any model of texts   feature-extraction   [[...]]: the mean of the last hidden states over a text's tokens
    vae                  grid-sampling, grid-reconstruction   {"grids": [rows of colours], ...}

`"task"` in a request asks for another than the first of its kind. Inputs that come together are computed together, and
each gets what it gets alone: rows are masked, and each has a random generator of its own. Unlike `models.generate`,
text ends at an end-of-text token. A folder of loader "ours" runs the code that lies in it, in model_code/.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TASKS = {
    "causal_lm": ("text-generation", "feature-extraction"),
    "seq2seq": ("text-generation", "feature-extraction"),
    "masked_lm": ("fill-mask", "feature-extraction"),
    "classifier": ("text-classification", "feature-extraction"),
    "vae": ("grid-sampling", "grid-reconstruction"),
}
AUTO = {
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}
SIDE, COLOURS, OUTSIDE = 30, 10, 10  # of the VAE's canvases: side, colours of a cell, what stands outside the grid
SEEDS = 2**63 - 1


class FolderError(RuntimeError):
    """A folder that cannot be served: the message says what is missing."""


class BadRequest(ValueError):
    """A request that cannot be answered: what came and what was expected."""


class TooLong(BadRequest):
    """More text, tokens, inputs or samples than the limits allow."""


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for."""

    inputs: int = 32
    prompt_tokens: int | None = None
    """None: as many as the model reads at once"""
    prompt_characters: int = 100_000
    new_tokens: int = 1024
    samples: int = 64
    """grids of a VAE"""


@dataclass(frozen=True)
class Sampling:
    """How text is generated. Greedy, unless `do_sample` is true or a temperature, top_k or top_p is given."""

    max_new_tokens: int = 100
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    """of every input's own generator; None: drawn, and told in the details"""
    stop: tuple[str, ...] = ()
    """texts that end the result, and are left off it"""
    truncate: int | None = None
    """the last tokens of the prompt that are read; None: a longer prompt than the model reads is an error"""
    return_full_text: bool = False
    details: bool = False

    @classmethod
    def read(cls, given: dict[str, Any], most: int) -> Sampling:
        """From the `parameters` of a request. Raises `BadRequest`."""
        known = cls.__dataclass_fields__
        given = _known(given, known, also=("decoder_input_details",))
        if given.pop("decoder_input_details", False):
            raise BadRequest("decoder_input_details=true came, but log-probabilities of the prompt are not given here.")
        values: dict[str, Any] = {}
        for name, (low, high, whole) in {
            "max_new_tokens": (1, most, True),
            "temperature": (0, 100, False),
            "top_k": (1, 2**31, True),
            "top_p": (0, 1, False),
            "repetition_penalty": (0.01, 100, False),
            "seed": (0, SEEDS, True),
            "truncate": (1, 2**31, True),
        }.items():
            if name in given:
                values[name] = _number(name, given[name], low, high, whole=whole)
        values |= {name: _flag(name, given[name]) for name in ("return_full_text", "details") if name in given}
        if values.get("top_p") == 0:
            raise BadRequest("top_p=0 leaves no token; expected more than 0, up to 1.")
        stop = given.get("stop", [])
        if not isinstance(stop, list) or len(stop) > 16 or not all(isinstance(one, str) and one for one in stop):
            raise BadRequest(f"stop={_shown(stop)}; expected a list of at most 16 texts that are not empty.")
        asked = [name for name in ("temperature", "top_k", "top_p") if name in values]
        sample = _flag("do_sample", given["do_sample"]) if "do_sample" in given else bool(asked)
        if not sample and asked and "do_sample" in given:
            raise BadRequest(
                f"do_sample=false takes the likeliest token, and does not read {', '.join(asked)}: drop one."
            )
        if values.get("temperature") == 0:  # the likeliest token
            sample, values["temperature"] = False, 1.0
        values.setdefault("max_new_tokens", min(cls.max_new_tokens, most))
        return cls(**values, do_sample=sample, stop=tuple(stop))


@dataclass
class Row:
    """One prompt and what has been generated of it so far."""

    prompt: str
    ids: list[int]
    sampling: Sampling
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    seed: int | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    """without what a stop text or an unfinished character may still take back, until `finish` is set"""
    finish: str | None = None
    """length, eos_token or stop_sequence, as text-generation-inference names them; cancelled"""
    shown: int = 0
    """characters of `text` that events have told"""
    watched: bool = False
    """whether the text is needed after every token"""

    def __post_init__(self):
        if self.sampling.do_sample and self.seed is None:
            self.seed = random.SystemRandom().randrange(2**32) if self.sampling.seed is None else self.sampling.seed
        self.generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)

    def add(self, token: int, logprob: float) -> None:
        """One more token; sets `finish` where it was the last."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self.ends:
            self.finish = "eos_token"
        elif len(self.tokens) >= self.sampling.max_new_tokens:
            self.finish = "length"
        if not (self.finish or self.watched or self.sampling.stop):
            return
        text = self.decode(self.tokens)
        places = [place for place in (text.find(stop) for stop in self.sampling.stop) if place >= 0]
        if places:
            self.text, self.finish = text[: min(places)], "stop_sequence"
        else:
            self.text = text if self.finish else _settled(text, self.sampling.stop)

    def event(self) -> dict[str, Any]:
        """The last token as text-generation-inference streams it; the texts of all events make the whole text."""
        new, self.shown = self.text[self.shown :], len(self.text)
        last = self.finish is not None
        return {
            "index": len(self.tokens),
            "token": {
                "id": self.tokens[-1], "text": new, "logprob": self.logprobs[-1],
                "special": self.tokens[-1] in self.ends,
            },
            "generated_text": self.result()["generated_text"] if last else None,
            "details": {"finish_reason": self.finish, "generated_tokens": len(self.tokens), "seed": self.seed}
            if last
            else None,
        }  # fmt: skip

    def result(self) -> dict[str, Any]:
        """The whole text, and with `details` what it is made of."""
        text = self.prompt + self.text if self.sampling.return_full_text else self.text
        if not self.sampling.details:
            return {"generated_text": text}
        tokens = [
            {"id": token, "text": self.decode([token]), "logprob": logprob, "special": token in self.ends}
            for token, logprob in zip(self.tokens, self.logprobs)
        ]
        details = {"finish_reason": self.finish, "generated_tokens": len(tokens), "seed": self.seed}
        return {"generated_text": text, "details": {**details, "prefill": [], "tokens": tokens}}


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


class EndpointHandler:
    """A model, its tokenizer and what they can do. `path` is an export folder.

    `load(folder)` gives a model of loader "ours", its tokenizer and metadata; None: the code in the folder does.
    """

    def __init__(self, path: str | Path = "", bounds: Bounds = Bounds(), load: Callable[[Path], tuple] | None = None):
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
            module, tokenizer, _ = (load or _load_ours)(self.folder)
            self.model: Any = _Ours(module.to(self.device), "model_code" if load is None else "installed code")
        elif loader == "transformers":
            self.model = _Transformers(_load_transformers(self.folder, self.kind).to(self.device))
        else:
            self.model = _Graph(self.folder, self.kind)
        self.context = self.metadata.get("limits", {}).get("context_length") or self.model.context
        self.special = self.metadata.get("special", {})
        self.text = None if self.kind == "vae" else _Text(tokenizer or _load_tokenizer(self.folder), self.special)
        self.tasks = tuple(task for task in TASKS[self.kind] if task != "feature-extraction" or self.model.embeds)

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
        """Everything of a request that can be wrong is found here. Raises `BadRequest`."""
        if not isinstance(data, dict):
            raise BadRequest(f'{_shown(data)} came; expected an object such as {{"inputs": ..., "parameters": {{}}}}.')
        data = dict(data)
        task = data.pop("task", None) or task
        inputs, parameters = data.pop("inputs", None), data.pop("parameters", None) or {}
        data.pop("stream", None)  # how it is told, not what
        if not isinstance(parameters, dict):
            raise BadRequest(f"parameters={_shown(parameters)}; expected an object.")
        if task is None:
            task = self.tasks[0]
            if self.kind == "vae" and inputs not in (None, "", []):
                task = "grid-reconstruction"
        if task not in self.tasks:
            raise BadRequest(f"task {_shown(task)} came; this {self.kind} does {', '.join(self.tasks)}.")
        if task == "feature-extraction":  # their parameters come beside the inputs
            parameters = {**parameters, **{name: data.pop(name) for name in ("normalize", "truncate") if name in data}}
        _known(data, ("inputs", "parameters", "task", "stream"), what="keys")
        if task == "grid-sampling":
            return self._read_sampling(inputs, parameters)
        if task == "grid-reconstruction":
            return self._read_grids(inputs, parameters)
        texts = self._texts(inputs)
        single = isinstance(inputs, str)
        if task == "text-generation":
            sampling = Sampling.read(parameters, self.bounds.new_tokens)
            return Request(task, single, rows=[self._row(text, sampling) for text in texts])
        allowed = {
            "fill-mask": ("top_k",),
            "text-classification": ("top_k", "function_to_apply", "truncate"),
            "feature-extraction": ("normalize", "truncate"),
        }[task]
        given = _known(parameters, allowed)
        if "top_k" in given:
            given["top_k"] = _number("top_k", given["top_k"], 1, 10**9, whole=True)
        for name in ("normalize", "truncate"):
            _flag(name, given.get(name, False))
        if given.get("function_to_apply", "softmax") not in ("softmax", "sigmoid", "none"):
            name = _shown(given["function_to_apply"])
            raise BadRequest(f"function_to_apply={name}; expected softmax, sigmoid or none.")
        items = [self._around(text, cut=given.get("truncate", False)) for text in texts]
        mask = self.text.mask
        if task == "fill-mask" and (mask is None or any(mask not in item for item in items)):
            name = None if mask is None else self.text.decode([mask])
            raise BadRequest(f"Every input needs {name} where a word is missing." if name else "No mask token here.")
        return Request(task, single, items=items, options=given)

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
            for row, logits in zip(rows, _sound(state.logits())):
                token = _choose(logits, row)
                row.add(token, float(logits.log_softmax(-1)[token]))
            yield rows
            left = [at for at, row in enumerate(rows) if row.finish is None]
            if left and len(left) < len(rows):
                state.keep(left)
            rows = [rows[at] for at in left]
            if rows:
                state.push([row.tokens[-1] for row in rows])

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> list[list | dict]:
        """The answers to requests of one task that is not text-generation, computed together."""
        items = [item for request in requests for item in request.items]
        outputs: list[Tensor] = []
        for at in range(0, len(items), self.bounds.inputs):
            outputs += self._compute(requests[0].task, items[at : at + self.bounds.inputs])
        answers, at = [], 0
        for request in requests:
            answers.append(self._told(request, outputs[at : at + len(request.items)]))
            at += len(request.items)
        return answers

    # Reading

    def _texts(self, inputs: Any) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadRequest(f"inputs={_shown(inputs)}; expected a text, or a list of texts.")
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
            raise BadRequest(f"The tokenizer cannot read {_shown(text)}: {error}") from None

    def _most(self) -> int | None:
        return min((one for one in (self.bounds.prompt_tokens, self.context) if one), default=None)

    def _row(self, text: str, sampling: Sampling) -> Row:
        ids, most = self._ids(text), self._most()
        if self.kind == "seq2seq":
            ids = [*self.text.before, *ids, *self.text.after]
        if sampling.truncate is not None:
            ids = ids[-sampling.truncate :]
        _fits(len(ids), most, "shorten the prompt, or set truncate to read its last tokens alone")
        ends = self.model.ends | self.text.ends(line=self.kind == "seq2seq")
        if self.kind == "seq2seq":
            if self.context:  # bounds the target as well
                sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, self.context))
            return Row(text, ids, sampling, self.text.said, ends)
        ids = ids or [self.text.start]
        return Row(text, ids, sampling, lambda tokens: self.text.said(tokens, after=ids[-4:]), ends)

    def _around(self, text: str, *, cut: bool) -> list[int]:
        """Ids with what stands around a text; cut at the text's end to what the model reads, where that is allowed."""
        ids, most = self._ids(text), self._most()
        around = len(self.text.before) + len(self.text.after)
        if cut and most:
            ids = ids[: max(0, most - around)]
        _fits(len(ids) + around, most, "shorten the text" + (", or set truncate=true" if not cut else ""))
        return [*self.text.before, *ids, *self.text.after] or [self.text.start]

    def _read_sampling(self, inputs: Any, parameters: dict[str, Any]) -> Request:
        if inputs not in (None, "", []):
            raise BadRequest(f"inputs={_shown(inputs)}; sampling reads none: leave them empty, and set n.")
        given = _known(parameters, ("n", "seed", "temperature"))
        n = _number("n", given.get("n", 1), 1, self.bounds.samples, whole=True)
        temperature = _number("temperature", given.get("temperature", 1.0), 0, 10)
        seed = given.get("seed")
        seed = random.SystemRandom().randrange(2**32) if seed is None else _number("seed", seed, 0, SEEDS, whole=True)
        size = self.model.module.config.latent_size
        z = torch.randn(n, size, generator=torch.Generator().manual_seed(seed)) * temperature
        told = {"seed": seed, "temperature": temperature, "prior": "z drawn from N(0, temperature^2 I)"}
        return Request("grid-sampling", False, items=list(z), options=told)

    def _read_grids(self, inputs: Any, parameters: dict[str, Any]) -> Request:
        _known(parameters, ())
        deep = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list) and bool(inputs[0])
        single = deep and not isinstance(inputs[0][0], list)
        grids = [inputs] if single else inputs
        if not deep or len(grids) > self.bounds.samples:
            what = f"{len(grids)} grids" if deep else _shown(inputs)
            raise BadRequest(f"inputs={what}; expected a grid, or a list of at most {self.bounds.samples} grids.")
        return Request("grid-reconstruction", single, items=[_canvas(grid) for grid in grids])

    # Computing

    def _begin(self, rows: list[Row]) -> _Causal | _Seq2Seq:
        if self.kind == "seq2seq":
            return _Seq2Seq(self.model, rows, self.special["decoder_start"], self.device)
        return _Causal(self.model, rows, self.context, self.device)

    def _compute(self, task: str, items: list[Any]) -> list[Tensor]:
        """One tensor an item: logits of the classes (C,), of the masks (M, V), a vector (H,), or a canvas (30, 30)."""
        if task == "grid-sampling":
            return list(self.model.module.decode(torch.stack(items).to(self.device)).mode.cpu())
        if task == "grid-reconstruction":
            return list(self.model.module.reconstruct({"grids": torch.stack(items).to(self.device)}).cpu())
        if self.model.maskless and len(set(map(len, items))) > 1:  # padding would be read as text
            return [output for item in items for output in self._compute(task, [item])]
        ids, mask = _padded(items, self.device)
        if task == "feature-extraction":
            hidden = self.model.hidden(ids, mask).float()  # (B, T, H)
            token = mask.bool()[:, :, None]
            return list(_sound(hidden.masked_fill(~token, 0).sum(1) / token.sum(1)).cpu())
        logits = _sound(self.model.logits(ids, mask).float())
        if task == "text-classification":
            return list(logits.cpu())
        return [row[: len(item)][torch.tensor(item) == self.text.mask].cpu() for row, item in zip(logits, items)]

    def _told(self, request: Request, outputs: list[Tensor]) -> list | dict:
        """The answer to one request, as JSON can hold it."""
        if request.task.startswith("grid-"):
            grids = [_grid(canvas) for canvas in outputs]
            if request.task == "grid-sampling":
                return {"grids": grids, **request.options}
            exact = [bool((one == other).all()) for one, other in zip(outputs, request.items)]
            return {"grids": grids, "exact": exact}
        if request.task == "feature-extraction":
            if request.options.get("normalize"):
                outputs = [one / one.norm().clamp(min=1e-12) for one in outputs]
            return [one.tolist() for one in outputs]
        if request.task == "text-classification":
            return [self._labels(one, request.options) for one in outputs]
        filled = [self._filled(item, one, request.options) for item, one in zip(request.items, outputs)]
        return filled[0] if request.single else filled

    def _labels(self, logits: Tensor, options: dict[str, Any]) -> list[dict[str, Any]]:
        how = options.get("function_to_apply", "softmax")
        scores = {"softmax": lambda: logits.softmax(-1), "sigmoid": logits.sigmoid, "none": lambda: logits}[how]()
        names = self.metadata.get("classes") or self.model.classes or [f"LABEL_{at}" for at in range(len(scores))]
        best = scores.topk(min(options.get("top_k", len(scores)), len(scores)))
        return [{"label": names[at], "score": score} for at, score in zip(best.indices.tolist(), best.values.tolist())]

    def _filled(self, item: list[int], logits: Tensor, options: dict[str, Any]) -> list:
        """The likeliest tokens of the one mask; of several masks, a list a mask."""
        mask, found = self.text.mask, []
        places = [at for at, token in enumerate(item) if token == mask]
        for place, scores in zip(places, logits.softmax(-1)):
            best = scores.topk(min(options.get("top_k", 5), len(scores)))
            found.append(
                [
                    {
                        "score": score,
                        "token": token,
                        "token_str": self.text.decode([token]),
                        "sequence": self.text.said([*item[:place], token, *item[place + 1 :]]),
                    }
                    for token, score in zip(best.indices.tolist(), best.values.tolist())
                ]
            )
        return found[0] if len(found) == 1 else found


# Decoding: what comes next for each row, and which rows are left


class _Causal:
    """Logits of the next token of each row, cached up to the context length; beyond, from its last tokens afresh."""

    def __init__(self, model: Any, rows: list[Row], context: int | None, device: torch.device):
        self.model, self.context, self.device = model, context, device
        self.ids = [[*row.ids, *row.tokens] for row in rows]
        self.caching, self.cache, self.mask = model.caches, None, None

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """(B, V), float32, on the CPU."""
        width = max(map(len, self.ids)) if self.mask is None else self.mask.shape[1]
        if self.caching and (self.context is None or width <= self.context):
            if self.cache is None:
                ids, self.mask = _padded(self.ids, self.device, left=True)
            else:
                ids = torch.tensor([row[-1:] for row in self.ids], device=self.device)
            last, self.cache = self.model.cached(ids, self.mask, self.cache)
        else:
            self.caching, self.cache = False, None
            windows = [row[-self.context :] if self.context else row for row in self.ids]
            last = self.model.last(*_padded(windows, self.device), torch.tensor([len(row) - 1 for row in windows]))
        return last.float().cpu()

    def push(self, tokens: list[int]) -> None:
        for row, token in zip(self.ids, tokens):
            row.append(token)
        if self.mask is not None:
            self.mask = torch.cat((self.mask, self.mask.new_ones(len(self.mask), 1)), 1)

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        self.ids = [self.ids[at] for at in rows]
        if self.cache is not None:
            index = torch.tensor(rows, device=self.device)
            self.mask, self.cache = self.mask[index], self.model.keep(self.cache, index)


class _Seq2Seq:
    """Logits of the next token of each row's target. Sources are encoded once; the decoder has no cache."""

    @torch.inference_mode()
    def __init__(self, model: Any, rows: list[Row], start: int, device: torch.device):
        self.model = model
        sources, self.mask = _padded([row.ids for row in rows], device)
        self.memory = model.encode(sources, self.mask)
        self.ids = torch.tensor([[start, *row.tokens] for row in rows], device=device)

    @torch.inference_mode()
    def logits(self) -> Tensor:
        return self.model.decode(self.ids, self.memory, self.mask)[:, -1].float().cpu()

    def push(self, tokens: list[int]) -> None:
        self.ids = torch.cat((self.ids, torch.tensor(tokens, device=self.ids.device)[:, None]), 1)

    def keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.ids.device)
        self.ids, self.memory, self.mask = self.ids[index], self.memory[index], self.mask[index]


# Models, called one way whatever they come from


class _Ours:
    """A model of this project's own classes."""

    embeds, maskless, classes, ends = True, False, None, frozenset()

    def __init__(self, module: torch.nn.Module, told: str):
        self.told = told
        self.module, self.caches = module.eval(), hasattr(module, "new_cache")
        self.context = getattr(module.config, "context_length", None)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module(ids, attention_mask=_needed(mask))

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.module.head(self.module.hidden(ids, _needed(mask))[torch.arange(len(ids)), at.to(ids.device)])

    def cached(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        cache = self.module.new_cache() if cache is None else cache
        return self.module.head(self.module.hidden(ids, _needed(mask), cache)[:, -1]), cache

    def keep(self, cache: Any, rows: Tensor) -> Any:
        cache.layers = [(keys[rows], values[rows]) for keys, values in cache.layers]
        return cache

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = self.module.encode if hasattr(self.module, "encode") else self.module.hidden
        return read(ids, _needed(mask))

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module.encode(ids, mask)

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        return self.module.decode(ids, memory, mask)


class _Transformers:
    """A model that `from_pretrained` read."""

    told, embeds, maskless = "transformers, by from_pretrained", True, False

    def __init__(self, module: Any):
        self.module, config = module.eval(), module.config
        self.takes = inspect.signature(module.forward).parameters
        self.caches = "past_key_values" in self.takes
        self.context = getattr(config, "max_position_embeddings", None)
        generation = getattr(module, "generation_config", None)
        ends = getattr(generation, "eos_token_id", None)
        self.ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        names = getattr(config, "id2label", None) or {}
        self.classes = [names[at] for at in sorted(names)]

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module(input_ids=ids, attention_mask=mask).logits

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.logits(ids, mask)[torch.arange(len(ids)), at.to(ids.device)]

    def cached(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        extra = {"position_ids": places, "logits_to_keep": 1}
        extra = {name: value for name, value in extra.items() if name in self.takes}
        output = self.module(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        return output.logits[:, -1], output.past_key_values

    def keep(self, cache: Any, rows: Tensor) -> Any:
        cache.batch_select_indices(rows)
        return cache

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        if self.module.config.is_encoder_decoder:
            return self.encode(ids, mask)
        return self.module(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        outputs = BaseModelOutput(last_hidden_state=memory)
        return self.module(encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=ids).logits


class _Graph:
    """A model whose code is not in the folder: its graphs, by ONNX Runtime where both are there, else by torch.export.

    Without a cache: every token reads the whole text again.
    """

    embeds, caches, context, classes, ends = False, False, None, None, frozenset()

    def __init__(self, folder: Path, kind: str):
        if kind == "vae":
            raise FolderError("A VAE is served by its own code (loader ours), not by its graphs.")
        self.graphs: dict[str, _Call] = {}
        shapes = [("encoder", "decoder"), ("model",)] if kind == "seq2seq" else [("model",)]
        for names in shapes:
            onnx, exported = ([folder / f"{name}.{ending}" for name in names] for ending in ("onnx", "pt2"))
            if all(path.is_file() for path in onnx) and find_spec("onnxruntime") is not None:
                self.told, self.graphs = "ONNX, by ONNX Runtime", dict(zip(names, map(_onnx, onnx)))
            elif all(path.is_file() for path in exported):
                self.told, self.graphs = ".pt2, by torch.export", dict(zip(names, map(_pt2, exported)))
            if self.graphs:
                break
        else:
            raise FolderError(
                f"The code of this model is not in {folder}, so it is served by a graph: expected"
                f" {', '.join(f'{name}.onnx' for name in shapes[0])}, with pip install onnxruntime, or"
                f" {', '.join(f'{name}.pt2' for name in shapes[0])}. Export the run with one of these formats."
            )
        self.maskless = all("attention_mask" not in names for names, _ in self.graphs.values())

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._call("model", {"input_ids": ids, "attention_mask": mask})

    def last(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        return self.logits(ids, mask)[torch.arange(len(ids)), at]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, T, C); the ids themselves where encoder and decoder are one graph."""
        return self._call("encoder", {"input_ids": ids, "attention_mask": mask}) if "encoder" in self.graphs else ids

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        name, source = ("decoder", "encoder_hidden") if "decoder" in self.graphs else ("model", "input_ids")
        return self._call(name, {"decoder_input_ids": ids, source: memory, "attention_mask": mask})

    def _call(self, name: str, given: dict[str, Tensor]) -> Tensor:
        """By the names of the graph's inputs."""
        names, call = self.graphs[name]
        return call([given[one] for one in names])


_Call = tuple[list[str], Callable[[list[Tensor]], Tensor]]
"""names of the inputs, and what takes them in this order"""


def _onnx(path: Path) -> _Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    kinds = {"tensor(int64)": torch.int64, "tensor(int32)": torch.int32, "tensor(bool)": torch.bool}

    def call(values: list[Tensor]) -> Tensor:
        feed = {
            one.name: value.to(kinds.get(one.type, torch.float32)).contiguous().numpy()
            for one, value in zip(inputs, values)
        }
        return torch.from_numpy(session.run(None, feed)[0])

    return [one.name for one in inputs], call


def _pt2(path: Path) -> _Call:
    program = torch.export.load(path)
    module = program.module()
    return list(program.graph_signature.user_inputs), lambda values: module(*values)


# Tokenizers, read one way whatever they come from


class _Text:
    """Text to ids and back, and the ids that stand for no text, as metadata.json names them."""

    def __init__(self, tokenizer: Any, special: dict[str, Any]):
        inner = getattr(tokenizer, "inner", tokenizer)
        if hasattr(inner, "all_special_ids"):  # of transformers
            self._encode = lambda text: inner(text, add_special_tokens=False, verbose=False)["input_ids"]
            self._decode = lambda ids: inner.decode(ids, clean_up_tokenization_spaces=False)
        elif hasattr(inner, "token_to_id"):  # of tokenizers
            self._encode = lambda text: inner.encode(text, add_special_tokens=False).ids
            self._decode = lambda ids: inner.decode(list(ids), skip_special_tokens=False)
        else:  # of characters, or of pieces of programs
            self._encode, self._decode = tokenizer.encode, tokenizer.decode
        self.lock = threading.Lock()  # a tokenizer of Rust may not be read while another thread sets it up
        self.lines = hasattr(inner, "characters")
        """whether a line break, a character like others, is what ends a text"""
        self.end, self.mask = special.get("end"), special.get("mask")
        self.start = special.get("start") or 0
        self.before, self.after = tuple(special.get("before", ())), tuple(special.get("after", ()))
        marks = {*self.before, *self.after, special.get("padding"), self.end, special.get("decoder_start")}
        self.hidden = frozenset() if self.lines else frozenset(marks - {None, self.mask})

    def ends(self, *, line: bool) -> frozenset[int]:
        """Ids that end a text; a line break, where characters are the tokens, only where `line` says so."""
        return frozenset(() if self.end is None or (self.lines and not line) else (self.end,))

    def encode(self, text: str) -> list[int]:
        with self.lock:
            return [int(index) for index in self._encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        with self.lock:
            return self._decode(ids)

    def said(self, tokens: Sequence[int], after: Sequence[int] = ()) -> str:
        """The text of tokens without special ones, with the space that they begin with where they follow others."""
        tokens = [token for token in tokens if token not in self.hidden]
        if not after:
            return self.decode(tokens)
        first, both = self.decode(list(after)), self.decode([*after, *tokens])
        return both[len(first) :] if both.startswith(first) else self.decode(tokens)


@dataclass(frozen=True)
class _Characters:
    """The tokenizer of characters, where no `model_code` has it: one id a character, then 256 of bytes."""

    characters: str
    byte_fallback: bool

    def encode(self, text: str) -> list[int]:
        ids = []
        for character in text:
            place = self.characters.find(character)
            if place < 0 and not self.byte_fallback:
                raise ValueError(f"{character!r} is not among its {len(self.characters)} characters")
            ids += [place] if place >= 0 else [len(self.characters) + byte for byte in character.encode()]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        known, text = len(self.characters), b""
        for index in ids:
            text += bytes([index - known]) if index >= known else self.characters[index].encode()
        return text.decode(errors="replace")


# Loading


def _load_ours(folder: Path) -> tuple[torch.nn.Module, Any, dict[str, Any]]:
    """By the code in the folder, as a package with a name of its own: another folder's has another."""
    code = folder / "model_code"
    if not (code / "load.py").is_file():
        raise FolderError(f"{folder} says that its own code loads it, but model_code/load.py is not there.")
    name = f"model_code_{hashlib.sha256(str(code).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, code / "__init__.py", submodule_search_locations=[str(code)])
        sys.modules[name] = module_from_spec(spec)
        if (code / "__init__.py").is_file():
            spec.loader.exec_module(sys.modules[name])
    return import_module(f"{name}.load").load(folder)


def _load_transformers(folder: Path, kind: str) -> Any:
    if kind not in AUTO:
        raise FolderError(f"transformers has no class for kind {kind}; expected one of {', '.join(AUTO)}.")
    import transformers

    return getattr(transformers, AUTO[kind]).from_pretrained(folder, local_files_only=True, use_safetensors=True)


def _load_tokenizer(folder: Path) -> Any:
    """Transformers' files in the folder or in tokenizer/, else ours in tokenizer/."""
    for place in (folder, folder / "tokenizer"):
        if (place / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(place, local_files_only=True)
    path = folder / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        raise FolderError(f"{folder} has no tokenizer; expected tokenizer_config.json, or tokenizer/tokenizer.json.")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") == "char":
        return _Characters(content["characters"], content["byte_fallback"])
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


# Pieces


def _choose(logits: Tensor, row: Row) -> int:
    """The next token from logits (V,): the likeliest, or one drawn by the row's own generator."""
    sampling = row.sampling
    if sampling.repetition_penalty != 1:  # Keskar et al. 2019
        seen = torch.tensor(sorted({*row.ids, *row.tokens}))
        past = logits[seen]
        logits = logits.clone()
        logits[seen] = torch.where(past > 0, past / sampling.repetition_penalty, past * sampling.repetition_penalty)
    if not sampling.do_sample:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        floor = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < floor, -math.inf)
    if sampling.top_p is not None:  # the fewest whose probabilities reach p (Holtzman et al. 2020)
        ordered, order = logits.sort(descending=True)
        chances = ordered.softmax(-1)
        dropped = order[chances.cumsum(-1) - chances >= sampling.top_p]
        logits = logits.index_fill(0, dropped, -math.inf)
    return int(torch.multinomial(logits.softmax(-1), 1, generator=row.generator))


def _sound(values: Tensor) -> Tensor:
    if bool(values.isnan().any()):
        raise ArithmeticError("The model's outputs are NaN: its weights are broken, or its arithmetic overflows.")
    return values


def _settled(text: str, stops: Sequence[str]) -> str:
    """Text without an end that the next token may change: part of a character, or the beginning of a stop text."""
    text = text.rstrip("\ufffd")
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]


def _padded(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """ids and mask (B, T), padded on one side with 0."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[at, place], mask[at, place] = torch.tensor(list(row)), 1
    return ids.to(device), mask.to(device)


def _needed(mask: Tensor) -> Tensor | None:
    return None if bool(mask.all()) else mask


def _canvas(grid: Any) -> Tensor:
    """A grid as a canvas (30, 30) uint8 in its top-left corner. Raises `BadRequest`."""
    rows = grid if isinstance(grid, list) else []
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if not 1 <= len(rows) <= SIDE or len(widths) != 1 or not 1 <= min(widths) <= SIDE:
        raise BadRequest(f"grid {_shown(grid)}; expected 1 to {SIDE} rows of 1 to {SIDE} cells, all rows alike.")
    for row in rows:
        for cell in row:
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise BadRequest(f"A grid has a cell {_shown(cell)}; expected colours 0 to {COLOURS - 1}.")
    canvas = torch.full((SIDE, SIDE), OUTSIDE, dtype=torch.uint8)
    canvas[: len(rows), : len(rows[0])] = torch.tensor(rows, dtype=torch.uint8)
    return canvas


def _grid(canvas: Tensor) -> list[list[int]]:
    inside = canvas != OUTSIDE
    return canvas[: int(inside[:, 0].sum()), : int(inside[0].sum())].tolist()


def _fits(size: int, most: int | None, remedy: str) -> None:
    if most is not None and size > most:
        raise TooLong(f"{size:,} tokens came; at most {most:,} are read: {remedy}.")


def _known(
    given: dict[str, Any], names: Sequence[str] | dict, also: Sequence[str] = (), what: str = "parameters"
) -> dict:
    """What was given, without nulls. Raises `BadRequest` for names that are not known."""
    given = {name: value for name, value in given.items() if value is not None}
    unknown = [name for name in given if name not in names and name not in also]
    if unknown:
        allowed = ", ".join(names) or "none"
        raise BadRequest(f"{what} {', '.join(map(_shown, unknown))} came, which are not read; expected {allowed}.")
    return given


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> Any:
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise BadRequest(f"{name}={_shown(value)}; expected {kind} from {low:,} to {high:,}.")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name}={_shown(value)}; expected true or false.")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
