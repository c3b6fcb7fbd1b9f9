"""Studies of a recipe that need training: over seeds, over folds of its data, over amounts of it, over a search.

Each is a sweep whose variations are overrides, so each of its runs is one of the recipe, and is taken up when the study
is run again. All of them share the hours of `train.max_hours`. Leaves out how they are drawn, and how runs are compared
(`utils.experiments`).
"""

from __future__ import annotations

import html
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.config import Config, ConfigError
from utils.core.deadline import OutOfTime, deadline
from utils.core.run import Run, RunError
from utils.core.tracking import wandb_settings
from utils.experiments.search import Search, SearchConfig, Watch, search
from utils.experiments.sweep import RunOne, override, sweep
from utils.training import parts
from utils.training.many import outcome
from utils.training.recipes import train
from utils.training.result import Result
from utils.training.runs import find_recipe, newest_checkpoint, run_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
SHARES = ("accuracy", "macro_f1", "exact_match", "pass@1", "greedy")  # metrics between 0 and 1
FEW = 3  # fewer runs say hardly anything of a mean: t(1) is 12.7
FACTS = ("run", "ended", "step", "seconds", "error")  # columns of a study that are no metrics


def run_one(root: Path, group: str, *, train: Callable[..., Result] = train) -> RunOne:
    """recipe -> its metrics: what `sweep` asks for. Runs go to `root`, or take up what is there."""

    def one(recipe: Config) -> dict[str, Any]:
        with wandb_settings(group=group):
            return _whole(train(recipe, Path(root)))

    return one


def trial(root: Path, *, train: Callable[..., Result] = train) -> Callable[[Any, Watch], Mapping[str, Any]]:
    """What `search` asks for: each trial a run under `root`/<study>, of weights of its own, watched as it is judged."""

    def one(recipe: Config, watch: Watch) -> dict[str, Any]:
        with wandb_settings(group=watch.group):
            named = recipe.replace([override("name", watch.name)])
            return _whole(train(named, Path(root) / watch.group, on_evaluation=watch))

    return one


def _whole(result: Result) -> dict[str, Any]:
    """What a run came to; one that stopped before its end is no result to compare. At `max_hours` it is `OutOfTime`."""
    if result.progress.finished:
        return outcome(result)
    where = f"after {result.progress.step} steps, before its end; {result.run.path.name}"
    if result.stopped:
        raise OutOfTime(f"{result.stopped} {where}")
    raise RunError(f"The run stopped {where}.")


@dataclass(frozen=True)
class NoSearch:
    """What a form gets whose search is not begun: it says why."""

    why: str = "search_trials is 0."

    def __str__(self) -> str:
        return f"No search: {self.why}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def searched(recipe: Config, root: Path, space: str, trials: int) -> Search | NoSearch:
    """The search of a notebook's form, which begins once the form's own run is complete. Both share `max_hours`."""
    if not trials:
        return NoSearch()
    main = run_of(recipe, root)
    if main is not None and not _complete(main):
        return NoSearch(
            f"{main.path.name} is not complete yet. Run the same again: it goes on, and the search follows."
        )
    config = load_search(space, [f"trials={trials}"])
    return search_recipe(recipe, config, root, spent=0.0 if main is None else _spent(main))


def search_recipe(
    recipe: Config, config: SearchConfig, root: Path, *, storage: str | None = None, spent: float = 0.0
) -> Search:
    """A search whose trials share the recipe's `max_hours`, of which `spent` seconds are over. One that is stopped in
    its middle is gone on with when the same is run again."""
    with deadline(recipe.train.max_hours, spent=spent):
        return search(recipe, config, trial(root), root, storage=storage)


def _complete(run: Run) -> bool:
    return any((run.path / "checkpoints").glob("step-*")) and bool(
        newest_checkpoint(run).load()["progress"]["finished"]
    )


def _spent(run: Run) -> float:
    """Seconds since the run's last session began, if that was in this process, whose session is then the same."""
    import psutil

    sessions = run.stamp["sessions"]
    begun = datetime.fromisoformat(sessions[-1]["started"]).timestamp() if sessions else 0.0
    return time.time() - begun if begun >= psutil.Process().create_time() else 0.0


def figures_of(found: Search | NoSearch) -> list[Figure]:
    """A search's figures: history, slices, parallel coordinates, and importances where there are trials enough."""
    return [] if isinstance(found, NoSearch) else list(found.figures().values())


