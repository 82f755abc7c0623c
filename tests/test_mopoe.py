"""mopoe."""

import numpy as np
import pytest

from fastelbo import mopoe, product_of_experts, reference
from tests.conftest import assert_close
from tests.experts import MASKS_AND_PRIORS, draw
from tests.test_threads import eight_cpus as eight_cpus


@pytest.mark.parametrize(("mask", "prior"), MASKS_AND_PRIORS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 3), (3, 31, 130), (5, 40, 20)])
def test_reference(size, mask, prior, dtype):
    mu, logvar, seen = draw(dtype, *size, mask=mask)
    got = mopoe(mu, logvar, mask=seen, prior=prior)
    *expected, counts = reference.mopoe(mu, logvar, mask=seen, prior=prior)
    np.testing.assert_array_equal(got.mask, counts)
    largest = 4 * np.nan_to_num(np.abs(mu)).max(axis=0)
    assert_close(tuple(got[:2]), tuple(expected), dtype, (largest, 4.0))


def test_every_subset_is_a_product(dtype):
    mu, logvar, _ = draw(dtype)
    parts = mopoe(mu, logvar)
    assert parts.mask.all()
    for s in range(1, 8):
        members = [m for m in range(3) if s >> m & 1]
        expected = product_of_experts(mu[members], logvar[members])
        np.testing.assert_array_equal(parts.mu[s - 1], expected.mu)
        np.testing.assert_array_equal(parts.logvar[s - 1], expected.logvar)


def test_threads(dtype, eight_cpus):
    mu, logvar, seen = draw(dtype, 4, 500, 33, "some")
    alone = mopoe(mu, logvar, mask=seen, num_threads=1)
    for threads in (2, 3, 8):
        for a, b in zip(alone, mopoe(mu, logvar, mask=seen, num_threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)


def test_nobody_left():
    mu, logvar, seen = draw(np.float64, mask="none")
    with pytest.raises(ValueError, match="mask leaves no expert for sample 0"):
        mopoe(mu, logvar, mask=seen, prior=False)


def test_too_many_experts():
    with pytest.raises(ValueError, match="mu has 13 experts, expected at most 12"):
        mopoe(*np.zeros((2, 13, 1, 1)))
