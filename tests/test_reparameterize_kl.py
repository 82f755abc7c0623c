"""reparameterize_kl: both of what it joins."""

import numpy as np
import pytest

from fastelbo import FreeBits, kl_standard_normal, reparameterize, reparameterize_kl
from fastelbo._catalogue import REDUCTIONS

FREE_BITS = [0.0, 0.3, FreeBits(0.4, granularity="sample"), FreeBits(9.0, granularity="total")]


def draw(shape, dtype, samples=None):
    rng = np.random.default_rng(3)
    full = shape if samples is None else (samples, *shape)
    return [rng.normal(size=s).astype(dtype) for s in (shape, shape, full)]


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


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduction"):
        reparameterize_kl([[1.0]], [[0.0]], reduction="median")
