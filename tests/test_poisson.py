"""Poisson by log rate and by rate."""

import math

import mpmath
import numpy as np
import pytest

from fastelbo import Poisson
from tests.conftest import DTYPES, together
from tests.likelihood_checks import exact, offends


def by_log_rate(x, a):
    return x * a - mpmath.exp(a) - mpmath.loggamma(x + 1)


def by_rate(x, rate):
    return x * mpmath.log(rate) - rate - mpmath.loggamma(x + 1)


@pytest.mark.parametrize("x", [0, 1, 2, 9, 10, 11, 100, 12_345, 10**6, 10**9])
@together(ratio=[1e-6, 0.1, 0.7, 0.999, 1.0, 1.0002, 1.5, 30.0, 1e4], dtype=DTYPES)
def test_mpmath(x, ratio, dtype):
    """Rates far from the count and next to it, where x log rate, rate and log x! nearly cancel.

    A rounding of the rate moves the density by (x - rate) roundings; no more than that is lost.
    """
    rate = ratio * max(x, 1)
    with np.errstate(all="ignore"):
        rate = float(dtype.type(rate))
    sizes = (abs(x - rate), (x + rate) / rate)
    exact(Poisson(log_input=False), x, (rate,), by_rate, dtype, sizes=sizes)
    log_rate = float(dtype.type(math.log(rate)))
    sizes = (abs(x - rate) * max(1.0, abs(log_rate)), x + rate)
    exact(Poisson(), x, (log_rate,), by_log_rate, dtype, sizes=sizes)


@pytest.mark.parametrize("x", [0.25, 0.9, 1.5, 7.75, 9.99, 33.3])
def test_fractional_counts(x, dtype):
    """With validate=False, by the gamma function."""
    x = float(dtype.type(x))
    exact(Poisson(validate=False), x, (1.25,), by_log_rate, dtype, sizes=(x + 4, x + 4))


def test_rates_at_the_edges(dtype):
    likelihood = Poisson(log_input=False)
    info = np.finfo(dtype)
    x = np.array([[0, 0, 3, 3]])
    rate = np.array([[0.0, info.tiny, 0.0, info.tiny]], dtype)
    rows, (gradient,) = likelihood.log_prob_and_grad(x.T, rate.T, reduction="none")
    tiny = math.log(float(info.tiny))
    np.testing.assert_allclose(rows, [0.0, -info.tiny, -np.inf, 3 * tiny - math.log(6)], rtol=1e-6)
    np.testing.assert_array_equal(gradient[:2, 0], [-1.0, -1.0])
    assert np.isposinf(gradient[2, 0])
    rows = Poisson().log_prob(np.array([[0], [3]]), np.full((2, 1), -1000, dtype), reduction="none")
    np.testing.assert_allclose(rows, [0.0, -3000 - math.log(6)], rtol=1e-6)
    assert Poisson().log_prob([[3]], np.full((1, 1), 800, dtype)) == -np.inf


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x, rate = rng.poisson(3.0, (9, 600)), rng.random((9, 600)) + 0.1
    offends(Poisson(), dtype, x, rate, bad=(-1, 0.5, 1e5 + 0.25, -np.inf))
    likelihood = Poisson(log_input=False)
    offends(likelihood, dtype, x, rate, name="rate", bad=(-1e-3, -1.0))
    x[2, 2] = 2**31 - 1
    assert np.isfinite(likelihood.log_prob(x, rate))
