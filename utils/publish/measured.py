"""The metrics of a model card: numbers with their units, with intervals where these were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NATS = {"language model": ("loss",), "VAE": ("loss", "nll", "kl", "elbo")}  # family -> its metrics that are in nats
EACH = {"vae": "grid", "classifier": "text"}  # kind -> of what they are the mean; else of tokens


def measured(metadata: Mapping[str, Any]) -> str:
    """A sentence on what the numbers are of, and the table of them."""
    metrics = metadata.get("metrics") or {}
    if not metrics:
        return "None were measured."
    rows = [f"| {name} | {shown(value)} |" for name, value in metrics.items()]
    told = [f"Of step {metadata['step']:,}{'' if metadata.get('note') else ', the best checkpoint'}."]
    told += [_units(metadata, metrics), _intervals(metrics)]
    return "\n".join([" ".join(filter(None, told)), "", "| metric | value |", "| --- | --- |", *rows])


def number(value: float | Mapping[str, float]) -> float:
    """A metric without its interval."""
    return float(value["value"] if isinstance(value, Mapping) else value)


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers, as the Hub's list of results can hold them."""
    return {name: number(value) for name, value in metrics.items() if math.isfinite(number(value))}


def shown(value: float | Mapping[str, float]) -> str:
    """A metric with four digits, and its interval where there is one."""
    bounds = f" [{value['low']:.4g}, {value['high']:.4g}]" if isinstance(value, Mapping) else ""
    return f"{number(value):.4g}{bounds}"


def _units(metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    names = [name.rpartition("/")[2] for name in metrics]
    there = [name for name in NATS.get(metadata.get("family", ""), ()) if name in names]
    return f"In nats a {EACH.get(metadata['kind'], 'token')}: {', '.join(there)}." if there else ""


def _intervals(metrics: Mapping[str, Any]) -> str:
    given = [isinstance(value, Mapping) for value in metrics.values()]
    if all(given):
        return "In brackets: 95% intervals."
    return "In brackets: 95% intervals, where one was measured." if any(given) else "No intervals were measured."
