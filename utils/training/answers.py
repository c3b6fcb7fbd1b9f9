"""A model's answers: final metrics on whole splits by task, and rows with what the model says of them.

Leaves out text sampled from a language model (`models.generate`).
"""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from utils.core import jsonl
from utils.core.config import ConfigError
from utils.data.collate import padded
from utils.data.task import Task, TaskData
from utils.training.callbacks import Sampler
from utils.training.classes import classification_metrics, predict_classes
from utils.training.config import TrainConfig
from utils.training.evaluate import evaluate
from utils.training.generation import generate_seq2seq, generation_metrics, limits, predict_texts
from utils.training.intervals import INTERVALS, Recorder
from utils.training.judging import judged
from utils.training.objectives import IGNORED, OBJECTIVES, Batch

if TYPE_CHECKING:
    import pandas
    from lightning_fabric import Fabric

    from utils.core.run import Run
    from utils.data.loaders import TextData

log = logging.getLogger(__name__)
ROWS = 8  # shown
MASKS = 8  # of a row that are shown


@dataclass(frozen=True)
class Answers:
    """A row an example: what came, what was right, what the model said. Shows itself as a table."""

    table: pandas.DataFrame

    def __str__(self) -> str:
        return self.table.to_string(index=False, max_colwidth=80)

    def _repr_html_(self) -> str:
        cell = "white-space: pre-wrap; text-align: left; vertical-align: top"
        heads = "".join(f"<th style='text-align: left'>{html.escape(name)}</th>" for name in self.table.columns)
        rows = "".join(
            "<tr>" + "".join(f'<td style="{cell}">{html.escape(str(value))}</td>' for value in row) + "</tr>"
            for row in self.table.itertuples(index=False)
        )
        return f"<table><tr>{heads}</tr>{rows}</table>"


def final_metrics(
    model: nn.Module,
    data: TextData | TaskData,
    config: TrainConfig,
    *,
    task: Task = "causal_lm",
    fabric: Fabric | None = None,
) -> pandas.DataFrame:
    """The metrics of a model on validation and test (where there is one): a row a metric, a column a split.

    Its `attrs` have the 95% intervals of those that are means (`training.intervals`).

    Beside means over targets: perplexity of language tasks, macro F1 of a classifier, and BLEU, chrF and exact matches
    of what a seq2seq model makes of each source (its targets cut at `rows.max_target_length`, as in training).
    """
    import pandas

    found, intervals = {}, {}
    for name in ("validation", "test"):
        if getattr(data, name).targets:
            recorder = Recorder(OBJECTIVES[task])
            found[name] = split_metrics(model, data, name, config, task=task, fabric=fabric, recorder=recorder)
            intervals[name] = recorder.intervals(found[name], seed=config.seed)
    table = pandas.DataFrame(found)
    table.attrs[INTERVALS] = intervals
    return table


def split_metrics(
    model: nn.Module,
    data: TextData | TaskData,
    name: str,
    config: TrainConfig,
    *,
    task: Task = "causal_lm",
    fabric: Fabric | None = None,
    recorder: Recorder | None = None,
) -> dict[str, float]:
    """The metrics of a model on one whole split. A `recorder` of the task's objective keeps those of each batch."""
    config, split = config.replace(eval_batches=None), getattr(data, name)
    values = evaluate(model, recorder or OBJECTIVES[task], split, config, fabric=fabric)
    if task != "classifier":
        values.setdefault("perplexity", math.exp(min(values["loss"], 700)))
    if task == "classifier":
        found = classification_metrics(*predict_classes(model, split, config, fabric=fabric), data.classes)
        values |= found.metrics()
    if task == "seq2seq" and data.config.target:
        texts = predict_texts(model, split, config, data.tokenizer.decode, **limits(data), fabric=fabric)
        values |= generation_metrics(*texts).metrics()
    return values


def preview_rows(data: TaskData, batch_size: int = ROWS, rows: int = 4) -> Answers:
    """The first rows of the first training batch: what comes, and what is right."""
    import pandas

    batch = next(data.train.batches(batch_size, seed=0))
    return Answers(pandas.DataFrame(_rows(data, {name: value[:rows] for name, value in batch.items()})))


def answers(model: nn.Module, data: TaskData, rows: int = ROWS) -> Answers:
    """What a model says of the first rows of validation. Its mode stays as it is."""
    import pandas

    batch = next(data.validation.batches(rows))
    said = _in_eval(model, data, batch)
    return Answers(pandas.DataFrame([{**row, "model says": one} for row, one in zip(_rows(data, batch), said)]))


