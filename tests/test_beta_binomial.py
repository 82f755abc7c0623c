"""Beta-binomial by alpha and beta."""

import mpmath
import numpy as np
import pytest

from fastelbo import BetaBinomial, Binomial
from tests.conftest import DTYPES, TOLERANCE, assert_close, together
from tests.likelihood_checks import exact, offends


@pytest.mark.parametrize(
    ("n", "x"), [(0, 0), (1, 0), (7, 7), (1000, 400), (10**6, 123_456), (10**6, 0)]
)
@pytest.mark.parametrize("alpha", [1e-8, 0.5, 3.0, 9.99, 1e6, 1e12])
@together(beta=[1e-3, 11.0, 1e12], dtype=DTYPES)
def test_mpmath(n, x, alpha, beta, dtype):
    """Differences of lgamma that would lose every digit: large counts, alpha and beta."""

    def density(x, a, b):
        def rise(a, x):
            return mpmath.loggamma(a + x) - mpmath.loggamma(a)

        choose = mpmath.loggamma(n + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(n - x + 1)
        return choose + rise(a, x) + rise(b, n - x) - rise(a + b, n)

    alpha, beta = (float(dtype.type(a)) for a in (alpha, beta))
    y, total = n - x, alpha + beta
    with mpmath.workdps(40):
        digamma = mpmath.digamma
        both = abs(digamma(total + n) - digamma(total))
        by_alpha = abs(digamma(alpha + x) - digamma(alpha)) + both
        by_beta = abs(digamma(beta + y) - digamma(beta)) + both
    moved = alpha * by_alpha + beta * by_beta  # what a rounding of alpha and beta does
    sizes = (
        4 * (1 + abs(x - n * alpha / total) * min(1, n / total) + float(moved)),
        by_alpha,
        by_beta,
    )
    sizes = tuple(2 * float(s) for s in sizes)
    exact(BetaBinomial(n), x, (alpha, beta), density, dtype, sizes=sizes, digits=60)


def test_uniform(dtype):
    x = np.arange(31)[:, None]
    ones = np.ones((31, 1), dtype)
    rows = BetaBinomial(30).log_prob(x, ones, ones, reduction="none")
    np.testing.assert_allclose(rows, -np.log(31), rtol=4 * TOLERANCE[dtype])


def test_meets_the_binomial(dtype):
    x = np.arange(31)[:, None]
    alpha = np.full((31, 1), 3e15, dtype)
    rows = BetaBinomial(30).log_prob(x, alpha, 2 * alpha, reduction="none")
    logits = np.full((31, 1), -np.log(2), np.float64)
    assert_close(rows, Binomial(30).log_prob(x, logits, reduction="none"), dtype, 60.0)


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (9, 600))
    alpha, beta = np.exp(rng.normal(size=(2, 9, 600)))
    likelihood = BetaBinomial(9)
    offends(likelihood, dtype, x, alpha, beta, bad=(-1, 10, 0.5))
    offends(likelihood, dtype, x, alpha, beta, name="alpha", bad=(0.0, -1.0))
    offends(likelihood, dtype, x, alpha, beta, name="beta", bad=(0.0, -1.0))
