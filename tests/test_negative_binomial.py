"""Negative binomial by mean and inverse dispersion theta."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastelbo
from fastelbo import NegativeBinomial, Poisson, reference
from tests.conftest import assert_close
from tests.count_checks import draw, grid, negative_binomial, scattered, within_bounds
from tests.likelihood_checks import offends


def test_mpmath_on_a_grid(dtype):
    within_bounds(NegativeBinomial(), negative_binomial, grid(dtype), dtype)


def test_mpmath_at_random(dtype):
    columns = scattered(np.random.default_rng(0), dtype, 1000)
    within_bounds(NegativeBinomial(), negative_binomial, columns, dtype)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**9),
    st.floats(1e-8, 1e12),
    st.floats(1e-8, 1e12),
    st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)]),
)
def test_mpmath_anywhere(x, mu, theta, dtype):
    columns = [np.array([a], dtype) for a in (x, mu, theta)]
    within_bounds(NegativeBinomial(), negative_binomial, columns, dtype)


def test_the_reference_is_exact():
    columns = scattered(np.random.default_rng(1), np.dtype(np.float64), 300)
    likelihood = reference.NegativeBinomial()
    column = [c[:, None] for c in columns]
    values, gradients = likelihood.log_prob_and_grad(*column, reduction="none")
    for i in range(300):
        with mpmath.workdps(60):
            wanted = negative_binomial(*(mpmath.mpf(float(c[i])) for c in columns))
        assert abs(values[i] - wanted[0]) <= 1e-13 * abs(wanted[0])
        assert abs(gradients[0][i, 0] - wanted[1]) <= 1e-13 * abs(wanted[1])


def test_known_values():
    value, (by_mean, by_theta) = NegativeBinomial().log_prob_and_grad([[0, 2]], [[1.0, 1.0]], 1.0)
    assert value == pytest.approx(np.log(1 / 2) + np.log(1 / 8), rel=1e-14)
    np.testing.assert_allclose(by_mean, [[-0.5, 0.5]], rtol=1e-14)
    # digamma(1 + x) - digamma(1) - log 2 + (1 - x) / 2, summed
    assert by_theta == pytest.approx(0.5 + 1.5 - 0.5 - 2 * np.log(2), rel=1e-13)


def test_meets_poisson(dtype):
    """At theta = inf, and before."""
    rng = np.random.default_rng(0)
    x, mu, _, _ = draw(rng, dtype)
    expected, (gradient,) = Poisson(log_input=False).log_prob_and_grad(x, mu)
    for theta in (np.inf, 1e30):
        value, (by_mean, by_theta) = NegativeBinomial().log_prob_and_grad(x, mu, dtype.type(theta))
        assert_close(value, expected, dtype)
        assert_close(by_mean, gradient, dtype, np.abs(gradient).max())
        assert abs(by_theta) < 1e-20


def test_float32_where_lgamma_would_lose_it():
    """The formula of scvi-tools is wrong by percents at theta = 1e8."""
    rng = np.random.default_rng(0)
    x, mu, _, _ = draw(rng, np.dtype(np.float32), 7, 300)
    for theta in 10.0 ** np.arange(3, 13):
        expected = reference.NegativeBinomial().log_prob(x, mu, np.float32(theta))
        got = NegativeBinomial().log_prob(x, mu, np.float32(theta))
        assert_close(got, expected, np.float32)


@pytest.mark.parametrize("step", [2, -2])
@pytest.mark.parametrize(
    ("event", "shape"),
    [
        *(((5, 8), shape) for shape in [(), (5, 8), (5, 1), (1, 8), (8,), (1, 5, 8), (1, 1, 1)]),
        ((40, 1), (40, 1)),
        ((1, 40), (1, 40)),
    ],
)
def test_strides_of_theta(event, shape, step, dtype):
    """theta of the columns may lie in memory in any way."""
    rng = np.random.default_rng(0)
    x, mu, _, _ = draw(rng, dtype, 9, 40)
    x, mu = x.reshape(9, *event), mu.reshape(9, *event)
    wide = np.exp(rng.normal(size=[2 * n for n in shape])).astype(dtype)
    theta = wide[(slice(None, None, step),) * len(shape)]
    expected = reference.NegativeBinomial().log_prob(x, mu, theta, reduction="none")
    assert_close(NegativeBinomial().log_prob(x, mu, theta, reduction="none"), expected, dtype)
    fixed = NegativeBinomial(theta.reshape(shape[-2:]))
    assert_close(fixed.log_prob(x, mu, reduction="none"), expected, dtype)


@pytest.mark.parametrize("batch", [2, 200])
@pytest.mark.parametrize("event", [(0,), (4, 0), (0, 4)])
def test_events_of_no_elements(event, batch, dtype):
    """Contiguous and not: neither makes a run, and the second no segment."""
    room = np.ones((batch, *(n + 3 for n in event)), dtype)
    for a in (np.ones((batch, *event), dtype), room[(slice(None), *map(slice, event))]):
        for theta in (1.0, a[:1], a):
            value, gradients = NegativeBinomial().log_prob_and_grad(a, a, theta, reduction="none")
            np.testing.assert_array_equal(value, np.zeros(batch))
            assert [g.shape for g in gradients] == [a.shape, np.shape(theta)]


def test_edges(dtype):
    """mean = 0, infinities, NaN: as the formula has it in its limits."""
    inf, nan = np.inf, np.nan
    x = np.array([0, 3, 0, 3, 0, 0, 3, 3, 0], dtype)[:, None]
    mu = np.array([0, 0, nan, nan, inf, 1, 1, inf, inf], dtype)[:, None]
    theta = np.array([1, 1, 1, 1, 1, nan, nan, 1, inf], dtype)[:, None]
    likelihood = NegativeBinomial(validate=False)
    values, (by_mean, _) = likelihood.log_prob_and_grad(x, mu, theta, reduction="none")
    np.testing.assert_array_equal(values, [0, -inf, nan, nan, -inf, nan, nan, -inf, -inf])
    np.testing.assert_array_equal(by_mean[:4, 0], [-1, inf, nan, nan])
    x[:] = nan
    assert np.isnan(likelihood.log_prob(x, mu, theta, reduction="none")).all()


def test_a_mean_of_minus_zero_is_zero(dtype):
    x, mean = np.array([[0, 3]]), np.array([[-0.0, -0.0]], dtype)
    for module in (fastelbo, reference):
        for likelihood in (module.NegativeBinomial(1.0), module.ZeroInflatedNegativeBinomial(1.0)):
            logits = () if type(likelihood) is module.NegativeBinomial else (mean,)
            with np.errstate(all="ignore"):
                value, gradients = likelihood.log_prob_and_grad(x, mean, *logits)
            assert value == -np.inf
            assert gradients[0].tolist() == [[-1.0 if not logits else -0.5, np.inf]]


@pytest.mark.parametrize("x", [0.25, 0.9, 1.5, 7.75, 33.3])
@pytest.mark.parametrize("theta", [1e-3, 0.9, 40.0, 1e6])
def test_fractional_counts(x, theta, dtype):
    """With validate=False, by the gamma function."""
    likelihood = NegativeBinomial(validate=False)
    within_bounds(likelihood, negative_binomial, ([x], [1.25], [theta]), dtype)


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (9, 600))
    mu, theta = np.exp(rng.normal(size=(2, 9, 600)))
    likelihood = NegativeBinomial()
    offends(likelihood, dtype, x, mu, theta, bad=(-1, 0.5, 3.5, np.inf))
    offends(likelihood, dtype, x, mu, theta, name="mean", bad=(-1.0, -1e-3))
    offends(likelihood, dtype, x, mu, theta, name="theta", bad=(0.0, -1.0))


def test_the_place_of_a_bad_theta():
    x = np.zeros((2, 3))
    for theta, place in ((0.0, r"theta = 0"), ([1.0, 0.0, 2.0], r"theta\[1\] = 0")):
        with pytest.raises(ValueError, match=rf"^{place} lies outside the domain"):
            NegativeBinomial().log_prob(x, x + 1, theta)


@pytest.mark.parametrize("theta", [0.0, -1.0, np.nan, [1.0, -1.0]])
def test_bad_theta(theta):
    with pytest.raises(ValueError, match="theta must be positive"):
        NegativeBinomial(theta)


def test_errors():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="theta"):
        NegativeBinomial([1.0, 2.0]).log_prob(x, x + 1)
    with pytest.raises(ValueError, match="theta"):
        NegativeBinomial().log_prob(x, x + 1, np.ones(2))
    with pytest.raises(ValueError, match="theta"):
        NegativeBinomial().log_prob(x, x + 1, np.ones((4, 2, 3)))
    with pytest.raises(TypeError, match="theta"):
        NegativeBinomial().log_prob(x, x + 1)
