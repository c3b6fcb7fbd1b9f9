"""What a policy plays against in PPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from utils.rl.reward import RewardConfig
from utils.rl.rollout import Problem
from utils.rl.sandbox import Sandbox


@dataclass(frozen=True)
class Game:
    """Problems, how a policy's texts are read as programs, where they run, and what they earn."""

    train: Sequence[Problem]
    validation: Sequence[Problem]
    read: Callable[[str], str]
    sandbox: Sandbox
    """open; each process has its own"""
    reward: RewardConfig
    fingerprint: str
    """of the problems"""