def load_search(path: str | Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """A search from a YAML file, or from `configs/` by its bare name."""
    return SearchConfig.load(find_recipe(path, "search"), overrides)


def seed_variance(
    recipe: Config, root: Path, seeds: Sequence[int] = range(5), *, train: Callable[..., Result] = train
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The recipe under several seeds: a row each, and each metric's mean, deviation and interval."""
    with deadline(recipe.train.max_hours):
        table = sweep(recipe, {"train.seed": seeds}, run_one(root, f"{recipe.name}-seeds", train=train))
    return table, summarise(table, {"train.seed"})


def cross_validate(
    recipe: Config, root: Path, folds: int = 5, *, seed: int = 0, train: Callable[..., Result] = train
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The recipe with each of `folds` parts of its data as the validation split: a row each, and the summary.

    Parts of a text are contiguous; parts of rows follow `seed`, and rows of the same words are in one part. The folds
    lie in `root`/folds. The interval takes folds for independent, which they are not quite: they share training data.
    """
    variations = parts.folds(recipe.rows or recipe.data, folds, _folder(root, "folds"), seed)
    with deadline(recipe.train.max_hours):
        table = sweep(recipe, variations, run_one(root, f"{recipe.name}-folds", train=train))
    table.insert(0, "fold", range(1, len(table) + 1))
    table = table.drop(columns=[name for name in table if name.startswith(("data.", "rows."))])
    return table, summarise(table, {"fold"})


def learning_curve(
    recipe: Config,
    root: Path,
    shares: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    *,
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    train: Callable[..., Result] = train,
) -> pandas.DataFrame:
    """The recipe on growing shares of its training data, judged on the same validation split: a row a share and seed.

    Each share holds the smaller ones. `seeds` are of training, by default the recipe's own; `seed` chooses the rows.
    """
    bad = [share for share in shares if not 0 < share <= 1]
    if bad:
        raise ConfigError(f"shares {bad}: expected parts of the training data, above 0 and up to 1.")
    sizes = parts.shares(recipe.rows or recipe.data, sorted(shares), _folder(root, "shares"), seed)
    seeds = [recipe.train.seed] if seeds is None else list(seeds)
    both = [[*one, override("train.seed", number)] for one in sizes for number in seeds]
    with deadline(recipe.train.max_hours):
        table = sweep(recipe, both, run_one(root, f"{recipe.name}-shares", train=train))
    table.insert(0, "share", [share for share in sorted(shares) for _ in seeds])
    return table.drop(columns=[name for name in table if name.startswith(("data.", "rows."))])


def _folder(root: str | Path, name: str) -> Path:
    return Path(root).expanduser().resolve() / name


def summarise(table: pandas.DataFrame, settings: set[str], confidence: float = 0.95) -> pandas.DataFrame:
    """Each metric over the rows that did not fail: runs, mean, standard deviation (n - 1), and the mean's interval.

    The interval is Student's: mean +- t(n - 1) * sd / sqrt(n), of a share within 0 and 1; NaN for a single run, whose
    spread is not known.
    """
    import pandas
    from scipy import stats

    good = table[table["error"] == ""]
    failed = len(table) - len(good)
    if failed:
        log.warning("%d of %d runs failed and are left out of the summary.", failed, len(table))
    rows = {}
    for name in good.select_dtypes("number").columns:
        if name in settings or name in FACTS:
            continue
        values = good[name].dropna()
        spread = values.std(ddof=1)
        least, most = (0.0, 1.0) if name.rpartition("/")[2] in SHARES else (-math.inf, math.inf)
        half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * spread / len(values) ** 0.5
        rows[name] = {
            "runs": len(values),
            "mean": values.mean(),
            "sd": spread,
            "low": max(values.mean() - half, least),
            "high": min(values.mean() + half, most),
        }
    return pandas.DataFrame.from_dict(rows, orient="index", columns=["runs", "mean", "sd", "low", "high"])


def summary_text(summary: pandas.DataFrame, confidence: float = 0.95) -> str:
    """What `summarise` found, as text that says what its interval is, and where runs are too few for it to say much."""
    named = {name: f"{confidence:.0%} {name}" for name in ("low", "high")}
    lines = [f"Mean, standard deviation and the {confidence:.0%} interval of the mean (t):"]
    lines.append(summary.rename(columns=named).to_string())
    fewest = int(summary["runs"].min()) if len(summary) else 0
    if fewest < FEW:
        runs = "1 run is" if fewest == 1 else f"{fewest} runs are"
        lines.append(f"{runs} too few: so wide an interval says little. Use --count {FEW} or more.")
    return "\n".join(lines)
