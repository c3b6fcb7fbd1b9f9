"""Tier 2, analysis: what a model is like, where tier 1 says whether it is sound. None of these checks can fail.

Each is a function `(adapter, effort, *, seed=0) -> Check`, and passes, warns, or is skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Callable

from utils.core.check import Check
from utils.validation.activations import activations
from utils.validation.attention import attention_patterns
from utils.validation.attribution import attribution
from utils.validation.extrapolation import length_extrapolation
from utils.validation.flops import flops
from utils.validation.robustness import robustness
from utils.validation.spectrum import embedding_spectrum

TIER2: tuple[Callable[..., Check], ...] = (
    flops,
    activations,
    attention_patterns,
    embedding_spectrum,
    length_extrapolation,
    robustness,
    attribution,
)
