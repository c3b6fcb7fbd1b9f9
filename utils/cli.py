"""`python -m utils`: the notebooks' functions as commands."""

from __future__ import annotations

import json
import logging
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utils.core.options import Recipe, Resume, Resuming, RunPath, Split
from utils.rl.commands import app as ppo
from utils.vae.commands import app as vae

if TYPE_CHECKING:
    from utils.training.result import Result

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
app.add_typer(vae, name="vae")
app.add_typer(ppo, name="ppo")


class Study(str, Enum):
    """What varies."""

    seeds = "seeds"
    folds = "folds"
    sizes = "sizes"
    twice = "twice"


Overrides = Annotated[list[str] | None, typer.Argument(help="settings to change, such as train.lr=3e-4")]
Root = Annotated[Path, typer.Option(help="folder that runs and prepared data go to")]


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = Path("runs"),
    resume: Resuming = Resume.auto,
) -> None:
    """Train a recipe, or go on with its run where it stopped."""
    from utils.training import recipes

    _finish(recipes.train(recipes.load_recipe(recipe, overrides or ()), root, resume=resume.value))


@app.command()
def resume(run: RunPath, overrides: Overrides = None) -> None:
    """Go on with a run. Overrides that would change its weights make a branch, in a folder of its own."""
    from utils.core.run import Run
    from utils.training import recipes

    opened = Run.open(run)
    recipe = recipes.Recipe.load(opened.path / "config.yaml", overrides or ())
    _finish(recipes.go_on(opened, recipe))


@app.command()
def evaluate(run: RunPath, split: Split = Split.test) -> None:
    """Print the metrics of a run's best checkpoint on a split, as JSON."""
    from utils.core.config import ConfigError
    from utils.training.answers import split_metrics
    from utils.training.recipes import open_trained

    trained = open_trained(run)
    recipe, data = trained.recipe, trained.data()
    if not getattr(data, split.value).targets:
        shares = (recipe.rows or recipe.data).splits
        raise ConfigError(f"{trained.run.path} has no {split.value} split: the data's splits are {shares}.")
    metrics = split_metrics(trained.model, data, split.value, recipe.train, task=recipe.task)
    print(json.dumps({"run": trained.run.id, "step": trained.step, "split": split.value, **metrics}, indent=2))


@app.command()
def generate(
    run: RunPath,
    prompt: Annotated[list[str] | None, typer.Option(help="text to continue; may be given several times")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="tokens to add")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy")] = None,
    top_k: Annotated[int | None, typer.Option(help="keep the k likeliest tokens")] = None,
    top_p: Annotated[float | None, typer.Option(help="keep the likeliest tokens up to probability p")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="above 1: repeat less")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="text that ends the result")] = None,
    seed: Annotated[int, typer.Option(help="equal seeds give equal texts")] = 0,
) -> None:
    """Continue a prompt with a run's best checkpoint, or answer it: say its class, its target, its masked words.

    What is not given is as in the run's recipe; sampling is of language models alone.
    """
    from utils.core.config import ConfigError
    from utils.models import generate as generation
    from utils.training.answers import answer_texts
    from utils.training.recipes import open_trained, prompt_of

    trained = open_trained(run)
    if trained.recipe.task != "causal_lm":
        if not prompt:
            raise ConfigError(f"The run's task is {trained.recipe.task}; give the texts to answer: --prompt TEXT.")
        print(answer_texts(trained.model, trained.data(), prompt))
        return
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop,
    }
    config = trained.recipe.sample.replace(**{name: value for name, value in given.items() if value is not None})
    prompts = prompt or [prompt_of(trained.recipe, trained.data())]
    for one, text in zip(prompts, generation.generate(trained.model, trained.tokenizer, prompts, config, seed=seed)):
        print(one + text)


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
    recipe: Annotated[list[str], typer.Argument(help="YAML files, or names in configs/")],
    root: Root = Path("runs"),
    processes: Annotated[int, typer.Option(min=1, help="runs at a time, each in a process of its own")] = 1,
) -> None:
    """Train several recipes, each its own run; one that fails stops no other. Exits 1 where one failed."""
    from utils.training import many
    from utils.training.recipes import load_recipe

    table = many.train_many([load_recipe(one) for one in recipe], root, processes)
    print(table.to_string(index=False))
    raise typer.Exit(bool((table["error"] != "").any()))


