"""The benchmark of PPO judges its control where learning would show: with the last weights."""

import importlib.util
from pathlib import Path

import pytest

from utils.core.checkpoints import Checkpoints
from utils.core.run import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_ppo", ROOT / "benchmarks" / "ppo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_control_is_judged_by_the_last_weights_though_the_best_are_those_it_began_with(
    benchmark, ppo_recipe, ppo_trained, tmp_path, monkeypatch
):
    """With a validation rate that falls at every evaluation, and a patience that would end it at the first."""
    falling = iter((0.9, 0.5, 0.3, 0.1))
    monkeypatch.setattr("utils.rl.session.pass_rates", lambda *_, **__: {"pass@1": next(falling), "greedy": 0.0})
    recipe = ppo_recipe.replace(ppo={"eval_every": 1, "patience": 1, "updates": 3})
    for setting in benchmark.CONTROL:
        name, value = setting.removeprefix("ppo.").split("=")
        recipe = recipe.replace(ppo={name: {"true": True, "null": None}[value]})
    row = benchmark.measured(recipe, tmp_path)
    (run,) = (one for one in Run.all(tmp_path) if one.name == recipe.name)
    assert Checkpoints(run.path / "checkpoints").best().step == 0
    assert row["update"] == 3
    assert {"pass@1 before", "pass@1 after", "pass@1 gain", "greedy gain"} <= set(row)
    assert (run.path / "results" / "update-3" / "metrics.json").is_file()
