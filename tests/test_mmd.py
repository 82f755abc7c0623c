"""mmd and its gradients."""

import numpy as np
import pytest

from fastelbo import mmd, mmd_and_grad, reference
from tests.conftest import assert_close


def draw(dtype, n=6, m=5, cols=3, seed=0):
    rng = np.random.default_rng(seed)
    sets = rng.normal(size=(n, cols)), 0.3 + 1.2 * rng.normal(size=(m, cols))
    return tuple(a.astype(dtype) for a in sets)


def test_by_hand():
    """Two pairs on a line, s = 1: k(1) = e^-1/2, k(2) = e^-2, k(3) = e^-9/2."""
    one, two, three = np.exp([-0.5, -2.0, -4.5])
    z, y = [[0.0], [1.0]], [[0.0], [3.0]]
    between = 0.25 * (1 + three + one + two)
    assert mmd(z, y, bandwidth=1.0) == pytest.approx(one + three - 2 * between)
    biased = 0.5 * (1 + one) + 0.5 * (1 + three) - 2 * between
    assert mmd(z, y, bandwidth=1.0, estimator="biased") == pytest.approx(biased)
    c = np.array([0.1, 0.2, 0.5, 1, 2, 5, 10]) * 2
    within = 0.5 * (7 + (c / (c + 1)).sum()), 0.5 * (7 + (c / (c + 9)).sum())
    between = 0.25 * sum((c / (c + d)).sum() for d in (0, 9, 1, 4))
    got = mmd(z, y, kernel="imq", estimator="biased")
    assert got == pytest.approx(sum(within) - 2 * between)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_same_set_twice(kernel, dtype):
    """Distances of a sample to itself are exactly zero, however far out it is."""
    z = (1e4 + draw(dtype, 40)[0]).astype(dtype)
    value, gradients = mmd_and_grad(z, z.copy(), kernel=kernel, estimator="biased")
    assert abs(value) < 1e-15
    for g in gradients:
        np.testing.assert_allclose(g, 0, atol=1e-6 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_many_samples_twice(kernel, dtype):
    """Pairs within and between equal sets are added alike: float64 rounds, whatever the dtype."""
    z = draw(dtype, 333)[0]
    value, gradients = mmd_and_grad(z, z.copy(), kernel=kernel, estimator="biased")
    assert abs(value) < 1e-14
    for g in gradients:
        np.testing.assert_allclose(g, 0, atol=1e-15)


def test_small_distances_far_from_the_origin():
    z, y = (1000 + 1e-3 * a for a in draw(np.float64, 20, 30))
    z, y = z.astype(np.float32), y.astype(np.float32)
    got = mmd(z, y, bandwidth=1e-3)
    assert_close(got, reference.mmd(z, y, bandwidth=1e-3), np.float32, 3.0)


def test_kernels_that_are_almost_nothing(dtype):
    """They are what they are down to the smallest denormal number: here of one pair, alone."""
    tiny = float(np.finfo(dtype).smallest_subnormal)
    for exponent in np.linspace(0, -1.2 * np.log(tiny), 300):
        far = np.array([[0.0], [np.sqrt(2 * exponent)]], dtype)
        others = np.array([[1000.0], [2000.0]], dtype)
        value, gradients = mmd_and_grad(far, others, bandwidth=1.0)
        d = float(far[1, 0])
        expected = np.exp(-0.5 * d * d)
        error = 2 * float(np.finfo(dtype).eps) * max(1.0, exponent)
        assert value == pytest.approx(expected, rel=error, abs=tiny)
        assert gradients.z[0, 0] == pytest.approx(d * expected, rel=error, abs=(2 + 2 * d) * tiny)
        assert gradients.z[1, 0] == -gradients.z[0, 0]


def test_not_a_number_stays_where_it_belongs():
    z, y = draw(np.float64)
    z[2, 1] = np.nan
    value, gradients = mmd_and_grad(z, y)
    assert np.isnan(value)
    z[2, 1] = 1e200
    assert np.isfinite(mmd(z, y))
    z[2, 1] = np.inf
    assert np.isfinite(mmd(z, y))
    assert np.isnan(gradients.z).all()


def test_out(dtype):
    sets = draw(dtype)
    outs = tuple(np.full_like(a, 77) for a in sets)
    _, gradients = mmd_and_grad(*sets, out=outs)
    for mine, out, other in zip(gradients, outs, mmd_and_grad(*sets)[1], strict=True):
        assert mine is out
        np.testing.assert_array_equal(out, other)
    with pytest.raises(ValueError, match=r"out\.y overlaps"):
        mmd_and_grad(*sets, out=(outs[0], sets[1]))


@pytest.mark.parametrize("function", [mmd, mmd_and_grad])
def test_errors(function):
    z, y = draw(np.float64)
    for name, wrong in [
        ("z has shape", (z[0], y)),
        ("y has shape", (z, y[:, :2])),
        ("y has shape", (z, y[0])),
        ("z has an empty batch", (z[:0], y)),
        ("y is one sample", (z, y[:1])),
    ]:
        with pytest.raises(ValueError, match=name):
            function(*wrong)
    with pytest.raises(TypeError, match=r"^z "):
        function(z.astype(complex), y)
    for options in [
        {"kernel": "linear"},
        {"estimator": "best"},
        {"bandwidth": 0.0},
        {"bandwidth": [1.0, np.nan]},
        {"bandwidth": []},
        {"bandwidth": [[1.0]]},
    ]:
        with pytest.raises(ValueError, match=next(iter(options))):
            function(z, y, **options)
    with pytest.raises(TypeError, match="bandwidth"):
        function(z, y, bandwidth="median")