@app.command()
def search(
    recipe: Recipe,
    space: Annotated[str, typer.Argument(help="a YAML file of a search space, or its name in configs/")],
    overrides: Overrides = None,
    root: Root = Path("runs"),
    trials: Annotated[int | None, typer.Option(min=1, help="trials in all; default: as the file says")] = None,
    storage: Annotated[str | None, typer.Option(help="URL of a database that several machines share")] = None,
) -> None:
    """Search settings by Optuna, each trial a run; a stopped search goes on. The best is left as a recipe."""
    from utils.experiments.search import search as search_for
    from utils.training.recipes import load_recipe
    from utils.training.studies import load_search, trial

    config = load_search(space, [f"trials={trials}"] if trials else ())
    print(search_for(load_recipe(recipe, overrides or ()), config, trial(root), root, storage=storage))


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
        print(studies.learning_curve(loaded, root).to_string(index=False))
        return
    found = (
        studies.seed_variance(loaded, root, range(count))
        if kind is Study.seeds
        else studies.cross_validate(loaded, root, count)
    )
    print(*(one.to_string() for one in found), sep="\n\n")


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


@app.command()
def validate(
    source: Annotated[
        str, typer.Argument(help="example:gpt|bert|t5|vit, gist:ID, a .py file or folder, or a Hugging Face id")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings laid over the model's config, such as num_layers=2")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="folder for validation_report.html and .json")] = None,
    revision: Annotated[str, typer.Option(help="of a Gist or a Hugging Face model")] = "",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="let code from elsewhere run")] = False,
    kind: Annotated[str, typer.Option(help="causal_lm, masked_lm, seq2seq, classifier or image_classifier")] = "",
    scale: Annotated[str, typer.Option(help="smoke, standard or full")] = "standard",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    seed: Annotated[int, typer.Option(help="of the weights and the inputs")] = 0,
) -> None:
    """Is this model sound? Exits 0, 1 where a critical check failed, or 2 where it could not be loaded."""
    from utils.core.config import ConfigError, parse_overrides
    from utils.validation.report import validate
    from utils.validation.settings import ValidationConfig

    if report is not None:
        try:
            report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--report {report} cannot be a folder for the report: {error.strerror}.") from None
    config = ValidationConfig.load(
        source=source, revision=revision, trust_code=trust_code, kind=kind, config=parse_overrides(overrides or ()),
        scale=scale, device=device, seed=seed,
    )  # fmt: skip
    result = validate(config)
    print(result)
    if report is not None:
        page, _ = result.save(report, "validation_report")
        print(f"Report: {page.resolve()}")
    raise typer.Exit(not result.sound)


@app.command()
def prepare_data(recipe: Recipe, overrides: Overrides = None, root: Root = Path("runs")) -> None:
    """Tokenize a recipe's data into their folder, and print what is in it and what may be wrong with it."""
    from utils.data.task import TaskData
    from utils.training.recipes import load_recipe, prepare_data

    loaded = load_recipe(recipe, overrides or ())
    data = prepare_data(loaded, root / "data")
    print(data)
    if isinstance(data, TaskData):
        print(data.report(loaded.train.batch_size))


@app.command()
def doctor(root: Root = Path("runs")) -> None:
    """Say what this machine has and what is missing. Exits 1 where a needed package is absent."""
    from utils.core.doctor import doctor

    report = doctor(root)
    print(report)
    raise typer.Exit(report.status == "fail")


@app.command()
def notebook(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a notebook of this project")],
    settings: Annotated[list[str] | None, typer.Argument(help="settings of its form, such as scale=smoke")] = None,
    output: Annotated[
        Path | None, typer.Option(help="where the executed copy goes; default: runs/<name>-executed.ipynb")
    ] = None,
) -> None:
    """Run a notebook from a fresh kernel, top to bottom, showing what its cells print."""
    from utils.core.config import ConfigError
    from utils.core.headless import execute

    malformed = [setting for setting in settings or () if "=" not in setting]
    if malformed:
        raise ConfigError(f"{malformed[0]!r} is not of the form name=value, such as scale=smoke.")
    output = output or Path("runs") / f"{path.stem}-executed.ipynb"
    execute(path, output, dict(setting.split("=", 1) for setting in settings or ()))
    print(f"Executed notebook: {output.resolve()}")


def _finish(result: Result) -> None:
    from utils.training.recipes import finish
    from utils.training.runs import conclude

    conclude(result, finish)


def main() -> None:
    """Run a command; an error of the user's own making is one line and exit code 2, any other a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("utils").setLevel(logging.INFO)
    from utils.arc.grids import GridError
    from utils.arc.programs import ProgramsError
    from utils.arc.prompts import PromptError
    from utils.arc.tasks import TaskError
    from utils.core.checkpoints import CheckpointError
    from utils.core.config import ConfigError
    from utils.core.run import RunError
    from utils.rl.sandbox import SandboxError

    known = (ConfigError, RunError, CheckpointError, GridError, TaskError, PromptError, ProgramsError, SandboxError)
    try:
        app()
    except known as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
