"""reparameterize_kl: both of what it joins."""

import numpy as np
import pytest

import fastelbo
from fastelbo import FreeBits, kl_standard_normal, reference, reparameterize, reparameterize_kl
from fastelbo._catalogue import REDUCTIONS
from fastelbo._catalogue.posterior import z_magnitude
from tests.cases import SHAPES, check
from tests.conftest import assert_close

FREE_BITS = [0.0, 0.3, FreeBits(0.4, granularity="sample"), FreeBits(9.0, granularity="total")]


def draw(shape, dtype, samples=None):
    rng = np.random.default_rng(3)
    full = shape if samples is None else (samples, *shape)
    return [rng.normal(size=s).astype(dtype) for s in (shape, shape, full)]


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reference(shape, reduction, samples, dtype):
    check(
        "reparameterize_kl",
        draw(shape, dtype, samples),
        dtype,
        reduction=reduction,
        samples=samples,
    )


@pytest.mark.parametrize("free_bits", FREE_BITS, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("samples", [None, 3])
def test_options_with_key(samples, reduction, free_bits, dtype):
    mu, logvar, _ = draw((33, 20), dtype)
    options = {"rng": 5, "samples": samples, "free_bits": free_bits, "reduction": reduction}
    z, kl = reparameterize_kl(mu, logvar, **options)
    expected = reference.reparameterize_kl(mu, logvar, **options)
    eps = reference.standard_normal(5, z.size, dtype).reshape(z.shape)
    scale = z_magnitude(mu.astype(float), logvar.astype(float), eps)
    assert_close((z, kl), expected, dtype, (scale, None))


@pytest.mark.parametrize("free_bits", FREE_BITS, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_is_both_at_once(reduction, free_bits, dtype):
    """Bit for bit what the two functions give apart, whatever the number of samples."""
    mu, logvar, _ = draw((65, 20), dtype)
    for samples in (None, 1, 2):
        z, kl = reparameterize_kl(
            mu, logvar, rng=5, samples=samples, free_bits=free_bits, reduction=reduction
        )
        np.testing.assert_array_equal(z, reparameterize(mu, logvar, rng=5, samples=samples))
        apart = kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)
        np.testing.assert_array_equal(kl, apart)


def test_by_hand():
    z, kl = reparameterize_kl([[1.0, 0.0]], [[0.0, 0.0]], noise=[[2.0, -1.0]])
    np.testing.assert_array_equal(z, [[3.0, -1.0]])
    assert kl == 0.5


def test_out():
    mu, logvar, eps = draw((4, 5), np.float64)
    out = np.empty((4, 5))
    z, _ = reparameterize_kl(mu, logvar, noise=eps, out=out)
    assert np.shares_memory(z, out)
    np.testing.assert_array_equal(out, fastelbo.reparameterize(mu, logvar, noise=eps))


def test_nan_poisons_its_own_row(dtype):
    mu, logvar, eps = draw((9, 30), dtype)
    clean_z, clean = reparameterize_kl(mu, logvar, noise=eps, reduction="none")
    logvar[4, 7] = np.nan
    z, kl = reparameterize_kl(mu, logvar, noise=eps, reduction="none")
    assert np.isnan(kl[4])
    assert np.isnan(z[4, 7])
    np.testing.assert_array_equal(np.delete(kl, 4), np.delete(clean, 4))
    assert np.count_nonzero(z != clean_z) == 1


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduction"):
        reparameterize_kl([[1.0]], [[0.0]], reduction="median")
