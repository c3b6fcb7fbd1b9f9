"""How sure the means over a split are: 95% intervals from its batches drawn anew, kept while they are evaluated.

Leaves out metrics that are no mean over targets (macro F1, BLEU), which get none.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from utils.core.run import Run
from utils.training.objectives import Batch, Objective, count_targets

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
LEAST = 5  # batches: of fewer, hardly any others can be drawn
DRAWS = 2000
INTERVALS = "intervals"  # in the attrs of a table of metrics
RESULTS = "results/metrics.json"


class Recorder:
    """An objective that keeps what it says of each batch."""

    def __init__(self, objective: Objective):
        self.objective = objective
        self.rows: list[tuple[dict[str, Tensor], int]] = []

    def __call__(self, model: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        values = self.objective(model, batch, step)
        self.rows.append(({name: value.detach() for name, value in values.items()}, count_targets(batch)))
        return values

    def intervals(self, means: Mapping[str, float], *, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Name -> (low, high), of the means and of what follows from the loss: perplexity and bits.

        The batches are drawn with replacement, `DRAWS` times, and their means weighted by targets. {} where there are
        fewer than `LEAST`, and where `means` are not those of the batches kept here: several processes shared them, or
        memory ran out and some were tried again.
        """
        if len(self.rows) < LEAST:
            return {}
        weights = np.array([weight for _, weight in self.rows], float)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(len(weights), np.full(len(weights), 1 / len(weights)), DRAWS)
        found = {}
        for name in self.rows[0][0]:
            values = np.array([float(one[name]) for one, _ in self.rows])
            mean = (values * weights).sum() / weights.sum()
            if name not in means or not math.isclose(mean, means[name], rel_tol=1e-6, abs_tol=1e-9):
                log.info("No intervals: the batches of one process do not make the means of the split.")
                return {}
            drawn = counts @ (values * weights) / np.maximum(counts @ weights, 1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            found[name] = (float(low), float(high))
        if "loss" in found:
            ends, loss = found["loss"], means["loss"]
            if "perplexity" in means:
                found["perplexity"] = tuple(math.exp(min(end, 700)) for end in ends)
            for name in means:
                if name.startswith("bits_per_") and loss:
                    found[name] = tuple(end * means[name] / loss for end in ends)
        return found


def write_metrics(run: Run, final: pandas.DataFrame, step: int) -> Path:
    """results/metrics.json of a run: the step of the weights, and of each split its metrics, with value, low and high
    where an interval was measured. What is not finite is null."""
    intervals = final.attrs.get(INTERVALS, {})
    results: dict[str, dict[str, Any]] = {}
    for split in final.columns:
        results[split] = {}
        for name, value in final[split].dropna().items():
            ends = intervals.get(split, {}).get(name)
            number = float(value) if math.isfinite(value) else None
            results[split][name] = number if ends is None else {"value": number, "low": ends[0], "high": ends[1]}
    path = run.path / RESULTS
    path.parent.mkdir(exist_ok=True)
    content = {"step": step, "intervals": "95%, over batches drawn anew", "results": results}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