def answer_texts(model: nn.Module, data: TaskData, texts: Sequence[str]) -> Answers:
    """What a model says of texts of one's own: a class, a target, or what stands at each mask.

    A classifier of two texts (`rows.second`) gets both in one, a tab between them. Raises `ConfigError` where one of
    them is missing, and for a text for a masked language model that has no mask token.
    """
    import pandas

    special, tokenizer = data.special, data.tokenizer
    longest = data.config.longest(data.task)
    pairs = [_pair(data, text) for text in texts]
    ids = [special.around(*(tokenizer.encode(one) for one in pair), longest=longest) for pair in pairs]
    if data.task == "masked_lm" and any(special.mask not in row for row in ids):
        mask = tokenizer.decode([special.mask])
        raise ConfigError(f"A masked language model fills in {mask}; put it into each text: The {mask} of the list.")
    inputs, mask = (torch.as_tensor(part) for part in padded(ids, special.padding))
    said = _in_eval(model, data, {"input_ids": inputs, "attention_mask": mask})
    return Answers(pandas.DataFrame({"text": texts, "model says": said}))


def _pair(data: TaskData, text: str) -> list[str]:
    """What a model reads of a text: itself, or its two parts."""
    if data.task != "classifier" or not data.config.second:
        return [data.config.prefix + text if data.task == "seq2seq" else text]
    parts = text.split("\t")
    if len(parts) != 2:
        raise ConfigError(
            f"This classifier reads two texts, the columns {data.config.text} and {data.config.second}; got"
            f" {text[:60]!r}. Give both in one, a tab between them: {data.config.text}<tab>{data.config.second}."
        )
    return parts


def _in_eval(model: nn.Module, data: TaskData, batch: Batch) -> list[str]:
    device = next(model.parameters()).device
    with judged(model), torch.no_grad():
        return _said(model, data, {name: value.to(device) for name, value in batch.items()})


def answer_sampler(run: Run, data: TaskData, rows: int = 3) -> Sampler:
    """A sampler that shows answers to a few validation rows, and keeps them in the run's predictions/samples.jsonl."""

    def sample(model: nn.Module, step: int) -> str:
        text = str(answers(model, data, rows))
        try:
            jsonl.append(run.samples_file, {"step": step, "prompt": "", "text": text})
        except OSError as error:
            log.warning("The answers of step %d could not be kept: %s.", step, error)
        return text

    return sample


def _text(data: TaskData, ids: list[int]) -> str:
    """Text of ids without the special tokens around and behind it."""
    special = data.special
    hidden = {*special.before, *special.between, *special.after, special.pad, special.end} - {special.mask, None}
    return data.tokenizer.decode([one for one in ids if one not in hidden])


def _rows(data: TaskData, batch: Batch) -> list[dict[str, str]]:
    """What each row of a batch asks, and what is right."""
    names = {"masked_lm": ("text", "was"), "seq2seq": ("source", "target"), "classifier": ("text", "class")}[data.task]
    rows = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"].bool(), batch["labels"]):
        if data.task == "classifier":
            right = data.classes[labels]
        elif data.task == "seq2seq":
            right = _text(data, labels[labels != IGNORED].tolist())
        else:
            right = " | ".join(data.tokenizer.decode([one]) for one in labels[labels != IGNORED][:MASKS].tolist())
        rows.append(dict(zip(names, (_text(data, ids[mask].tolist())[:240], right))))
    return rows


def _said(model: nn.Module, data: TaskData, batch: Batch) -> list[str]:
    """What a model says of each row of a batch."""
    if data.task == "seq2seq":
        return [_text(data, row) for row in generate_seq2seq(model, batch, **limits(data))]
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).float()
    if data.task == "classifier":
        best = logits.softmax(-1).max(-1)
        return [f"{data.classes[at]} ({float(share):.0%})" for at, share in zip(best.indices, best.values)]
    asked, decode = _asked(data, batch), data.tokenizer.decode
    return [
        " | ".join(decode([one]) for one in row[places][:MASKS].tolist())
        for row, places in zip(logits.argmax(-1), asked)
    ]


def _asked(data: TaskData, batch: Batch) -> torch.Tensor:
    """The places of a masked batch that are to be filled in, (B, T): those with a label; without any, the masks."""
    return batch["labels"] != IGNORED if "labels" in batch else batch["input_ids"] == data.special.mask
