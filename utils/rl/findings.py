"""What is to be said of a judged run: checks with a status and a reason, which a `Report` shows and saves as HTML.

Leaves out the judging (`rl.judgement`) and the figures' drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas

from utils.core.check import Check, Report, Status
from utils.rl.advice import next_steps
from utils.rl.course import course_of
from utils.rl.evaluation import Evaluation, paired, spread
from utils.rl.tables import changed, ending_table, metric_card, part_table
from utils.rl.tricks import TRICKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.rl.judgement import Judgement
    from utils.rl.recipes import Trained
    from utils.rl.sandbox import Sandbox

MANY_TRICKS, MANY_CUT = 0.01, 0.05  # shares of programs above which there is something to look at


@dataclass
class Findings(Report):
    """A report whose verdict says what became of pass@1 (its first check), and which other checks to look at."""

    @property
    def verdict(self) -> str:
        first, *others = self.checks
        word = {"pass": "Improved", "warn": "Not shown to improve", "fail": "Worse"}[first.status]
        parts = [f"{word}: {first.name} {first.summary}"]
        for status, text in (("fail", "Fails"), ("warn", "Warnings")):
            names = [check.name for check in others if check.status == status]
            parts += [f"{text}: {', '.join(names)}."] if names else []
        return " ".join(parts)


def findings(
    trained: Trained, found: Judgement, sandbox: Sandbox, figures: Mapping[str, Figure] | None = None
) -> Report:
    """The report of a run: what PPO changed, beside baselines, on which tasks, with which programs, how it went, and
    what to try next."""
    drawn = figures or {}
    before, after, config = found.before, found.after, trained.recipe.evaluation
    checks = [
        rise(before, after, "pass@1", metric_card(found.all), drawn.get("before_after")),
        *(holds(before, after, metric) for metric in after.metrics if metric != "pass@1"),
        new_programs(found, drawn.get("levels")),
        baselines(found),
        tricks(found, [drawn[name] for name in ("endings", "lengths") if name in drawn]),
        cut_off(after),
        course(trained, drawn.get("learning")),
        *(example(name, drawn[name]) for name in ("solved", "unsolved") if name in drawn),
        arc(found),
        contained(sandbox),
    ]
    checks.append(next_steps(checks, trained.recipe))
    facts = {
        "run": trained.run.id,
        **trained.policy.facts,
        "weights": f"of update {trained.update:,}",
        "tasks": f"{len(after.records)} that were never trained on, {config.samples} programs a task",
        "seed": str(config.seed),
    }
    return Findings(f"PPO: {trained.run.name}", checks, facts, word="improved")


def rise(before: Evaluation, after: Evaluation, metric: str, table: pandas.DataFrame, figure: Figure | None) -> Check:
    """Passes where the paired interval lies above zero, warns where it holds zero, fails below."""
    change = paired(before, after, metric)
    status: Status = "pass" if change.low > 0 else "fail" if change.high < 0 else "warn"
    return Check(metric, status, _change(before, after, metric), table, figure)


def holds(before: Evaluation, after: Evaluation, metric: str) -> Check:
    """Passes where a rate did not fall, warns where it fell by less than can be told from chance, fails below."""
    change = paired(before, after, metric)
    status: Status = "pass" if change.value >= 0 else "fail" if change.high < 0 else "warn"
    return Check(metric, status, _change(before, after, metric))


def _change(before: Evaluation, after: Evaluation, metric: str) -> str:
    return f"{changed(before, after, metric)}, over {len(after.records)} tasks."


def new_programs(found: Judgement, figure: Figure | None) -> Check:
    """Whether pass@1 rose on tasks whose program made no training task."""
    name, table = "New programs", part_table(found.policies)
    if False not in found.after.by_seen:
        return Check(name, "skip", "Every test task was made by a program that made training tasks.", table, figure)
    parts = [one.by_seen[False] for one in (found.before, found.after)]
    change = paired(*parts, "pass@1")
    status: Status = "pass" if change.low > 0 else "fail" if change.high < 0 else "warn"
    text = f"On tasks whose program made no training task: {_change(*parts, 'pass@1')}"
    return Check(name, status, text, table, figure, critical=False)


def baselines(found: Judgement) -> Check:
    """Whether the policy after PPO is ahead of each baseline by more than chance."""
    ahead = {name: paired(one, found.after, "pass@1") for name, one in found.baselines.items()}
    behind = [name for name, one in ahead.items() if one.low <= 0]
    text = "; ".join(f"{name} {found.baselines[name].rates['pass@1'].value:.1%}" for name in ahead)
    text = f"pass@1 {found.after.rates['pass@1'].value:.1%}, of baselines: {text}."
    return Check("Ahead of baselines", "fail" if behind else "pass", text)


def tricks(found: Judgement, figures: list[Figure]) -> Check:
    """Whether programs are honest attempts."""
    shares = [sum(one.endings[trick] for trick in TRICKS) for one in (found.before, found.after)]
    text = f"{shares[1]:.1%} of the programs are tricks (they pass nothing), {shares[0]:.1%} before PPO."
    status: Status = "warn" if shares[1] > MANY_TRICKS and shares[1] > shares[0] else "pass"
    return Check("Honest programs", status, text, ending_table(found.all), figures, critical=False)


def cut_off(after: Evaluation) -> Check:
    """Whether programs end within their limit."""
    share, lengths = after.endings["truncated"], spread(after.tokens)
    text = f"{share:.1%} of the programs were cut off before their end"
    if lengths:
        text += f"; their tokens: {lengths['mean']:.1f} on average, 95% at most {lengths['p95']:.0f}"
    many = share > MANY_CUT
    advice = " Raise ppo.sample.max_new_tokens." if many else ""
    return Check("Length", "warn" if many else "pass", f"{text}.{advice}", critical=False)


def course(trained: Trained, figure: Figure | None) -> Check:
    """Whether the best evaluation was the last one: then more updates may do better; or none was above the start."""
    went = course_of(trained.run)
    text, rising = str(went), went.rose and went.best == went.last
    if rising:
        goes_on = trained.recipe.ppo.schedule == "constant"
        text += " It may rise further: raise ppo.updates, " + ("and the run goes on." if goes_on else "in a new run.")
    good = went.rose and not rising
    return Check("Course", "pass" if good else "warn", text, figure=figure, critical=False)


def arc(found: Judgement) -> Check:
    """Real ARC tasks, on which nothing was trained."""
    if not found.arc:
        return Check("Real ARC tasks", "skip", found.arc_sentence)
    solved = any(one.solved_by_any for one in found.arc.values())
    return Check(
        "Real ARC tasks", "pass" if solved else "warn", found.arc_sentence, metric_card(found.arc), critical=False
    )


def contained(sandbox: Sandbox) -> Check:
    """The layers that programs ran in."""
    report = sandbox.report
    states = [(check.name, check.summary.partition(":")[0]) for check in report.checks]
    missing = [name for name, state in states if state == "MISSING"]
    text = f"Missing here: {', '.join(missing)}." if missing else "Every layer is active, or is not needed here."
    table = pandas.DataFrame(states, columns=["layer", "state"])
    return Check("Sandbox", report.status, text, table, critical=report.status == "fail")


def example(kind: str, figure: Figure) -> Check:
    """A task, and the program that earned most on it."""
    return Check(f"A task {kind}", "skip", "To look at: the program that earned most, beside its task.", figure=figure)
