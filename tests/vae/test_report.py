"""A finished run has its evaluation, its samples and its report."""

import json

import pytest

from utils.vae.betas import train_betas
from utils.vae.recipes import open_trained, train
from utils.vae.report import finish, judge
from utils.vae.tables import bounds_table

pytestmark = pytest.mark.usefixtures("one_thread")


def test_finish_writes_metrics_and_report(vae_trained):
    report = finish(vae_trained.run)
    text = report.read_text(encoding="utf-8")
    for expected in (vae_trained.run.id, "| validation | this model |", "autoencoder (beta 0, 4 steps)", "vae sample"):
        assert expected in text
    content = json.loads((vae_trained.run.path / "results" / "metrics.json").read_text(encoding="utf-8"))
    assert set(content["results"]) == {"validation", "test"}
    assert content["config"]["recipe"]["model"] == vae_trained.recipe.model.model_dump(mode="json")
    assert content["config"]["checkpoint"] == {"step": vae_trained.step}
    for figure in ("curves", "samples"):
        assert (vae_trained.run.path / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_judge_compares_on_the_splits_asked_for(vae_trained):
    data = vae_trained.data()
    betas = train_betas(vae_trained.recipe, data, vae_trained.run.path.parent)
    found = judge(vae_trained.model, data, vae_trained.recipe, splits=("test", "train"), others=betas.baselines)
    assert list(found) == ["test", "train"]
    assert "nearest training grid" in found["test"].baselines
    assert "nearest training grid" not in found["train"].baselines  # each would be its own
    assert list(bounds_table(found).columns) == ["bound", "test", "train"]


def test_a_finished_run_is_judged_anew_as_it_is_told_and_keeps_with_what(vae_recipe, tmp_path):
    run = train(vae_recipe, tmp_path).run
    finish(run)
    other = vae_recipe.replace(
        evaluation={"grids": 5}, sampler={"kind": "mixture"}, betas=(0.0,), train={"log_every": 3}
    )
    again = train(other, tmp_path)
    assert again.run.id == run.id
    finish(again.run, other)
    content = json.loads((run.path / "results" / "metrics.json").read_text(encoding="utf-8"))
    assert content["results"]["validation"]["counts"]["grids"] == 5
    kept = open_trained(run.path).recipe
    assert (kept.evaluation, kept.sampler, kept.betas) == (other.evaluation, other.sampler, other.betas)
    assert kept.train == vae_recipe.train  # how it was trained is as it was
    assert "disentanglement" in content["results"]["validation"]
    assert content["results"]["test"]["disentanglement"] is None  # once is enough
