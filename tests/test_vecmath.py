"""The vector maths of the kernels, as `tests.vecmath` measures it, on the build in use.

Exact values come from float64 for float32, and for float64 from mpmath at a few thousand points
and from long double, where that is wider, at many more.
"""

import numpy as np
import pytest

from fastelbo import _builds
from tests.vecmath import FUNCTIONS, WIDE, sample, worst_by_mpmath, worst_of_float32


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dense_sample(name, dtype):
    function, x = FUNCTIONS[name], sample(name, dtype, 100_000)
    exact = function.at(x)
    if exact is None:
        return  # test_mpmath is what there is then
    worst = function.worst(function(x), exact, x)
    assert 0 < worst <= function.bound(dtype)  # 0: nothing can have been compared


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mpmath(name, dtype):
    worst, _, at = worst_by_mpmath(name, dtype)
    assert 0 < worst <= FUNCTIONS[name].bound(dtype), at


INF, NAN = np.inf, np.nan
LN2 = np.log(2.0)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("exp", [NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30], [NAN, INF, 0.0, 1.0, 1.0, INF, 0.0]),
        ("log", [NAN, INF, -INF, 0.0, -0.0, -1.0, 1.0], [NAN, INF, NAN, -INF, -INF, NAN, 0.0]),
        ("log", [-1e-40, -1e30], [NAN, NAN]),
        ("em1", [NAN, INF, -INF, 0.0, 1e30, -1e30], [NAN, INF, -1.0, 0.0, INF, -1.0]),
        ("em1mx", [NAN, INF, -INF, 0.0, -0.0, 2e4], [NAN, INF, INF, 0.0, 0.0, INF]),
        ("softplus", [NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30], [NAN, 0.0, 0.0, LN2, LN2, 0.0, 0.0]),
        ("sigmoid", [NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30], [NAN, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0]),
        (
            "sigmoid by odds",
            [NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30],
            [NAN, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0],
        ),
        ("log1p", [NAN, INF, 0.0, -0.0, 1.0, 1e30], [NAN, INF, 0.0, 0.0, LN2, np.log(1e30)]),
        ("sine", [NAN, 0.0, -0.0, 0.125, -0.125], [NAN, 0.0, -0.0, 0.5**0.5, -(0.5**0.5)]),
        ("cosine", [NAN, 0.0, -0.0, 0.125, -0.125], [NAN, 1.0, 1.0, 0.5**0.5, 0.5**0.5]),
    ],
)
def test_specials(name, x, expected, dtype):
    for size in (len(x), 64 + len(x)):  # scalar tails and whole vectors
        padded = np.resize(np.array(x, dtype), size)
        got = FUNCTIONS[name](padded)
        wanted = np.resize(np.array(expected).astype(dtype), size)
        np.testing.assert_array_max_ulp(got[~np.isnan(wanted)], wanted[~np.isnan(wanted)], 2)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
        zero = wanted == 0
        np.testing.assert_array_equal(got[zero], 0)


def test_denormals(dtype):
    """Gradual underflow: denormal results are right and denormal arguments are read."""
    tiny = np.finfo(dtype).smallest_subnormal
    edge = np.log(float(tiny)) + 0.2
    got = FUNCTIONS["exp"](np.array([edge, edge + np.log(2.5)], dtype))
    np.testing.assert_array_equal(got, np.array([tiny, 3 * tiny], dtype))
    np.testing.assert_allclose(FUNCTIONS["log"](np.array([tiny], dtype)), np.log(float(tiny)), 1e-6)
    sigmoid = FUNCTIONS["sigmoid"](np.array([-edge], dtype))
    np.testing.assert_array_equal(sigmoid, [tiny])
    np.testing.assert_array_equal(FUNCTIONS["em1"](np.array([tiny], dtype)), [tiny])


def test_overflow_edge(dtype):
    """The last finite exponential and the first infinite one are where NumPy has them."""
    edge = dtype.type(np.log(float(np.finfo(dtype).max)))
    x = np.array([edge], dtype)
    for _ in range(4):
        x = np.append(x, np.nextafter(x[-1], dtype.type(INF)))
        x = np.append(np.nextafter(x[0], dtype.type(0)), x)
    with np.errstate(over="ignore"):
        wide = np.exp(x.astype(WIDE[dtype] or np.float64)).astype(dtype)
    np.testing.assert_array_equal(np.isinf(FUNCTIONS["exp"](x)), np.isinf(wide))
    assert np.isinf(wide).any()
    assert not np.isinf(wide).all()


@pytest.mark.parametrize("every", [(1 << 16) + 1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float32(name, every):
    """All 2**32 arguments, those outside the domain aside; or some of each exponent."""
    worst, count = worst_of_float32(name, every=every)
    assert 0 < worst[_builds.BUILD] <= FUNCTIONS[name].bound(np.dtype(np.float32))
    assert count > 2**30 / every
