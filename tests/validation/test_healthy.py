"""Sound models pass: no failure, no warning, in either tier; and every check leaves them as it found them."""

from __future__ import annotations

import hashlib
import random

import numpy
import torch
from torch import nn

from utils.core.repro import rng_state
from utils.models.adapter import adapt
from utils.validation.steady import effort
from utils.validation.tier1 import TIER1
from utils.validation.tier2 import TIER2


def fingerprint(model: nn.Module) -> dict[str, object]:
    """All that a check must leave alone."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    rng = rng_state()
    return {
        "weights and buffers": digest.hexdigest(),
        "gradients": [None if p.grad is None else p.grad.clone().tolist() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "python": rng["python"],
        "numpy": rng["numpy"][1].tolist() + rng["numpy"][2:],
        "torch": rng["torch"].tolist(),
    }


def unusual(model: nn.Module) -> nn.Module:
    """Gradients on some parameters, one frozen, modules in both modes, generators somewhere in their course."""
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if index % 2 else None
        parameter.requires_grad_(index != 1)
    for index, module in enumerate(model.modules()):
        module.training = index % 3 > 0
    random.random(), numpy.random.rand(3), torch.rand(3)
    return model


def test_a_sound_model_passes_every_check_and_stays_as_it_was(healthy):
    build, keywords = healthy
    torch.manual_seed(0)
    model = unusual(build())
    adapter = adapt(model, build=build, **keywords)
    checks = []
    before = fingerprint(model)
    for check in (*TIER1, *TIER2):
        checks.append(check(adapter, effort("smoke")))
        after = fingerprint(model)
        assert [key for key in before if before[key] != after[key]] == [], check.__name__
    poor = [str(check) for check in checks if check.status in ("fail", "warn")]
    assert not poor, "\n".join(poor)
    skipped = sum(check.status == "skip" for check in checks)
    assert skipped <= (12 if not adapter.text or not adapter.head else 5), "\n".join(map(str, checks))
