from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.spectrum import effective_rank, embedding_spectrum, mean_cosine, singular_values
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


def gpt():
    torch.manual_seed(0)
    return GPT(TransformerConfig(vocab_size=60, context_length=8, num_layers=1, width=32))


@pytest.mark.parametrize("shape", [(60, 32), (7, 32), (5000, 8)])
def test_the_singular_values_are_those_of_a_decomposition(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    np.testing.assert_allclose(singular_values(matrix), torch.linalg.svdvals(matrix.double()), rtol=1e-8)


def test_the_effective_rank_of_equal_directions_is_their_number():
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert effective_rank(np.array([3.0, 0.0, 0.0])) == pytest.approx(1)
    # Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2, so 2^1.5.
    assert effective_rank(np.array([2.0, 1.0, 1.0])) == pytest.approx(2**1.5)


def test_the_mean_cosine_is_that_of_all_pairs_and_leaves_rows_of_zeros_out():
    torch.manual_seed(0)
    matrix = torch.randn(9, 4) + 0.5
    pairs = [torch.cosine_similarity(matrix[i], matrix[j], dim=0).item() for i in range(9) for j in range(9) if i != j]
    assert mean_cosine(matrix) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert mean_cosine(torch.cat([matrix, torch.zeros(1, 4)])) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_a_new_embedding_passes():
    check = embedding_spectrum(adapt(gpt()), SMOKE)
    assert check.status == "pass"
    assert float(check.table.set_index("what")["value"]["of the largest possible"]) > 0.8


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda w: w.copy_(torch.outer(torch.randn(60), torch.randn(32))), "share a few directions"),
        (lambda w: w.copy_(w[:1].clone().expand_as(w)), "same embedding"),
        (lambda w: w.zero_(), "every entry of the embedding is zero"),
        (lambda w: w[3].fill_(float("inf")), "not finite"),
    ],
    ids=["one direction", "equal rows", "zeros", "not finite"],
)
def test_an_embedding_that_does_not_tell_tokens_apart_warns(spoil, reason):
    model = gpt()
    adapter = adapt(model)
    with torch.no_grad():
        spoil(model.embedding.weight)
    check = embedding_spectrum(adapter, SMOKE)
    assert check.status == "warn"
    assert reason in check.summary


def test_images_are_skipped():
    check = embedding_spectrum(adapt(ViT(ViTConfig(num_layers=1, width=16, image_size=8))), SMOKE)
    assert check.status == "skip"
