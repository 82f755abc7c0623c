"""The specification against what does not come from this repository.

Numbers worked by hand, the published vectors of Philox, mpmath at 50 digits, SciPy, PyTorch, and
central differences for the gradients.
"""

from math import log, pi, sqrt

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fastelbo import reference as ref
from tests.conftest import LAYOUTS, TOLERANCE, assert_close, lay_out, numerical_gradient

LN2 = log(2.0)
LOG_2PI = log(2.0 * pi)
F64 = np.float64
REDUCTIONS = ("mean", "sum", "none")
FREE_BITS = [
    ref.FreeBits(threshold, granularity, below)
    for threshold in (0.25, 0.8)
    for granularity in ("dimension", "sample", "total")
    for below in ("floor", "zero")
]


@pytest.fixture
def rng():
    return np.random.default_rng(20260)


@pytest.fixture
def gaussian(rng):
    """mu and logvar, (5, 3), with KL on either side of the thresholds of FREE_BITS."""
    spread = np.outer([0.2, 0.4, 1.0, 1.0, 1.5], [0.3, 0.8, 1.5])
    return spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(5, 3))


def exactly(f, *arrays, digits=50):
    """f of mpmath numbers at so many digits, element by element, rounded once to float64."""
    with mpmath.workdps(digits):
        rows = zip(*(np.ravel(a) for a in np.broadcast_arrays(*arrays)), strict=True)
        values = [float(f(*(mpmath.mpf(float(v)) for v in row))) for row in rows]
    return np.reshape(values, np.broadcast_shapes(*map(np.shape, arrays)))


# The helpers of conftest ------------------------------------------------------------------------


def test_assert_close_rejects(dtype):
    tolerance = TOLERANCE[dtype]
    assert_close([1.0, -2.0, np.inf, np.nan], [1.0 + tolerance / 2, -2.0, np.inf, np.nan], dtype)
    assert_close((1.0, [2.0]), (1.0, [2.0]), dtype)
    assert_close(3.0 * tolerance, 2.0 * tolerance, dtype, scale=2.0)
    for actual, desired in [
        (1.0 + 2.0 * tolerance, 1.0),
        (0.0, 1e-20),
        (1e-20, 0.0),
        (np.nan, 1.0),
        (np.inf, 1.0),
        (1.0, np.nan),
        (np.inf, -np.inf),
        ([1.0], 1.0),
        ([1.0, 1.0], [1.0]),
        ((1.0, 2.0), (1.0, 3.0)),
    ]:
        with pytest.raises(AssertionError):
            assert_close(actual, desired, dtype)
    with pytest.raises(AssertionError):
        assert_close(3.0 * tolerance, tolerance, dtype, scale=1.0)


def test_numerical_gradient():
    x = np.array([[0.3, -2.0], [1.5, 4.0]])
    gradient = numerical_gradient(lambda y: np.sin(y).sum() + (y**3).sum(), x)
    np.testing.assert_allclose(gradient, np.cos(x) + 3 * x**2, rtol=1e-9)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_lay_out(kind, tmp_path):
    original = np.arange(12.0).reshape(3, 4)
    laid = lay_out(original, kind, tmp_path)
    np.testing.assert_array_equal(laid, original)
    contiguous_rows = {"read-only", "memmap", "row-strided", "unaligned", "big-endian"}
    if kind == "list":
        assert isinstance(laid, list)
        return
    assert (laid.strides[-1] == 8) == (kind in contiguous_rows)
    assert laid.flags.writeable == (kind not in {"read-only", "memmap"})
    assert laid.flags.aligned == (kind != "unaligned")
    assert laid.dtype.isnative == (kind != "big-endian")
    assert laid.flags.f_contiguous == (kind == "fortran")
    assert laid.flags.c_contiguous == (kind in contiguous_rows - {"row-strided"})


# Noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    counter, key, expected = (
        [int(w, 16) for w in text.split()] for text in (counter, key, expected)
    )
    assert ref.philox4x32(counter, key).tolist() == expected
    several = ref.philox4x32([[1, 2, 3, 4], counter], key)
    assert several.shape == (2, 4)
    assert several[1].tolist() == expected
    assert several[0].tolist() != expected


