"""kl_bernoulli and kl_bernoulli_and_grad."""

import numpy as np
import pytest
from mpmath import mp

from fastelbo import kl_bernoulli, kl_bernoulli_and_grad, reference

INF = np.inf


def test_against_probabilities():
    """p = 1/2 and p0 = 1/4, as for two classes: log(2 / sqrt 3)."""
    value, grad = kl_bernoulli_and_grad([[0.0]], [-np.log(3)])
    assert value == pytest.approx(np.log(2 / np.sqrt(3)), rel=1e-15)
    assert grad.logits[0, 0] == pytest.approx(np.log(3) / 4, rel=1e-15)
    assert grad.prior_logits[0] == pytest.approx(-0.25, rel=1e-15)


@pytest.mark.parametrize("a", [-700.0, -30.0, -1.0, 0.0, 3.0, 50.0])
@pytest.mark.parametrize("b", [-800.0, -2.0, 0.0, 1.0, 60.0])
def test_by_mpmath(a, b):
    """In value and gradient, both tails."""
    with mp.workdps(700):
        p, p0 = (1 / (1 + mp.exp(-mp.mpf(x))) for x in (a, b))
        exact = p * mp.log(p / p0) + (1 - p) * mp.log((1 - p) / (1 - p0))
        pull, push = p * (1 - p) * (mp.mpf(a) - b), p0 - p
        exact, pull, push = (float(x) for x in (exact, pull, push))
    value, grad = kl_bernoulli_and_grad([[a]], [b])
    assert value == pytest.approx(exact, rel=1e-13, abs=1e-15 if a == b else 1e-300)
    assert grad.logits[0, 0] == pytest.approx(pull, rel=1e-13)
    assert grad.prior_logits[0] == pytest.approx(push, rel=1e-13)


LIMITS = [
    # logit, prior, value, gradient, gradient of the prior
    (INF, 0.0, np.log(2), 0, -0.5),
    (-INF, 0.0, np.log(2), 0, 0.5),
    (INF, INF, 0.0, 0, 0),
    (-INF, -INF, 0.0, 0, 0),
    (INF, -INF, INF, 0, -1),
    (-INF, INF, INF, 0, 1),
    (0.0, INF, INF, -INF, 0.5),
    (0.0, -INF, INF, INF, -0.5),
    (1e308, 1e308, 0.0, 0, 0),
    (1e308, -1e300, 1e300, 0, -1),
]


@pytest.mark.parametrize(("logit", "prior", "value", "gradient", "by_prior"), LIMITS)
@pytest.mark.parametrize("module", ["fastelbo", "reference"])
def test_limits(logit, prior, value, gradient, by_prior, module):
    call = kl_bernoulli_and_grad if module == "fastelbo" else reference.kl_bernoulli_and_grad
    got, (pull, push) = call([[logit]], [prior])
    assert got == pytest.approx(value, rel=1e-15)
    assert (pull[0, 0], push[0]) == (gradient, by_prior)


def test_a_number_keeps_the_dtype_and_an_event_may_be_a_scalar():
    logits = np.float32([1.0, -2.0])
    value, grad = kl_bernoulli_and_grad(logits, -1.5, reduction="none")
    assert value.shape == (2,)
    assert grad.logits.dtype == grad.prior_logits.dtype == np.float32
    assert grad.prior_logits.shape == ()
    expected = reference.kl_bernoulli(logits, -1.5, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_never_negative():
    logits = np.random.default_rng(0).normal(size=(1000, 3)) * 10
    near = logits * (1 + 1e-15)
    assert (kl_bernoulli(near, logits, reduction="none") >= 0).all()
    assert kl_bernoulli(logits, logits) == 0


def test_errors():
    for given, named in (
        ((0.0,), "logits has shape"),
        (([],), "logits has an empty batch"),
        (([[0.0]], [0.0, 0.0]), "prior_logits has shape"),
    ):
        with pytest.raises(ValueError, match=named):
            kl_bernoulli(*given)
    with pytest.raises(ValueError, match="reduction"):
        kl_bernoulli([0.0], reduction="all")
