"""product_of_experts_backward."""

import numpy as np
import pytest

from fastelbo import product_of_experts, product_of_experts_backward, reference
from tests.conftest import assert_close, numerical_gradient
from tests.experts import MASKS, SIZES, draw
from tests.test_threads import eight_cpus as eight_cpus


def upstream(dtype, shape):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype(dtype)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", SIZES)
def test_reference(size, mask, dtype):
    mu, logvar, seen = draw(dtype, *size, mask=mask)
    g = upstream(dtype, mu.shape[1:])
    got = product_of_experts_backward(*g, mu, logvar, mask=seen)
    expected = reference.product_of_experts_backward(*g, mu, logvar, mask=seen)
    assert_close(tuple(got), expected, dtype, (4 * np.abs(g[0]), 20 * (1 + np.abs(g).sum(axis=0))))
    if seen is not None:
        assert not got.mu[~seen].any()
        assert not got.logvar[~seen].any()


@pytest.mark.parametrize("prior", [True, False])
def test_differences(prior):
    mu, logvar, seen = draw(np.float64)
    g, h = upstream(np.float64, (5, 4))

    def objective(mu, logvar):
        q = product_of_experts(mu, logvar, mask=seen, prior=prior)
        return float((g * q.mu + h * q.logvar).sum())

    got = product_of_experts_backward(g, h, mu, logvar, mask=seen, prior=prior)
    by_mu = numerical_gradient(lambda a: objective(a, logvar), mu)
    by_logvar = numerical_gradient(lambda a: objective(mu, a), logvar)
    np.testing.assert_allclose(got.mu, by_mu, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(got.logvar, by_logvar, rtol=1e-7, atol=1e-8)


def test_torch():
    torch = pytest.importorskip("torch")
    mu, logvar, _ = draw(np.float64)
    g, h = upstream(np.float64, (5, 4))
    m, v = (torch.from_numpy(a).requires_grad_() for a in (mu, logvar))
    precision = torch.exp(-v).sum(0) + 1
    objective = (torch.from_numpy(g) * (m * torch.exp(-v)).sum(0) / precision).sum()
    objective = objective - (torch.from_numpy(h) * precision.log()).sum()
    expected = torch.autograd.grad(objective, (m, v))
    for mine, other in zip(product_of_experts_backward(g, h, mu, logvar), expected, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-12, atol=1e-13)


def test_threads(dtype, eight_cpus):
    mu, logvar, seen = draw(dtype, 4, 1000, 33, "some")
    g = upstream(dtype, (1000, 33))
    alone = product_of_experts_backward(*g, mu, logvar, mask=seen, num_threads=1)
    for threads in (2, 3, 8):
        together = product_of_experts_backward(*g, mu, logvar, mask=seen, num_threads=threads)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


def test_errors():
    mu, logvar, _ = draw(np.float64)
    g, h = upstream(np.float64, (5, 4))
    with pytest.raises(ValueError, match="grad_mu has shape"):
        product_of_experts_backward(g[:2], h, mu, logvar)
    with pytest.raises(ValueError, match="grad_logvar has shape"):
        product_of_experts_backward(g, h[None], mu, logvar)
    with pytest.raises(TypeError, match="grad_logvar"):
        product_of_experts_backward(g, h.astype(complex), mu, logvar)
    with pytest.raises(ValueError, match=r"out\.logvar overlaps"):
        product_of_experts_backward(g, h, mu, logvar, out=(None, mu))
