"""product_of_experts_backward."""

import numpy as np
import pytest

from fastelbo import product_of_experts, product_of_experts_backward
from tests.conftest import numerical_gradient
from tests.experts import draw


def upstream(dtype, shape):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype(dtype)


@pytest.mark.parametrize("prior", [True, False])
def test_differences(prior):
    mu, logvar = draw(np.float64)
    g, h = upstream(np.float64, (5, 4))

    def objective(mu, logvar):
        q = product_of_experts(mu, logvar, prior=prior)
        return float((g * q.mu + h * q.logvar).sum())

    got = product_of_experts_backward(g, h, mu, logvar, prior=prior)
    by_mu = numerical_gradient(lambda a: objective(a, logvar), mu)
    by_logvar = numerical_gradient(lambda a: objective(mu, a), logvar)
    np.testing.assert_allclose(got.mu, by_mu, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(got.logvar, by_logvar, rtol=1e-7, atol=1e-8)


def test_errors():
    mu, logvar = draw(np.float64)
    g, h = upstream(np.float64, (5, 4))
    with pytest.raises(ValueError, match="grad_mu has shape"):
        product_of_experts_backward(g[:2], h, mu, logvar)
    with pytest.raises(ValueError, match="grad_logvar has shape"):
        product_of_experts_backward(g, h[None], mu, logvar)
    with pytest.raises(TypeError, match="grad_logvar"):
        product_of_experts_backward(g, h.astype(complex), mu, logvar)
    with pytest.raises(ValueError, match=r"out\.logvar overlaps"):
        product_of_experts_backward(g, h, mu, logvar, out=(None, mu))
