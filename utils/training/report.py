"""A run's report.md: what was trained, on what, how well, what it writes, and how to use it."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.checkpoints import Checkpoints
from utils.core.plots import plot_metrics
from utils.core.run import Run
from utils.models.generate import Samples
from utils.training.answers import Answers
from utils.training.intervals import INTERVALS, write_metrics
from utils.training.runs import best_checkpoint, newest_checkpoint

if TYPE_CHECKING:
    import pandas


def write_report(run: Run, final: pandas.DataFrame, shown: Samples | Answers) -> Path:
    """Write a run's `report.md`, its figure and results/metrics.json, of the weights that training leaves.

    `final` has a row a metric and a column a split, as `training.answers.final_metrics` gives it.
    """
    run.save_figure(plot_metrics(run), "curves")
    kept = best_checkpoint if run.config.get("train", {}).get("restore_best", True) else newest_checkpoint
    if Checkpoints(run.path / "checkpoints").all():
        write_metrics(run, final, kept(run).step)
    table = with_intervals(final).rename_axis("metric").reset_index()
    measured = any(final.attrs.get(INTERVALS, {}).values())
    told = "In brackets: 95% intervals over batches drawn anew." if measured else "Intervals were not measured."
    results = [
        f"## Metrics\n\nMeans over targets (tokens, or examples of a classifier); loss in nats. {told}\n\n"
        f"{markdown_table(table)}\n\n![curves](figures/curves.png)",
    ]
    folder = shlex.quote(str(run.path))
    commands = [f"evaluate {folder}", f"resume {folder} train.max_steps=..."]
    if isinstance(shown, Samples):
        results.append(f"## Samples\n\nContinuations of {shown.prompt!r}.\n\n{_texts(shown)}")
        commands.insert(0, f"generate {folder}")
    else:
        results.append(f"## Answers\n\nThe first rows of validation.\n\n{textwrap.indent(str(shown), '    ')}")
    return write_page(run, results, commands)


def with_intervals(final: pandas.DataFrame) -> pandas.DataFrame:
    """The table as texts, the ends of an interval behind a number that has one."""
    shown = final.astype(object)
    for split, found in final.attrs.get(INTERVALS, {}).items():
        for name, (low, high) in found.items():
            shown.loc[name, split] = f"{final.loc[name, split]:.4f} [{low:.4f}, {high:.4f}]"
    return shown


def write_page(run: Run, results: Sequence[str], commands: Sequence[str], *, best: str = "") -> Path:
    """Write `report.md` of any run: how far it came, the sections `results`, settings, environment, and how to use it.

    `commands` are those of `python -m utils` that take it from here; `best` says which weights are the best, where it
    is not the validation loss that does.
    """
    metrics, stamp = run.metrics(), run.stamp
    best = best or _best(metrics)
    steps = int(metrics.index[-1]) if len(metrics) else 0
    parent = f", a branch of {run.parent_id}" if run.parent_id else ""
    count = len(stamp["sessions"])
    git = stamp["git"] or {"commit": "none", "dirty": False}
    uses = [
        *(f"python -m utils {command}" for command in commands),
        f"tensorboard --logdir {shlex.quote(str(run.path))}/tb",
    ]
    sections = [
        f"# {run.name}\n\nRun {run.id}{parent}. {count} session{'s' * (count != 1)}, {steps:,} steps, {best}.",
        *results,
        f"## Settings\n\n```yaml\n{(run.path / 'config.yaml').read_text(encoding='utf-8')}```",
        f"## Environment\n\n{stamp['os']}, Python {stamp['python']}, device {stamp['device']},"
        f" precision {stamp['precision']}, seed {stamp['seed']}, git {git['commit'][:12]}"
        f"{' with changes' if git['dirty'] else ''}, packages {stamp['env_hash']}; all in env_stamp.json.",
        "## Use it\n\n```\n" + "\n".join(uses) + "\n```",
    ]
    path = run.path / "report.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _best(metrics: pandas.DataFrame) -> str:
    losses = metrics["validation/loss"].dropna() if "validation/loss" in metrics else ()
    return f"lowest validation loss at step {losses.idxmin():,}" if len(losses) else "not evaluated yet"


def markdown_table(table: pandas.DataFrame) -> str:
    """A table in Markdown, without its index; numbers with a fraction to four decimals, what is missing empty."""
    rows = [
        table.columns,
        ["---"] * len(table.columns),
        *([_cell(value) for value in row] for row in table.itertuples(index=False)),
    ]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4f}"


def _texts(samples: Samples) -> str:
    """Each text as an indented block, which shows it as it is."""
    return "\n\n".join(
        f"Temperature {temperature}:\n\n{textwrap.indent(text, '    ', lambda line: True)}"
        for temperature, text in samples.texts.items()
    )
