"""delta_posterior_backward."""

import numpy as np
import pytest

from fastelbo import delta_posterior, delta_posterior_backward
from tests.conftest import numerical_gradient


@pytest.mark.parametrize("delta", [1e-3, 0.3, 5.0])
def test_it_is_the_derivative(delta):
    rng = np.random.default_rng(0)
    mu, logvar, by_mu, by_logvar = rng.normal(size=(4, 3, 2))

    def objective(mu, logvar):
        mean, between = delta_posterior(mu, logvar, delta=delta)
        return float((by_mu * mean).sum() + (by_logvar * between).sum())

    grad = delta_posterior_backward(by_mu, by_logvar, mu, logvar, delta=delta)
    close = {"rtol": 1e-7, "atol": 1e-8}
    expected = numerical_gradient(lambda a: objective(a, logvar), mu, 1e-4)
    np.testing.assert_allclose(grad.mu, expected, **close)
    expected = numerical_gradient(lambda a: objective(mu, a), logvar, 1e-4)
    np.testing.assert_allclose(grad.logvar, expected, **close)


def test_by_hand():
    """Of logvar at r = 1/2 a quarter of the interval; of mu none where it is not positive."""
    interval = np.ptp(delta_posterior([[0.0, 0.0]], [[-99.0, 99.0]], delta=0.5)[1])
    grad = delta_posterior_backward([[0.0]], [[1.0]], [[-2.0]], [[0.0]], delta=0.5)
    np.testing.assert_allclose(grad.logvar, [[interval / 4]])
    np.testing.assert_array_equal(grad.mu, [[0.0]])
    grad = delta_posterior_backward([[6.0]], [[0.0]], [[1e30]], [[0.0]], delta=0.5)
    np.testing.assert_allclose(grad.mu, [[3e-15]])


def test_limits(dtype):
    """At the ends of the interval, where the mean vanishes, its slope by logvar does."""
    ones = np.ones((1, 4), dtype)
    mu = np.array([[-1.0, 0.0, -np.inf, np.inf]], dtype)
    logvar = np.array([[np.inf, -np.inf, -200.0, 0.0]], dtype)
    grad = delta_posterior_backward(ones, ones, mu, logvar, delta=0.1)
    np.testing.assert_array_equal(grad.mu, np.zeros((1, 4)))
    assert (abs(grad.logvar[0, :3]) < 1e-30).all()
    assert grad.logvar.dtype == dtype
    far = np.linspace(5, 60, 200, dtype=dtype).reshape(-1, 1)
    one = np.ones_like(far)
    slopes = delta_posterior_backward(one, 0 * one, -one, far, delta=0.1).logvar
    assert np.isfinite(slopes).all()
    assert abs(slopes[-1, 0]) < 1e-6


def test_errors():
    zero = [[0.0]]
    with pytest.raises(ValueError, match="grad_mu has shape"):
        delta_posterior_backward([0.0], zero, zero, zero, delta=0.1)
    with pytest.raises(ValueError, match="grad_logvar has shape"):
        delta_posterior_backward(zero, [[0.0, 1.0]], zero, zero, delta=0.1)
    with pytest.raises(TypeError, match="out must be a tuple"):
        delta_posterior_backward(zero, zero, zero, zero, delta=0.1, out=np.zeros((1, 1)))
