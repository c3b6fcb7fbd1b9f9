"""`python -m utils`: the notebooks' functions as commands."""

from __future__ import annotations

import json
import logging
import sys
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
    from utils.training.evaluate import evaluate
    from utils.training.objectives import next_token
    from utils.training.recipes import open_trained

    trained = open_trained(run)
    part = getattr(trained.data(), split.value)
    if not part.targets:
        raise ConfigError(
            f"{trained.run.path} has no {split.value} split: data.splits is {trained.recipe.data.splits}."
        )
    metrics = evaluate(trained.model, next_token, part, trained.recipe.train.replace(eval_batches=None))
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
    """Continue a prompt with a run's best checkpoint. What is not given is as in the run's recipe."""
    from utils.models import generate as generation
    from utils.training.recipes import open_trained, prompt_of

    trained = open_trained(run)
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
    """Tokenize a recipe's corpus into its dataset folder, and print what is in it."""
    from utils.data.loaders import prepare
    from utils.training.recipes import load_recipe

    print(prepare(load_recipe(recipe, overrides or ()).data, root / "data"))


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
