"""Commands that train a recipe, and that use what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utils.core.options import Overrides, Recipe, Resume, Resuming, Root, RunPath, Split

if TYPE_CHECKING:
    from utils.training.result import Result

app = typer.Typer()


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
def prepare_data(recipe: Recipe, overrides: Overrides = None, root: Root = Path("runs")) -> None:
    """Tokenize a recipe's data into their folder, and print what is in it and what may be wrong with it."""
    from utils.training.recipes import data_report, load_recipe, prepare_data

    loaded = load_recipe(recipe, overrides or ())
    data = prepare_data(loaded, root / "data")
    print(data)
    print(data_report(loaded, data))


def _finish(result: Result) -> None:
    from utils.training.recipes import finish
    from utils.training.runs import conclude

    conclude(result, finish)
