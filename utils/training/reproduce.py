"""Train a run again from what its folder says, compare the two, and name what differs.

    report = reproduce(run.path)             report.sound: the same weights, bit for bit
    report = prove_deterministic(recipe, root)

What is compared: the weights (sha256), the evaluations, the logged losses; and, as reasons for a difference, the
settings, the data, the packages, the machine and the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from utils.core.check import Check, Report
from utils.core.config import Config, flatten
from utils.core.repro import CHANGES, weights_hash
from utils.core.run import Run, RunError
from utils.training.recipes import Recipe, train
from utils.training.result import Result
from utils.training.runs import newest_checkpoint

if TYPE_CHECKING:
    import pandas

FOLDER = "reproduced"
MEASURED = ("_per_second", "/mfu", "seconds", "_gib", "_mib", "memory", "utilisation")  # of the machine, not the model
SHOWN = 12


def reproduce(
    run_folder: str | Path,
    root: str | Path | None = None,
    *,
    load: Callable[[Path], Config] = Recipe.load,
    train: Callable[..., Result] = train,
) -> Report:
    """Train the run in a folder again, from the config in it, into a new run under `root` (by default `reproduced`
    beside it); compare them. The report is saved in the new run as reproduction.html and .json.

    It is sound where weights and metrics are the same to the last bit. Raises `RunError` for a branch, whose config
    says only how it went on, and for a run that is not complete.
    """
    run = Run.open(run_folder)
    if run.parent_id is not None:
        raise RunError(
            f"{run.path.name} is a branch of {run.parent_id}: its config says only how it went on. Reproduce its"
            " parent instead."
        )
    _check_complete(run)
    recipe = load(run.path / "config.yaml")
    result = train(recipe, Path(root) if root else run.path.parent / FOLDER, resume="never")
    return compare(run, result.run)


def prove_deterministic(
    recipe: Config,
    root: str | Path,
    *,
    load: Callable[[Path], Config] = Recipe.load,
    train: Callable[..., Result] = train,
) -> Report:
    """Train a recipe twice in deterministic mode, and compare the two."""
    first = train(recipe.replace(["train.deterministic=true"]), Path(root), resume="never")
    return reproduce(first.run.path, Path(root) / FOLDER, load=load, train=train)


def compare(run: Run, again: Run) -> Report:
    """What is the same and what differs between a complete run and its reproduction."""
    states = [_check_complete(one) for one in (run, again)]
    stamps = [one.stamp for one in (run, again)]
    sessions = [stamp["sessions"][-1] for stamp in stamps]
    checks = [
        _weights(states),
        _metrics(run, again),
        _losses(run, again),
        _same("config", *(dict(flatten(one.config)) for one in (run, again)), what="settings"),
        _same("data", *({"fingerprint": state["data"]} for state in states), what="of the data"),
        _same("packages", *(_versions(stamp) for stamp in stamps), what="packages"),
        _same("machine", *(_machine(*pair) for pair in zip(stamps, sessions)), what="facts"),
        _code(run, again, *(dict(flatten({"git": session["git"] or "none"})) for session in sessions)),
    ]
    facts = {"run": str(run.path), "reproduction": str(again.path)}
    if len(stamps[0]["sessions"]) > 1:
        facts["sessions of the run"] = str(len(stamps[0]["sessions"]))
    report = Report(f"Reproduction of {run.path.name}", checks, facts, word="reproduced")
    report.save(again.path, "reproduction")
    return report


def _check_complete(run: Run) -> dict[str, Any]:
    """The state that a complete run ended with."""
    state = newest_checkpoint(run).load()
    if not state["progress"]["finished"]:
        raise RunError(f"{run.path.name} stopped after step {state['progress']['step']}; resume it to its end first.")
    return state


def _weights(states: list[dict[str, Any]]) -> Check:
    one, other = (weights_hash(state["model"]) for state in states)
    steps = [state["progress"]["step"] for state in states]
    if one == other:
        return Check("weights", "pass", f"The same after {steps[0]} steps, sha256 {one[:12]}.")
    before, after = (state["model"] for state in states)
    shared = [name for name in before if name in after and before[name].shape == after[name].shape]
    if len(shared) < len({**before, **after}):
        far = "their shapes differ"
    else:
        far = f"at most {max(float((before[n].double() - after[n].double()).abs().max()) for n in shared):.3g} apart"
    return Check("weights", "fail", f"Not the same, {far}: sha256 {one[:12]} and {other[:12]}, steps {steps}.")


def _metrics(run: Run, again: Run) -> Check:
    """The last value of each validation metric."""
    one, other = (_last(frame.metrics(), "validation/") for frame in (run, again))
    return _same("metrics", one, other, what="metrics of the last evaluation", critical=True)


def _losses(run: Run, again: Run) -> Check:
    """The training losses, step by step, over the steps that both logged."""
    one, other = (frame.metrics().get("train/loss") for frame in (run, again))
    if one is None or other is None:
        return Check("losses", "skip", "One of the runs logged no training loss.", critical=False)
    one, other = one.dropna(), other.dropna()
    steps = one.index.intersection(other.index)
    apart = steps[one[steps].to_numpy() != other[steps].to_numpy()]
    if not len(steps):
        return Check("losses", "skip", "The runs logged no step in common.", critical=False)
    if not len(apart):
        return Check("losses", "pass", f"The same at all {len(steps)} steps that both logged.", critical=False)
    first = apart[0]
    summary = (
        f"They differ from step {first} on: {one[first]!r} and {other[first]!r}. The {list(steps).index(first)} logged"
        " steps before it are the same."
    )
    return Check("losses", "fail", summary, critical=False)


def _same(name: str, one: Mapping[str, Any], other: Mapping[str, Any], *, what: str, critical: bool = False) -> Check:
    """Passes where two mappings are the same, else names the keys that differ: a failure, or a reason for one."""
    import pandas

    keys = [key for key in {**one, **other} if one.get(key, "absent") != other.get(key, "absent")]
    if not keys:
        return Check(name, "pass", f"The same: {len(one)} {what}.", critical=critical)
    rows = [(key, one.get(key, "absent"), other.get(key, "absent")) for key in keys]
    table = pandas.DataFrame(rows, columns=["", "run", "reproduction"]).astype(str)
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    told = "; ".join(f"{key} was {before}, now {now}" for key, before, now in rows[:SHOWN])
    return Check(name, "fail" if critical else "warn", f"{told}{more}.", table, critical=critical)


def _code(run: Run, again: Run, one: Mapping[str, Any], other: Mapping[str, Any]) -> Check:
    """The commit, and whether its files were changed alike; else which of them were not."""
    found = _same("code", one, other, what="facts")
    if one.get("git.changes") == other.get("git.changes"):
        return found
    before, after = (_changed(each.path / CHANGES) for each in (run, again))
    files = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    told = f" Files changed otherwise: {', '.join(files[:SHOWN])}{more}." if files else ""
    return replace(found, summary=f"{found.summary}{told}")


def _changed(diff: Path) -> dict[str, str]:
    """File -> its changes, from what `core.repro` kept of a checkout; a new file has none. {} where none were kept."""
    if not diff.is_file():
        return {}
    text, found = diff.read_text(encoding="utf-8"), {}
    for part in re.split(r"^(?=diff --git |# new file, not in the diff: )", text, flags=re.MULTILINE):
        head, _, rest = part.partition("\n")
        if head.startswith("diff --git "):
            found[head.rpartition(" b/")[2]] = rest
        elif head:
            found[head.rpartition(": ")[2]] = ""
    return found


def _last(metrics: pandas.DataFrame, prefix: str) -> dict[str, float]:
    found = {}
    for name in metrics.columns:
        if name.startswith(prefix) and not any(part in name for part in MEASURED):
            values = metrics[name].dropna()
            found[name] = float(values.iloc[-1]) if len(values) else numpy.nan
    return {name: value for name, value in found.items() if not numpy.isnan(value)}


def _versions(stamp: Mapping[str, Any]) -> dict[str, str]:
    return dict(package.split("==", 1) for package in stamp["packages"])


def _machine(stamp: Mapping[str, Any], session: Mapping[str, Any]) -> dict[str, Any]:
    """Where the last session ran."""
    names = ("device", "precision", "processes", "python", "os")
    return {name: session.get(name, stamp.get(name)) for name in names} | dict(flatten(session["devices"]))
