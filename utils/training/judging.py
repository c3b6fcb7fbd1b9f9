"""Judging a trained model by its answers: classes and texts over a split, and what is measured on them.

Leaves out means over targets, such as loss and perplexity (`evaluate`), and sampling from a language model
(`models.generate`).
"""

from __future__ import annotations

import contextlib
import html
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.core import repro
from utils.core.device import choose, make_fabric
from utils.training.config import TrainConfig
from utils.training.evaluate import Split
from utils.training.objectives import IGNORED, Batch

if TYPE_CHECKING:
    import pandas
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classification:
    """How well classes were told apart; shows itself as its table."""

    accuracy: float
    """share of examples predicted right"""
    macro_f1: float
    """mean of the classes' F1; a class that is neither there nor predicted has none"""
    table: pandas.DataFrame
    """a row a class: precision, recall, f1, examples, predicted"""
    confusion: np.ndarray
    """(classes, classes): examples of the row's class that were predicted as the column's"""

    def metrics(self) -> dict[str, float]:
        """For the trackers."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1}

    def __str__(self) -> str:
        examples = int(self.table["examples"].sum())
        return f"accuracy {self.accuracy:.3f}, macro F1 {self.macro_f1:.3f}, {examples} examples"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html(float_format='{:.3f}'.format, na_rep='none')}"


@dataclass(frozen=True)
class Generation:
    """How near generated texts are to their references; shows itself."""

    bleu: float
    """0 to 100, over the whole corpus (Papineni et al. 2002)"""
    chrf: float
    """0 to 100, over the whole corpus (Popovic 2015)"""
    exact_match: float
    """share of texts equal to a reference"""
    texts: int
    """texts judged"""
    signatures: dict[str, str]
    """sacrebleu's record of how each score was computed (Post 2018); scores compare where it is the same"""

    def metrics(self) -> dict[str, float]:
        """For the trackers."""
        return {"bleu": self.bleu, "chrf": self.chrf, "exact_match": self.exact_match}

    def __str__(self) -> str:
        return f"BLEU {self.bleu:.2f}, chrF {self.chrf:.2f}, exact match {self.exact_match:.3f}, {self.texts} texts"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{name}: {html.escape(value)}</li>" for name, value in self.signatures.items())
        return f"<p>{self}</p><ul>{notes}</ul>"


