"""Negative binomial with an excess of zeros."""

import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fastelbo import NegativeBinomial, ZeroInflatedNegativeBinomial
from tests.conftest import assert_close
from tests.count_checks import draw, grid, scattered, within_bounds, zero_inflated
from tests.likelihood_checks import offends


def test_mpmath_on_a_grid(dtype):
    columns = grid(dtype)
    logits = np.resize([-30.0, -0.5, 0.0, 3.0, 20.0], columns[0].size)  # 5 and 11 are coprime
    within_bounds(ZeroInflatedNegativeBinomial(), zero_inflated, (*columns, logits), dtype)


def test_mpmath_at_random(dtype):
    rng = np.random.default_rng(0)
    columns = scattered(rng, dtype, 1000)
    logits = rng.normal(size=1000) * 10.0 ** rng.uniform(-1, 2, 1000)
    within_bounds(ZeroInflatedNegativeBinomial(), zero_inflated, (*columns, logits), dtype)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.just(0), st.integers(0, 10**9)),
    st.floats(1e-8, 1e12),
    st.floats(1e-8, 1e12),
    st.floats(-80.0, 80.0),
    st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)]),
)
def test_mpmath_anywhere(x, mu, theta, logit, dtype):
    columns = [np.array([a], dtype) for a in (x, mu, theta, logit)]
    within_bounds(ZeroInflatedNegativeBinomial(), zero_inflated, columns, dtype)


def test_known_value():
    likelihood = ZeroInflatedNegativeBinomial(theta=1.0)
    value, (by_mean, by_logits) = likelihood.log_prob_and_grad([[0, 2]], [[1.0, 1.0]], [[0.0, 0.0]])
    assert value == pytest.approx(np.log(3 / 4) + np.log(1 / 16), rel=1e-14)
    np.testing.assert_allclose(by_mean, [[-1 / 6, 0.5]], rtol=1e-14)
    np.testing.assert_allclose(by_logits, [[1 / 6, -0.5]], rtol=1e-14)


@pytest.mark.parametrize("logit", [-200.0, -np.inf])
def test_without_an_excess(logit, dtype):
    x, mu, theta, _ = draw(np.random.default_rng(0), dtype)
    value, gradients = NegativeBinomial().log_prob_and_grad(x, mu, theta)
    logits = np.full_like(mu, logit)
    inflated = ZeroInflatedNegativeBinomial()
    got, (*others, by_logits) = inflated.log_prob_and_grad(x, mu, theta, logits)
    assert_close(got, value, dtype)
    assert_close(others[0], gradients[0], dtype, 1.0)
    assert_close(others[1], gradients[1], dtype, 50.0)
    assert np.abs(by_logits).max() < 1e-80 or dtype == np.float32
    assert np.abs(by_logits).max() < 1e-44


def test_zeros_less_likely_than_float32_can_tell(dtype):
    """Both ways to a zero underflow; their logarithms do not."""
    mu, theta = dtype.type(1e9), dtype.type(20.0)
    columns = [np.array([a] * 3, dtype) for a in (0, mu, theta)]
    columns.append(np.array([-500.0, -350.0, -120.0], dtype))
    within_bounds(ZeroInflatedNegativeBinomial(), zero_inflated, columns, dtype)


def test_meets_poisson(dtype):
    x, mu, _, logits = draw(np.random.default_rng(0), dtype)
    value, gradients = ZeroInflatedNegativeBinomial(np.inf).log_prob_and_grad(x, mu, logits)
    wide, excess = mu.astype(np.float64), 1 / (1 + np.exp(-logits.astype(np.float64)))
    p = scipy.stats.poisson.pmf(x, wide)
    expected = np.log(np.where(x == 0, excess, 0) + (1 - excess) * p).sum(axis=1).mean()
    assert_close(value, expected, dtype)
    assert all(np.isfinite(g).all() for g in gradients)


def test_edges(dtype):
    """NaN and infinities reach the value, and a certain zero costs nothing."""
    inf, nan = np.inf, np.nan
    x = np.array([0, 0, 0, 3, 0, 3, 0], dtype)[:, None]
    mu = np.array([0, 1, inf, 1, 1, 1, nan], dtype)[:, None]
    theta = np.ones_like(mu)
    logits = np.array([0, inf, 0, inf, nan, nan, 0], dtype)[:, None]
    likelihood = ZeroInflatedNegativeBinomial()
    values, gradients = likelihood.log_prob_and_grad(x, mu, theta, logits, reduction="none")
    np.testing.assert_allclose(values, [0, 0, -np.log(2), -inf, nan, nan, nan], rtol=1e-6)
    np.testing.assert_array_equal(gradients[0][[1, 2], 0], [0, 0])
    assert np.isnan(gradients[2][4:6]).all()


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (9, 600))
    mu, theta = np.exp(rng.normal(size=(2, 9, 600)))
    logits = rng.normal(size=x.shape)
    likelihood = ZeroInflatedNegativeBinomial()
    offends(likelihood, dtype, x, mu, theta, logits, bad=(-1, 0.5, np.inf))
    offends(likelihood, dtype, x, mu, theta, logits, name="mean", bad=(-1.0,))
    offends(likelihood, dtype, x, mu, theta, logits, name="theta", bad=(0.0, -1.0))


def test_errors():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="zero_logits"):
        ZeroInflatedNegativeBinomial().log_prob(x, x + 1, 1.0, np.ones((3, 2)))
    with pytest.raises(TypeError, match="zero_logits"):
        ZeroInflatedNegativeBinomial().log_prob(x, x + 1, 1.0)


def test_mpmath_density_sums_to_one():
    """What is tested against is a distribution."""
    with mpmath.workdps(30):
        args = mpmath.mpf(1.5), mpmath.mpf(0.7), mpmath.mpf(-0.3)
        total = sum(mpmath.exp(zero_inflated(k, *args)[0]) for k in range(120))
    assert abs(total - 1) < 1e-15
