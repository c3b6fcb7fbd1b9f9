"""One run as a row: how well it did by a metric, how long it took, with which seeds. Computed from its folder alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from utils.core import jsonl
from utils.core.config import flatten
from utils.core.run import Run, RunError

if TYPE_CHECKING:
    import pandas

DATA = ("task", "data", "rows", "corpus", "pool")  # settings that say what a run was trained for, and on
Better = Literal["auto", "lower", "higher"]
LOWER = ("loss", "perplexity", "nll", "kl", "error", "bits_per_")
HIGHER = ("accuracy", "f1", "bleu", "chrf", "pass@", "greedy", "exact", "score", "solved", "foreground", "non_padding",
          "precision", "recall", "reward", "_per_second", "mfu")  # fmt: skip


def direction(metric: str, better: Better = "auto") -> Literal["lower", "higher"]:
    """Which way a metric is better, told by the last part of its name. Raises RunError where that does not say."""
    if better != "auto":
        return better
    leaf = metric.rpartition("/")[2]
    if any(part in leaf for part in LOWER):
        return "lower"
    if any(part in leaf for part in HIGHER):
        return "higher"
    raise RunError(f'Is {metric} better high or low? Its name does not say: give better="lower" or better="higher".')


@dataclass(frozen=True)
class Score:
    """A run's values of one metric: the best and the last, and the steps of both."""

    best: float
    best_step: int
    last: float
    last_step: int


def score(curve: pandas.Series, better: Literal["lower", "higher"]) -> Score | None:
    """Of a column of `run.metrics()`; the earliest of equal bests. None where it holds no finite number."""
    import pandas

    values = pandas.to_numeric(curve, errors="coerce")
    values = values[values.abs() < math.inf]  # not NaN, not infinite
    if values.empty:
        return None
    step = values.idxmin() if better == "lower" else values.idxmax()
    return Score(float(values[step]), int(step), float(values.iloc[-1]), int(values.index[-1]))


def hours(run: Run) -> float:
    """Hours from the beginning of each session to its last record, summed; what a lost session wrote and lost again
    does not count."""
    begun = [datetime.fromisoformat(session["started"]).timestamp() for session in run.stamp["sessions"]]
    times = [record["time"] for record in jsonl.read(run.metrics_file) if isinstance(record.get("time"), (int, float))]
    total = 0.0
    for start, end in zip(begun, [*begun[1:], math.inf]):
        inside = [time for time in times if start <= time < end]
        total += max(inside) - start if inside else 0.0
    return total / 3600


def settings(run: Run) -> dict[str, Any]:
    """The run's config as dotted keys."""
    return dict(flatten(run.config))


def purpose(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among `values` that say what a run was trained for, and on; losses of other ones do not compare."""
    return {key: value for key, value in values.items() if key.partition(".")[0] in DATA and key not in seeds(values)}


def ended(run: Run) -> tuple[str, int]:
    """How a run stands, and the step that its last session came to: complete, interrupted, failed, "not ended" where
    that session is under way or was killed, "not begun" where there was none, pulled. Step 0 where it is not known."""
    stamp = run.stamp
    if stamp.get("pulled"):
        return "pulled", 0
    if not stamp["sessions"]:
        return "not begun", 0
    begun = datetime.fromisoformat(stamp["sessions"][-1]["started"]).timestamp()
    ends = [one for one in jsonl.read(run.path / "events.jsonl") if one.get("kind") == "end" and one["time"] >= begun]
    if not ends:
        return "not ended", 0
    told = ends[-1]["text"].removeprefix(f"{run.path.name}: ")
    if ends[-1]["level"] == "ERROR":
        return "failed", ends[-1]["step"]
    whole = told.startswith(("complete", "stopped early"))
    return "complete" if whole else "interrupted", ends[-1]["step"]


def seeds(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among `values` that are seeds: those whose last part is `seed`."""
    return {key: value for key, value in values.items() if key.rpartition(".")[2] == "seed"}
