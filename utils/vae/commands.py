"""`python -m utils vae`: the notebook's steps as commands."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utils.core.options import Recipe, Resume, Resuming, RunPath, Split

if TYPE_CHECKING:
    from utils.training.result import Result
    from utils.vae.recipes import VAERecipe

app = typer.Typer(help="A beta-VAE over ARC grids.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="settings to change, such as model.beta=0.1")]
Root = Annotated[Path, typer.Option(help="folder that runs and the corpus go to")]
TEMPERATURE = (
    "spread of the latents: below 1 likelier grids. At 0, normal and gaussian give one grid over and over, mixture the"
    " centre of a cluster drawn at random, and autoregressive the likeliest map for a training grid drawn at random"
)
Step = Annotated[int | None, typer.Option(help="the checkpoint of this step; default: the one that training leaves")]


class Kind(str, Enum):
    normal = "normal"
    gaussian = "gaussian"
    mixture = "mixture"
    autoregressive = "autoregressive"


@app.command()
def build_corpus(recipe: Recipe = "vae", overrides: Overrides = None, root: Root = Path("runs")) -> None:
    """Make a recipe's corpus in its folder, and print what is in it."""
    import json

    from utils.vae.recipes import load_recipe, prepare

    data = prepare(load_recipe(recipe, overrides or ()), root)
    print(data)
    shown = {name: data.manifest[name] for name in ("fingerprint", "facts", "splits") if name in data.manifest}
    print(json.dumps(shown, indent=2))


@app.command()
def train(
    recipe: Recipe = "vae",
    overrides: Overrides = None,
    root: Root = Path("runs"),
    resume: Resuming = Resume.auto,
) -> None:
    """Train a recipe, or go on with its run where it stopped; then judge it, sample from it and report."""
    from utils.vae import recipes

    loaded = recipes.load_recipe(recipe, overrides or ())
    _finish(recipes.train(loaded, root, resume=resume.value), loaded)


@app.command()
def resume(run: RunPath, overrides: Overrides = None) -> None:
    """Go on with a run. Overrides that would change its weights make a branch, in a folder of its own."""
    from utils.core.run import Run
    from utils.vae.recipes import VAERecipe, go_on

    opened = Run.open(run)
    recipe = VAERecipe.load(opened.path / "config.yaml", overrides or ())
    _finish(go_on(opened, recipe), recipe)


@app.command()
def evaluate(
    run: RunPath,
    split: Annotated[list[Split] | None, typer.Option(help="default: validation and test")] = None,
    step: Step = None,
    output: Annotated[
        Path | None, typer.Option(help="default: in the run, results/metrics.json, or metrics-step-N.json")
    ] = None,
) -> None:
    """Judge a checkpoint on splits beside the baselines; writes results/metrics.json and prints the card."""
    from utils.vae.betas import kept_baselines
    from utils.vae.recipes import open_trained
    from utils.vae.report import judge, write_results
    from utils.vae.tables import metric_card

    trained = open_trained(run, step)
    splits = [one.value for one in split or (Split.validation, Split.test)]
    others = kept_baselines(trained.recipe, trained.run.path.parent)
    found = judge(trained.model, trained.data(), trained.recipe, splits=splits, others=others)
    name = "metrics.json" if step is None else f"metrics-step-{step}.json"
    path = write_results(
        output or trained.run.path / "results" / name, found, trained.recipe, trained.step, trained.note
    )
    print(metric_card(found).to_string())
    for name, evaluation in found.items():
        print("", name, *evaluation.checks, sep="\n")
        if evaluation.disentanglement:
            print(evaluation.disentanglement)
    print(f"\nMetrics of step {trained.step}: {path}")


@app.command()
def sample(
    run: RunPath,
    number: Annotated[int, typer.Option(min=1, help="grids to draw")] = 4,
    temperature: Annotated[float, typer.Option(min=0, help=TEMPERATURE)] = 1.0,
    sampler: Annotated[Kind | None, typer.Option(help="default: the recipe's")] = None,
    seed: Annotated[int, typer.Option(help="equal seeds give equal grids")] = 0,
    step: Step = None,
    output: Annotated[
        Path | None, typer.Option(help="an .npz file to write the canvases to; its folder is made")
    ] = None,
) -> None:
    """Print new grids, as rows of digits. The sampler is fitted at its first use, and kept in the run."""
    import numpy as np
    import torch

    from utils.arc.grids import from_canvas
    from utils.vae.recipes import open_trained
    from utils.vae.sampling import draw_grids, sampler_of

    trained = open_trained(run, step)
    config = trained.recipe.sampler.replace(**({"kind": sampler.value} if sampler else {}))
    fitted = sampler_of(trained.run, trained.step, trained.model, trained.data(), config)
    generator = torch.Generator().manual_seed(seed)
    canvases = draw_grids(trained.model, fitted, number, temperature=temperature, generator=generator).numpy()
    for canvas in canvases:
        print("\n".join("".join(map(str, row)) for row in from_canvas(canvas)), end="\n\n")
    if output is not None:
        path = output if output.suffix == ".npz" else output.with_name(f"{output.name}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, grids=canvases)
        print(f"Canvases: {path.resolve()}")


def _finish(result: Result, recipe: VAERecipe) -> None:
    from utils.training.runs import conclude
    from utils.vae.report import finish

    conclude(result, lambda run: finish(run, recipe))
