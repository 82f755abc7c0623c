"""delta_posterior, and that KL >= delta whatever is given."""

import mpmath
import numpy as np
import pytest

from fastelbo import (
    delta_posterior,
    delta_posterior_backward,
    kl_standard_normal,
    reference,
    remedies,
)
from tests.conftest import assert_close, lay_out

DELTAS = (1e-30, 1e-12, 1e-3, 0.1, 0.5, 3.0, 50.0, 1e6)


def anything(dtype, count=1_000_000):
    """Random numbers of all sizes and signs, and extreme ones with each other, in one column."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    extreme = [0.0, info.eps, info.tiny, info.smallest_subnormal, 1.0, 15.0, 17.0, 36.0, 38.0, 88.0]
    extreme += [89.0, 104.0, 708.0, 746.0, 1e10, info.max, np.inf]
    extreme = np.array([*extreme, *(-e for e in extreme)], dtype)
    corners = np.meshgrid(extreme, extreme)
    drawn = []
    for corner, spread in zip(corners, (4.0, 2.0), strict=True):
        size = np.exp(spread * rng.normal(size=count))
        both = np.concatenate([(size * rng.choice([-1, 1], count)).astype(dtype), corner.ravel()])
        drawn.append(both.reshape(-1, 1))
    return drawn


@pytest.mark.parametrize("delta", DELTAS)
def test_kl_is_at_least_delta(delta, dtype):
    """As the kernel computes it of these numbers, and of the same numbers in float64."""
    few = delta != 0.1
    mu, logvar = delta_posterior(*anything(dtype, 20_000 if few else 1_000_000), delta=delta)
    assert mu.dtype == logvar.dtype == dtype
    for computed in (dtype, np.float64):
        kl = kl_standard_normal(mu.astype(computed), logvar.astype(computed), reduction="none")
        assert kl.min() >= delta
    assert np.isfinite(kl).sum() > len(kl) // 2
    rows = kl_standard_normal(
        mu[:20_000].reshape(-1, 50), logvar[:20_000].reshape(-1, 50), reduction="none"
    )
    assert rows.min() >= 50 * delta


@pytest.mark.parametrize("delta", DELTAS)
def test_kl_is_no_larger_than_it_need_be(delta, dtype):
    """delta + max(0, mu) / 2, within rounding."""
    rng = np.random.default_rng(1)
    mu, logvar = (rng.normal(size=(2000, 1)).astype(dtype) for _ in range(2))
    mu *= dtype.type(delta)
    got = kl_standard_normal(*delta_posterior(mu, logvar, delta=delta), reduction="none")
    expected = delta + np.maximum(mu[:, 0].astype(float), 0) / 2
    np.testing.assert_allclose(got, expected, rtol=16 * float(np.finfo(dtype).eps))


def test_forgetting_the_square_root_falls_below():
    """What this is about: the circulating formula does not hold its promise."""
    mu, logvar = delta_posterior([[-1.0]], [[0.0]], delta=0.1)
    assert kl_standard_normal(mu, logvar) >= 0.1
    assert kl_standard_normal(mu**2, logvar) < 0.1


@pytest.mark.parametrize("delta", DELTAS)
def test_roots_mpmath(delta):
    """ln s - s + 2 delta + 1 = 0 by Lambert's function."""
    with mpmath.workdps(80):
        argument = -mpmath.exp(-(2 * mpmath.mpf(delta) + 1)) if delta < 100 else mpmath.mpf(0)
        low, high = remedies.committed(delta, 0.0)[:2]
        if delta < 100:
            roots = [mpmath.log(-mpmath.lambertw(argument, k).real) for k in (0, -1)]
        else:  # low = -(2 delta + 1), high = log(2 delta + 1 + high) by iteration
            big = 2 * mpmath.mpf(delta) + 1
            last = mpmath.log(big)
            for _ in range(50):
                last = mpmath.log(big + last)
            roots = [-big, last]
        for mine, other, theirs in zip(
            (low, high), reference.delta_roots(delta), roots, strict=True
        ):
            assert abs(mine / theirs - 1) < 1e-14
            assert abs(other / theirs - 1) < 1e-14


