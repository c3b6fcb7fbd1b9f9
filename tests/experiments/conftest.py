"""A small config of nested settings, to vary without training anything."""

from typing import Literal

import pytest
from pydantic import Field, model_validator

from utils.core.config import Config


class Train(Config):
    """How."""

    lr: float = Field(1e-2, gt=0)
    """rate"""
    steps: int = Field(10, ge=1)
    """steps"""
    schedule: Literal["cosine", "linear"] = "linear"
    """course"""
    floor: float = 0.5
    """of cosine"""
    betas: tuple[float, float] = (0.9, 0.99)
    """decay rates"""


class Model(Config):
    """What."""

    width: int = 32
    """width"""
    heads: int = 4
    """heads"""

    @model_validator(mode="after")
    def _divides(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Settings(Config):
    """Both."""

    name: str = "base"
    """name"""
    train: Train = Train()
    """how"""
    model: Model = Model()
    """what"""


@pytest.fixture(scope="session")
def base():
    return Settings()
