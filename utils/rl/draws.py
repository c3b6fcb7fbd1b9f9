"""Programs drawn from a policy to be judged, not learned from: in portions that processes share.

Leaves out rollouts, which keep log-probabilities and values (`rl.rollout`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from utils.rl.policy import CodePolicy
from utils.rl.rollout import Problem
from utils.rl.sampling import SampleConfig, pad_left

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Drawn:
    """n programs for each of P problems, a problem's side by side; N = P n of everything."""

    programs: list[str]
    finished: list[bool]
    """False where a program was cut off"""
    tokens: list[int]
    """of each answer, its end included"""


def draw_programs(
    policy: CodePolicy,
    problems: Sequence[Problem],
    samples: int,
    config: SampleConfig,
    *,
    read: Callable[[str], str],
    seed: int,
    fabric: Fabric | None = None,
) -> Drawn:
    """Draw `samples` programs a problem, all at once, where the policy is; in `fabric`'s precision where there is one.

    Equal seeds draw equal programs for equal problems. `read` makes a program of an answer's text.
    """
    device = next(policy.parameters()).device
    prompts, mask = (part.to(device) for part in pad_left([one.prompt for one in problems], policy.tokenizer.pad_id))
    generator = torch.Generator(device).manual_seed(seed)
    with contextlib.nullcontext() if fabric is None else fabric.autocast():
        answers = policy.sample(prompts, mask, samples, config, generator)
    texts = [read(text) for text in policy.programs(answers)]
    return Drawn(texts, answers.finished.tolist(), answers.mask.sum(1).tolist())


def portions(problems: Sequence[Problem], size: int, fabric: Fabric | None = None) -> list[list[int]]:
    """The numbers of problems of like length, `size` at a time; of several processes, this one's share.

    Which stand together does not depend on the number of processes, so neither does what is drawn for them.
    """
    order = sorted(range(len(problems)), key=lambda at: len(problems[at].prompt))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return parts if fabric is None else parts[fabric.global_rank :: fabric.world_size]


def seed_of(seed: int, number: int) -> int:
    """The seed of what is drawn for one portion of the problems."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
