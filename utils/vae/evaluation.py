"""`Evaluation`: what was measured of a model on a split, and how it is written as strict JSON.

Leaves out the measuring (`vae.evaluate`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from utils.core.check import Check
from utils.core.config import Config
from utils.vae.disentangle import Disentanglement
from utils.vae.latents import LatentUse
from utils.vae.metrics import Estimate
from utils.vae.probes import Probe
from utils.vae.tables import metric_card

DERIVED = ("gain", "share", "content")  # of LatentUse


@dataclass(frozen=True)
class Evaluation:
    """What was found on one split. `_repr_html_` shows the metric card."""

    split: str
    counts: dict[str, int]
    """grids, tasks, cells, inside (not padding), foreground, and grids of the importance-weighted bound"""
    reconstruction: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    bounds: dict[str, Estimate]
    """nll, kl, elbo and iwae in nats a grid; bits_per_cell inside grids; iwae_elbo: the elbo over iwae's grids"""
    kl_per_dimension: list[float]
    """mean nats a grid, in the order of the dimensions"""
    active: dict[str, int]
    """dimensions: all; reached: those of a place that some grid has; by_kl and by_variance: those in use"""
    latents: LatentUse
    checks: list[Check]
    probes: list[Probe] = field(default_factory=list)
    disentanglement: Disentanglement | None = None
    grids: pandas.DataFrame | None = field(default=None, repr=False)
    """a row a grid: row of the split, task_id, its counts, nll, kl, bits_per_cell"""

    def content(self) -> dict[str, Any]:
        """All but the figures and the rows of grids, as JSON values; what is not finite is null."""
        named = {
            one.name: _json(getattr(self, one.name)) for one in fields(self) if one.name not in ("grids", "checks")
        }
        checks = [{"name": check.name, "status": check.status, "summary": check.summary} for check in self.checks]
        return {**named, "checks": checks}

    def _repr_html_(self) -> str:
        return metric_card({self.split: self}).to_html() + "".join(check._repr_html_() for check in self.checks)


def write_metrics(path: str | Path, evaluations: Sequence[Evaluation], **settings: Config | Mapping[str, Any]) -> Path:
    """Write results/metrics.json: every evaluation by the name of its split, under the settings that made them.

    `settings` are configs by name: `model=`, `corpus=`, `evaluation=`, ... Strict JSON: NaN and infinity are null.
    """
    path = Path(path)
    names = [evaluation.split for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise ValueError(f"Evaluations of {', '.join(names)}; give each split once, or another `name` to evaluate_vae.")
    content = {
        "config": {name: _json(value) for name, value in settings.items()},
        "results": {evaluation.split: evaluation.content() for evaluation in evaluations},
    }
    if path.is_file():  # splits judged before, under equal settings, stay
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["config"] == json.loads(json.dumps(content["config"])):
            content["results"] = kept["results"] | content["results"]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _json(value: Any) -> Any:
    if isinstance(value, Config):
        return _json(value.model_dump(mode="json"))
    if is_dataclass(value):
        derived = {name: getattr(value, name) for name in DERIVED} if isinstance(value, LatentUse) else {}
        return _json(asdict(value) | derived)
    if isinstance(value, Mapping):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
