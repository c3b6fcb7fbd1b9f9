"""`SearchConfig`: what is searched, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from utils.core.config import Config
from utils.experiments.search_space import parse_space


class SearchConfig(Config):
    """What is searched, and how."""

    name: str = Field("search", pattern=r"^\w[\w.-]*$")
    """name of the study, of its folder and of its runs' group"""
    trials: int = Field(20, ge=1)
    """trials of the whole study, over all its sessions; processes that share it may each add one"""
    metric: str = "loss"
    """which metric of a trial is judged"""
    direction: Literal["minimize", "maximize"] = "minimize"
    """whether the metric is better low or high"""
    sampler: Literal["tpe", "random"] = "tpe"
    """how settings are drawn: near the good ones (tree of Parzen estimators), or evenly"""
    pruner: Literal["none", "median", "hyperband"] = "median"
    """stop a trial that is worse than the median at the same step, or by successive halving, or none"""
    startup_trials: int = Field(5, ge=1)
    """trials drawn evenly, and not stopped by the median, before there is enough to judge by"""
    min_steps: int = Field(0, ge=0)
    """steps of training before a trial may be stopped"""
    seed: int = Field(0, ge=0)
    """seed of the settings drawn; the weights' is in the config that is searched"""
    space: dict[str, Any]
    """setting -> what it varies over, as in utils/experiments/search_space.py"""

    @field_validator("space")
    @classmethod
    def _readable(cls, space: dict[str, Any]) -> dict[str, Any]:
        parse_space(space)
        return space
