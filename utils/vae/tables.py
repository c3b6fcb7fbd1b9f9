"""Tables made from evaluations: the card of metrics, the worst and best grids, the tasks that cost most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from utils.vae.latents import bits_per_cell

if TYPE_CHECKING:
    from utils.vae.evaluation import Evaluation

CARD = {
    "all": "all cells",
    "non_padding": "inside",
    "non_padding_macro": "inside, by task",
    "foreground": "foreground",
    "shape": "size",
    "exact": "exact grids",
}
"""columns of the card: each rate and what it is called"""


def metric_card(results: Mapping[str, Evaluation | Mapping[str, Any]]) -> pandas.DataFrame:
    """The model beside the baselines on each split, in % with 95% intervals over tasks.

    `results` are those of results/metrics.json, or evaluations, by the name of their split.
    """
    rows = {}
    for split, result in results.items():
        content = result if isinstance(result, Mapping) else result.content()
        for name, found in {"this model": content["reconstruction"], **content["baselines"]}.items():
            rows[split, name] = {title: _percent(found[key]) for key, title in CARD.items()}
    if not rows:
        raise ValueError("No results to show; expected those of at least one split.")
    card = pandas.DataFrame.from_dict(rows, orient="index")
    card.index = pandas.MultiIndex.from_tuples(rows, names=["split", "predictor"])
    return card


def worst_and_best(grids: pandas.DataFrame, count: int = 10) -> dict[str, np.ndarray]:
    """Rows of the split of the worst and of the best grids, from `Evaluation.grids`.

    The worst have the smallest share of their cells right, those with most bits a cell first. The best are exact, those
    with most foreground first: a plain grid is easy.
    """
    ranked = grids.assign(share=grids["inside_right"] / grids["inside"])
    worst = ranked.sort_values(["share", "bits_per_cell"], ascending=[True, False], kind="stable")
    best = ranked.sort_values(["exact", "share", "foreground"], ascending=False, kind="stable")
    return {"worst": worst["row"].to_numpy()[:count], "best": best["row"].to_numpy()[:count]}


def bits_by_task(grids: pandas.DataFrame, count: int = 10) -> pandas.DataFrame:
    """The tasks with most bits a cell, from `Evaluation.grids`.

    Columns: task_id, grids, inside (cells), bits_per_cell = kl_bits + nll_bits, and row: that of the split's grid with
    most bits a cell.
    """
    found = grids.groupby("task_id").agg(
        grids=("row", "size"), inside=("inside", "sum"), kl=("kl", "sum"), nll=("nll", "sum")
    )
    for name in ("kl", "nll"):
        found[f"{name}_bits"] = bits_per_cell(found.pop(name), found["inside"])
    found["bits_per_cell"] = found["kl_bits"] + found["nll_bits"]
    found["row"] = grids.loc[grids.groupby("task_id")["bits_per_cell"].idxmax()].set_index("task_id")["row"]
    return found.sort_values("bits_per_cell", ascending=False, kind="stable").head(count).reset_index()


def _percent(found: Mapping[str, float | None]) -> str:
    """`91.3 (90.1 to 92.5)`; a dash where there was nothing to count."""
    if found["value"] is None:
        return "–"
    return "{value:.1f} ({low:.1f} to {high:.1f})".format(
        **{key: float("nan") if value is None else 100 * value for key, value in found.items()}
    )