def predict_classes(
    model: nn.Module, split: Split, config: TrainConfig, *, fabric: Fabric | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes and labels of a whole split, (N,) each, in its order; examples labelled -100 are left out.

    Several processes share the batches, and all get everything. Raises ValueError for logits that are NaN.
    """
    fabric = fabric or make_fabric(choose(config.device, config.precision))

    def answer(batch: Batch) -> tuple[list[int], list[int]]:
        inputs, labels = _parted(batch)
        with fabric.autocast():
            logits = model(**inputs)  # (B, classes)
        if bool(logits.isnan().any()):
            raise ValueError("The model's logits are NaN: it has no prediction. Train it again, with a lower train.lr.")
        real = labels != IGNORED
        return logits.argmax(-1)[real].tolist(), labels[real].tolist()

    predictions, labels = _over(model, split, config, fabric, answer)
    return np.array(predictions, np.int64), np.array(labels, np.int64)


def classification_metrics(
    predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
) -> Classification:
    """Accuracy, macro F1 and a table of the classes. `predictions` and `labels` (N,); `names` are all the classes'.

    Without `names` the classes are those that occur. Raises ValueError for no example, and for a class beyond `names`.
    """
    import pandas
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if len(labels) == 0 or predictions.shape != labels.shape:
        raise ValueError(
            f"{predictions.shape} predictions for {labels.shape} labels; expected (N,) of both, and one example at"
            " least."
        )
    occurring = np.union1d(predictions, labels)
    classes = occurring if names is None else np.arange(len(names))
    beyond = np.setdiff1d(occurring, classes)
    if len(beyond):
        raise ValueError(f"Classes {beyond.tolist()} occur, and there are names for 0 to {len(classes) - 1}.")
    precision, recall, f1, examples = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    confusion = confusion_matrix(labels, predictions, labels=classes)
    table = pandas.DataFrame(
        {"precision": precision, "recall": recall, "f1": f1, "examples": examples, "predicted": confusion.sum(0)},
        index=pandas.Index(classes if names is None else list(names), name="class"),
    )
    return Classification(float((predictions == labels).mean()), float(np.nanmean(f1)), table, confusion)


def predict_texts(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    decode: Callable[[Sequence[int]], str],
    *,
    start_id: int,
    eos_id: int,
    max_new_tokens: int,
    batches: int | None = None,
    fabric: Fabric | None = None,
) -> tuple[list[str], list[str]]:
    """The texts a seq2seq model makes of a split's sources (or its first `batches`), and those in its labels.

    `decode` turns ids into text; both are cut before `eos_id`. Several processes share the batches, and all get
    everything.
    """
    fabric = fabric or make_fabric(choose(config.device, config.precision))

    def answer(batch: Batch) -> tuple[list[str], list[str]]:
        _, labels = _parted(batch)
        with fabric.autocast():
            made = generate_seq2seq(model, batch, start_id, eos_id, max_new_tokens)
        right = [_until([token for token in row if token != IGNORED], eos_id) for row in labels.tolist()]
        return [decode(row) for row in made], [decode(row) for row in right]

    return _over(model, split, config, fabric, answer, batches)


@torch.no_grad()
def generate_seq2seq(
    model: nn.Module, batch: Batch, start_id: int, eos_id: int, max_new_tokens: int
) -> list[list[int]]:
    """The likeliest next token, again and again (greedy), for every source of a batch: ids up to `eos_id`, without it.

    Reads `input_ids` and `attention_mask` of the batch. The whole model runs for every token: there is no cache, and
    rows that are done leave the batch. The model is in eval mode meanwhile.
    """
    device = next((tensor.device for tensor in model.parameters()), batch["input_ids"].device)
    sources = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
    rows = len(sources["input_ids"])
    made: list[list[int]] = [[] for _ in range(rows)]
    going = torch.arange(rows, device=device)
    decoder_ids = torch.full((rows, 1), start_id, dtype=torch.long, device=device)
    with _judged(model):
        for _ in range(max_new_tokens):
            if len(going) == 0:
                break
            logits = model(**sources, decoder_input_ids=decoder_ids)  # (rows going, tokens so far, V)
            token = logits[:, -1].argmax(-1)
            left = token != eos_id
            sources = {name: value[left] for name, value in sources.items()}
            decoder_ids, going = torch.cat((decoder_ids, token[:, None]), dim=1)[left], going[left]
            for row, each in zip(going.tolist(), token[left].tolist()):
                made[row].append(each)
    return made


def generation_metrics(
    hypotheses: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "13a"
) -> Generation:
    """BLEU and chrF by sacrebleu, and exact matches. A reference is a text, or several that are as good.

    `tokenize` is sacrebleu's tokenizer for BLEU: "zh" for Chinese, "char" for scripts without spaces. A corpus with no
    four tokens in a row has no BLEU: 0, and the log says so. Raises ValueError for no text, and for unequal numbers.
    """
    from sacrebleu.metrics import BLEU, CHRF

    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(
            f"{len(hypotheses)} hypotheses for {len(references)} references; expected as many, and one at least."
        )
    accepted = [[each] if isinstance(each, str) else list(each) for each in references]
    if not all(accepted):
        raise ValueError(f"Text {accepted.index([])} has no reference; expected one at least.")
    streams = [list(stream) for stream in zip_longest(*accepted)]  # None where a text has fewer references than others
    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    words, letters = bleu.corpus_score(list(hypotheses), streams), chrf.corpus_score(list(hypotheses), streams)
    if words.totals[-1] == 0:
        log.warning("No generated text has %d tokens, so BLEU is 0 whatever they say; see chrF.", len(words.totals))
    equal = sum(text in right for text, right in zip(hypotheses, accepted))
    signatures = {"bleu": bleu.get_signature().format(), "chrf": chrf.get_signature().format()}
    return Generation(words.score, letters.score, equal / len(accepted), len(accepted), signatures)


def _over(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    fabric: Fabric,
    answer: Callable[[Batch], tuple[list, list]],
    batches: int | None = None,
) -> tuple[list, list]:
    """`answer`'s two lists, one entry an example, over a split in its order; each process answers for its batches."""
    rows = config.eval_batch_size or config.micro_batch_size or config.batch_size
    model.to(fabric.device)
    own: list[tuple[list, list]] = []
    with _judged(model), torch.no_grad(), repro.preserved_rng():
        for batch in islice(split.batches(rows), fabric.global_rank, batches, fabric.world_size):
            own.append(answer(fabric.to_device(batch)))
    shares: list[Any] = [own]
    if fabric.world_size > 1:
        shares = [None] * fabric.world_size
        torch.distributed.all_gather_object(shares, own)
    in_order = [pair for turn in zip_longest(*shares) for pair in turn if pair is not None]
    return [one for made, _ in in_order for one in made], [one for _, right in in_order for one in right]


@contextlib.contextmanager
def _judged(model: nn.Module) -> Iterator[None]:
    """In eval mode inside, as it was afterwards."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def _parted(batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
    """Inputs and labels."""
    return {name: value for name, value in batch.items() if name != "labels"}, batch["labels"]


def _until(ids: Sequence[int], eos_id: int) -> Sequence[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids
