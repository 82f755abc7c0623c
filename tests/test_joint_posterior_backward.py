"""joint_posterior_backward: the way back, by central differences and by hand."""

import numpy as np
import pytest

from fastelbo import joint_posterior, joint_posterior_backward
from tests.conftest import numerical_gradient
from tests.modalities import METHODS, PRESENT, draw


def test_a_mixture_by_hand():
    """z = mu_0 + e^(logvar_0 / 2) 2 of the component drawn alone: dz / dlogvar = sigma."""
    experts = {"a": ([[1.0]], [[0.0]]), "b": ([[5.0]], [[0.0]])}
    q = joint_posterior(experts, method="moe", component=[0], noise=[[2.0]])
    grads = [[[10.0]], [[20.0]]], [[[30.0]], [[40.0]]]
    got = joint_posterior_backward([[3.0]], *grads, experts, q, method="moe")
    assert (got["a"].mu, got["a"].logvar) == (13.0, 33.0)
    assert (got["b"].mu, got["b"].logvar) == (20.0, 40.0)


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_central_differences(method, prior):
    """Of a sum of z and of the components, with weights of their own."""
    experts = draw()
    options = {"method": method, "present": PRESENT, "prior": prior}
    noise = np.random.default_rng(1).normal(size=(5, 3))
    q = joint_posterior(experts, rng=2, **options)
    q = joint_posterior(experts, component=q.component, noise=noise, **options)
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=a.shape) for a in (q.z, q.mu, q.logvar)]
    weights[1][~q.mask] = weights[2][~q.mask] = 0
    got = joint_posterior_backward(*weights, experts, q, **options)
    for name, pair in experts.items():
        for i, mine in enumerate(got[name]):

            def value(moved, name=name, i=i, pair=pair):
                changed = {**experts, name: (moved, pair[1]) if i == 0 else (pair[0], moved)}
                p = joint_posterior(changed, component=q.component, noise=noise, **options)
                return sum(
                    (w * a).sum() for w, a in zip(weights, (p.z, p.mu, p.logvar), strict=True)
                )

            expected = numerical_gradient(value, pair[i])
            np.testing.assert_allclose(mine, expected, rtol=1e-7, atol=1e-9)
            if name in PRESENT:
                np.testing.assert_array_equal(mine[~PRESENT[name]], 0)


def test_nothing_that_is_given_is_written_to():
    experts = draw()
    q = joint_posterior(experts, method="moe", rng=0)
    grads = [np.ones_like(a) for a in (q.z, q.mu, q.logvar)]
    joint_posterior_backward(*grads, experts, q, method="moe")
    assert all((grad == 1).all() for grad in grads)


def test_shapes_are_named():
    experts = draw()
    q = joint_posterior(experts, rng=0)
    with pytest.raises(ValueError, match=r"^grad_logvar has shape"):
        joint_posterior_backward(q.z, q.mu, q.mu[0], experts, q)
    with pytest.raises(ValueError, match=r"^grad_z has shape"):
        joint_posterior_backward(q.z[:2], q.mu, q.mu, experts, q)
