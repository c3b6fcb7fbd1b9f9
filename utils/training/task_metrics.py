"""What a model in training is judged by beside the means of its objective, at each evaluation, as its data's task asks.

    classifier   macro_f1, over all of the validation split
    seq2seq      bleu, chrf, exact_match of what it makes of the first `ROWS` sources (final metrics take them all)

Nothing is drawn from the generators, so a run that is resumed stays exact. Leaves out metrics of a whole split
(`training.answers`) and perplexity, which follows from the loss (`training.evaluate`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from utils.training.config import TrainConfig
from utils.training.memory import Rows, out_of_memory

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
ROWS = 64  # sources that a seq2seq model writes a text for: token by token, so dearer than a loss


def task_metrics(
    model: nn.Module, data: Any, config: TrainConfig, *, fabric: Fabric, limit: Rows | None = None
) -> dict[str, float]:
    """{} for data without a task, and for tasks that are judged by their loss alone.

    `limit` holds how many rows an evaluation takes at once. Where memory is too small even so, they are left out,
    which is said; several processes would have to agree on that, and raise.
    """
    judge = {"classifier": _classes, "seq2seq": _texts}.get(getattr(data, "task", None))
    if judge is None:
        return {}
    most = limit.most if limit is not None else None
    rows = config.eval_rows
    config = config.replace(eval_batch_size=min(rows, most or rows))
    try:
        return judge(model, data, config, fabric)
    except Exception as error:
        if not out_of_memory(error) or fabric.world_size > 1:
            raise
        log.warning(
            "Out of memory with the %s's own metrics, which this evaluation leaves out: %s. A smaller"
            " train.eval_batch_size may help.", data.task, str(error).split("\n")[0],
        )  # fmt: skip
        return {}


def _classes(model: nn.Module, data: Any, config: TrainConfig, fabric: Fabric) -> dict[str, float]:
    from utils.training.classes import classification_metrics, predict_classes

    found = classification_metrics(*predict_classes(model, data.validation, config, fabric=fabric), data.classes)
    return {"macro_f1": found.macro_f1}  # the accuracy is among the objective's means


def _texts(model: nn.Module, data: Any, config: TrainConfig, fabric: Fabric) -> dict[str, float]:
    from utils.training.generation import generation_metrics, limits, predict_texts

    if not data.config.target:  # spans of a text: there is no answer to write
        return {}
    batches = -(-ROWS // config.eval_batch_size)
    batches = min(batches, config.eval_batches or batches)
    texts = predict_texts(
        model, data.validation, config, data.tokenizer.decode, **limits(data), batches=batches, fabric=fabric
    )
    return generation_metrics(*texts).metrics()
