"""A corpus of made-up grids, the recipe of a tiny model of them, and a run of it."""

import numpy as np
import pytest
import torch

from utils.arc.grids import to_canvas
from utils.vae.config import VAEConfig
from utils.vae.filling import as_split
from utils.vae.model import BetaVAE
from utils.vae.recipes import VAERecipe, open_trained, train


@pytest.fixture(scope="session")
def grid_folder(tmp_path_factory):
    """24 tasks of two grids each, in a folder that is a corpus's source."""
    folder, rng = tmp_path_factory.mktemp("grids"), np.random.default_rng(0)
    grids = [to_canvas(rng.integers(0, 3, rng.integers(2, 8, 2))) for _ in range(48)]
    task_ids = np.array([f"task{number // 2:02}" for number in range(48)])
    np.savez(folder / "grids.npz", grids=np.stack(grids), task_ids=task_ids)
    return folder


@pytest.fixture(scope="session")
def vae_recipe(grid_folder):
    """A second of training; weights are the same bit for bit in any process of one thread."""
    return VAERecipe.load(
        name="tiny",
        corpus={"source": str(grid_folder), "total": 60, "splits": (0.6, 0.2, 0.2)},
        model={"widths": (8, 8), "blocks": (1, 1), "channels": 2, "overall": 8, "colours": 4},
        train={
            "max_steps": 14, "batch_size": 8, "lr": 3e-3, "warmup_steps": 2, "log_every": 1, "eval_every": 7,
            "checkpoint_every": 4, "checkpoint_minutes": None, "device": "cpu", "precision": "fp32", "trackers": (),
        },
        evaluation={"iwae_samples": 2, "iwae_grids": 4, "bootstrap": 20, "factor_grids": 60},
        sampler={"grids": 20, "components": 2, "steps": 3, "width": 16, "layers": 1},
        betas=(0.0, 1.0),
        beta_steps=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def vae_trained(vae_recipe, tmp_path_factory):
    """The recipe's run, its best weights in its model."""
    return open_trained(train(vae_recipe, tmp_path_factory.mktemp("runs")).run.path)


@pytest.fixture
def small_vae():
    """An untrained model of 136 latents."""
    torch.manual_seed(0)
    settings = {"channels": 2, "overall": 4, "colours": 4, "widths": (8, 8), "blocks": (1, 1), "part": 4}
    return BetaVAE(VAEConfig(**settings)).eval()


@pytest.fixture
def any_grids():
    """A split of 24 grids of any size."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(1, 31, (24, 2))
    grids = np.stack([to_canvas(rng.integers(10, size=shape).astype(np.uint8)) for shape in shapes])
    return as_split(grids, np.full(24, ""), "real")
