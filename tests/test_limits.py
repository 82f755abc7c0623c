"""Right values where terms lose all their digits, over- or underflow; by mpmath, at 60 digits."""

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from tests.conftest import TOLERANCE

#: log(pi 3^2): at 3 a Cauchy density that is far narrower is its scale over that.
AT_THREE = np.log(9 * np.pi)
#: A likelihood, x, the parameters, and what comes of it: the value, and the gradients that matter.
VALUES = [
    ("StudentT", ("learned", "learned"), 1e5, (0, 0, 0), None, (None, None, -10.319778284560283)),
    ("StudentT", ("learned", "learned"), 3, (0, -3, -4), None, (None, None, 0.88503026327960671)),
    ("StudentT", ("learned", "learned"), 1e18, (0, -3, 0), -87.037793233635045, (2e-18, 1.0, None)),
    ("StudentT", ("learned", "learned"), 3, (0, 0, -1e3), -1e3 - np.log(6), (1 / 3, 0, 1)),
    ("StudentT", ("learned", "learned"), 3, (0, -1e3, 0), -1e3 - AT_THREE, (2 / 3, 1, None)),
    ("StudentT", (1.0, "learned"), 1.5, (0, -1e3), -1e3 - AT_THREE + np.log(4), (4 / 3, 1)),
    ("StudentT", (1e300,), 2, (0,), -2.9189385332046727, (2.0,)),
    ("Gaussian", ("learned",), 1, (1, -89), 88.0810614667953, (0.0, -1.0)),
    ("BetaBinomial", (20_000_000,), 1e7, (1e7, 1e7), None, (1.250000046875e-8, 1.250000046875e-8)),
]


@pytest.mark.parametrize(("kind", "arguments", "x", "parameters", "value", "gradients"), VALUES)
@pytest.mark.parametrize("module", [fastelbo, reference], ids=["kernel", "reference"])
def test_values(module, kind, arguments, x, parameters, value, gradients, dtype):
    arrays = [np.full((1, 1), p, dtype) for p in parameters]
    likelihood = getattr(module, kind)(*arguments)
    got, slopes = likelihood.log_prob_and_grad(np.full((1, 1), x, dtype), *arrays)
    rtol = max(TOLERANCE[dtype], 1e-9)
    if value is not None:
        np.testing.assert_allclose(got, value, rtol=rtol)
    for slope, expected in zip(slopes, gradients, strict=True):
        if expected is not None:
            np.testing.assert_allclose(slope[0, 0], expected, rtol=2 * rtol)


def test_negative_binomial_values():
    for module in (fastelbo, reference):
        value = module.NegativeBinomial().log_prob([[1]], [[1e-101]], 1e12)
        np.testing.assert_allclose(value, -232.56109439239864, rtol=1e-13)
    mean = np.full((1, 1), 1e-8, np.float32)
    _, (_, slope) = fastelbo.NegativeBinomial().log_prob_and_grad([[1]], mean, np.float32(1.5))
    np.testing.assert_allclose(slope, 4.44444437e-09, rtol=1e-6)


def test_shares_of_a_mixture_far_away():
    """Where |log p| is above 2^53 the sum of shares is still one."""
    arrays = ([[1e10]], [[0.0], [0.0]], [[0.0], [0.0]], np.log([0.5, 0.5]))
    _, (*_, shares) = reference.mixture_log_prob_and_grad(*arrays)
    np.testing.assert_allclose(shares, [0.5, 0.5], rtol=1e-14)


def test_a_component_without_width(dtype):
    z, mu = (np.array(a, dtype) for a in ([[0.0], [1.0]], [[0.0], [0.0]]))
    arrays = (z, mu, np.array([[-np.inf], [0.0]], dtype), np.array([-0.7, -0.7], dtype))
    for module in (fastelbo, reference):
        values, gradients = module.mixture_log_prob_and_grad(*arrays, reduction="none")
        np.testing.assert_allclose(values, [np.inf, -2.118938533], rtol=1e-6)
        assert all(np.isfinite(g).all() for g in gradients)


def test_narrow_posteriors(dtype):
    """Precisions that are no number, at differences of 0 and others."""
    z = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype)
    logvar = np.full_like(z, -2e4)
    got = fastelbo.total_correlation(z, z, logvar, dataset_size=10)
    expected = reference.total_correlation(z, z, logvar, dataset_size=10)
    np.testing.assert_allclose(got, expected, rtol=1e-3)


class Kept:
    """A prior that returns the same arrays at every call."""

    def __init__(self, by_z):
        self.values, self.by_z = np.zeros(len(by_z)), by_z

    def log_prob_and_grad(self, z):
        return self.values, self.by_z


def test_the_array_of_a_prior_stays_as_it_is():
    rng = np.random.default_rng(0)
    x, mu, logvar = rng.normal(size=(3, 4, 4))
    prior = Kept(np.ones((4, 4)))
    fastelbo.elbo_and_grad(x, mu, logvar, x, prior=prior, rng=1)
    np.testing.assert_array_equal(prior.by_z, 1.0)


def test_outputs_overlap_no_mask_and_no_prior():
    rng = np.random.default_rng(0)
    x, mu, logvar = rng.normal(size=(3, 4, 4))
    memory = np.zeros((4, 4))
    mask = memory.view(bool)[:, :4]
    with pytest.raises(ValueError, match="overlaps"):
        fastelbo.Gaussian().log_prob_and_grad(x, mu, mask=mask, out=(memory,))
    with pytest.raises(ValueError, match="overlaps"):
        fastelbo.elbo_and_grad(x, mu, logvar, x, mask=mask, out=(None, None, memory))
    prior = fastelbo.MixtureOfGaussians(memory, logvar)
    with pytest.raises(ValueError, match="overlaps"):
        fastelbo.elbo_and_grad(x, mu, logvar, x, prior=prior, rng=1, out=(memory, None, None))
