"""mmd and its gradients."""

import numpy as np
import pytest

from fastelbo import mmd, mmd_and_grad, reference
from fastelbo._catalogue.mixtures import mmd_scales
from tests.conftest import assert_close, numerical_gradient
from tests.test_threads import eight_cpus as eight_cpus

SIZES = [(2, 2, 1), (3, 33, 5), (31, 4, 65), (130, 260, 16), (300, 5, 3), (5, 7, 0)]
SIZES += [(390, 200, 7), (1, 600, 2)]  # so many that they are taken in greater groups
KERNELS = [("rbf", None), ("rbf", (0.5, 2.0)), ("imq", None), ("imq", 1.5)]


def draw(dtype, n=6, m=5, cols=3, seed=0):
    rng = np.random.default_rng(seed)
    sets = rng.normal(size=(n, cols)), 0.3 + 1.2 * rng.normal(size=(m, cols))
    return tuple(a.astype(dtype) for a in sets)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize(("kernel", "bandwidth"), KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_reference(size, kernel, bandwidth, estimator, dtype):
    if size[2] == 0 and bandwidth is None:
        bandwidth = 1.0
    if min(size[:2]) == 1 and estimator == "unbiased":
        size = (2, *size[1:])
    sets = draw(dtype, *size)
    options = {"kernel": kernel, "bandwidth": bandwidth, "estimator": estimator}
    value, gradients = mmd_and_grad(*sets, **options)
    expected, theirs = reference.mmd_and_grad(*sets, **options)
    assert type(value) is float
    of_value, *of_gradients = mmd_scales(*sets, "imq")
    assert_close(value, expected, dtype, of_value)
    for mine, other, scale in zip(gradients, theirs, of_gradients, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, other, dtype, scale)
    assert_close(mmd(*sets, **options), value, np.float64, of_value)


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


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize(("kernel", "bandwidth"), KERNELS)
def test_differences(kernel, bandwidth, estimator):
    z, y = draw(np.float64)
    options = {"kernel": kernel, "bandwidth": bandwidth, "estimator": estimator}
    _, gradients = mmd_and_grad(z, y, **options)
    by_z = numerical_gradient(lambda a: mmd(a, y, **options), z)
    by_y = numerical_gradient(lambda a: mmd(z, a, **options), y)
    np.testing.assert_allclose(gradients.z, by_z, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gradients.y, by_y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [(203, 150, 13), (50, 40, 20), (700, 333, 3)])
def test_threads(size, dtype, eight_cpus):
    sets = draw(dtype, *size)
    for kernel in ("rbf", "imq"):
        alone = mmd_and_grad(*sets, kernel=kernel, num_threads=1)
        for threads in (2, 3, 4, 7, 8):
            together = mmd_and_grad(*sets, kernel=kernel, num_threads=threads)
            assert alone[0] == together[0]
            for a, b in zip(alone[1], together[1], strict=True):
                np.testing.assert_array_equal(a, b)


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


def test_layouts(layout, dtype):
    sets = draw(dtype)
    got, gradients = mmd_and_grad(*map(layout, sets))
    expected, theirs = mmd_and_grad(*sets)
    assert_close(got, expected, dtype, 3.0)
    for mine, other in zip(gradients, theirs, strict=True):
        assert_close(mine, other, dtype, 1.0)


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
