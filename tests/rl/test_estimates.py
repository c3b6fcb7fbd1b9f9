"""pass@k against every subset, and intervals against the binomial they are a sample of."""

from itertools import combinations
from math import ceil

import numpy as np
import pytest
from scipy import stats

from utils.rl.estimates import Estimate, bootstrap, most_likely, pass_at_k


@pytest.mark.parametrize("samples", [1, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_program(samples):
    for correct in range(samples + 1):
        right = [True] * correct + [False] * (samples - correct)
        for k in range(1, samples + 1):
            expected = np.mean([any(chosen) for chosen in combinations(right, k)])
            assert pass_at_k(samples, correct, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_is_the_share_correct_at_1_and_whether_any_is_at_n():
    assert pass_at_k(16, 5, 1) == pytest.approx(5 / 16)
    assert pass_at_k(16, 1, 16) == 1
    assert pass_at_k(16, 0, 16) == 0
    # Stays exact where the binomials overflow a float: 1 - (n - c)/n with k = 1.
    assert pass_at_k(2000, 500, 1) == pytest.approx(0.25, abs=1e-15)


def test_pass_at_k_is_unbiased():
    """Over the binomial of correct programs its mean is 1 - (1 - p)^k, the true chance."""
    n, k, p = 12, 5, 0.15
    mean = sum(stats.binom.pmf(c, n, p) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize("counts", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="expected 0 <= correct <= n, 1 <= k <= n"):
        pass_at_k(*counts)


@pytest.mark.parametrize(("tasks", "solved"), [(40, 10), (400, 90)])
def test_interval_of_a_share_is_that_of_the_binomial(tasks, solved):
    """Means of tasks drawn with replacement are binomial: its quantiles, one task apart at most."""
    found = bootstrap(np.arange(tasks) < solved, draws=20_000)
    share = solved / tasks
    assert found.value == pytest.approx(share)
    assert [found.low, found.high] == pytest.approx(
        stats.binom.ppf([0.025, 0.975], tasks, share) / tasks, abs=1.01 / tasks
    )


def test_interval_is_scipys():
    values = np.random.default_rng(3).beta(0.5, 1.5, 200)
    ours = bootstrap(values, draws=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    # Two Monte Carlo estimates of one quantile; each has an error of about sigma / sqrt(draws) * 3.7.
    within = 2 * 5 * 3.7 * values.std() / np.sqrt(len(values)) / np.sqrt(20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=within)


def test_equal_seeds_draw_equal_tasks():
    values = np.random.default_rng(0).random(30)
    assert bootstrap(values, seed=1, draws=700) == bootstrap(values, seed=1, draws=700)
    assert bootstrap(values, seed=1, draws=700) != bootstrap(values, seed=2, draws=700)


def test_no_task_is_refused():
    with pytest.raises(ValueError, match="at least one task"):
        bootstrap(np.array([]))


def test_most_likely_rate_leaves_none_one_time_in_twenty():
    assert stats.binom.pmf(0, 87, most_likely(87)) == pytest.approx(0.05)
    assert most_likely(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert ceil(100 * most_likely(1)) == 95


def test_an_estimate_reads_as_percent():
    assert str(Estimate(0.224, 0.201, 0.2494)) == "22.4% (20.1 to 24.9)"
