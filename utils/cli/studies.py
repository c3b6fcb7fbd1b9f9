"""Commands about several runs: compare them, list them, train many, search, study, reproduce."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utils.core.options import Overrides, Recipe, Root, RunPath

if TYPE_CHECKING:
    import pandas

app = typer.Typer()


class Study(str, Enum):
    """What varies."""

    seeds = "seeds"
    folds = "folds"
    sizes = "sizes"
    twice = "twice"


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="run folders", exists=True, file_okay=False)],
    metric: Annotated[str, typer.Option(help="what is compared")] = "validation/loss",
    page: Annotated[Path | None, typer.Option(help="write the table and the curves to this HTML file, too")] = None,
) -> None:
    """Lay runs side by side: best and last values, what differs in their settings, what more seeds say."""
    from utils.experiments.compare import compare_runs

    found = compare_runs(runs, metric=metric)
    print(found)
    if page is not None:
        page.write_text(f"<!doctype html><meta charset='utf-8'>{found._repr_html_()}", encoding="utf-8")
        print(f"Page: {page.resolve()}")


@app.command()
def runs(
    root: Root = Path("runs"),
    sort: Annotated[str, typer.Option(help="a column of the table")] = "",
) -> None:
    """A table of every run under a folder, and the folders that could not be read."""
    from utils.experiments.table import experiment_table

    print(experiment_table(root, sort=sort) if sort else experiment_table(root))


@app.command()
def train_many(
    recipe: Annotated[
        list[str], typer.Argument(help="YAML files, or names in configs/; and settings to change in all of them")
    ],
    root: Root = Path("runs"),
    processes: Annotated[int, typer.Option(min=1, help="runs at a time, each in a process of its own")] = 1,
) -> None:
    """Train several recipes, each its own run; one that fails stops no other. Exits 1 where one failed."""
    from utils.core.config import ConfigError
    from utils.training import many
    from utils.training.recipes import load_recipe

    overrides = [one for one in recipe if "=" in one and not Path(one).exists()]
    named = [one for one in recipe if one not in overrides]
    if not named:
        raise ConfigError(f"Only settings came ({', '.join(overrides)}); name at least one recipe before them.")
    table = many.train_many([load_recipe(one, overrides) for one in named], root, processes)
    print(_named(table).to_string(index=False))
    raise typer.Exit(bool((table["error"] != "").any()))


@app.command()
def search(
    recipe: Recipe,
    space: Annotated[str, typer.Argument(help="a YAML file of a search space, or its name in configs/")],
    overrides: Overrides = None,
    root: Root = Path("runs"),
    trials: Annotated[int | None, typer.Option(min=1, help="trials in all; default: as the file says")] = None,
    name: Annotated[str, typer.Option(help="the study's name; default: as the file says")] = "",
    storage: Annotated[str | None, typer.Option(help="URL of a database that several machines share")] = None,
) -> None:
    """Search settings by Optuna, each trial a run; a stopped search goes on. The best is left as NAME/best.yaml."""
    from utils.experiments.sweep import override
    from utils.training.recipes import load_recipe
    from utils.training.studies import load_search, search_recipe

    given = {"trials": trials, "name": name}
    config = load_search(space, [override(key, value) for key, value in given.items() if value])
    print(search_recipe(load_recipe(recipe, overrides or ()), config, root, storage=storage))


@app.command()
def study(
    kind: Annotated[
        Study, typer.Argument(help="seeds, folds (cross-validation), sizes (a learning curve), or twice: the same run")
    ],
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = Path("runs"),
    count: Annotated[int, typer.Option(min=2, help="seeds or folds")] = 5,
) -> None:
    """Train a recipe over seeds, folds or shares of its data, and say how much its metrics vary.

    twice trains it two times in deterministic mode, and exits 1 unless the weights are the same, bit for bit.
    """
    from utils.training import studies
    from utils.training.recipes import load_recipe
    from utils.training.reproduce import prove_deterministic

    loaded = load_recipe(recipe, overrides or ())
    if kind is Study.twice:
        report = prove_deterministic(loaded, root)
        print(report)
        raise typer.Exit(not report.sound)
    if kind is Study.sizes:
        print(_named(studies.learning_curve(loaded, root)).to_string(index=False))
        return
    table, summary = (
        studies.seed_variance(loaded, root, range(count))
        if kind is Study.seeds
        else studies.cross_validate(loaded, root, count)
    )
    print(_named(table).to_string(index=False), studies.summary_text(summary), sep="\n\n")


def _named(table: pandas.DataFrame) -> pandas.DataFrame:
    """A table whose runs are told by the names of their folders alone."""
    if "run" not in table:
        return table
    return table.assign(run=[Path(one).name if isinstance(one, str) else one for one in table["run"]])


@app.command()
def reproduce(
    run: RunPath,
    root: Annotated[Path | None, typer.Option(help="where the second run goes; default: beside the first")] = None,
) -> None:
    """Train a run again from its stamp, compare weights and losses, name what differs. Exits 1 where they do."""
    from utils.training.reproduce import reproduce as again

    report = again(run, root)
    print(report)
    raise typer.Exit(not report.sound)
