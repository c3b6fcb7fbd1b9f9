"""The notebook's sections where there is little or nothing to show: what is there, or the reason why not."""

import matplotlib

matplotlib.use("agg")

from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import nbformat  # noqa: E402
import numpy as np  # noqa: E402
import pandas  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from utils.arc.grids import to_canvas  # noqa: E402
from utils.core.check import Check  # noqa: E402
from utils.vae.config import VAEConfig, readable  # noqa: E402
from utils.vae.filling import as_split  # noqa: E402
from utils.vae.live import drawn  # noqa: E402
from utils.vae.model import BetaVAE  # noqa: E402
from utils.vae.sections import (  # noqa: E402
    compared,
    completed,
    palette_moved,
    plane,
    probed,
    rate_distortion,
    reconstructed,
    rows_shown,
)

pytestmark = pytest.mark.usefixtures("one_thread")
NOTEBOOK = Path(__file__).parents[2] / "vae.ipynb"
TINY = (
    "betas=[] corpus.total=30 train.max_steps=4 train.eval_every=2 train.log_every=1 train.warmup_steps=1"
    " train.device=cpu train.trackers=[] evaluation.iwae_samples=2 evaluation.factor_grids=60 evaluation.bootstrap=20"
    " sampler.steps=2"
)


def split_of(*grids):
    return as_split(np.stack([to_canvas(np.array(grid)) for grid in grids]), np.array(["t"] * len(grids)), "real")


def model_of(recipe, **changes):
    torch.manual_seed(0)
    return BetaVAE(VAEConfig(**readable(recipe.model.model_dump() | changes))).eval()


def is_skipped(found, why):
    return isinstance(found, Check) and found.status == "skip" and why in found.summary


@pytest.mark.parametrize(("count", "architecture"), [(1, "palette"), (4, "spatial"), (4, "dense")])
def test_no_section_stops_the_notebook_on_three_tasks_of_tiny_grids_without_other_betas(
    count, architecture, tmp_path, monkeypatch
):
    """Each task has so many grids; the first is one cell, and the form's default rows are beyond the split."""
    rng = np.random.default_rng(0)
    grids = [rng.integers(10, size=(1, 1) if at == 0 else (3, 2)) for _ in range(3) for at in range(count)]
    if count == 1:
        grids = [rng.integers(10, size=(2, 3 + at)) for at in range(3)]  # else one 1x1 grid is all others, recoloured
    (tmp_path / "own").mkdir()
    ids = np.repeat(["a", "b", "c"], count)
    np.savez(tmp_path / "own" / "mine.npz", grids=np.stack([to_canvas(grid) for grid in grids]), task_ids=ids)
    values = {"SCALE": "smoke", "CORPUS": tmp_path / "own", "STORAGE": tmp_path / "runs", "OVERRIDES": TINY}
    values["ARCHITECTURE"] = architecture
    for name, value in values.items():
        monkeypatch.setenv(f"NB_{name}", str(value))
    names = {"display": lambda *shown: None}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "vae.ipynb", "exec"), names)  # noqa: S102
    assert (names["run"].path / "report.md").is_file()
    assert names["first"] == names["second"] == len(names["data"].validation) - 1


def test_rows_that_are_not_there_are_said_to_be_replaced(caplog):
    split = split_of([[1]], [[2, 3]])
    assert rows_shown(split, first_grid=0, second_grid=1) == [0, 1]
    assert not caplog.messages
    assert rows_shown(split, first_grid=12, second_grid=-1) == [1, 0]
    assert caplog.messages[0] == "first_grid is 12, and the validation split has rows 0 to 1: row 1 is shown."
    assert caplog.messages[1].startswith("second_grid is -1")


def test_without_a_drawing_the_section_says_so(vae_recipe):
    model = model_of(vae_recipe)
    assert is_skipped(reconstructed(model, drawn(" ")), "`drawing` is empty")
    assert reconstructed(model, drawn("01 23")).axes


def test_without_other_betas_there_is_nothing_to_compare():
    empty = SimpleNamespace(table=pandas.DataFrame(columns=["beta", "kl", "nll"]))
    assert is_skipped(compared(empty), "betas=[0,0.2,1]")
    assert is_skipped(rate_distortion(empty), "betas=[0,0.2,1]")
    some = SimpleNamespace(table=pandas.DataFrame({"beta": [0.0], "kl": [1.23456], "nll": [2.0]}))
    assert compared(some)["KL, nats a grid"].tolist() == ["1.2"]
    assert rate_distortion(some).axes


@pytest.mark.parametrize(("tasks", "why"), [(3, "has 3 tasks"), (4, "evaluation.probes is off")])
def test_probes_that_were_not_made_say_why(tasks, why):
    assert is_skipped(probed(SimpleNamespace(probes=[], counts={"tasks": tasks})), why)


def test_a_plane_takes_three_grids(vae_recipe):
    model = model_of(vae_recipe)
    grids = [[1]], [[2, 3]], [[4], [5]]
    assert is_skipped(plane(model, split_of(*grids[:2])), "has 2 grids")
    assert plane(model, split_of(*grids)).axes


def test_a_model_without_a_palette_says_so_and_one_grid_has_no_other_palette(vae_recipe):
    split = split_of([[1, 2]])
    assert is_skipped(palette_moved(model_of(vae_recipe, architecture="spatial"), split), "spatial has none")
    lines = [ax.get_ylabel() for ax in palette_moved(model_of(vae_recipe), split).axes if ax.get_ylabel()]
    assert lines
    assert all(line.startswith("colours ") for line in lines)


def test_one_cell_cannot_be_completed(vae_recipe):
    model = model_of(vae_recipe)
    assert is_skipped(completed(model, to_canvas(np.array([[1]]))), "1 cell")
    assert completed(model, to_canvas(np.array([[1, 2]]))).axes
