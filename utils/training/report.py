"""A run's report.md: what was trained, on what, how well, what it writes, and how to use it."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core.plots import plot_metrics
from utils.core.run import Run
from utils.models.generate import Samples

if TYPE_CHECKING:
    import pandas


def write_report(run: Run, final: pandas.DataFrame, samples: Samples) -> Path:
    """Write `report.md` and its figure. `final` has a row a metric and a column a split."""
    run.save_figure(plot_metrics(run), "curves")
    metrics, stamp = run.metrics(), run.stamp
    parent = f", a branch of {run.parent_id}" if run.parent_id else ""
    folder = shlex.quote(str(run.path))
    git = stamp["git"] or {"commit": "none", "dirty": False}
    sections = [
        f"# {run.name}\n\nRun {run.id}{parent}. {len(stamp['sessions'])} session(s), {metrics.index[-1]:,} steps,"
        f" lowest validation loss at step {metrics['validation/loss'].idxmin():,}.",
        f"## Metrics\n\nMeans over tokens; loss in nats per token.\n\n{_table(final)}\n\n![curves](figures/curves.png)",
        f"## Samples\n\nContinuations of {samples.prompt!r}.\n\n{_texts(samples)}",
        f"## Settings\n\n```yaml\n{(run.path / 'config.yaml').read_text(encoding='utf-8')}```",
        f"## Environment\n\n{stamp['os']}, Python {stamp['python']}, device {stamp['device']},"
        f" precision {stamp['precision']}, seed {stamp['seed']}, git {git['commit'][:12]}"
        f"{' with changes' if git['dirty'] else ''}, packages {stamp['env_hash']}; all in env_stamp.json.",
        f"## Use it\n\n```\npython -m utils generate {folder}\npython -m utils evaluate {folder}\n"
        f"python -m utils resume {folder} train.max_steps=...\ntensorboard --logdir {folder}/tb\n```",
    ]
    path = run.path / "report.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _table(final: pandas.DataFrame) -> str:
    rows = [f"| {name} | " + " | ".join(f"{value:.4f}" for value in row) + " |" for name, row in final.iterrows()]
    return "\n".join([f"| metric | {' | '.join(final.columns)} |", "|---" * (len(final.columns) + 1) + "|", *rows])


def _texts(samples: Samples) -> str:
    """Each text as an indented block, which shows it as it is."""
    return "\n\n".join(
        f"Temperature {temperature}:\n\n{textwrap.indent(text, '    ', lambda line: True)}"
        for temperature, text in samples.texts.items()
    )
