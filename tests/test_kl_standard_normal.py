"""kl_standard_normal and kl_standard_normal_and_grad."""

import numpy as np
import pytest

from fastelbo import (
    FreeBits,
    kl_standard_normal,
    kl_standard_normal_and_grad,
    reference,
    reparameterize_backward,
    reparameterize_kl,
)
from fastelbo._catalogue import REDUCTIONS
from tests.cases import check
from tests.conftest import assert_close

NAMES = ["kl_standard_normal", "kl_standard_normal_and_grad"]
FREE_BITS = [
    0.3,
    *(
        FreeBits(threshold, granularity=granularity, below=below)
        for threshold in (0.4, 2.0)
        for granularity in ("dimension", "sample", "total")
        for below in ("floor", "zero")
    ),
]


def draw(shape, dtype, seed=0):
    """mu and logvar whose KL lies on either side of any threshold."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.1, 2.0, shape[1])
    return [(spread * rng.normal(size=shape)).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("free_bits", FREE_BITS, ids=str)
def test_free_bits(reduction, free_bits, dtype):
    for shape in [(1, 1), (7, 3), (130, 33), (3, 1025)]:
        for name in NAMES:
            check(name, draw(shape, dtype), dtype, reduction=reduction, free_bits=free_bits)


def test_free_bits_matter():
    """The thresholds above divide what is drawn: neither all nor nothing is below them."""
    mu, logvar = draw((130, 33), np.float64)
    for free_bits in FREE_BITS[1:]:
        grad = kl_standard_normal_and_grad(mu, logvar, free_bits=free_bits)[1]
        assert 0.0 < np.mean(grad.mu == 0.0) < 1.0 or free_bits.granularity == "total"


def test_by_hand():
    value, grad = kl_standard_normal_and_grad([[1.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    assert value == 3.5
    np.testing.assert_array_equal(grad.mu, [[0.5, 1.0], [1.5, 0.0]])
    np.testing.assert_array_equal(grad.logvar, np.zeros((2, 2)))
    rows = kl_standard_normal([[0.0], [0.0]], [[np.log(4.0)], [-np.log(4.0)]], reduction="none")
    np.testing.assert_allclose(rows, [1.5 - np.log(2.0), np.log(2.0) - 0.375], 1e-15)


@pytest.mark.parametrize("logvar", [1e-9, -1e-9, 1e-5, -1e-3, 0.49, -0.51, 1e-30])
def test_near_zero(logvar, dtype):
    """The plain formula has lost all digits at 1e-9; the KL is logvar^2 / 4."""
    logvar = np.full((3, 5), logvar, dtype)
    zeros = np.zeros_like(logvar)
    value, _ = check("kl_standard_normal_and_grad", [zeros, logvar], dtype, reduction="sum")
    if 1e-20 < abs(logvar[0, 0]) < 1e-8:
        np.testing.assert_allclose(value, 15 * float(logvar[0, 0]) ** 2 / 4, rtol=2e-6)
        assert value > 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    """Overflow, underflow, infinities and NaN are where they should be in this dtype."""
    info = np.finfo(dtype)
    values = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]
    values += [info.max, -info.max, info.tiny, info.smallest_subnormal]
    values += [80.0, -80.0, 100.0, -150.0, 700.0, -700.0, 720.0, -750.0, 1e4, -1e4]
    values = np.array(values, dtype)
    mu, logvar = (a.reshape(-1, 1).copy() for a in np.meshgrid(values, values))
    rows, grad = kl_standard_normal_and_grad(mu, logvar, reduction="none")
    with np.errstate(all="ignore"):
        less = np.minimum(logvar, dtype.type(1e4))  # nothing beside an infinite variance
        plain = dtype.type(0.5) * (mu * mu + (np.exp(logvar) - 1 - less))
    expected = reference.kl_standard_normal(mu, logvar, reduction="none")
    finite = np.isfinite(plain[:, 0])
    np.testing.assert_array_equal(np.isfinite(rows), finite)
    np.testing.assert_array_equal(rows[~finite], plain[~finite, 0])
    assert_close(rows[finite], expected[finite], dtype)
    np.testing.assert_array_equal(grad.mu, mu)
    with np.errstate(all="ignore"):
        wide = 0.5 * np.expm1(logvar.astype(np.float64))
    assert_close(grad.logvar, wide.astype(dtype), dtype)


@pytest.mark.parametrize("edge", [160.0, -160.0, np.nan])
def test_edge_of_the_quick_loop(edge, dtype):
    """Tiles within |logvar| <= 160 take a loop for which all powers of two are normal numbers."""
    mu, logvar = draw((40, 33), dtype)
    logvar[::2, 5] = np.linspace(0.9, 1.0, 20) * edge
    finite = logvar if dtype == np.float64 else np.clip(logvar, None, 88)  # whose KL is finite, too
    check("kl_standard_normal_and_grad", [mu, finite], dtype, reduction="none")
    value, _ = reparameterize_kl(mu, logvar, noise=mu)
    with np.errstate(over="ignore"):
        wide = mu + np.exp(0.5 * logvar.astype(np.float64)) * mu
    assert_close(value, wide.astype(dtype), dtype)


@pytest.mark.parametrize("far", [161.0, -161.0, 1000.0, -1000.0, np.inf, -np.inf])
def test_one_far_element(far, dtype):
    """It is computed on its own, and all others come out as before, to the bit."""
    mu, logvar = draw((40, 33), dtype)
    noise = np.sin(mu)
    changed = logvar.copy()
    changed[20, 5] = far

    def results(logvar):
        kl, (d_mu, d_logvar) = kl_standard_normal_and_grad(mu, logvar, reduction="none")
        z, _ = reparameterize_kl(mu, logvar, noise=noise)
        back = reparameterize_backward(noise, mu, logvar, None, noise=noise, kl_weight=0.5)
        return kl[:, None], d_mu, d_logvar, z, *back

    others = np.ones(mu.shape, bool)
    others[20, 5] = False
    with np.errstate(all="ignore"):
        sigma = np.exp(dtype.type(0.5 * far))
        d_logvar = np.expm1(dtype.type(far)) / 2
    before, after = results(logvar), results(changed)
    for a, b in zip(before, after, strict=True):
        keep = others if a.shape == others.shape else np.arange(40)[:, None] != 20
        np.testing.assert_array_equal(b[keep], a[keep])
    assert_close(after[3][20, 5], mu[20, 5] + sigma * noise[20, 5], dtype)
    assert_close(after[2][20, 5], d_logvar, dtype)
    assert not np.isfinite(after[0][20, 0]) or after[0][20, 0] > before[0][20, 0] + 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": -1.0},
        {"threshold": np.nan},
        {"threshold": np.inf},
        {"threshold": "much"},
        {"threshold": 1.0, "granularity": "row"},
        {"threshold": 1.0, "below": "ceiling"},
    ],
)
def test_free_bits_errors(wrong):
    with pytest.raises((ValueError, TypeError), match=r"free_bits|threshold|granularity|below"):
        FreeBits(**wrong)
    if "threshold" in wrong and len(wrong) == 1:
        with pytest.raises((ValueError, TypeError), match=r"free_bits|threshold"):
            kl_standard_normal([[1.0]], [[1.0]], free_bits=wrong["threshold"])
