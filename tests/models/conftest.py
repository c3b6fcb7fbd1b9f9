"""A tiny GPT for the tests of this package, on one thread."""

from __future__ import annotations

import pytest
import torch

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small only wait for a second thread, and for seconds on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_gpt():
    """Make a GPT in eval mode whose weights are large enough for every token to sway every later one."""

    def make(*, vocab_size: int = 23, seed: int = 0, **fields) -> GPT:
        shape = {"context_length": 12, "num_layers": 2, "num_heads": 4, "width": 32, "tie_embeddings": False}
        torch.manual_seed(seed)
        model = GPT(TransformerConfig(vocab_size=vocab_size, **{**shape, **fields})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return model

    return make
