"""posterior_log_prob and its gradients."""

import math

import numpy as np
import pytest

import fastelbo
from fastelbo import posterior_log_prob, posterior_log_prob_and_grad
from tests.conftest import assert_close, numerical_gradient

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def draw(dtype, samples=4):
    rng = np.random.default_rng(0)
    z, mu, logvar = (rng.normal(size=s) for s in ((samples, 6, 3), (6, 3), (6, 3)))
    return tuple(a.astype(dtype) for a in (z, mu, logvar))


def test_by_hand():
    """(3 - 1)^2 / e^(2 log 2) = 1 and 0: -(1 + 2 log 2) / 2 - 0 - log(2 pi)."""
    z, mu, logvar = [[3.0, 0.0]], [[1.0, 0.0]], [[2 * math.log(2), 0.0]]
    value, grad = posterior_log_prob_and_grad(z, mu, logvar)
    assert value == pytest.approx(-0.5 - math.log(2) - 2 * HALF_LOG_2PI, rel=1e-15)
    assert posterior_log_prob(z, mu, logvar) == value
    np.testing.assert_allclose(grad.z, [[-0.5, 0.0]], rtol=1e-15)
    np.testing.assert_allclose(grad.mu, [[0.5, 0.0]], rtol=1e-15)
    np.testing.assert_allclose(grad.logvar, [[0.0, -0.5]], atol=1e-15)


def test_samples_are_as_one_by_one(dtype):
    z, mu, logvar = draw(dtype)
    rows, grad = posterior_log_prob_and_grad(z, mu, logvar, reduction="none")
    alone = [posterior_log_prob_and_grad(one, mu, logvar, reduction="none") for one in z]
    np.testing.assert_array_equal(rows, [values for values, _ in alone])
    np.testing.assert_array_equal(grad.z, [by.z for _, by in alone])
    for name in ("mu", "logvar"):
        each = np.array([getattr(by, name) for _, by in alone], np.float64)
        assert_close(getattr(grad, name), each.sum(axis=0), dtype, np.abs(each).sum(axis=0))
    assert posterior_log_prob(z, mu, logvar) == pytest.approx(rows.mean(), rel=1e-13)
    assert posterior_log_prob(z, mu, logvar, reduction="sum") == pytest.approx(rows.sum())


def test_gradients_by_differences():
    arrays = draw(np.float64)
    _, grad = posterior_log_prob_and_grad(*arrays)
    for i, got in enumerate(grad):
        expected = numerical_gradient(
            lambda a, i=i: posterior_log_prob(*arrays[:i], a, *arrays[i + 1 :]), arrays[i]
        )
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


def test_it_is_the_missing_term_of_log_weights():
    z, mu, logvar = draw(np.float64)
    x, x_recon = np.zeros((6, 2)), np.zeros((4, 6, 2))
    expected = fastelbo.StandardNormal().log_prob(z)
    expected -= posterior_log_prob(z, mu, logvar, reduction="none")
    np.testing.assert_allclose(
        fastelbo.log_weights(x, z, mu, logvar, x_recon), expected, rtol=1e-12, atol=1e-12
    )


def test_the_entropy_is_its_mean():
    """-E log q = (log(2 pi e) + logvar) / 2 a dimension."""
    mu, logvar = np.array([[5.0]]), np.array([[-3.0]])
    z = fastelbo.reparameterize(mu, logvar, rng=1, samples=100_000)
    entropy = 0.5 * (math.log(2 * math.pi * math.e) - 3.0)
    assert -posterior_log_prob(z, mu, logvar) == pytest.approx(entropy, abs=0.01)


def test_limits(dtype):
    """No width: infinitely dense where z is mu, and nowhere else; none at all for inf."""
    z, mu = (np.array(a, dtype) for a in ([[1.0], [2.0], [1.0]], [[1.0], [1.0], [1.0]]))
    logvar = np.array([[-np.inf], [-np.inf], [np.inf]], dtype)
    values = posterior_log_prob(z, mu, logvar, reduction="none")
    np.testing.assert_array_equal(values, [np.inf, -np.inf, -np.inf])
    value, grad = posterior_log_prob_and_grad(mu[:1], mu[:1], np.full((1, 1), -200, dtype))
    assert value == pytest.approx(100 - HALF_LOG_2PI, rel=1e-6)
    assert [by.item() for by in grad] == [0.0, 0.0, -0.5]


def test_out(dtype):
    arrays = draw(dtype)
    outs = tuple(np.full_like(a, 77) for a in arrays)
    _, gradients = posterior_log_prob_and_grad(*arrays, out=outs)
    _, expected = posterior_log_prob_and_grad(*arrays)
    for mine, out, other in zip(gradients, outs, expected, strict=True):
        assert mine is out
        np.testing.assert_array_equal(out, other)
    for i, name in enumerate(gradients._fields):
        with pytest.raises(ValueError, match=f"out.{name} overlaps"):
            posterior_log_prob_and_grad(*arrays, out=(*outs[:i], arrays[i], *outs[i + 1 :]))


@pytest.mark.parametrize("function", [posterior_log_prob, posterior_log_prob_and_grad])
def test_errors(function):
    z, mu, logvar = draw(np.float64)
    for name, wrong in [
        ("z", (z[:0], mu, logvar)),
        ("z", (z[:, :2], mu, logvar)),
        ("z", (z[None], mu, logvar)),
        ("z", (z[0, 0], mu, logvar)),
        ("mu", (z, mu[0], logvar)),
        ("logvar", (z, mu, logvar[:, :2])),
    ]:
        with pytest.raises(ValueError, match=f"^{name} has shape"):
            function(*wrong)
    with pytest.raises(TypeError, match=r"^logvar "):
        function(z, mu, "text")
    with pytest.raises(ValueError, match="reduction"):
        function(z, mu, logvar, reduction="median")