def normal_by_layout(key, i, dtype):
    """Normal i of a key, read off the description of the layout, in integers and mpmath."""
    single = dtype == np.float32
    block, place = divmod(i, 64)
    if single:
        word, lane = divmod(place, 16)
        counter = 16 * block + lane
    else:
        half, rest = divmod(place, 32)
        word, lane = divmod(rest, 16)
        counter = 32 * block + 16 * half + lane
    words = ref.philox4x32(
        [counter & 0xFFFFFFFF, counter >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32]
    ).tolist()
    with mpmath.workdps(50):
        if single:
            v, w = words[2 * (word // 2) : 2 * (word // 2) + 2]
            low30 = w & 0x3FFFFFFF
            signed = low30 - (1 << 30 if low30 >> 29 else 0)
            turn = float(np.float32(signed)) / 2.0**32
            u = float(np.float32(np.float32(v >> 1) + np.float32(0.5))) / 2.0**31
            bits = w >> 30
        else:
            v, w = (words[0] << 32) | words[1], (words[2] << 32) | words[3]
            turn = float((w >> 10) % 2**52 - 2**51) / 2.0**54
            u = float((mpmath.mpf(v) + mpmath.mpf("0.5")) / 2**64)
            bits = w >> 62
        radius = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(u)))
        angle = 2 * mpmath.pi * mpmath.mpf(turn)
        sine = radius * mpmath.sin(angle)
        cosine = radius * mpmath.cos(angle) * (-1 if bits & 2 else 1)
        pair = (sine, cosine) if bits & 1 else (cosine, sine)
        return float(pair[word % 2])


@pytest.mark.parametrize("key", [0, 7, 2**32 + 5, 2**64 - 1])
def test_standard_normal_layout(key, dtype):
    n = 200
    expected = [normal_by_layout(key, i, dtype) for i in range(n)]
    assert_close(ref.standard_normal(key, n, dtype), np.array(expected), F64)


def test_standard_normal_prefix(dtype):
    longest = ref.standard_normal(3, 1000, dtype)
    assert longest.dtype == np.float64
    for n in (0, 1, 16, 63, 64, 65, 129):
        np.testing.assert_array_equal(ref.standard_normal(3, n, dtype), longest[:n])
    assert not np.isin(ref.standard_normal(4, 1000, dtype), longest).any()
    assert len(np.unique(longest)) == 1000


def test_standard_normal_distribution(dtype):
    n = 1_000_000
    z = ref.standard_normal(11, n, dtype)
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(np.mean(z**power) - moment) < 5 * sqrt(variance / n)
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-4
    for lag in (1, 16, 32, 64):
        assert abs(np.mean(z[lag:] * z[:-lag])) < 5 / sqrt(n - lag)
    other = ref.standard_normal(12, n, dtype)
    assert abs(np.mean(z * other)) < 5 / sqrt(n)


# The posterior ----------------------------------------------------------------------------------


def test_reparameterize_by_hand():
    # sigma = exp(ln 4 / 2) = 2
    z = ref.reparameterize([[1.0, -1.0]], [[2 * LN2, 0.0]], noise=[[0.5, 3.0]])
    assert_close(z, [[2.0, 2.0]], F64)
    z = ref.reparameterize([[1.0]], [[2 * LN2]], noise=[[[0.5]], [[-1.0]]], samples=2)
    assert_close(z, [[[2.0]], [[-1.0]]], F64)


def test_reparameterize_draws_by_element(gaussian, dtype):
    mu, logvar = (a.astype(dtype) for a in gaussian)
    eps = ref.standard_normal(9, 60, dtype)
    sigma = np.exp(logvar.astype(F64) / 2)
    for samples, shape in [(None, (5, 3)), (1, (1, 5, 3)), (4, (4, 5, 3))]:
        z = ref.reparameterize(mu, logvar, rng=9, samples=samples)
        assert z.shape == shape
        assert_close((z - mu) / sigma, eps[: z.size].reshape(shape), F64, scale=10.0)


def test_mixed_dtypes_draw_as_float64(gaussian):
    mu, logvar = gaussian
    z = ref.reparameterize(mu.astype(np.float32), logvar, rng=9)
    same = ref.reparameterize(mu.astype(np.float32).astype(F64), logvar, rng=9)
    np.testing.assert_array_equal(z, same)


