"""Where a run goes in Weights & Biases."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from utils.core.config import Config


class WandbConfig(Config):
    """Where a run goes in W&B. What is not given comes from the environment: WANDB_PROJECT, WANDB_ENTITY,
    WANDB_RUN_GROUP, WANDB_TAGS (with commas), WANDB_MODE; RUN_ALL_WANDB_DATA_FILES (true or false)."""

    project: str | None = None
    """project; by default run-all"""
    entity: str | None = None
    """user or team; by default the key's own"""
    group: str | None = None
    """runs shown together, such as those of a study"""
    tags: tuple[str, ...] = ()
    """labels to find runs by"""
    mode: Literal["online", "offline", "disabled"] | None = None
    """by default online with a key, else offline"""
    gradients_every: int | None = Field(100, ge=1)
    """steps between histograms of the gradients; None: none"""
    data_files: bool | None = None
    """whether the prepared data's files go to W&B, and not only what they are; by default not"""
    start_seconds: float = Field(60.0, gt=0)
    """patience with a server that does not answer, before the session goes offline"""
    finish_seconds: float = Field(300.0, gt=0)
    """patience with uploads at the end of a session; what is left can be synced later"""

    @classmethod
    def here(cls, config: WandbConfig | None = None) -> WandbConfig:
        """`config` with what it leaves open taken from the environment."""
        given = (
            {} if config is None else {name: one for name, one in config.model_dump().items() if one not in (None, ())}
        )
        found = {
            "project": os.environ.get("WANDB_PROJECT", "run-all"),
            "entity": os.environ.get("WANDB_ENTITY"),
            "group": os.environ.get("WANDB_RUN_GROUP"),
            "tags": [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()],
            "mode": os.environ.get("WANDB_MODE"),
            "data_files": os.environ.get("RUN_ALL_WANDB_DATA_FILES"),
        }
        found = {name: one for name, one in found.items() if one}
        kept = {} if config is None else {"gradients_every": config.gradients_every}  # None is an answer there
        return cls.load(None, (), **{**found, **given, **kept})
