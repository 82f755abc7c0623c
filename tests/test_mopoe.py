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


@pytest.mark.parametrize(
    ("prior", "mu", "precision"),
    [(True, [3, 0, 2], [2, 2, 3]), (False, [6, 0, 3], [1, 1, 2]), ("full", [6, 0, 2], [1, 1, 3])],
)
def test_where_the_prior_stands_by_hand(prior, mu, precision):
    """Experts at 6 and 0, each of precision 1, as the prior's."""
    parts = mopoe([[[6.0]], [[0.0]]], [[[0.0]], [[0.0]]], prior=prior)
    np.testing.assert_allclose(parts.mu.ravel(), mu, rtol=1e-14)
    np.testing.assert_allclose(parts.logvar.ravel(), -np.log(precision), rtol=1e-14)


def test_the_prior_of_all_is_not_in_what_lacks_one():
    """A sample without the second expert has no full product, so that no prior stands in any."""
    mask = [[True], [False]]
    parts = mopoe([[[6.0]], [[0.0]]], [[[0.0]], [[0.0]]], mask=mask, prior="full")
    np.testing.assert_array_equal(parts.mask.ravel(), [True, False, False])
    assert parts.mu[0, 0, 0] == 6


def test_an_unknown_place_of_the_prior():
    with pytest.raises(ValueError, match="prior must be True, False or"):
        mopoe(*draw(np.float64), prior="all")
    with pytest.raises(TypeError, match="prior"):
        product_of_experts(*draw(np.float64), prior="full")


def test_nobody_left():
    nobody = np.zeros((3, 5), bool)
    with pytest.raises(ValueError, match="mask leaves no expert for sample 0"):
        mopoe(*draw(np.float64), mask=nobody, prior=False)
    with pytest.raises(ValueError, match="for sample 0, and prior is 'full'"):
        mopoe(*draw(np.float64), mask=nobody, prior="full")


def test_too_many_experts():
    with pytest.raises(ValueError, match="mu has 13 experts, expected at most 12"):
        mopoe(*np.zeros((2, 13, 1, 1)))