def test_reparameterize_kl(gaussian):
    bits = ref.FreeBits(0.3)
    for reduction in REDUCTIONS:
        z, kl = ref.reparameterize_kl(*gaussian, rng=5, free_bits=bits, reduction=reduction)
        np.testing.assert_array_equal(z, ref.reparameterize(*gaussian, rng=5))
        expected = ref.kl_standard_normal(*gaussian, free_bits=bits, reduction=reduction)
        np.testing.assert_array_equal(kl, expected)


def test_reparameterize_backward_by_hand():
    # mu: 5 - 2 * 3 = -1. logvar: (5 * (4 - 3) - 2 * (4 - 1)) / 2 = -1/2.
    grads = ref.reparameterize_backward([[5.0]], [[3.0]], [[2 * LN2]], [[4.0]], kl_weight=2.0)
    assert_close(grads, ([[-1.0]], [[-0.5]]), F64)


# Divergences ------------------------------------------------------------------------------------


def test_kl_standard_normal_by_hand():
    # N(3, 4): (9 + 4 - 1 - ln 4) / 2 = 6 - ln 2; N(1, 1): 1/2; N(0, 1): 0
    mu, logvar = [[3.0, 1.0], [0.0, 0.0]], [[2 * LN2, 0.0], [0.0, 0.0]]
    assert_close(ref.kl_standard_normal(mu, logvar, reduction="none"), [6.5 - LN2, 0.0], F64)
    assert_close(ref.kl_standard_normal(mu, logvar, reduction="sum"), 6.5 - LN2, F64)
    assert_close(ref.kl_standard_normal(mu, logvar), (6.5 - LN2) / 2, F64)
    _, grads = ref.kl_standard_normal_and_grad(mu, logvar)  # (mu, (4 - 1) / 2) / B
    assert_close(grads, ([[1.5, 0.5], [0.0, 0.0]], [[0.75, 0.0], [0.0, 0.0]]), F64)


def test_free_bits_by_hand():
    # KL = mu^2 / 2 is [[2, 1/2], [0, 1/2]]: by dimension its means are 1 and 1/2.
    mu, logvar = [[2.0, 1.0], [0.0, 1.0]], np.zeros((2, 2))
    for granularity, below, values, above in [
        ("dimension", "floor", [2.75, 0.75], [[1, 0], [1, 0]]),  # 3/4 in place of dimension 1
        ("dimension", "zero", [2.0, 0.0], [[1, 0], [1, 0]]),
        ("sample", "floor", [2.75, 1.5], [[1, 0], [0, 0]]),
        ("sample", "zero", [2.0, 0.0], [[1, 0], [0, 0]]),
        ("total", "floor", [2.5, 0.75], [[1, 1], [0, 0]]),
        ("total", "zero", [2.5, 0.0], [[1, 1], [0, 0]]),
    ]:
        bits = ref.FreeBits(0.75, granularity, below)
        kl, (dmu, _) = ref.kl_standard_normal_and_grad(mu, logvar, free_bits=bits, reduction="none")
        assert_close(kl, values, F64)
        assert_close(dmu, np.multiply(mu, above), F64)
        mean, (dmu, _) = ref.kl_standard_normal_and_grad(mu, logvar, free_bits=bits)
        assert_close(mean, sum(values) / 2, F64)
        assert_close(dmu, np.multiply(mu, above) / 2, F64)
        total = ref.kl_standard_normal(mu, logvar, free_bits=bits, reduction="sum")
        assert_close(total, sum(values), F64)
    # A KL at its floor has no gradient; a number is a threshold by dimension.
    kl, (dmu, _) = ref.kl_standard_normal_and_grad(mu, logvar, free_bits=1.0)
    assert_close(kl, 2.0, F64)
    assert_close(dmu, np.zeros((2, 2)), F64)


def test_free_bits_of_nothing_are_none():
    _, (dmu, _) = ref.kl_standard_normal_and_grad([[1e-200]], [[0.0]], free_bits=0.0)
    assert_close(dmu, [[1e-200]], F64)  # though the KL underflows to 0
    assert np.isnan(ref.kl_standard_normal([[np.nan]], [[0.0]], free_bits=1.0))


