"""How well a trained classifier tells classes apart: predictions over a split, and what is measured on them.

Leaves out means over targets, such as the loss (`training.evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from utils.core.device import choose, make_fabric
from utils.training.config import TrainConfig
from utils.training.evaluate import Split
from utils.training.judging import over, parted
from utils.training.objectives import IGNORED, Batch

if TYPE_CHECKING:
    import pandas
    from lightning_fabric import Fabric


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


def predict_classes(
    model: nn.Module, split: Split, config: TrainConfig, *, fabric: Fabric | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes and labels of a whole split, (N,) each, in its order; examples labelled -100 are left out.

    Several processes share the batches, and all get everything. Raises ValueError for logits that are NaN.
    """
    fabric = fabric or make_fabric(choose(config.device, config.precision))

    def answer(batch: Batch) -> tuple[list[int], list[int]]:
        inputs, labels = parted(batch)
        with fabric.autocast():
            logits = model(**inputs)  # (B, classes)
        if bool(logits.isnan().any()):
            raise ValueError("The model's logits are NaN: it has no prediction. Train it again, with a lower train.lr.")
        real = labels != IGNORED
        return logits.argmax(-1)[real].tolist(), labels[real].tolist()

    predictions, labels = over(model, split, config, fabric, answer)
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
