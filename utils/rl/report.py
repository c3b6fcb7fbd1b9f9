"""The report of a judged run: results/metrics.json, results/report.html and report.md, from its best weights.

Other weights than the best are reported beside these, in results/update-N/ (metrics.json, report.html). Leaves out the
judging (`rl.judgement`) and what is said of it (`rl.findings`).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from utils.arc.tasks import Task
from utils.core.device import choose, make_fabric
from utils.core.run import Run
from utils.rl.course import course_of
from utils.rl.findings import findings
from utils.rl.judgement import AFTER, BEFORE, Judgement, judge, start_policy
from utils.rl.plots import plot_before_after, plot_endings, plot_learning, plot_lengths, plot_levels
from utils.rl.recipes import Trained, open_trained
from utils.rl.sandbox import Job, Sandbox
from utils.rl.tables import change_table, changed, ending_table, metric_card, part_table, solved_and_unsolved
from utils.rl.task_plots import plot_solution
from utils.training.report import markdown_table, write_page
from utils.training.runs import best_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = [
    "AFTER", "BEFORE", "finish", "judge", "outputs_of", "plot_examples", "results_of", "start_policy", "write_report",
]  # fmt: skip


def finish(run: Run, update: int | None = None) -> Path:
    """Judge a trained run, its best weights or those of one update, and report it; the path of the report.

    What became of pass@1 is printed. Several processes share the tasks, the first one prints and writes.
    """
    trained = open_trained(run.path, update)
    recipe = trained.recipe
    before = start_policy(trained)
    fabric = make_fabric(choose(recipe.ppo.device, recipe.ppo.precision))
    with Sandbox(recipe.sandbox, recipe.workers) as sandbox:
        found = judge(trained, before, sandbox, fabric=fabric)
        if not fabric.is_global_zero:
            return run.path / "report.md"
        print(f"Test tasks: pass@1 {changed(found.before, found.after, 'pass@1')}.")
        return write_report(trained, found, sandbox)


def results_of(run: Run, update: int) -> Path:
    """Where the results of an update's weights lie: in results/ those of the best, in a folder of its own any other."""
    folder = run.path / "results"
    return folder if update == best_checkpoint(run).step else folder / f"update-{update}"


def write_results(path: str | Path, trained: Trained, found: Judgement) -> Path:
    """results/metrics.json, and beside it tasks.jsonl with a line for each task before and after PPO."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "run": trained.run.id,
        "update": trained.update,
        "policy": trained.policy.facts,
        "config": {"recipe": trained.recipe.model_dump(mode="json")},
        "sandbox": found.sandbox,
        "results": found.content(),
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    evaluations = {**found.policies, **{f"{name}, ARC": one for name, one in (found.arc or {}).items()}}
    lines = [
        json.dumps({"evaluation": name, **asdict(record)}, ensure_ascii=False)
        for name, one in evaluations.items()
        for record in one.records
    ]
    path.with_name("tasks.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    return path


def write_report(trained: Trained, found: Judgement, sandbox: Sandbox) -> Path:
    """Write metrics.json and report.html of the results, and of the best weights report.md and its figures.

    Returns the path of report.md, or of report.html where these are not the best weights.
    """
    run, update = trained.run, trained.update
    results = results_of(run, update)
    write_results(results / "metrics.json", trained, found)
    figures = {
        "learning": plot_learning(run),
        "before_after": plot_before_after(found.all),
        "levels": plot_levels(found.policies),
        "endings": plot_endings(found.policies),
        "lengths": plot_lengths(found.policies),
        **plot_examples(found, sandbox),
    }
    page, _ = findings(trained, found, sandbox, figures).save(results, "report")
    if results.name != "results":
        return page
    for name, figure in figures.items():
        run.save_figure(figure, name)
    examples = "\n".join(
        f"![{name}](figures/{name}.png)" for name in figures if name.startswith(("solved", "unsolved"))
    )
    layers = pandas.DataFrame(list(found.sandbox.items()), columns=["layer", "state"])
    arc = f"\n\n{markdown_table(metric_card(found.arc).reset_index())}" if found.arc else ""
    sections = [
        f"## Tasks it never saw\n\nShares of tasks, with 95% intervals over tasks, with the weights of update"
        f" {update:,}. {trained.recipe.evaluation.samples} programs were drawn a task, and the greedy one.\n\n"
        f"{markdown_table(metric_card(found.all).reset_index())}\n\n![before and after](figures/before_after.png)",
        f"## What PPO changed\n\nIntervals are of the paired difference.\n\n"
        f"{markdown_table(change_table(found.before, found.after))}\n\n![learning](figures/learning.png)",
        f"## Which tasks\n\npass@1 by the program that made the task.\n\n{markdown_table(part_table(found.policies))}"
        "\n\n![levels](figures/levels.png)",
        f"## Programs\n\n{markdown_table(ending_table(found.all))}\n\n![endings](figures/endings.png)\n\n"
        "![lengths](figures/lengths.png)",
        f"## Examples\n\nThe program that earned most, beside a task.\n\n{examples}",
        f"## Real ARC tasks\n\n{found.arc_sentence}{arc}",
        f"## Sandbox\n\n{markdown_table(layers)}",
    ]
    caveat = course_of(run).caveat
    folder, root = shlex.quote(str(run.path)), shlex.quote(str(run.path.parent))
    commands = [f"ppo evaluate {folder}", f"ppo solve TASK --run {folder}"]
    commands += [f"ppo train {folder}/config.yaml --root {root}"]
    return write_page(run, sections, commands, best=f"highest validation pass@1 at update {update:,}{caveat}")


def plot_examples(found: Judgement, sandbox: Sandbox, count: int = 1) -> dict[str, Figure]:
    """Some solved and unsolved tasks, each with the best program that the trained policy wrote for it, by name."""
    figures = {}
    for name, numbers in solved_and_unsolved(found.after, count).items():
        for at, number in enumerate(numbers):
            task, program = found.problems[number].task, found.after.records[number].program
            figures[f"{name}{at or ''}"] = plot_solution(task, program, outputs_of(program, task, sandbox))
    return figures


def outputs_of(program: str, task: Task, sandbox: Sandbox) -> tuple[np.ndarray | None, ...]:
    """What a program makes of a task's hidden inputs; None where it fails."""
    (outcome,) = sandbox.run([Job(program, tuple(pair.input for pair in task.test))])
    return outcome.outputs
