"""A tiny recipe of PPO, a run of it, an open sandbox, and hand-made tasks."""

import os

import numpy as np
import pytest
import torch

from utils.arc.tasks import Pair, Task
from utils.rl.rollout import Problem
from utils.rl.sandbox import Sandbox, SandboxConfig


@pytest.fixture(scope="session")
def ppo_recipe():
    """About ten seconds of training, after which some programs solve some tasks."""
    from utils.rl.recipes import PPORecipe

    still = {"device": "cpu", "precision": "fp32", "trackers": (), "checkpoint_minutes": None}
    programs = {
        "primitives": ("flip_rows", "transpose", "mirror_right", "fall_down"), "max_depth": 2,
        "depth_weights": (0.7, 0.3), "min_side": 3, "max_side": 3, "max_colours": 2,
    }  # fmt: skip
    return PPORecipe.load(
        name="tiny-ppo",
        pool={"programs": programs, "train": 80, "validation": 8, "test": 12, "max_cells": 120},
        policy={"tiny": {"num_layers": 1, "num_heads": 2, "width": 32, "context_length": 192}},
        prompt_tokens=150,
        warm_start={"max_steps": 80, "batch_size": 16, "lr": 1e-2, "warmup_steps": 5, "eval_every": 40, **still},
        ppo={
            "updates": 3, "prompts": 8, "samples": 4, "minibatches": 2, "eval_every": 2,
            "sample": {"max_new_tokens": 16}, **still,
        },
        sandbox={"timeout": 10.0},
        evaluation={"samples": 8, "ks": (1, 4), "bootstrap": 200},
    )  # fmt: skip


@pytest.fixture(scope="session")
def ppo_trained(ppo_recipe, tmp_path_factory):
    """The recipe's run, its best weights in its policy."""
    if not hasattr(os, "fork"):
        pytest.skip("the sandbox needs fork")
    from utils.rl.recipes import open_trained, train

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are slower on several threads
    try:
        return open_trained(train(ppo_recipe, tmp_path_factory.mktemp("ppo-runs")).run.path)
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def open_sandbox():
    """Ten seconds for each program: a busy machine is no fault."""
    if not hasattr(os, "fork"):
        pytest.skip("the sandbox needs fork")
    with Sandbox(SandboxConfig(timeout=10), workers=2) as opened:
        yield opened


@pytest.fixture(scope="session")
def flip_problems():
    """Six tasks whose rule is to turn each row round; levels 1, 1, 1, 2, 2, 3."""
    rng = np.random.default_rng(0)

    def pair():
        grid = rng.integers(0, 10, (2, 3)).astype(np.uint8)
        return Pair(grid, grid[:, ::-1].copy())

    tasks = [Task(f"flip{at}", (pair(), pair(), pair()), (pair(), pair()), "made up") for at in range(6)]
    return [
        Problem(task, tuple(range(3, 4 + at)), level) for at, (task, level) in enumerate(zip(tasks, (1, 1, 1, 2, 2, 3)))
    ]
