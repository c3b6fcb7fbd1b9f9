"""A record of an evaluation is shown as a card and written as strict JSON, split by split."""

import json
import math

import numpy as np
import pytest

from utils.core.check import Check
from utils.core.config import Config
from utils.vae.evaluation import Evaluation, write_metrics
from utils.vae.latents import LatentUse
from utils.vae.metrics import TITLES, Estimate


def evaluation(split="validation", value=0.5):
    found = {name: Estimate(value, 0.4, math.inf) for name in TITLES}
    use = LatentUse(10, 5, kl=30.0, nll=70.0, nll_shuffled=90.0, nll_own_of_size=6.0, nll_shuffled_in_size=8.0)
    return Evaluation(
        split=split,
        counts={"grids": np.int64(3)},
        reconstruction=found,
        baselines={"modal colour": found},
        bounds={"kl": Estimate(1.0, 0.5, 2.0)},
        kl_per_dimension=[0.5, math.nan],
        active={"dimensions": 2},
        latents=use,
        checks=[Check("gate", "pass", "it is ahead")],
    )


def read(path):
    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)


def test_what_is_not_finite_is_null_and_what_follows_from_the_latents_is_written_with_them(tmp_path):
    results = read(write_metrics(tmp_path / "metrics.json", [evaluation(value=math.nan)]))["results"]["validation"]
    assert results["reconstruction"]["foreground"] == {"value": None, "low": 0.4, "high": None}
    assert results["kl_per_dimension"] == [0.5, None]
    assert results["counts"] == {"grids": 3}
    assert results["checks"] == [{"name": "gate", "status": "pass", "summary": "it is ahead"}]
    derived = {name: results["latents"][name] for name in ("gain", "share", "content")}
    assert derived == {"gain": 20.0, "share": 0.3, "content": 0.25}


class Settings(Config):
    beta: float = 0.0
    """weight"""


def test_splits_judged_before_stay_under_equal_settings_and_go_with_others(tmp_path):
    path = tmp_path / "results" / "metrics.json"
    write_metrics(path, [evaluation("test"), evaluation("train", 0.1)], recipe=Settings())
    again = read(write_metrics(path, [evaluation("train", 0.2)], recipe=Settings()))
    assert set(again["results"]) == {"test", "train"}
    assert again["results"]["train"]["reconstruction"]["exact"]["value"] == 0.2
    other = read(write_metrics(path, [evaluation("train")], recipe=Settings(beta=1.0)))
    assert set(other["results"]) == {"train"}
    assert other["config"] == {"recipe": {"beta": 1.0}}


def test_two_evaluations_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="test, test"):
        write_metrics(tmp_path / "metrics.json", [evaluation("test"), evaluation("test")])


def test_it_shows_the_card_and_the_checks():
    shown = evaluation()._repr_html_()
    assert "modal colour" in shown
    assert "it is ahead" in shown
