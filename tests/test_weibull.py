"""Weibull: both parameters or one from the decoder, events and right-censored times."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

import fastelbo
from fastelbo import Weibull
from tests.conftest import assert_close, together
from tests.likelihood_checks import exact, offends


def test_by_hand():
    likelihood = Weibull()
    value, (by_scale, by_k) = likelihood.log_prob_and_grad([[1.0, 3.0]], [[2.0] * 2], [[2.0] * 2])
    # log(k / s) + log(x / s) - (x / s)^2
    expected = math.log(0.5) - 0.25 + math.log(1.5) - 2.25
    assert value == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(by_scale, [[-0.75, 1.25]], rtol=1e-15)  # k / s ((x / s)^k - 1)
    logs = np.log([0.5, 1.5])
    np.testing.assert_allclose(by_k, [0.5 + logs * (1 - np.array([0.25, 2.25]))], rtol=1e-14)


def test_a_concentration_of_one_is_exponential(dtype):
    x = np.random.default_rng(0).exponential(2.0, (5, 7)).astype(dtype)
    got = Weibull(concentration=1.0).log_prob(x, np.full_like(x, 2.0), reduction="none")
    expected = scipy.stats.expon.logpdf(x.astype(np.float64), scale=2.0).sum(axis=1)
    assert_close(got, expected, dtype, 7 + x.sum(axis=1))


@pytest.mark.parametrize("k", [0.3, 1.0, 2.5, 20.0])
@together(ratio=[1e-12, 1e-3, 0.999, 1.0, 1.001, 1.5, 4.0], scale=[1e-8, 0.7, 1e9])
def test_mpmath(scale, ratio, k, dtype):
    """Both tails, and next to the scale, where log(x / scale) cancels."""
    x, scale, k = (float(dtype.type(v)) for v in (scale * ratio, scale, k))
    log_ratio = math.log(x) - math.log(scale)
    z = k * log_ratio
    pull = (1 + abs(z)) * math.exp(z)
    sizes = (
        abs(math.log(k)) + abs(math.log(scale)) + abs((k - 1) * log_ratio) + pull,
        k / scale * pull,
        1 / k + abs(log_ratio) * pull,
    )

    def density(x, s, k):
        return mpmath.log(k / s) + (k - 1) * mpmath.log(x / s) - (x / s) ** k

    exact(Weibull(), x, (scale, k), density, dtype, sizes=sizes)

    def survival(x, s, k):
        return -((x / s) ** k)

    sizes = (pull, k / scale * pull, abs(log_ratio) * pull)
    exact(Weibull(observed=False), x, (scale, k), survival, dtype, sizes=sizes)


def test_censored_times_are_survival_probabilities(dtype):
    """Where 1 - cdf has no digits left, in either tail."""
    x = np.array([[1e-9, 1e-3, 1.0, 5.0, 30.0]], dtype)
    got = Weibull(2.0, observed=False).log_prob(x, np.full_like(x, 1.5), reduction="none")
    wide = x.astype(np.float64)
    expected = scipy.stats.weibull_min.logsf(wide, 1.5, scale=2.0).sum(axis=1)
    assert_close(got, expected, dtype, 10 * np.abs(expected))
    one = np.array([[1e-9]], dtype)
    tail = Weibull(2.0, observed=False).log_prob(one, np.ones_like(one))
    assert tail == pytest.approx(-float(one[0, 0]) / 2, rel=1e-6)


def test_observed_by_sample_and_by_feature(dtype):
    """It broadcasts to x, over samples of the decoder, and goes into elbo and iwae."""
    rng = np.random.default_rng(1)
    x, scale, k = (rng.weibull(1.5, (6, 4)).astype(dtype) + dtype.type(0.1) for _ in range(3))
    both = Weibull().log_prob(x, scale, k, reduction="none")
    none = Weibull(observed=False).log_prob(x, scale, k, reduction="none")
    by_sample = np.array([True, False, True, True, False, False])[:, None]
    for seen in (by_sample, np.broadcast_to(by_sample, x.shape)):
        got = Weibull(observed=seen).log_prob(x, scale, k, reduction="none")
        np.testing.assert_array_equal(got, np.where(by_sample[:, 0], both, none))
    several = np.stack([scale, 2 * scale]), np.stack([k, k])
    mixed = Weibull(observed=by_sample).log_prob(x, *several, reduction="none")
    assert mixed.shape == (2, 6)
    np.testing.assert_array_equal(mixed[0], got)
    mu = np.zeros((6, 2), dtype)
    bound = fastelbo.elbo(
        x, mu, mu, (scale, k), likelihood=Weibull(observed=by_sample), reduction="none"
    )
    np.testing.assert_array_equal(bound.reconstruction, got)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
def test_time_zero(k, seen, dtype):
    """The limits: of a density infinite, 1 / scale or 0; of survival 1."""
    x, scale = np.zeros((1, 1), dtype), np.full((1, 1), 2.0, dtype)
    value, (by_scale,) = Weibull(concentration=k, observed=seen).log_prob_and_grad(x, scale)
    if seen:
        assert value == pytest.approx({0.5: np.inf, 1.0: -math.log(2), 2.0: -np.inf}[k], rel=1e-6)
        assert by_scale[0, 0] == pytest.approx(-k / 2)
    else:
        assert value == 0
        assert by_scale[0, 0] == 0
    _, (_, by_k) = Weibull(observed=seen).log_prob_and_grad(x, scale, np.full((1, 1), k, dtype))
    assert by_k[0, 0] == (-np.inf if seen else 0)


def test_domain(dtype):
    arrays = np.abs(np.random.default_rng(3).normal(size=(3, 9, 40))) + 0.1
    offends(Weibull(), dtype, *arrays, name="x", bad=(-1.0, -1e-30))
    offends(Weibull(), dtype, *arrays, name="scale", bad=(0.0, -2.0))
    offends(Weibull(), dtype, *arrays, name="concentration", bad=(0.0, -2.0))


def test_mean():
    np.testing.assert_allclose(Weibull().mean([[2.0, 1.0]], [[1.0, 0.5]]), [[2.0, 2.0]])
    got = Weibull(concentration=1.7).mean([[3.0]])
    assert got[0, 0] == pytest.approx(scipy.stats.weibull_min.mean(1.7, scale=3.0))
    assert np.isinf(Weibull().mean([[1.0]], [[1e-3]]))


def test_errors():
    with pytest.raises(ValueError, match="decoder must give one"):
        Weibull(1.0, 2.0)
    with pytest.raises(ValueError, match="concentration must be positive"):
        Weibull(concentration=-1.0)
    with pytest.raises(TypeError, match="observed must be boolean"):
        Weibull(observed=[1, 0])
    with pytest.raises(ValueError, match=r"observed has shape \(3,\)"):
        Weibull(observed=[True, False, True]).log_prob(*np.ones((3, 2, 4)))


def test_observed_of_more_rows_than_a_group():
    """Bounds of several samples cut what is given by sample as they cut x."""
    rng = np.random.default_rng(0)
    x, seen = rng.exponential(size=(3000, 1)), rng.random((3000, 1)) < 0.5
    z, mu, ones = np.zeros((100, 3000, 1)), np.zeros((3000, 1)), np.ones((100, 3000, 1))
    likelihood = Weibull(observed=seen)
    rows = likelihood.log_prob(x, ones[0], ones[0], reduction="none")
    given = (x, z, mu, mu, (ones, ones))
    options = {"likelihood": likelihood}
    got = fastelbo.iwae(*given, **options, reduction="none")
    np.testing.assert_allclose(got, rows, rtol=1e-12)
    got, gradients = fastelbo.iwae_and_grad(*given, **options, reduction="none")
    np.testing.assert_allclose(got, rows, rtol=1e-12)
    _, slopes = likelihood.log_prob_and_grad(x, ones, ones, reduction="none")
    for mine, slope in zip(gradients.x_recon, slopes, strict=True):
        np.testing.assert_allclose(mine, slope / 100, rtol=1e-12, atol=1e-12)
    weights = fastelbo.log_weights(*given, **options)
    np.testing.assert_allclose(weights, np.tile(rows, (100, 1)), rtol=1e-12)
    x[2999] = -1
    with pytest.raises(ValueError, match=r"x\[2999, 0\] = -1 lies outside"):
        fastelbo.iwae(*given, **options)


def test_a_vae_takes_no_observed_by_sample():
    model = fastelbo.VAE(likelihood=Weibull(1.0, observed=np.ones((2, 3), bool)))
    with pytest.raises(ValueError, match="observed for each sample"):
        model.fit(np.ones((2, 3)))
