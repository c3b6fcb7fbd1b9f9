"""Each of twelve ways to break a sound model makes exactly its own check fail."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import Adapter, adapt
from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.steady import effort
from utils.validation.tier1 import TIER1

SHAPE = TransformerConfig(vocab_size=101, context_length=48, num_layers=4, num_heads=4, width=64)


def sound() -> GPT:
    return GPT(SHAPE)


class After(nn.Module):
    """A module whose output goes through `change`."""

    def __init__(self, module: nn.Module, change):
        super().__init__()
        self.module, self.change = module, change

    def forward(self, *inputs, **keywords):
        return self.change(self.module(*inputs, **keywords))


def dead_layer() -> GPT:
    model = sound()
    model.blocks[1].feed_forward = After(model.blocks[1].feed_forward, lambda y: 0 * y)
    return model


def detached_layer() -> GPT:
    model = sound()
    model.blocks[1].attention = After(model.blocks[1].attention, Tensor.detach)
    return model


def future_leak() -> GPT:
    model = sound()
    for block in model.blocks:
        block.attention.causal = False
    return model


def naive_softplus() -> GPT:
    """log(1 + exp(x)) written out: Inf where exp overflows, then NaN in the norm."""
    model = sound()
    model.dropout = After(model.dropout, lambda x: x + torch.log(1 + torch.exp(x)))
    return model


def narrow_embedding() -> GPT:
    model = sound()
    model.embedding = nn.Embedding(90, SHAPE.width)  # the config says 101
    nn.init.normal_(model.embedding.weight, std=0.02)
    return model


def narrow_head() -> GPT:
    model = sound()
    model.head = nn.Linear(SHAPE.width, 90, bias=False)
    nn.init.normal_(model.head.weight, std=0.02)
    return model


class Deaf(GPT):
    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(input_ids))


def batch_statistics() -> GPT:
    model = sound()
    model.blocks[2] = After(model.blocks[2], lambda x: x - 0.5 * x.mean(dim=0, keepdim=True))
    return model


def zero_initialisation() -> GPT:
    model = sound()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def exploding_residual() -> GPT:
    model = sound()
    for index, block in enumerate(model.blocks):
        model.blocks[index] = After(block, lambda x: 100 * x)
    return model


def dropout_in_eval() -> GPT:
    model = sound()
    model.blocks[2] = After(model.blocks[2], lambda x: F.dropout(x, 0.2))
    return model


class Clamped(nn.Module):
    """Accepts any length; past the context every token has the last position."""

    kind = "causal_lm"

    def __init__(self):
        super().__init__()
        self.trunk = GPT(SHAPE.replace(context_length=1000, positions="learned"))
        self.trunk.positions.register_forward_pre_hook(
            lambda _module, places: places[0].clamp(max=SHAPE.context_length - 1)
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.trunk(input_ids)


class Forgetful(GPT):
    """A random gain that no state dict holds."""

    def __init__(self):
        super().__init__(SHAPE)
        self.register_buffer("gain", 1 + 0.2 * torch.randn(SHAPE.vocab_size), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids, attention_mask) * self.gain


class MasklessGPT(GPT):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids)


class Maskless(BERT):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids)


MUTATIONS = {
    "dead layer": (dead_layer, "gradient flow"),
    "detached layer": (detached_layer, "gradient flow"),
    "future leak": (future_leak, "causality"),
    "NaN at large inputs": (naive_softplus, "numerical stability"),
    "embedding smaller than the vocabulary": (narrow_embedding, "vocabulary range"),
    "head smaller than the vocabulary": (narrow_head, "vocabulary range"),
    "constant output": (lambda: Deaf(SHAPE), "input sensitivity"),
    "batch statistics": (batch_statistics, "batch independence"),
    "zero initialisation": (zero_initialisation, "initialisation"),
    "exploding residual": (exploding_residual, "gradient flow"),
    "dropout left on in eval": (dropout_in_eval, "eval determinism"),
    "positions clamped past the context": (Clamped, "context length"),
    "non-persistent weights": (Forgetful, "state dict round trip"),
    "pad tokens attended by a causal model": (lambda: MasklessGPT(SHAPE), "padding invariance"),
    "pad tokens attended": (lambda: Maskless(SHAPE), "padding invariance"),
}

# Residuals that explode overflow fp16, too.
ALSO_WARNS = {"exploding residual": ["numerical stability"]}


def adapted(build) -> Adapter:
    torch.manual_seed(0)
    return adapt(build(), config={"context_length": SHAPE.context_length, "vocab_size": SHAPE.vocab_size}, build=build)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fails_exactly_its_check(name):
    build, expected = MUTATIONS[name]
    adapter = adapted(build)
    checks = [check(adapter, effort("smoke")) for check in TIER1]
    failed = [check.name for check in checks if check.status == "fail"]
    warned = [check.name for check in checks if check.status == "warn"]
    assert failed == [expected], "\n".join(map(str, checks))
    assert warned == ALSO_WARNS.get(name, []), "\n".join(map(str, checks))


@pytest.mark.parametrize("build", [sound, lambda: BERT(SHAPE)], ids=["GPT", "BERT"])
def test_the_models_that_are_mutated_are_sound(build):
    checks = [check(adapted(build), effort("smoke")) for check in TIER1]
    assert {check.status for check in checks} <= {"pass", "skip"}, "\n".join(map(str, checks))
