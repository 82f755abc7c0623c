"""Discretized logistic over the bins of pixels."""

import math

import mpmath
import numpy as np
import pytest

from fastelbo import DiscretizedLogistic
from tests.conftest import DTYPES, TOLERANCE, together
from tests.likelihood_checks import exact, offends


def density(x, mean, log_scale, bins=256):
    """By the product, which mpmath, too, can evaluate in the tails."""

    def log_sigmoid(a):
        return -mpmath.log1p(mpmath.exp(-a)) if a > 0 else a - mpmath.log1p(mpmath.exp(a))

    inverse = mpmath.exp(-log_scale)
    centre, half = 2 * x / mpmath.mpf(bins - 1) - 1, 1 / mpmath.mpf(bins - 1)
    hi, lo = (centre + half - mean) * inverse, (centre - half - mean) * inverse
    if x == 0:
        return log_sigmoid(hi)
    if x == bins - 1:
        return log_sigmoid(-lo)
    return log_sigmoid(hi) + log_sigmoid(-lo) + mpmath.log(-mpmath.expm1(lo - hi))


def test_product_of_sigmoids():
    """What `density` relies on."""
    with mpmath.workdps(60):
        for x in (0, 3, 255):
            mean, scale = mpmath.mpf("0.3"), mpmath.exp(-2)

            def cdf(edge, mean=mean, scale=scale):
                return 1 / (1 + mpmath.exp((mean - edge) / scale))

            above = 1 if x == 255 else cdf((2 * x + 1) / mpmath.mpf(255) - 1)
            below = 0 if x == 0 else cdf((2 * x - 1) / mpmath.mpf(255) - 1)
            difference = density(x, mean, mpmath.mpf(-2)) - mpmath.log(above - below)
            assert abs(difference) < mpmath.mpf("1e-50")


@pytest.mark.parametrize("mean", [-5.0, -0.3, 0.0, 1.0, 40.0])
@pytest.mark.parametrize("x", [0, 1, 128, 254, 255])
@together(log_scale=[-9.0, -6.0, -4.0, 0.0, 20.0], dtype=DTYPES)
def test_mpmath(x, mean, log_scale, dtype):
    """Tails, where the two sigmoids are equal to the last digit, and scales far below a bin."""
    steep = math.exp(-log_scale)
    size = 1 + (1 + abs(mean)) * steep
    size = size * (1 + abs(log_scale))
    sizes = (size, size * steep, size * size)
    exact(DiscretizedLogistic(), x, (mean, log_scale), density, dtype, sizes=sizes)


@pytest.mark.parametrize("bins", [2, 5, 256, 65_536])
@pytest.mark.parametrize("log_scale", [-7.0, -2.0, 1.0])
def test_masses_add_up_to_one(bins, log_scale, dtype):
    x = np.arange(bins)[:, None]
    mean, log_scale = np.full(x.shape, 0.3, dtype), np.full(x.shape, log_scale, dtype)
    learned = DiscretizedLogistic(bins=bins).log_prob(x, mean, log_scale, reduction="none")
    assert np.exp(learned).sum() == pytest.approx(1.0, abs=300 * TOLERANCE[dtype])
    scale = math.exp(float(log_scale[0, 0]))
    fixed = DiscretizedLogistic(scale, bins=bins).log_prob(x, mean, reduction="none")
    assert np.exp(fixed).sum() == pytest.approx(1.0, abs=300 * TOLERANCE[dtype])


def test_certain_pixel_keeps_its_digits(dtype):
    """Minus the probability of all other bins, however small."""
    log_scale = math.log(1 / 255 / 60)
    args = [np.full((1, 1), a, dtype) for a in (2 * 51 / 255 - 1, log_scale)]
    value = DiscretizedLogistic().log_prob([[51]], *args)
    assert -1e-24 < value < -1e-27


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x, mean, log_scale = rng.integers(0, 9, (9, 600)), *rng.normal(size=(2, 9, 600))
    likelihood = DiscretizedLogistic(bins=9)
    offends(likelihood, dtype, x, mean, log_scale, bad=(-1, 9, 0.5, np.inf))


@pytest.mark.parametrize("bins", [1, 0, 2.5, np.nan, np.inf])
def test_errors(bins):
    with pytest.raises(ValueError, match="bins"):
        DiscretizedLogistic(bins=bins)
    with pytest.raises(ValueError, match="scale"):
        DiscretizedLogistic(-1.0)
    with pytest.raises(TypeError, match="bins"):
        DiscretizedLogistic(bins="many")
