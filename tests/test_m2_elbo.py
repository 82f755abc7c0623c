"""m2_elbo and m2_elbo_and_grad: the objective of samples of which some have labels."""

import math

import numpy as np
import pytest

from fastelbo import Bernoulli, kl_standard_normal, m2_elbo, m2_elbo_and_grad

LOG_JOINT = np.log([[0.1, 0.3, 0.2]])
INF = math.inf


def test_an_exact_classifier_gives_the_evidence(dtype):
    """q = p(y|x): sum_y q (log p(x, y) - log q) = log p(x), and its gradient by logits vanishes."""
    joint = LOG_JOINT.astype(dtype)
    value, grad = m2_elbo_and_grad(joint, joint + dtype.type(7), [-1])
    rtol = 10 * float(np.finfo(dtype).eps)
    assert value == pytest.approx(math.log(0.6), rel=rtol)
    np.testing.assert_allclose(grad.log_joint, [[1 / 6, 1 / 2, 1 / 3]], rtol=rtol)
    np.testing.assert_allclose(grad.logits, 0, atol=rtol)
    assert grad.logits.dtype == dtype


def test_by_hand():
    """q = (1/4, 3/4) and L = (-1, -3), with label 0, label 1 and none, alpha = 2."""
    logits = np.tile([0.0, math.log(3)], (3, 1))
    joint = np.tile([-1.0, -3.0], (3, 1))
    value, grad = m2_elbo_and_grad(joint, logits, [0, 1, -1], alpha=2, reduction="none")
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    wanted = [-1 - 2 * math.log(4), -3 - 2 * math.log(4 / 3), -2.5 + entropy]
    np.testing.assert_allclose(value, wanted, rtol=1e-15)
    np.testing.assert_allclose(grad.log_joint, [[1, 0], [0, 1], [0.25, 0.75]], rtol=1e-15)
    # Without a label: q_0 q_1 (L_0 - L_1 - log q_0 + log q_1)
    slope = 3 / 16 * (2 + math.log(3))
    np.testing.assert_allclose(grad.logits, [[1.5, -1.5], [-0.5, 0.5], [slope, -slope]], rtol=1e-15)
    mean, of_mean = m2_elbo_and_grad(joint, logits, [0, 1, -1], alpha=2)
    assert mean == pytest.approx(np.mean(wanted), rel=1e-15)
    np.testing.assert_allclose(of_mean.logits * 3, grad.logits, rtol=1e-15)


@pytest.mark.parametrize("impossible", [-INF, -1e5])
def test_an_impossible_class_adds_nothing(impossible):
    """0 log 0 = 0, and 0 times a log p of -inf."""
    value, grad = m2_elbo_and_grad([[-1.0, -INF]], [[0.0, impossible]], [-1])
    assert value == -1
    np.testing.assert_array_equal(grad.log_joint, [[1, 0]])
    np.testing.assert_array_equal(grad.logits, [[0, 0]])


def test_logits_of_infinity():
    """A certain class is all there is; two of them share; a certain error is infinite."""
    joint = [[-1.0, -3.0]]
    assert m2_elbo(joint, [[INF, 0.0]], [-1]) == -1
    assert m2_elbo(joint, [[INF, INF]], [-1]) == pytest.approx(-2 + math.log(2), rel=1e-15)
    assert m2_elbo(joint, [[-INF, -INF]], [0]) == pytest.approx(-1 - math.log(2), rel=1e-15)
    value, grad = m2_elbo_and_grad(joint, [[INF, 0.0]], [1])
    assert value == -INF
    np.testing.assert_array_equal(grad.logits, [[-1, 1]])
    assert m2_elbo(joint, [[INF, 0.0]], [1], alpha=0) == -3


def test_nearly_certain():
    """log q of the label is -e^-50, not 0."""
    value, grad = m2_elbo_and_grad([[0.0, 0.0]], [[50.0, 0.0]], [0])
    assert value == pytest.approx(-math.exp(-50), rel=1e-14)
    np.testing.assert_allclose(grad.logits, math.exp(-50) * np.array([[1, -1]]), rtol=1e-14)


