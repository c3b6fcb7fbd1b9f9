"""Tier 1: the critical checks, in the order they are read. A model that fails one is not fit to train."""

from __future__ import annotations

from utils.validation import cost, dependence, gradients, learning, stability, structure

TIER1 = (
    structure.kind,
    structure.output_shapes,
    structure.context_length,
    structure.vocabulary_range,
    learning.initialisation,
    dependence.input_sensitivity,
    gradients.gradient_flow,
    stability.numerical_stability,
    dependence.causality,
    dependence.padding_invariance,
    dependence.batch_independence,
    dependence.eval_determinism,
    structure.state_dict_round_trip,
    learning.overfit_one_batch,
    cost.memory,
    cost.speed,
)
