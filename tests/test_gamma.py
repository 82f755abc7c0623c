"""What is left of the gamma functions, against mpmath; those of one argument in `tests.vecmath`."""

import mpmath
import numpy as np
import pytest

from fastelbo import _builds
from tests.conftest import TOLERANCE

kernels = _builds.kernels("vecmath")

GRID = [*np.geomspace(1e-20, 1e20, 81), 0.25, 0.999, 1.0, 1.001, 2.0, 3.5, 9.99, 10.0, 30.0]


def compare(dtype, got, exact, sizes):
    """Errors in units of sizes: of the terms that the header of gamma.pxd names."""
    with mpmath.workdps(60):
        for g, e, size in zip(got, exact, sizes, strict=True):
            error = abs(mpmath.mpf(float(g)) - e)
            assert error <= TOLERANCE[dtype] * abs(size) + float(np.finfo(dtype).tiny), (g, e)


def outputs(dtype, n):
    return np.empty(n, dtype), np.empty(n, dtype)


def test_log1p(dtype):
    u = np.array([-0.999, -0.3, -0.29, -1e-8, 0.0, 1e-20, 1e-3, 0.41, 0.42, 1.0, 1e8, 1e30], dtype)
    whole, minus = outputs(dtype, u.size)
    kernels.log1p(u, whole, minus)
    with mpmath.workdps(60):
        given = [mpmath.mpf(float(v)) for v in u]
        exact = [mpmath.log1p(v) for v in given]
        compare(dtype, whole, exact, exact)
        exact = [e - v for e, v in zip(exact, given, strict=True)]
        sizes = [e if abs(v) < 0.29 else abs(e) + abs(v) for e, v in zip(exact, given, strict=True)]
        compare(dtype, minus, exact, sizes)


def test_log1p_at_its_edges(dtype):
    whole, minus = outputs(dtype, 4)
    kernels.log1p(np.array([-1.0, -2.0, np.inf, np.nan], dtype), whole, minus)
    np.testing.assert_array_equal(whole, [-np.inf, np.nan, np.inf, np.nan])


@pytest.mark.parametrize("ratio", [1e-25, 1e-3, 0.7, 0.708, 0.9999, 1.0, 1.3, 1.415, 50.0, 1e25])
def test_deviance(ratio, dtype):
    """Where x and m are near each other to all its digits, however small."""
    x = np.array([1.0, 3.0, 1e6, 1e10], dtype)
    m = (x * ratio).astype(dtype)
    got = np.empty_like(x)
    kernels.deviance(x, m, got)
    with mpmath.workdps(60):
        pairs = [(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, m, strict=True)]
        exact = [a * mpmath.log(a / b) - a + b for a, b in pairs]
        is_near = 0.7072 < ratio < 1.4142
        sizes = [e + (0 if is_near else min(p)) for e, p in zip(exact, pairs, strict=True)]
    compare(dtype, got, exact, sizes)


def test_deviance_at_its_edges(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, 2.0, 0.0, 1.0, np.nan], dtype)
    m = np.array([2.5, 0.0, 0.0, tiny, 1.0], dtype)
    got = np.empty_like(x)
    kernels.deviance(x, m, got)
    expected = [2.5, np.inf, 0.0, -np.log(tiny, dtype=np.float64) - 1, np.nan]
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype])


def test_log_factorial_rest_of_zero(dtype):
    got = np.empty(1, dtype)
    kernels.log_factorial_rest(np.zeros(1, dtype), got)
    np.testing.assert_array_equal(got, 0)


@pytest.mark.parametrize("x", [0.0, 1.0, 7.0, 1e4])
def test_rise(x, dtype):
    a = np.array([v for v in GRID if 1e-8 < v < 1e15], dtype)
    x = dtype.type(x)
    value, slope = outputs(dtype, a.size)
    kernels.rise(a, np.full(a.size, x), value, slope)
    with mpmath.workdps(60):
        x = mpmath.mpf(float(x))
        for got, d_got, given in zip(value, slope, a, strict=True):
            given = mpmath.mpf(float(given))
            end = given + x
            exact = mpmath.loggamma(end) - mpmath.loggamma(given)
            exact -= end * mpmath.log(end) - end - (given * mpmath.log(given) - given)
            size = 1 + abs(mpmath.log(given)) + abs(mpmath.log(end)) if x else 1
            compare(dtype, [got], [exact], [size])
            exact = mpmath.digamma(end) - mpmath.digamma(given)
            size = abs(exact) + 1 / given + (abs(mpmath.log(given)) if given < 10 else 0)
            compare(dtype, [d_got], [exact], [size])
