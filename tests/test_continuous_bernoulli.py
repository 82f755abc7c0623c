"""Continuous Bernoulli by logits."""

import mpmath
import numpy as np
import pytest

from fastelbo import ContinuousBernoulli
from tests.conftest import DTYPES, together
from tests.likelihood_checks import exact, offends


def density(x, a):
    return x * a - (mpmath.log(mpmath.expm1(a) / a) if a != 0 else 0)


@pytest.mark.parametrize(
    "logit", [1e-30, 1e-8, 9e-6, 2e-5, 9e-4, 2e-3, 0.1, 0.99, 1.01, 3.0, 17.0, 80.0, 700.0]
)
@together(sign=[1, -1], x=[0.0, 0.25, 1.0], dtype=DTYPES)
def test_mpmath(x, logit, sign, dtype):
    """The normaliser by its series near 1/2 and in closed form away from it."""
    sizes = (max(1e-30, 2 * min(logit, 1.0)), 1.0)
    exact(ContinuousBernoulli(), x, (sign * logit,), density, dtype, sizes=sizes, digits=120)


def test_uniform_at_zero(dtype):
    x = np.linspace(0, 1, 33)[None].astype(dtype)
    for zero in (0.0, -0.0):
        logits = np.full((1, 33), zero, dtype)
        value, (gradient,) = ContinuousBernoulli().log_prob_and_grad(x, logits)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, x - dtype.type(0.5))


def test_is_a_density(dtype):
    x = (np.arange(20_000) + 0.5)[:, None] / 20_000
    for logit in (-20.0, -0.5, 1e-4, 3.0, 30.0):
        rows = ContinuousBernoulli().log_prob(
            x.astype(dtype), np.full(x.shape, logit, dtype), reduction="none"
        )
        assert np.mean(np.exp(rows)) == pytest.approx(1.0, abs=1e-5)


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x, logits = rng.random((9, 600)), rng.normal(size=(9, 600))
    offends(ContinuousBernoulli(), dtype, x, logits, bad=(-0.001, 1.001, np.inf))
