"""Tables made from evaluations: the card of metrics, the worst and best grids, the tasks that cost most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from utils.vae.latents import bits_per_cell
from utils.vae.metrics import NO_INTERVAL, TITLES

if TYPE_CHECKING:
    from utils.vae.evaluation import Evaluation


def metric_card(results: Mapping[str, Evaluation | Mapping[str, Any]]) -> pandas.DataFrame:
    """The model beside the baselines on each split: over how many grids, and in % with 95% intervals over tasks.

    `results` are those of results/metrics.json, or evaluations, by the name of their split.
    """
    rows = {}
    for split, result in results.items():
        content = result if isinstance(result, Mapping) else result.content()
        for name, found in {"this model": content["reconstruction"], **content["baselines"]}.items():
            shares = {title: _percent(found[key]) for key, title in TITLES.items()}
            rows[split, name] = {"grids": f"{content['counts']['grids']:,}", **shares}
    if not rows:
        raise ValueError("No results to show; expected those of at least one split.")
    card = pandas.DataFrame.from_dict(rows, orient="index")
    card.index = pandas.MultiIndex.from_tuples(rows, names=["split", "predictor"])
    return card


def rates_table(table: pandas.DataFrame) -> pandas.DataFrame:
    """`Betas.table` as people read it: nats a grid to one decimal, and shares in %."""
    shown = {
        "beta": ("beta", "{:g}"),
        "steps": ("steps", "{:,.0f}"),
        "kl": ("KL, nats a grid", "{:.1f}"),
        "nll": ("-log p(x given z), nats a grid", "{:.1f}"),
        "non_padding": (f"{TITLES['non_padding']}, %", "{:.1%}"),
        "exact": (f"{TITLES['exact']}, %", "{:.1%}"),
    }
    columns = {
        title: [form.format(value).rstrip("%") for value in table[name]]
        for name, (title, form) in shown.items()
        if name in table
    }
    return pandas.DataFrame(columns)


def bounds_table(evaluations: Mapping[str, Evaluation]) -> pandas.DataFrame:
    """A row a bound of the likelihood, a column a split, each with its 95% interval over tasks.

    The ELBO stands twice: over every grid, and beside IWAE over those that IWAE was taken over.
    """
    titles = {
        "nll": "-log p(x given z), nats a grid",
        "kl": "KL, nats a grid",
        "elbo": "ELBO, nats a grid",
        "bits_per_cell": "bits a cell inside",
        "iwae_elbo": "ELBO over those grids",
    }
    columns = {}
    for split, one in evaluations.items():
        bounds = {titles[name]: str(one.bounds[name]) for name in titles if name in one.bounds}
        iwae = {f"IWAE-{name[5:]} over those grids": str(one.bounds[name]) for name in one.bounds if _is_iwae(name)}
        few = {"grids that IWAE is taken over": f"{one.counts['iwae_grids']:,}"} if iwae else {}
        last = titles["iwae_elbo"]
        over = {last: bounds.pop(last)} if last in bounds else {}
        columns[split] = {"grids": f"{one.counts['grids']:,}", **bounds, **few, **over, **iwae}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    content = {split: [column.get(name, "–") for name in names] for split, column in columns.items()}
    return pandas.DataFrame({"bound": list(names), **content})


def _is_iwae(name: str) -> bool:
    return name.startswith("iwae_") and name != "iwae_elbo"


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
    """`91.3 (90.1 to 92.5)`, or why there is no interval; a dash where there was nothing to count."""
    if found["value"] is None:
        return "–"
    if found["low"] is None:
        return f"{100 * found['value']:.1f} ({NO_INTERVAL})"
    return "{value:.1f} ({low:.1f} to {high:.1f})".format(
        **{key: float("nan") if value is None else 100 * value for key, value in found.items()}
    )
