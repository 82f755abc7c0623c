"""endpoint_velocity: facts worked by hand."""

import numpy as np
import pytest

from fastelbo import Categorical, endpoint_velocity


def test_by_hand():
    got = endpoint_velocity([[2.0, 0.0], [3.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]], [0.5, 0.75])
    np.testing.assert_array_equal(got, [[2.0, -2.0], [12.0, 4.0]])


def test_a_straight_path_keeps_its_velocity():
    """x_t = (1 - t) noise + t x has velocity x - noise at any time."""
    x, noise = np.random.default_rng(0).normal(size=(2, 5, 3))
    for t in (0.0, 0.3, 0.999):
        got = endpoint_velocity(x, (1 - t) * noise + t * x, t)
        np.testing.assert_allclose(got, x - noise, rtol=1e-12, atol=1e-12)


def test_classes_go_to_their_probabilities():
    x_t = np.array([[0.2, 0.8]])
    probabilities = Categorical().mean([[0.0, 0.0]])
    got = endpoint_velocity(probabilities, x_t, 0.5)
    np.testing.assert_allclose(got, [[0.6, -0.6]])


def test_arriving_is_no_division_by_zero():
    """At the endpoint the velocity is zero, however late it is."""
    t = np.nextafter(1.0, 0.0)
    assert endpoint_velocity([[1.0]], [[1.0]], t) == 0
    assert endpoint_velocity([[1.0]], [[0.0]], t) == 2.0**53


@pytest.mark.parametrize("t", [1.0, -1e-9, 2.0, np.nan, np.inf])
def test_times_outside_are_named(t):
    with pytest.raises(ValueError, match=r"^t = .*outside \[0, 1\).*no limit at t = 1"):
        endpoint_velocity([[1.0]], [[0.0]], t)
    with pytest.raises(ValueError, match=r"^t\[1\] = "):
        endpoint_velocity([[1.0], [1.0]], [[0.0], [0.0]], [0.5, t])


def test_out_is_no_input():
    mu, x_t = np.ones((2, 3)), np.zeros((2, 3))
    out = np.empty((2, 3))
    assert endpoint_velocity(mu, x_t, 0.5, out=out) is out
    np.testing.assert_array_equal(out, 2.0)
    for wrong in (mu, x_t):
        with pytest.raises(ValueError, match="out overlaps"):
            endpoint_velocity(mu, x_t, 0.5, out=wrong)


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        (([[1.0]], [[1.0, 2.0]], 0.5), "x_t"),
        (([[1.0]], [[1.0]], [0.5, 0.5]), "t"),
        ((1.0, 1.0, 0.5), "mu"),
        ((np.zeros((0, 2)), np.zeros((0, 2)), 0.5), "mu"),
    ],
)
def test_shapes_are_named(arrays, name):
    with pytest.raises(ValueError, match=f"^{name} has"):
        endpoint_velocity(*arrays)
