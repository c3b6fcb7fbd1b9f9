"""What a person wants to be told about a run's metrics: NaN, divergence, plateau. Pure: records in, alerts out.

Each kind is told once in a run, at the first record that shows it. Leaves out who is told (`core.tracking`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from utils.core.config import Config

Level = Literal["INFO", "WARN", "ERROR"]
LOSSES = ("train/loss", "validation/loss")
# What may stand still, and its sign: -1 where higher is better. A run is judged by the first of them that it logs.
JUDGED = {"validation/loss": 1, "validation/pass@1": -1}


class AlertConfig(Config):
    """When a run's metrics are worth a warning."""

    divergence: float = Field(2.0, gt=1)
    """a loss diverges where it stays above this many times its lowest running mean"""
    window: int = Field(10, ge=1)
    """records in a running mean (fewer at the beginning)"""
    confirm: int = Field(3, ge=1)
    """records in a row above it: one bad batch is no divergence"""
    patience: int = Field(10, ge=1)
    """evaluations without improvement that make a plateau"""
    min_improvement: float = Field(1e-3, ge=0)
    """improvement that counts, over the best value so far"""


@dataclass(frozen=True)
class Alert:
    """One thing to know about a run, at a step."""

    kind: str
    step: int
    level: Level
    text: str

    def event(self) -> dict[str, Any]:
        """As a line of the run's events.jsonl, but for its time."""
        return asdict(self)


class Divergence:
    """A loss above k times its lowest running mean, several records in a row. Only means above 0 can be so judged."""

    def __init__(self, config: AlertConfig):
        self.config = config
        self.window: deque[float] = deque(maxlen=config.window)
        self.best = math.inf
        self.above = 0

    def see(self, value: float) -> bool:
        config = self.config
        self.above = self.above + 1 if self.best > 0 and value > config.divergence * self.best else 0
        self.window.append(value)
        self.best = min(self.best, sum(self.window) / len(self.window))
        return self.above >= config.confirm


class Plateau:
    """A value (lower is better) that for `patience` evaluations fell by less than a share of its best."""

    def __init__(self, config: AlertConfig):
        self.config = config
        self.best = math.inf
        self.since = 0

    def see(self, value: float) -> bool:
        if self.best == math.inf or value < self.best - self.config.min_improvement * abs(self.best):
            self.best, self.since = value, 0
        else:
            self.since += 1
        return self.since >= self.config.patience


class Watch:
    """The alerts of a run's records, taken in one after another. `told`: the kinds that were told before."""

    def __init__(self, config: AlertConfig = AlertConfig(), told: Iterable[str] = ()):
        self.config = config
        self.told = set(told)
        self.divergence = {name: Divergence(config) for name in LOSSES}
        self.plateau = {name: Plateau(config) for name in JUDGED}

    def see(self, record: Mapping[str, Any]) -> list[Alert]:
        """`record`: a step and metrics by name; a metric that is None (as metrics.jsonl writes it) is not finite."""
        step, found = int(record["step"]), []
        broken = [name for name, value in record.items() if _is_loss(name) and not _finite(value)]
        if broken:
            found.append(Alert("nan", step, "ERROR", f"{', '.join(broken)} is not a finite number at step {step}."))
        for name, watched in self.divergence.items():
            if _finite(record.get(name)) and watched.see(record[name]):
                found.append(
                    Alert(
                        "divergence",
                        step,
                        "ERROR",
                        f"{name} is {record[name]:.4g} at step {step}, more than {self.config.divergence:g} times its"
                        f" lowest running mean {watched.best:.4g} for {watched.above} records.",
                    )  # fmt: skip
                )
        judged = next((name for name in JUDGED if _finite(record.get(name))), None)
        if judged and self.plateau[judged].see(JUDGED[judged] * record[judged]):
            watched = self.plateau[judged]
            found.append(
                Alert(
                    "plateau",
                    step,
                    "WARN",
                    f"{judged} is {record[judged]:.4g} at step {step}: no better than its best,"
                    f" {JUDGED[judged] * watched.best:.4g}, for {watched.since} evaluations.",
                )  # fmt: skip
            )
        new = [alert for alert in {one.kind: one for one in reversed(found)}.values() if alert.kind not in self.told]
        self.told.update(alert.kind for alert in new)
        return new[::-1]


def _is_loss(name: str) -> bool:
    leaf = name.rpartition("/")[2]
    return leaf == "loss" or leaf.endswith("_loss")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
