"""product_of_experts."""

import numpy as np
import pytest

import fastelbo
from fastelbo import product_of_experts, reference
from tests.conftest import assert_close
from tests.experts import MASKS, SIZES, draw
from tests.test_threads import eight_cpus as eight_cpus


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_reference(size, prior, mask, dtype):
    if mask == "none" and not prior:
        return
    mu, logvar, seen = draw(dtype, *size, mask=mask)
    got = product_of_experts(mu, logvar, mask=seen, prior=prior)
    assert got.mu.dtype == got.logvar.dtype == dtype
    expected = reference.product_of_experts(mu, logvar, mask=seen, prior=prior)
    largest = np.nan_to_num(np.abs(mu)).max(axis=0)
    assert_close(tuple(got), expected, dtype, (4 * largest, 4.0))


def test_by_hand():
    """Precisions 4 and 1 and the prior's: 6 in all."""
    q = product_of_experts([[[3.0]], [[-6.0]]], np.log([[[0.25]], [[1.0]]]))
    assert q.mu[0, 0] == pytest.approx((4 * 3 - 6) / 6)
    assert q.logvar[0, 0] == pytest.approx(-np.log(6))


def test_tiny_and_huge_variances(dtype):
    mu = np.array([[[1.0, 2.0, 3.0]], [[5.0, 6.0, 7.0]]], dtype)
    logvar = np.array([[[-500.0, 500.0, -500.0]], [[500.0, 500.0, -500.0]]], dtype)
    q = product_of_experts(mu, logvar)
    np.testing.assert_allclose(q.mu[0, :2], [1.0, 0.0], atol=1e-200)
    np.testing.assert_allclose(q.mu[0, 2], 5.0)
    np.testing.assert_allclose(q.logvar[0], [-500, 0, -500 - np.log(2)], rtol=1e-6, atol=1e-6)
    q = product_of_experts(mu, logvar, prior=False)
    np.testing.assert_allclose(q.mu[0, 1], 4.0)
    np.testing.assert_allclose(q.logvar[0, 1], 500 - np.log(2), rtol=1e-6)


def test_threads(dtype, eight_cpus):
    mu, logvar, seen = draw(dtype, 4, 1000, 33, "some")
    alone = product_of_experts(mu, logvar, mask=seen, num_threads=1)
    for threads in (2, 3, 8):
        together = product_of_experts(mu, logvar, mask=seen, num_threads=threads)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


def test_not_a_number_stays_in_its_sample(dtype):
    mu, logvar, _ = draw(dtype)
    expected = product_of_experts(mu, logvar)
    mu[1, 2, 3] = np.nan
    got = product_of_experts(mu, logvar)
    assert np.isnan(got.mu[2, 3])
    got.mu[2, 3] = expected.mu[2, 3]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layouts_and_out(layout, dtype):
    mu, logvar, _ = draw(dtype)
    outs = np.empty((5, 4), dtype), np.empty((5, 4), dtype)
    expected = product_of_experts(mu, logvar, out=outs)
    assert expected.mu is outs[0]
    got = product_of_experts(layout(mu), layout(logvar))
    assert_close(tuple(got), tuple(expected), dtype, 4.0)
    with pytest.raises(ValueError, match=r"out\.mu overlaps"):
        product_of_experts(mu, logvar, out=(mu[0], None))


def test_errors():
    mu, logvar, _ = draw(np.float64)
    nobody = np.zeros((3, 5), bool)
    product_of_experts(mu, logvar, mask=nobody)
    with pytest.raises(ValueError, match="mask leaves no expert for sample 0"):
        product_of_experts(mu, logvar, mask=nobody, prior=False)
    with pytest.raises(TypeError, match="mask must be boolean"):
        product_of_experts(mu, logvar, mask=np.ones((3, 5)))
    with pytest.raises(TypeError, match="prior"):
        product_of_experts(mu, logvar, prior=fastelbo.StandardNormal())
    for name, arrays, options in [
        ("mu", (mu[0], logvar[0]), {}),
        ("mu", (mu[:0], logvar[:0]), {}),
        ("mu", (mu[:, :0], logvar[:, :0]), {}),
        ("mu", np.zeros((2, 65, 1, 1)), {}),
        ("logvar", (mu, logvar[1:]), {}),
        ("mask", (mu, logvar), {"mask": nobody[:2]}),
    ]:
        with pytest.raises(ValueError, match=f"^{name} has"):
            product_of_experts(*arrays, **options)
