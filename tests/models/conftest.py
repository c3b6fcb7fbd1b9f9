"""Tiny models for the tests of this package, on one thread, and other libraries' weights under our names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig

SHAPE = {"num_layers": 2, "num_heads": 4, "width": 32}
TEXT = {"vocab_size": 23, "context_length": 12, "tie_embeddings": False}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Of every test here."""


def stirred(model: nn.Module, *, seed: int | None = 0) -> nn.Module:
    """In eval mode, with weights large enough for every part of the model to matter, biases and norms included."""
    if seed is not None:
        torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def stir():
    return stirred


def maker(kind: type[nn.Module], shape: type[TransformerConfig], defaults: dict):
    """Make a model in eval mode whose weights are large enough for every input to sway every output that it may."""

    def make(*, seed: int = 0, **fields) -> nn.Module:
        torch.manual_seed(seed)
        return stirred(kind(shape(**{**SHAPE, **defaults, **fields})), seed=None)

    return make


@pytest.fixture
def make_gpt():
    return maker(GPT, TransformerConfig, TEXT)


@pytest.fixture
def make_bert():
    return maker(BERT, TransformerConfig, TEXT)


@pytest.fixture
def make_t5():
    return maker(T5, T5Config, {**TEXT, "relative_buckets": 8, "relative_distance": 6})


@pytest.fixture
def make_vit():
    return maker(ViT, ViTConfig, {"image_size": 8, "patch_size": 4, "num_classes": 7})


@pytest.fixture
def renamed():
    """State dicts under our names: `joined` puts several matrices below each other, then `names` replaces key parts."""

    def rename(weights: dict, names: dict[str, str], joined: dict[str, list[str]]) -> dict:
        weights = dict(weights)
        for new, parts in joined.items():
            for key in [key for key in weights if f".{parts[0]}." in key]:
                pieces = [weights.pop(key.replace(parts[0], part)) for part in parts]
                weights[key.replace(parts[0], new)] = torch.cat(pieces)
        result = {}
        for key, value in weights.items():
            for old, new in names.items():
                key = f".{key}.".replace(f".{old}.", f".{new}.").strip(".")
            result[key] = value
        return result

    return rename
