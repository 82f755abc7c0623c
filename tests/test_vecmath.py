"""The vector maths of the kernels, in units in the last place, on the build in use.

Exact values come from float64 for float32, and for float64 from mpmath at a few thousand points
and from long double, where that is wider, at many more.
"""

import mpmath
import numpy as np
import pytest

from fastelbo import _builds
from tests.conftest import TOLERANCE

vecmath = _builds.kernels("vecmath")

#: The worst errors that are promised, in ulp.
ULPS = {np.dtype(np.float32): 1.5, np.dtype(np.float64): 2.0}
WIDER = np.longdouble if np.finfo(np.longdouble).nmant > 60 else None
WIDE = {np.dtype(np.float32): np.float64, np.dtype(np.float64): WIDER}


def em1mx(x):
    """e^x - 1 - x in the dtype of x."""
    near = np.abs(x) < 0.5
    t = np.where(near, x, 0)
    tail = np.ones_like(t)
    for k in range(21, 2, -1):
        tail = 1 + tail * t / k
    return np.where(near, t * t / 2 * tail, np.expm1(x) - x)


def sine_of_turn(x):
    pi = np.array("3.14159265358979323846264338327950288", dtype=x.dtype)  # all digits that fit
    return np.sin(2 * pi * x)


def cosine_of_turn(x):
    pi = np.array("3.14159265358979323846264338327950288", dtype=x.dtype)
    return np.cos(2 * pi * x)


# Each function: the entry of the kernels and which of its results; the same over NumPy arrays of
# a wider dtype; over mpmath numbers.
FUNCTIONS = {
    "exp": ("exp", 0, np.exp, mpmath.exp),
    "log": ("log", 0, np.log, lambda x: mpmath.log(x)),
    "exp by em1": ("exp_minus_one", 0, np.exp, mpmath.exp),
    "em1": ("exp_minus_one", 1, np.expm1, mpmath.expm1),
    "em1mx": ("exp_minus_one", 2, em1mx, lambda x: mpmath.expm1(x) - x),
    "exp by em1, near": ("exp_minus_one_near", 0, np.exp, mpmath.exp),
    "em1, near": ("exp_minus_one_near", 1, np.expm1, mpmath.expm1),
    "em1mx, near": ("exp_minus_one_near", 2, em1mx, lambda x: mpmath.expm1(x) - x),
    "softplus": (
        "logistic",
        0,
        lambda x: np.log1p(np.exp(-np.abs(x))),
        lambda x: mpmath.log1p(mpmath.exp(-abs(x))),
    ),
    "sigmoid": (
        "logistic",
        1,
        lambda x: np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))),
        lambda x: mpmath.exp(-abs(x)) / (1 + mpmath.exp(-abs(x))),
    ),
    "sigmoid by odds": (
        "logistic_odds",
        1,
        lambda x: np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))),
        lambda x: mpmath.exp(-abs(x)) / (1 + mpmath.exp(-abs(x))),
    ),
    "log1p": ("log_one_plus", 0, np.log1p, mpmath.log1p),
    "sine": ("sincos_eighth", 0, sine_of_turn, lambda x: mpmath.sin(2 * mpmath.pi * x)),
    "cosine": ("sincos_eighth", 1, cosine_of_turn, lambda x: mpmath.cos(2 * mpmath.pi * x)),
}


RESULTS = {
    "exp": 1,
    "log": 1,
    "log_one_plus": 1,
    "exp_minus_one": 3,
    "exp_minus_one_near": 3,
}


def in_domain(name, x):
    """Those of x for which a function is made."""
    if name in ("sine", "cosine"):
        return x[np.abs(x) <= 0.125]
    if name == "log1p":
        return x[~(x <= -1)]
    if name.endswith("near"):
        return x[~(np.abs(x) > 80)]
    return x


def evaluate(name, x):
    """A result of the kernels."""
    entry, which, _, _ = FUNCTIONS[name]
    results = [np.full_like(x, 77) for _ in range(RESULTS.get(entry, 2))]
    getattr(vecmath, entry)(x, *results)
    return results[which]


def worst_ulps(got, exact):
    """The largest error in units in the last place of the dtype of `got`; `exact` is wider.

    What overflows or underflows must do so; NaN must be where they are expected.
    """
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
        # Within half an ulp of overflow, infinity is a right answer and so is the largest number.
        largest = np.finfo(got.dtype).max
        beyond = np.isinf(rounded)
        assert np.all(np.abs(got[beyond]) >= largest)
        np.testing.assert_array_equal(np.sign(got[beyond]), np.sign(exact[beyond]))
        finite = np.isfinite(rounded)
        got = np.clip(got[finite], -largest, largest).astype(exact.dtype)
        ulp = np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
        error = np.abs(got - exact[finite]) / ulp
    return float(error.max(initial=0.0))


def worst_relative(got, exact):
    """The largest relative error, an ulp of a denormal forgiven."""
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
        rounded = exact.astype(got.dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got[finite].astype(exact.dtype) - exact[finite])
        error -= np.finfo(got.dtype).smallest_subnormal
        relative = np.where(error > 0, error / np.abs(exact[finite]), 0)
    return float(relative.max(initial=0.0))


def check(name, got, exact):
    """Within the bounds; returns the worst error in ulp."""
    if name.startswith("em1mx"):
        assert worst_relative(got, exact) < TOLERANCE[got.dtype]
        return worst_ulps(got, exact)
    worst = worst_ulps(got, exact)
    assert worst <= ULPS[got.dtype], f"{name} is wrong by {worst:.3f} ulp"
    return worst