def test_nan_of_a_class_that_does_not_count():
    """What the decoder made of other classes is not read where there is a label."""
    assert m2_elbo([[np.nan, -3.0]], [[0.0, 0.0]], [1], alpha=0) == -3
    assert math.isnan(m2_elbo([[np.nan, -3.0]], [[0.0, 0.0]], [-1]))
    assert math.isnan(m2_elbo([[-1.0, -3.0]], [[0.0, np.nan]], [-1]))


def test_with_a_likelihood_of_every_class():
    """Decoder outputs (C, B, D) give log p(x|y, z) as (C, B), and that the log joint."""
    rng = np.random.default_rng(0)
    x, outputs = rng.integers(0, 2, (4, 6)), rng.normal(size=(3, 4, 6))
    mu, logvar, logits = rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    log_p = Bernoulli().log_prob(x, outputs, reduction="none")
    kl = kl_standard_normal(mu, logvar, reduction="none")
    joint = (log_p - kl).T - math.log(3)
    y = np.array([2, -1, 0, -1])
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = [joint[i, y[i]] + np.log(q[i, y[i]]) for i in (0, 2)]
    wanted += [np.sum(q[i] * (joint[i] - np.log(q[i]))) for i in (1, 3)]
    assert m2_elbo(joint, logits, y, reduction="sum") == pytest.approx(np.sum(wanted), rel=1e-13)


@pytest.mark.parametrize("label", [3, -2, 0.5, np.nan, INF])
def test_a_label_that_is_no_class(label):
    y = np.array([0, label])
    with pytest.raises(ValueError, match=r"y\[1\] = .* whole numbers from 0 to 2"):
        m2_elbo(np.zeros((2, 3)), np.zeros((2, 3)), y)


def test_wrong_arguments():
    zero = np.zeros((2, 3))
    with pytest.raises(ValueError, match="y has shape"):
        m2_elbo(zero, zero, [0])
    with pytest.raises(ValueError, match="log_joint has shape"):
        m2_elbo(zero[:, :2], zero, [0, 1])
    with pytest.raises(ValueError, match="logits has shape"):
        m2_elbo(zero[0], zero[0], [0])
    with pytest.raises(ValueError, match="logits has an empty batch"):
        m2_elbo(zero[:0], zero[:0], [])
    with pytest.raises(ValueError, match="alpha must"):
        m2_elbo(zero, zero, [0, 1], alpha=-1)
    with pytest.raises(TypeError, match="y must"):
        m2_elbo(zero, zero, ["a", "b"])


def test_tensors_have_the_same_limits(composite):
    """By the kernel and in PyTorch's operations, where a logit or a class is infinite."""
    torch = pytest.importorskip("torch")
    import fastelbo.torch as ft

    inf = np.inf
    log_joint = [[-1.0, -inf], [-2.0, -3.0], [-2.0, -3.0], [-1.0, -700.0]]
    logits, y = [[0.0, -inf], [inf, 0.0], [inf, 0.0], [800.0, 0.0]], [-1, 0, -1, 1]
    expected, grads = m2_elbo_and_grad(log_joint, logits, y, reduction="none")
    for force in (lambda: None, composite):
        force()
        leaves = [
            torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (log_joint, logits)
        ]
        value = ft.m2_elbo(*leaves, torch.tensor(y), reduction="none")
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-13)
        for mine, theirs in zip(torch.autograd.grad(value.sum(), leaves), grads, strict=True):
            assert np.isfinite(theirs).all()
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-13)
    with pytest.raises(TypeError, match="y cannot be differentiated"):
        ft.m2_elbo(*leaves, torch.zeros(4, requires_grad=True))
    with pytest.raises(ValueError, match=r"y\[1\] = 2"):
        ft.m2_elbo(*leaves, torch.tensor([0, 2, 0, 0]))
