"""How near a seq2seq model's texts are to their references: texts made over a split, and what is measured on them.

Leaves out sampling from a language model (`models.generate`).
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
from torch import nn

from utils.core.device import choose, make_fabric
from utils.training.config import TrainConfig
from utils.training.evaluate import Split
from utils.training.judging import judged, over, parted
from utils.training.objectives import IGNORED, Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from utils.data.task import TaskData

log = logging.getLogger(__name__)


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


def limits(data: TaskData) -> dict[str, int]:
    """Where a seq2seq model begins, and how far it may go on: arguments of `predict_texts`."""
    from utils.data.task import start_of

    longest = data.config.longest("seq2seq") if data.config.target else data.config.block_size
    special = data.special
    return {
        "start_id": start_of(data.config, special),
        "eos_id": special.end,
        "max_new_tokens": data.config.max_target_length or longest,
    }


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

    `decode` turns ids into text; both are cut before `eos_id`. The labels' texts are the targets as they were
    tokenised: of one longer than `rows.max_target_length` there is only the beginning to judge by. Several processes
    share the batches, and all get everything.
    """
    fabric = fabric or make_fabric(choose(config.device, config.precision))

    def answer(batch: Batch) -> tuple[list[str], list[str]]:
        _, labels = parted(batch)
        with fabric.autocast():
            made = generate_seq2seq(model, batch, start_id, eos_id, max_new_tokens)
        right = [_until([token for token in row if token != IGNORED], eos_id) for row in labels.tolist()]
        return [decode(row) for row in made], [decode(row) for row in right]

    return over(model, split, config, fabric, answer, batches)


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
    with judged(model):
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

    Scores compare with published ones only where references are the data's own texts, whole: those that `predict_texts`
    reads from labels are cut at the longest target. `tokenize` is sacrebleu's tokenizer for BLEU: "zh" for Chinese,
    "char" for scripts without spaces. A corpus with no four tokens in a row has no BLEU: 0, and the log says so. Raises
    ValueError for no text, and for unequal numbers.
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


def _until(ids: Sequence[int], eos_id: int) -> Sequence[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids
