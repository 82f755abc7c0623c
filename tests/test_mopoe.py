"""mopoe."""

import numpy as np
import pytest

from fastelbo import mopoe, product_of_experts
from tests.experts import draw


def test_every_subset_is_a_product(dtype):
    mu, logvar = draw(dtype)
    parts = mopoe(mu, logvar)
    assert parts.mask.all()
    for s in range(1, 8):
        members = [m for m in range(3) if s >> m & 1]
        expected = product_of_experts(mu[members], logvar[members])
        np.testing.assert_array_equal(parts.mu[s - 1], expected.mu)
        np.testing.assert_array_equal(parts.logvar[s - 1], expected.logvar)


def test_nobody_left():
    nobody = np.zeros((3, 5), bool)
    with pytest.raises(ValueError, match="mask leaves no expert for sample 0"):
        mopoe(*draw(np.float64), mask=nobody, prior=False)


def test_too_many_experts():
    with pytest.raises(ValueError, match="mu has 13 experts, expected at most 12"):
        mopoe(*np.zeros((2, 13, 1, 1)))
