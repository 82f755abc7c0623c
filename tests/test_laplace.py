"""Laplace: a fixed scale, one per feature, a learned one."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from fastelbo import Laplace, reference
from tests.conftest import assert_close
from tests.likelihood_checks import exact


def draw(shape, dtype, count=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for _ in range(count)]


def test_by_hand():
    value, (gradient,) = Laplace(2.0).log_prob_and_grad([[3.0, -1.0]], [[1.0, -1.0]])
    assert value == pytest.approx(-1.0 - 2 * math.log(4.0), rel=1e-15)
    np.testing.assert_array_equal(gradient, [[0.5, 0.0]])


@pytest.mark.parametrize("log_scale", [-20.0, -1.0, 0.0, 0.3, 15.0])
@pytest.mark.parametrize(("x", "x_recon"), [(1.0, -0.5), (-3.0, 2.0), (1e4, 1.0)])
def test_mpmath(x, x_recon, log_scale, dtype):
    def density(x, m, s):
        return -abs(x - m) * mpmath.exp(-s) - s - mpmath.log(2)

    size = abs(x - x_recon) * math.exp(-log_scale) + abs(log_scale) + 1
    sizes = (size, 0.0, size)
    exact(Laplace("learned"), x, (x_recon, log_scale), density, dtype, sizes=sizes)


@pytest.mark.parametrize("scale", [1e-7, 0.3, 1e6])
def test_fixed_scale(scale, dtype):
    """Neither 1 / scale nor its logarithm is rounded more than once."""
    x, x_recon, _ = draw((20, 30), dtype)
    got = Laplace(scale).log_prob_and_grad(x, x_recon, reduction="none")
    expected = reference.Laplace(scale).log_prob_and_grad(x, x_recon, reduction="none")
    size = 30 * (4 / scale + abs(math.log(scale)) + 1)
    assert_close(got, expected, dtype, (size, (1 / scale,)))


def test_scale_per_feature(dtype):
    x, x_recon, _ = draw((20, 30), dtype)
    scale = np.linspace(0.2, 3.0, 30)
    got = Laplace(scale).log_prob(x, x_recon, reduction="none")
    wide = x.astype(np.float64), x_recon.astype(np.float64)
    expected = scipy.stats.laplace.logpdf(*wide, scale).sum(axis=1)
    assert_close(got, expected, dtype, 300.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan, "best", "optimal", [1.0, 0.0]])
def test_errors(bad):
    with pytest.raises(ValueError, match="scale"):
        Laplace(bad)


def test_the_smallest_errors_pull():
    """Where the error over the scale underflows, the error still has a sign."""
    tiny = np.array([[np.finfo(np.float64).tiny]])
    for laplace, parameters, pull in (
        (Laplace(1e30), (), 1e-30),
        (Laplace("learned"), ([[69.0]],), np.exp(-69.0)),
    ):
        for x, sign in ((tiny, 1.0), (-tiny, -1.0), (0.0 * tiny, 0.0)):
            gradient = laplace.log_prob_and_grad(x, [[0.0]], *parameters)[1][0]
            assert gradient.item() == pytest.approx(sign * pull, rel=1e-13)
