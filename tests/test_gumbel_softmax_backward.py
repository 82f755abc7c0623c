"""gumbel_softmax_backward."""

import numpy as np
import pytest

from fastelbo import gumbel_softmax, gumbel_softmax_backward
from tests.conftest import numerical_gradient


def test_worked_by_hand():
    """y (g - sum g y) / tau, with y = (1/4, 3/4), g = (1, 0): 3/16 / tau."""
    grad = gumbel_softmax_backward([[1.0, 0.0]], [[0.0, 0.0]], [[0.25, 0.75]], tau=0.5)
    np.testing.assert_allclose(grad, [[0.375, -0.375]], rtol=1e-15)


@pytest.mark.parametrize("samples", [None, 3])
def test_is_the_derivative(samples):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 2, 3))
    weights = rng.normal(size=logits.shape if samples is None else (samples, *logits.shape))
    given = {"tau": 0.6, "rng": 5}

    def value(a):
        return float((weights * gumbel_softmax(a, samples=samples, **given)).sum())

    expected = numerical_gradient(value, logits)
    y = gumbel_softmax(logits, samples=samples, **given)
    for got in (
        gumbel_softmax_backward(weights, logits, y, tau=0.6),
        gumbel_softmax_backward(weights, logits, None, **given),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def test_errors():
    a = np.zeros((2, 3))
    for given, options, error, named in (
        ((a[:1], a, a), {}, ValueError, "grad_y has shape"),
        ((a[None][:0], a, a), {}, ValueError, "grad_y has shape"),
        ((a, a, a[:1]), {}, ValueError, "y has shape"),
        ((a, a, None), {}, TypeError, "y is None"),
        ((a, a, a), {"tau": -1.0}, ValueError, "tau"),
        ((a, a, None), {"rng": np.random.default_rng(0)}, TypeError, "Generator has moved on"),
        ((a, a, None), {"rng": 1, "noise": a}, ValueError, "rng or noise"),
        ((a, a, None), {"noise": a[:1]}, ValueError, "noise has shape"),
        ((a, a, a), {"out": a}, ValueError, "overlaps"),
    ):
        with pytest.raises(error, match=named):
            gumbel_softmax_backward(*given, **options)
