"""cubo and cubo_and_grad; what they share with other bounds is in test_importance_bound.py."""

import numpy as np
import pytest

from fastelbo import (
    cubo,
    cubo_and_grad,
    importance_bound,
    importance_bound_and_grad,
    log_weights,
)
from tests.importance import LinearGaussian


def test_is_a_renyi_bound():
    log_w = np.random.default_rng(0).normal(size=(20, 7))
    assert cubo(log_w) == importance_bound(log_w, alpha=-1)
    assert cubo(log_w, n=1) == importance_bound(log_w)
    _, (grad,) = cubo_and_grad(log_w, n=3)
    np.testing.assert_array_equal(grad, importance_bound_and_grad(log_w, alpha=-2)[1].log_w)


def test_lies_above_the_evidence():
    """With many samples of a posterior that is too wide, whose weights are bounded."""
    model = LinearGaussian()
    mu, logvar = model.mu, model.logvar + 0.4
    z = model.sample(mu, logvar, 20_000, 0)
    log_w = log_weights(model.x, z, mu, logvar, model.decode(z), likelihood=model.likelihood)
    assert np.all(cubo(log_w, reduction="none") > model.log_evidence)
    assert np.all(importance_bound(log_w, alpha=0.5, reduction="none") < model.log_evidence)


@pytest.mark.parametrize("n", [0, 0.5, -2, np.inf, np.nan, "two", None])
def test_wrong_n(n):
    with pytest.raises((TypeError, ValueError), match="n must"):
        cubo(np.zeros((2, 2)), n=n)
    with pytest.raises((TypeError, ValueError), match="n must"):
        cubo_and_grad(np.zeros((2, 2)), n=n)
