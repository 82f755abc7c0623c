"""Binomial by logits."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from fastelbo import Binomial
from tests.conftest import assert_close
from tests.likelihood_checks import exact, offends


@pytest.mark.parametrize(
    ("n", "x"),
    [(0, 0), (1, 1), (7, 0), (7, 3), (20, 20), (1000, 400), (10**6, 123_456), (10**8, 5 * 10**7)],
)
@pytest.mark.parametrize("logit", [-800.0, -90.0, -3.0, -0.41, 0.0, 0.4, 2.0, 20.0, 90.0, 500.0])
def test_mpmath(n, x, logit, dtype):
    """No binomial coefficient is formed; a certain event keeps its digits."""

    def density(x, a):
        choose = mpmath.loggamma(n + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(n - x + 1)
        return choose + x * a - n * mpmath.log1p(mpmath.exp(a))

    p = 1 / (1 + math.exp(-max(logit, -700.0)))
    sizes = (abs(x - n * p) + (1 if 0 < x < n else 0), n)
    exact(Binomial(n), x, (logit,), density, dtype, sizes=sizes, digits=500)


def test_against_scipy(dtype):
    rng = np.random.default_rng(0)
    n = rng.integers(1, 60, 30)
    logits = (2 * rng.normal(size=(20, 30))).astype(dtype)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    x = rng.binomial(n, p)
    expected = scipy.stats.binom.logpmf(x, n, p).sum(axis=1)
    got = Binomial(n).log_prob(x.astype(np.uint8), logits, reduction="none")
    assert_close(got, expected, dtype, np.abs(x - n * p).sum(axis=1))


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x, logits = rng.integers(0, 10, (9, 600)), rng.normal(size=(9, 600))
    offends(Binomial(9), dtype, x, logits, bad=(-1, 10, 0.5, np.inf))


@pytest.mark.parametrize("bad", [-1, 0.5, np.nan, np.inf, [1, -1]])
def test_errors(bad):
    with pytest.raises(ValueError, match="total_count"):
        Binomial(bad)
    with pytest.raises(ValueError, match="total_count"):
        Binomial([1, 2]).log_prob(np.zeros((2, 3)), np.zeros((2, 3)))
