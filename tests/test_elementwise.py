"""Log-densities of elements, ``reduction="elementwise"``, against numbers worked out by hand."""

import numpy as np
import pytest

import fastelbo

X = np.array([[1.0, 0.0], [0.0, 1.0]])
LOG2 = np.log(2)


def test_by_hand(dtype):
    logits = np.array([[0, 0], [np.log(3), np.log(3)]], dtype)
    expected = np.array([[-LOG2, -LOG2], [np.log(1 / 4), np.log(3 / 4)]])
    tolerance = {"rtol": 4 * np.finfo(dtype).eps}
    got = fastelbo.Bernoulli().log_prob(X.astype(np.uint8), logits, reduction="elementwise")
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, **tolerance)
    mask = np.array([[True, False], [True, True]])
    value, (gradient,) = fastelbo.Bernoulli().log_prob_and_grad(
        X.astype(np.uint8), logits, mask=mask, reduction="elementwise"
    )
    np.testing.assert_allclose(value, np.where(mask, expected, 0), **tolerance)
    np.testing.assert_allclose(gradient, [[0.5, 0], [-0.75, 0.25]], **tolerance)


def test_constants_are_in_every_element_that_is_there(dtype):
    x = np.array([[0.0, np.nan], [2.0, 0.0]], dtype)
    got = fastelbo.Gaussian(2.0, missing="nan").log_prob(
        x, np.zeros_like(x), reduction="elementwise"
    )
    at_mean = -0.5 * np.log(8 * np.pi)
    np.testing.assert_allclose(got, [[at_mean, 0], [at_mean - 0.5, at_mean]], rtol=1e-6)


def test_parameters_that_are_shared_get_the_sum_of_gradients(dtype):
    x = np.array([[0, 1], [2, 0]])
    theta = np.ones(2, dtype)
    values, (_, by_theta) = fastelbo.NegativeBinomial().log_prob_and_grad(
        x, np.ones((2, 2), dtype), theta, reduction="elementwise"
    )
    np.testing.assert_allclose(values, -LOG2 * (x + 1), rtol=1e-6)
    assert by_theta.shape == (2,)


def test_shapes_of_samples_classes_and_scalars(dtype):
    labels, logits = np.array([[0, 1, 2]]), np.zeros((4, 1, 3, 5), dtype)
    got = fastelbo.Categorical().log_prob(labels, logits, reduction="elementwise")
    np.testing.assert_allclose(got, np.full((4, 1, 3), -np.log(5)), rtol=1e-6)
    assert got.dtype == dtype
    scalars = np.zeros(3, dtype)
    got = fastelbo.SquaredError().log_prob(scalars, scalars + 2, reduction="elementwise")
    np.testing.assert_array_equal(got, [-4, -4, -4])
    assert got.dtype == dtype


def test_it_is_of_likelihoods_only():
    """What has no elements, or no one density of each, does not know the word."""
    z = np.zeros((1, 2))
    for call in (
        lambda **option: fastelbo.elbo(z, z, z, z, **option),
        lambda **option: fastelbo.kl_standard_normal(z, z, **option),
        lambda **option: fastelbo.iwae(z, z[None], z, z, z[None], **option),
    ):
        with pytest.raises(ValueError, match=r"reduction must be .* got 'elementwise'"):
            call(reduction="elementwise")
    with pytest.raises(ValueError, match=r"elementwise.*did you mean 'elementwise'"):
        fastelbo.Bernoulli().log_prob(z, z, reduction="elementwize")


def test_outside_of_the_domain_is_named():
    with pytest.raises(ValueError, match=r"x\[1, 0\] = 7 lies outside"):
        fastelbo.Bernoulli().log_prob([[1.0], [7.0]], np.zeros((2, 1)), reduction="elementwise")