def test_kl_standard_normal_mpmath():
    logvar = np.array(
        [
            0.0,
            1e-9,
            -1e-9,
            1e-300,
            1e-160,
            1e-3,
            -1e-2,
            0.49999,
            0.5,
            -0.5,
            -0.50001,
            1.0,
            -1.0,
            30.0,
            -700.0,
            700.0,
        ]
    )
    mu = np.array([[0.0], [1e-9], [-0.3], [1e5]])
    expected = exactly(lambda m, v: (m * m + mpmath.exp(v) - 1 - v) / 2, mu, logvar, digits=800)
    by_element = ref.kl_standard_normal(
        np.broadcast_to(mu, expected.shape).reshape(-1, 1),
        np.broadcast_to(logvar, expected.shape).reshape(-1, 1),
        reduction="none",
    )
    np.testing.assert_allclose(by_element, expected.ravel(), rtol=1e-15, atol=1e-320)
    assert_close(ref.kl_standard_normal([[0.0]], [[1e-9]]), 2.5e-19, np.float32)
    _, (_, dlogvar) = ref.kl_standard_normal_and_grad(
        [[0.0]] * 16, logvar[:, None], reduction="sum"
    )
    slope = exactly(lambda v: (mpmath.exp(v) - 1) / 2, logvar, digits=800)
    np.testing.assert_allclose(dlogvar[:, 0], slope, rtol=1e-15)


def test_exp_minus_one_minus_mpmath():
    x = np.concatenate([np.linspace(-2, 2, 801), np.geomspace(1e-150, 1, 301)])
    expected = exactly(lambda v: mpmath.exp(v) - 1 - v, x, digits=400)
    np.testing.assert_allclose(ref.exp_minus_one_minus(x), expected, rtol=1e-15)
    found = ref.exp_minus_one_minus([-np.inf, 0.0, 800.0, np.inf, np.nan])
    np.testing.assert_array_equal(found, [np.inf, 0.0, np.inf, np.inf, np.nan])


def test_kl_normal_by_hand():
    # N(1, 4) from N(3, 1): ln(1/2) + (4 + 4) / 2 - 1/2 = 7/2 - ln 2
    value, grads = ref.kl_normal_and_grad([[1.0]], [[2 * LN2]], [[3.0]], [[0.0]])
    assert_close(value, 3.5 - LN2, F64)
    # (1 - 3) / 1, (4 - 1) / 2, and -(3 + 4) / 2
    assert_close(grads, ([[-2.0]], [[1.5]], [[2.0]], [[-3.5]]), F64)


def test_kl_normal_mpmath():
    mu_q, mu_p = np.array([0.0, 1e-8, -3.0, 1e4]), np.array([0.0, 0.5])
    logvar_q, logvar_p = np.array([0.0, 1e-9, -40.0, 5.0]), np.array([0.0, -1e-9, 30.0, -5.0])
    grid = [g.reshape(-1, 1) for g in np.meshgrid(mu_q, logvar_q, mu_p, logvar_p)]
    expected = exactly(
        lambda m, v, n, w: (mpmath.exp(v - w) - 1 - (v - w) + (m - n) ** 2 * mpmath.exp(-w)) / 2,
        *grid,
    )
    # exp amplifies the rounding of its argument, at most 70
    np.testing.assert_allclose(
        ref.kl_normal(*grid, reduction="none"), expected[:, 0], rtol=5e-15, atol=1e-320
    )


def test_kl_normal_of_standard_is_kl_standard_normal(gaussian):
    zero = np.zeros_like(gaussian[0])
    for reduction in REDUCTIONS:
        value, grads = ref.kl_normal_and_grad(*gaussian, zero, zero, reduction=reduction)
        expected, expected_grads = ref.kl_standard_normal_and_grad(*gaussian, reduction=reduction)
        assert_close(value, expected, F64)
        assert_close(grads[:2], expected_grads, F64)


def test_free_bits_divide_these_inputs(gaussian):
    """The thresholds of FREE_BITS leave something above and something below."""
    for granularity in ("dimension", "sample", "total"):
        shares = []
        for bits in FREE_BITS:
            if bits.granularity == granularity:
                _, (dmu, _) = ref.kl_standard_normal_and_grad(*gaussian, free_bits=bits)
                shares.append(np.mean(dmu != 0))
        assert any(0 < share < 1 for share in shares)
