"""kl_categorical and kl_categorical_and_grad."""

import numpy as np
import pytest
from mpmath import mp

from fastelbo import kl_bernoulli_and_grad, kl_categorical, kl_categorical_and_grad, reference
from tests.conftest import assert_close

INF = np.inf


def test_against_probabilities():
    """1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4) = log(2 / sqrt 3)."""
    logits, prior = np.log([[1.0, 1.0]]), np.log([1.0, 3.0])
    assert kl_categorical(logits, prior) == pytest.approx(np.log(2 / np.sqrt(3)), rel=1e-15)
    value, grad = kl_categorical_and_grad(logits, prior)
    np.testing.assert_allclose(grad.logits, [[np.log(3) / 4, -np.log(3) / 4]], rtol=1e-15)
    np.testing.assert_allclose(grad.prior_logits, [-0.25, 0.25], rtol=1e-15)
    assert value == kl_categorical(logits, prior)


def test_a_sample_adds_up_its_latents():
    logits = np.random.default_rng(0).normal(size=(4, 3, 2, 5))
    rows = kl_categorical(logits, reduction="none")
    parts = kl_categorical(logits.reshape(24, 5), reduction="none")
    np.testing.assert_allclose(rows, parts.reshape(4, 6).sum(axis=1), rtol=1e-14)
    assert kl_categorical(logits) == pytest.approx(rows.mean(), rel=1e-15)


def test_two_classes_are_a_bit():
    logits, prior = np.random.default_rng(1).normal(size=(2, 6, 3)) * 4
    value, grad = kl_bernoulli_and_grad(logits, prior)
    pair = kl_categorical_and_grad(*(np.stack([0 * a, a], axis=-1) for a in (logits, prior)))
    assert value == pytest.approx(pair[0], rel=1e-13)
    np.testing.assert_allclose(grad.logits, pair[1].logits[..., 1], rtol=1e-11)
    np.testing.assert_allclose(grad.prior_logits, pair[1].prior_logits[..., 1], rtol=1e-11)


def test_never_negative_and_nothing_at_equality():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(1000, 7)) * 10
    assert (kl_categorical(logits, logits, reduction="none") == 0).all()
    near = logits + 1e-12 * rng.normal(size=logits.shape)
    assert (kl_categorical(near, logits, reduction="none") >= 0).all()
    assert (kl_categorical(logits, logits + 5.0, reduction="none") < 1e-14).all()


def test_by_mpmath_far_from_each_other():
    logits, prior = [[0.0, 300.0, -200.0]], [500.0, 0.0, -700.0]
    with mp.workdps(60):
        p, p0 = ([mp.e**a / sum(mp.e**b for b in row) for a in row] for row in (logits[0], prior))
        exact = float(sum(a * mp.log(a / b) for a, b in zip(p, p0, strict=True)))
    assert kl_categorical(logits, prior) == pytest.approx(exact, rel=1e-14)


LIMITS = [
    # logits, prior, value, gradient, gradient of the prior
    ([0.0, -INF], [0.0, 0.0], np.log(2), [0, 0], [-0.5, 0.5]),
    ([INF, 3.0], [0.0, 0.0], np.log(2), [0, 0], [-0.5, 0.5]),
    ([INF, INF, 3.0], [0.0, 0.0, 0.0], np.log(1.5), [0, 0, 0], [-1 / 6, -1 / 6, 1 / 3]),
    ([0.0, -INF], [0.0, -INF], 0.0, [0, 0], [0, 0]),
    ([1e308, -1e308], [1e308, -1e308], 0.0, [0, 0], [0, 0]),
    ([0.0, 0.0], [0.0, -INF], INF, [-INF, INF], [0.5, -0.5]),
    ([-INF, 0.0], [0.0, -INF], INF, [0, 0], [1, -1]),
]


@pytest.mark.parametrize(("logits", "prior", "value", "gradient", "by_prior"), LIMITS)
@pytest.mark.parametrize("module", ["fastelbo", "reference"])
def test_limits(logits, prior, value, gradient, by_prior, module):
    call = kl_categorical_and_grad if module == "fastelbo" else reference.kl_categorical_and_grad
    got, (pull, push) = call([logits], prior)
    assert got == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(pull, [gradient], atol=1e-16)
    np.testing.assert_allclose(push, by_prior, atol=1e-16)


def test_nan_spoils_its_own_row_alone():
    logits = np.zeros((3, 2, 4))
    logits[1, 0, 2] = np.nan
    rows, grad = kl_categorical_and_grad(logits, reduction="none")
    np.testing.assert_array_equal(rows, [0, np.nan, 0])
    assert np.isnan(grad.logits[1, 0]).all()
    assert (grad.logits[[0, 2]] == 0).all()


@pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 4), (1, 1, 4), (5, 1, 4), (1, 3, 4)])
def test_a_shared_prior_has_its_gradient_in_its_own_shape(shape, dtype):
    rng = np.random.default_rng(3)
    logits, prior = (rng.normal(size=s).astype(dtype) for s in ((5, 3, 4), shape))
    value, grad = kl_categorical_and_grad(logits, prior, reduction="sum")
    whole, each = kl_categorical_and_grad(
        logits, np.broadcast_to(prior, logits.shape), reduction="sum"
    )
    assert value == pytest.approx(whole, rel=1e-6)
    assert grad.prior_logits.shape == shape
    assert_close(
        grad.prior_logits, reference.likelihoods.sum_to(each.prior_logits, shape), dtype, 10.0
    )


def test_out_and_no_prior():
    logits = np.random.default_rng(4).normal(size=(3, 5)).astype(np.float32)
    outs = np.empty_like(logits), np.empty(5, np.float32)
    _, grad = kl_categorical_and_grad(logits, np.zeros(5, np.float32), out=outs)
    assert grad.logits is outs[0]
    assert grad.prior_logits is outs[1]
    _, alone = kl_categorical_and_grad(logits, out=outs[:1])
    assert alone.prior_logits is None
    np.testing.assert_array_equal(alone.logits, grad.logits)


def test_errors():
    logits = np.zeros((2, 3, 4))
    for given, named in (
        ((np.zeros(4),), "logits has shape"),
        ((logits[:0],), "logits has an empty batch"),
        ((logits[..., :0],), "logits has no classes"),
        ((logits, np.zeros(3)), "prior_logits has shape"),
        ((logits, np.zeros(1)), "with every class"),
        ((logits, np.zeros((2, 2, 3, 4))), "prior_logits has shape"),
    ):
        with pytest.raises(ValueError, match=named):
            kl_categorical(*given)
    with pytest.raises(TypeError, match="prior_logits must hold real numbers"):
        kl_categorical(logits, "uniform")
    with pytest.raises(ValueError, match="reduction"):
        kl_categorical(logits, reduction="all")
    with pytest.raises(ValueError, match="overlaps"):
        kl_categorical_and_grad(logits, out=(logits,))
    with pytest.raises(TypeError, match="tuple of 1 arrays"):
        kl_categorical_and_grad(logits, out=logits)
