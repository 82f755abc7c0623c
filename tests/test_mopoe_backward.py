"""mopoe_backward."""

import numpy as np
import pytest

from fastelbo import (
    mixture_of_experts,
    mixture_of_experts_and_grad,
    mopoe,
    mopoe_backward,
    reference,
)
from tests.conftest import assert_close, numerical_gradient
from tests.experts import MASKS_AND_PRIORS, draw
from tests.test_threads import eight_cpus as eight_cpus


def upstream(dtype, experts, shape):
    g = np.random.default_rng(1).normal(size=(2, 2**experts - 1, *shape))
    return g.astype(dtype)


@pytest.mark.parametrize(("mask", "prior"), MASKS_AND_PRIORS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 3), (3, 31, 130), (5, 40, 20)])
def test_reference(size, mask, prior, dtype):
    mu, logvar, seen = draw(dtype, *size, mask=mask)
    g = upstream(dtype, size[0], size[1:])
    got = mopoe_backward(*g, mu, logvar, mask=seen, prior=prior)
    expected = reference.mopoe_backward(*g, mu, logvar, mask=seen, prior=prior)
    scale = 20 * np.abs(g).sum(axis=(0, 1))
    assert_close(tuple(got), expected, dtype, (scale, scale))


def test_differences_of_the_mixture():
    """Through the density of the MoPoE posterior: forward and back, composed."""
    mu, logvar, seen = draw(np.float64)
    z = np.random.default_rng(2).normal(size=(2, 5, 4))

    def objective(mu, logvar):
        return mixture_of_experts(z, *mopoe(mu, logvar, mask=seen))

    parts = mopoe(mu, logvar, mask=seen)
    _, grad = mixture_of_experts_and_grad(z, *parts)
    got = mopoe_backward(grad.mu, grad.logvar, mu, logvar, mask=seen)
    by_mu = numerical_gradient(lambda a: objective(a, logvar), mu)
    by_logvar = numerical_gradient(lambda a: objective(mu, a), logvar)
    np.testing.assert_allclose(got.mu, by_mu, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(got.logvar, by_logvar, rtol=1e-7, atol=1e-8)


def test_threads(dtype, eight_cpus):
    mu, logvar, seen = draw(dtype, 4, 500, 33, "some")
    g = upstream(dtype, 4, (500, 33))
    alone = mopoe_backward(*g, mu, logvar, mask=seen, num_threads=1)
    for threads in (2, 3, 8):
        together = mopoe_backward(*g, mu, logvar, mask=seen, num_threads=threads)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


def test_errors():
    mu, logvar, _ = draw(np.float64)
    g, h = upstream(np.float64, 3, (5, 4))
    with pytest.raises(ValueError, match="grad_mu has shape"):
        mopoe_backward(g[:3], h, mu, logvar)
