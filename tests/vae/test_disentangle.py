"""MIG, DCI and SAP: 1 for a code with a dimension for each factor, about 0 for rotated and for unrelated codes."""

import math

import numpy as np
import pytest
import torch

from utils.vae.disentangle import (
    dci,
    disentanglement,
    importances,
    mig,
    sap,
    sparse_logistic,
)
from utils.vae.factors import FactorSet, factor_set

NAMES = ("row", "column", "colour", "background")  # two amounts, two names


@pytest.fixture
def factors():
    return np.random.default_rng(0).integers(6, size=(4000, 4))


def scores(codes, factors):
    return disentanglement(codes, FactorSet(np.empty((len(codes), 30, 30)), factors, NAMES))


def rotated(codes):
    """Every factor spread evenly over all four dimensions (a Hadamard matrix)."""
    pair = np.array([[1, 1], [1, -1]])
    return (codes - codes.mean(0)) @ np.kron(pair, pair) / 2


def test_a_dimension_for_each_factor_scores_one_in_any_order_scale_and_sign(factors):
    found = scores(factors[:, [2, 0, 3, 1]] * np.array([-3.0, 0.1, 5.0, 1.0]) + 7, factors)
    assert found.mig == pytest.approx(1, abs=0.02)
    assert found.sap == pytest.approx(1, abs=0.02)
    assert found.disentanglement == pytest.approx(1, abs=0.05)
    assert found.completeness == pytest.approx(1, abs=0.05)
    assert found.informativeness == pytest.approx(1, abs=0.05)


def test_spare_dimensions_of_noise_take_nothing_away(factors):
    noise = np.random.default_rng(1).normal(size=(4000, 10))
    found = scores(np.concatenate([noise, factors], 1), factors)
    assert min(found.mig, found.sap, found.disentanglement, found.completeness) > 0.9


def test_rotated_codes_score_about_zero_and_still_tell_the_factors(factors):
    found = scores(rotated(factors), factors)
    assert max(found.mig, found.sap, found.disentanglement, found.completeness) < 0.1
    assert found.informativeness > 0.3


def test_unrelated_and_silent_codes_score_about_zero(factors):
    found = scores(torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)), factors)
    assert max(found.mig, found.sap, found.informativeness) < 0.05
    found = scores(np.zeros((4000, 6)), factors)
    assert (found.mig, found.sap, found.disentanglement, found.completeness) == (0, 0, 0, 0)


def test_two_dimensions_for_one_factor_have_no_gap_and_half_the_completeness(factors):
    codes = factors[:, [0, 0, 1, 2, 3]].astype(float)
    found = scores(codes, factors)
    assert found.mig_by_factor["row"] == found.sap_by_factor["row"] == 0
    assert found.mig_by_factor["column"] > 0.98
    assert found.disentanglement == pytest.approx(1, abs=0.05)
    # Of five dimensions two share the factor: 1 - ln 2 / ln 5 for it, 1 for the three others.
    _, read = importances(codes, factors)
    assert read == pytest.approx(1, abs=0.05)
    assert found.completeness == pytest.approx((3 + 1 - math.log(2) / math.log(5)) / 4, abs=0.05)


def test_mig_is_the_gap_of_informations_in_closed_form():
    # v is even over 4 values; z_1 tells it all (ln 4), z_2 its half (ln 2), z_3 nothing: (ln 4 - ln 2) / ln 4 = 1/2.
    v = np.arange(4000) % 4
    codes = np.stack([v, v // 2, np.arange(4000) // 4 % 2], 1).astype(float)
    assert mig(codes, v[:, None]) == pytest.approx([0.5])


def test_sap_of_an_amount_is_the_gap_of_squared_correlations_and_of_a_name_that_of_accuracies():
    v = np.arange(8000) // 2 % 4  # in pairs, so that every other row has all values
    codes = np.stack([v, v // 2, np.arange(8000) // 8 % 2], 1).astype(float)
    correlation = np.corrcoef(v, v // 2)[0, 1]
    assert sap(codes, v[:, None], ("row",)) == pytest.approx([1 - correlation**2])
    # z_2 tells which half: 1/2 right, (1/2 - 1/4) / (1 - 1/4) = 1/3 above chance.
    assert sap(codes, v[:, None], ("colour",)) == pytest.approx([1 - 1 / 3])


@pytest.mark.parametrize(
    ("importance", "disentangled", "complete"),
    [
        (np.eye(3), 1, 1),
        (np.ones((3, 3)), 0, 0),
        (np.zeros((3, 3)), 0, 0),
        (np.array([[1.0, 0], [1, 0], [0, 2]]), 1, 1 - 0.5 * math.log(2) / math.log(3)),  # a factor in two dimensions
        (np.array([[1.0, 1], [0, 0]]), 0, 1),  # one dimension for both factors
    ],
)
def test_dci_of_hand_made_importances(importance, disentangled, complete):
    assert dci(importance) == pytest.approx((disentangled, complete))


def test_sparse_logistic_meets_the_conditions_of_its_least():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 6, generator=draw, dtype=torch.float64), torch.randint(3, (400,), generator=draw)
    x[:, 0] += y
    weight, bias = (part.requires_grad_() for part in sparse_logistic(x, y, 0.05, steps=1000))
    torch.nn.functional.cross_entropy(x @ weight + bias, y).backward()
    assert bias.grad.abs().max() < 1e-4
    used = weight != 0
    assert used.any()
    assert not used.all()
    torch.testing.assert_close(weight.grad[used], -0.05 * weight[used].sign(), atol=1e-4, rtol=0)
    assert weight.grad[~used].abs().max() < 0.05 + 1e-4


def test_its_own_factors_as_a_code_score_one_and_the_remark_is_no_verdict():
    data = factor_set(2000)
    found = disentanglement(data.factors.astype(float), data)
    assert min(found.mig, found.sap) > 0.95
    assert f"MIG {found.mig:.2f}" in str(found)
    assert "no verdict" in found._repr_html_()
    with pytest.raises(ValueError, match=r"expected \(2000, 2 or more"):
        disentanglement(data.factors[:, :1], data)