def sample(name, dtype, n):
    """n points over the whole domain, dense where something happens."""
    rng = np.random.default_rng(list(name.encode()))
    info = np.finfo(dtype)
    if name in ("sine", "cosine"):
        pieces = [
            rng.uniform(-0.125, 0.125, n),
            [-0.125, 0.0, -0.0, 0.125],
            rng.normal(size=n) / 1e6,
        ]
        return np.clip(np.concatenate(pieces), -0.125, 0.125).astype(dtype)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), n, dtype=f"u{dtype.itemsize}", endpoint=False)
    any_at_all = bits.view(dtype)
    powers = np.ldexp(rng.uniform(1, 2, n), rng.integers(info.minexp, info.maxexp, n))
    edge = np.log(float(info.max))
    pieces = [
        any_at_all,
        powers,
        rng.uniform(-1.1 * edge, 1.1 * edge, n),
        rng.uniform(-2.1, 2.1, n),
        rng.normal(size=n) * 1e-4,
        rng.uniform(0.5, 2.0, n),
        1 + rng.normal(size=n) * float(info.eps) * 100,
        edge + rng.normal(size=n) * 1e-3,
        np.log(float(info.smallest_normal)) + rng.normal(size=n) * 10,
        float(info.smallest_subnormal) * rng.integers(1, 10**6, n),
        (np.arange(-2000, 2000) + 0.5) * np.log(2.0),  # between two exponents
        (np.arange(-2000, 2000)) * np.log(2.0),
    ]
    with np.errstate(all="ignore"):
        return in_domain(name, np.concatenate([np.asarray(p).astype(dtype) for p in pieces]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dense_sample(name, dtype):
    wide = WIDE[dtype]
    if wide is None:
        return  # test_mpmath is what there is then
    x = sample(name, dtype, 200_000)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][2](x.astype(wide))
    worst = check(name, evaluate(name, x), exact)
    assert worst > 0.0, "so exact that nothing can have been compared"
    print(f"{name} {dtype}: {worst:.3f} ulp")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mpmath(name, dtype):
    x = sample(name, dtype, 100)
    x = x[np.isfinite(x)]
    if name == "log":
        x = x[x > 0]
    x = x[:: max(1, len(x) // 1500)].copy()
    f = FUNCTIONS[name][3]
    got = evaluate(name, x)
    with mpmath.workprec(2400 if name.startswith("em1mx") else 200):  # x^2 next to x and 1
        for given, answer in zip(x.tolist(), got.tolist(), strict=True):
            if abs(given) > 1e4 and name not in ("log", "log1p"):
                continue  # all of it is over- or underflow: test_dense_sample and test_specials
            exact = f(mpmath.mpf(given))
            with np.errstate(over="ignore"):
                rounded = dtype.type(float(exact))
            if np.isinf(rounded):
                assert answer == rounded
                continue
            error = abs(mpmath.mpf(answer) - exact)
            if name.startswith("em1mx"):
                bound = TOLERANCE[dtype] * abs(exact) + float(np.finfo(dtype).smallest_subnormal)
            else:
                bound = ULPS[dtype] * float(np.spacing(abs(rounded)))
            assert error <= bound, (given, answer, float(exact))


INF, NAN = np.inf, np.nan
LN2 = np.log(2.0)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("exp", [NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30], [NAN, INF, 0.0, 1.0, 1.0, INF, 0.0]),
        ("log", [NAN, INF, -INF, 0.0, -0.0, -1.0, 1.0], [NAN, INF, NAN, -INF, -INF, NAN, 0.0]),
        ("log", [-1e-40, -1e30], [NAN, NAN]),
        ("em1", [NAN, INF, -INF, 0.0, 1e30, -1e30], [NAN, INF, -1.0, 0.0, INF, -1.0]),
        ("em1mx", [NAN, INF, -INF, 0.0, -0.0], [NAN, NAN, INF, 0.0, 0.0]),  # inf - inf, as in NumPy
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
        got = evaluate(name, padded)
        wanted = np.resize(np.array(expected).astype(dtype), size)
        np.testing.assert_array_max_ulp(got[~np.isnan(wanted)], wanted[~np.isnan(wanted)], 2)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
        zero = wanted == 0
        np.testing.assert_array_equal(got[zero], 0)


def test_denormals(dtype):
    """Gradual underflow: denormal results are right and denormal arguments are read."""
    tiny = np.finfo(dtype).smallest_subnormal
    edge = np.log(float(tiny)) + 0.2
    got = evaluate("exp", np.array([edge, edge + np.log(2.5)], dtype))
    np.testing.assert_array_equal(got, np.array([tiny, 3 * tiny], dtype))
    np.testing.assert_allclose(evaluate("log", np.array([tiny], dtype)), np.log(float(tiny)), 1e-6)
    sigmoid = evaluate("sigmoid", np.array([-edge], dtype))
    np.testing.assert_array_equal(sigmoid, [tiny])
    np.testing.assert_array_equal(evaluate("em1", np.array([tiny], dtype)), [tiny])


def test_overflow_edge(dtype):
    """The last finite exponential and the first infinite one are where NumPy has them."""
    edge = dtype.type(np.log(float(np.finfo(dtype).max)))
    x = np.array([edge], dtype)
    for _ in range(4):
        x = np.append(x, np.nextafter(x[-1], dtype.type(INF)))
        x = np.append(np.nextafter(x[0], dtype.type(0)), x)
    with np.errstate(over="ignore"):
        wide = np.exp(x.astype(WIDE[dtype] or np.float64)).astype(dtype)
    np.testing.assert_array_equal(np.isinf(evaluate("exp", x)), np.isinf(wide))
    assert np.isinf(wide).any()
    assert not np.isinf(wide).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float32(name):
    """All 2**32 arguments, those outside the domain aside."""
    worst, chunk = 0.0, 1 << 22
    for start in range(0, 1 << 32, chunk):
        x = np.arange(start, start + chunk, dtype=np.uint32).view(np.float32)
        x = in_domain(name, x)
        if x.size:
            with np.errstate(all="ignore"):
                exact = FUNCTIONS[name][2](x.astype(np.float64))
            worst = max(worst, check(name, evaluate(name, x), exact))
    print(f"{name}: {worst:.3f} ulp over all float32")
    assert worst > 0.0
