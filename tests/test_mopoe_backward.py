"""mopoe_backward."""

import numpy as np
import pytest

from fastelbo import (
    mixture_of_experts,
    mixture_of_experts_and_grad,
    mopoe,
    mopoe_backward,
)
from tests.conftest import numerical_gradient
from tests.experts import draw


def upstream(dtype, experts, shape):
    g = np.random.default_rng(1).normal(size=(2, 2**experts - 1, *shape))
    return g.astype(dtype)


@pytest.mark.parametrize("prior", [True, False, "full"])
def test_differences_of_the_mixture(prior):
    """Through the density of the MoPoE posterior: forward and back, composed."""
    mu, logvar = draw(np.float64)
    z = np.random.default_rng(2).normal(size=(2, 5, 4))

    def objective(mu, logvar):
        return mixture_of_experts(z, *mopoe(mu, logvar, prior=prior))

    parts = mopoe(mu, logvar, prior=prior)
    _, grad = mixture_of_experts_and_grad(z, *parts)
    got = mopoe_backward(grad.mu, grad.logvar, mu, logvar, prior=prior)
    by_mu = numerical_gradient(lambda a: objective(a, logvar), mu)
    by_logvar = numerical_gradient(lambda a: objective(mu, a), logvar)
    np.testing.assert_allclose(got.mu, by_mu, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(got.logvar, by_logvar, rtol=1e-7, atol=1e-8)


def test_errors():
    mu, logvar = draw(np.float64)
    g, h = upstream(np.float64, 3, (5, 4))
    with pytest.raises(ValueError, match="grad_mu has shape"):
        mopoe_backward(g[:3], h, mu, logvar)