def test_limits_by_hand():
    """At the ends of the interval nothing is left for the mean; in the middle, mu by hand."""
    low, high = remedies.committed(0.5, np.finfo(float).eps)[:2]
    mu, logvar = delta_posterior([[-1.0, -1.0, 8.0]], [[-np.inf, np.inf, -np.inf]], delta=0.5)
    np.testing.assert_allclose(logvar, [[low, high, low]], rtol=1e-15)
    np.testing.assert_allclose(mu, [[0.0, 0.0, np.sqrt(8.0)]], atol=5e-8)
    mu, logvar = delta_posterior([[3.0]], [[0.0]], delta=0.5)
    middle = (low + high) / 2
    np.testing.assert_allclose(logvar, [[middle]])
    np.testing.assert_allclose(mu, [[np.sqrt(2.0 + middle - np.exp(middle) + 3.0)]])


def test_nan_stays_nan_and_infinity_is_infinite(dtype):
    mu, logvar = delta_posterior(
        np.array([[np.nan, 0.0, np.inf]], dtype), np.array([[0.0, np.nan, 0.0]], dtype), delta=1.0
    )
    np.testing.assert_array_equal(np.isnan(mu), [[True, True, False]])
    np.testing.assert_array_equal(np.isnan(logvar), [[False, True, False]])
    assert mu[0, 2] == np.inf


def test_out(dtype):
    arrays = [a[:6].reshape(2, 3) for a in anything(dtype, 6)]
    out = tuple(np.empty((2, 3), dtype) for _ in range(2))
    got = delta_posterior(*arrays, delta=0.1, out=out)
    assert got[0] is out[0]
    assert got[1] is out[1]
    assert_close(out, delta_posterior(*arrays, delta=0.1, num_threads=1), dtype)
    with pytest.raises(ValueError, match=r"out\.mu overlaps an input"):
        delta_posterior(*arrays, delta=0.1, out=(arrays[0], None))


@pytest.mark.parametrize(
    ("mu", "delta", "error", "message"),
    [
        ([[0.0]], 0.0, ValueError, r"delta must lie in \[1e-30, 1000000.0\], got 0.0"),
        ([[0.0]], -0.1, ValueError, "delta must lie in"),
        ([[0.0]], np.nan, ValueError, "delta must lie in"),
        ([[0.0]], np.inf, ValueError, "delta must lie in"),
        ([[0.0]], [0.1], TypeError, "delta must be a number"),
        ([[0.0, 1.0]], 0.1, ValueError, "logvar has shape"),
        ([0.0], 0.1, ValueError, "mu has shape"),
        (np.zeros((0, 1)), 0.1, ValueError, "shape"),
        ("text", 0.1, TypeError, "mu must hold real numbers"),
    ],
)
def test_errors(mu, delta, error, message):
    with pytest.raises(error, match=message):
        delta_posterior(mu, [[0.0]], delta=delta)
    with pytest.raises(error, match=message):
        delta_posterior_backward([[0.0]], [[0.0]], mu, [[0.0]], delta=delta)


def test_layouts(tmp_path):
    arrays = [a[:6].reshape(2, 3) for a in anything(np.float64, 6)]
    laid = [lay_out(a, "strided", tmp_path) for a in arrays]
    assert_close(delta_posterior(*laid, delta=2), delta_posterior(*arrays, delta=2), np.float64)


# In PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1e-30, 0.1, 50.0, 1e6])
def test_tensors_hold_it_too(delta, dtype):
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    given = [torch.tensor(a, requires_grad=True) for a in anything(dtype, 100_000)]
    mu, logvar = ft.delta_posterior(*given, delta=delta)
    kl = ft.kl_standard_normal(mu, logvar, reduction="none")
    assert kl.min() >= delta
    wide = ft.kl_standard_normal(mu.double(), logvar.double(), reduction="none")
    assert wide.min() >= delta
    finite = torch.isfinite(mu)
    for slope in torch.autograd.grad(mu[finite].sum() + logvar.sum(), given):
        assert not slope.isnan().any()
