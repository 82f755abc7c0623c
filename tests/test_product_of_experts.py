"""product_of_experts."""

import numpy as np
import pytest

import fastelbo
from fastelbo import product_of_experts
from tests.experts import draw


def test_by_hand():
    """Precisions 4 and 1 and the prior's: 6 in all."""
    q = product_of_experts([[[3.0]], [[-6.0]]], np.log([[[0.25]], [[1.0]]]))
    assert q.mu[0, 0] == pytest.approx((4 * 3 - 6) / 6)
    assert q.logvar[0, 0] == pytest.approx(-np.log(6))


def test_tiny_and_huge_variances(dtype):
    mu = np.array([[[1.0, 2.0, 3.0]], [[5.0, 6.0, 7.0]]], dtype)
    logvar = np.array([[[-500.0, 500.0, -500.0]], [[500.0, 500.0, -500.0]]], dtype)
    q = product_of_experts(mu, logvar)
    np.testing.assert_allclose(q.mu[0, :2], [1.0, 0.0], atol=1e-200)
    np.testing.assert_allclose(q.mu[0, 2], 5.0)
    np.testing.assert_allclose(q.logvar[0], [-500, 0, -500 - np.log(2)], rtol=1e-6, atol=1e-6)
    q = product_of_experts(mu, logvar, prior=False)
    np.testing.assert_allclose(q.mu[0, 1], 4.0)
    np.testing.assert_allclose(q.logvar[0, 1], 500 - np.log(2), rtol=1e-6)


def test_errors():
    mu, logvar = draw(np.float64)
    nobody = np.zeros((3, 5), bool)
    product_of_experts(mu, logvar, mask=nobody)
    with pytest.raises(ValueError, match="mask leaves no expert for sample 0"):
        product_of_experts(mu, logvar, mask=nobody, prior=False)
    with pytest.raises(TypeError, match="mask must be boolean"):
        product_of_experts(mu, logvar, mask=np.ones((3, 5)))
    with pytest.raises(TypeError, match="prior"):
        product_of_experts(mu, logvar, prior=fastelbo.StandardNormal())
    for name, arrays, options in [
        ("mu", (mu[0], logvar[0]), {}),
        ("mu", (mu[:0], logvar[:0]), {}),
        ("mu", (mu[:, :0], logvar[:, :0]), {}),
        ("mu", np.zeros((2, 65, 1, 1)), {}),
        ("logvar", (mu, logvar[1:]), {}),
        ("mask", (mu, logvar), {"mask": nobody[:2]}),
    ]:
        with pytest.raises(ValueError, match=f"^{name} has"):
            product_of_experts(*arrays, **options)
