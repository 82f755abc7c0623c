"""vimco and vimco_and_grad; what they share with other bounds is in test_importance_bound.py."""

from itertools import product

import numpy as np
import pytest

from fastelbo import vimco, vimco_and_grad


def test_small_differences(dtype):
    """Of nearly equal weights: to first order log w_k less the mean of the others, over K."""
    log_w = np.array([[1.0], [2.0], [-3.0]]) * 2.0**-30
    _, grad = vimco_and_grad(log_w.astype(dtype))
    others = (log_w.sum() - log_w) / 2
    np.testing.assert_allclose(grad.log_q, (log_w - others) / 3, rtol=1e-6)


def test_without_the_largest():
    """The weights that remain are 1e-200 of it, and are all that its baseline has."""
    log_w = np.array([[500.0], [1.0], [2.0], [3.0]])
    _, grad = vimco_and_grad(log_w)
    rest = np.log(np.exp([1.0, 2.0, 3.0]).sum() + np.exp(2.0))
    assert grad.log_q[0, 0] == pytest.approx(500 - rest, rel=1e-14)
    _, grad = vimco_and_grad(log_w + np.array([[300.0], [0], [0], [0]]))
    assert grad.log_q[0, 0] == pytest.approx(800 - rest, rel=1e-14)
    assert np.all(np.abs(grad.log_q[1:]) < 1e-100)


def exact_gradient(f, logits, samples):
    """d/d logits of E f(z_1 .. z_K) over Bernoulli z, by enumeration; f maps (K,) to a number."""
    gradient = np.zeros(1)
    p = 1 / (1 + np.exp(-logits))
    for z in product([0, 1], repeat=samples):
        z = np.array(z)
        probability = np.prod(np.where(z == 1, p, 1 - p))
        gradient += probability * f(z)
    return gradient


def test_unbiased_by_enumeration():
    """E of the estimate is the derivative of E L_K, for one Bernoulli latent and K = 3."""
    joint = np.log([0.15, 0.4])  # log p(x, z) of z = 0 and z = 1

    def log_w_of(z, logit):
        log_q = -np.logaddexp(0, np.where(z == 1, -logit, logit))
        return joint[z] - log_q, (z - 1 / (1 + np.exp(-logit)))  # and d log q / d logit

    def bound(logit):
        return exact_gradient(lambda z: vimco(log_w_of(z, logit)[0][:, None]), logit, 3)[0]

    def estimate(z):
        log_w, score = log_w_of(z, 0.3)
        _, grad = vimco_and_grad(log_w[:, None])
        return grad.log_q[:, 0] @ score - grad.log_w[:, 0] @ score  # d log w = -d log q here

    h = 1e-4
    slope = (8 * (bound(0.3 + h) - bound(0.3 - h)) - bound(0.3 + 2 * h) + bound(0.3 - 2 * h)) / (
        12 * h
    )
    assert exact_gradient(estimate, 0.3, 3)[0] == pytest.approx(slope, rel=1e-9)
