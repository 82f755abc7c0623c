"""Gaussian: a fixed scale, one per feature, a learned one, the optimal one."""

import math

import numpy as np
import pytest
import scipy.stats

from fastelbo import Gaussian, reference
from fastelbo._catalogue import REDUCTIONS, flatten
from fastelbo._catalogue.likelihoods import gaussian
from tests.conftest import TOLERANCE, assert_close

SHAPES = [(1, 1), (2, 31), (31, 2), (33, 33), (1, 4095), (2, 4097), (4097, 1), (40, 784)]


def draw(shape, dtype, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for _ in range(count)]


def check_fixed(scale, arrays, dtype, reduction="mean"):
    """Of a fixed scale, against the reference."""
    got = Gaussian(scale).log_prob_and_grad(*arrays, reduction=reduction)
    expected = reference.Gaussian(scale).log_prob_and_grad(*arrays, reduction=reduction)
    wide = [a.astype(np.float64) for a in arrays]
    scales = gaussian("", np.asarray(scale, float)).magnitudes(*wide, reduction=reduction)
    assert got[1][0].dtype == dtype
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, scales)
    value = Gaussian(scale).log_prob(*arrays, reduction=reduction)
    assert_close(value, expected[0], dtype, scales[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [(s, s[1:]) for s in SHAPES]
    + [((3, 6, 5), s) for s in [(5,), (6, 1), (1, 5), (6, 5), (1, 1), (1,)]]
    + [((2, 3, 4, 5), s) for s in [(3, 1, 1), (4, 1), (3, 1, 5), (5,)]]
    + [((4, 1, 9), (1, 9)), ((7,), ())],
)
def test_scale_per_feature(shape, scale_shape, reduction, dtype):
    scale = np.random.default_rng(1).uniform(0.2, 3.0, scale_shape)
    check_fixed(scale, draw(shape, dtype), dtype, reduction)


@pytest.mark.parametrize(
    "scale", [1e-320, 1e-200, 1e-160, 1e-9, 1e-8, 1e-3, 1e3, 1e8, 1e9, 1e160, 1e200, 1e307]
)
def test_scale_beyond_its_square(scale):
    """1 / scale^2 overflows or vanishes, the density does not."""
    x = scale * np.array([[0.0, 1.0, -2.0, 3.0]])
    x_recon = scale * np.array([[0.5, 1.0, 1.5, -0.25]])
    with np.errstate(over="ignore"):
        if np.isfinite(1 / scale):
            check_fixed(scale, [x, x_recon], np.dtype(np.float64), "none")
    value = Gaussian(scale).log_prob(x, x_recon)
    if scale > 1e-300:
        expected = scipy.stats.norm.logpdf(x / scale, x_recon / scale).sum() - 4 * np.log(scale)
        np.testing.assert_allclose(value, expected, rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-9, 1e-8, 1e-20, 1e8, 1e9, 1e18])
def test_scale_beyond_its_square_in_float32(scale):
    x = (scale * np.array([[0.0, 1.0, -2.0, 3.0]])).astype(np.float32)
    x_recon = (scale * np.array([[0.5, 1.0, 1.5, -0.25]])).astype(np.float32)
    got = Gaussian(scale).log_prob(x, x_recon)
    assert_close(got, reference.Gaussian(scale).log_prob(x, x_recon), np.float32, 4.0)


def test_by_hand():
    value, (grad,) = Gaussian(2.0).log_prob_and_grad([[1.0]], [[0.0]])
    assert value == pytest.approx(-0.125 - math.log(2.0) - 0.5 * math.log(2 * math.pi), rel=1e-15)
    assert grad[0, 0] == 0.25
    value, grads = Gaussian("learned").log_prob_and_grad([[3.0]], [[1.0]], [[math.log(2.0)]])
    assert value == pytest.approx(-0.5 - math.log(2.0) - 0.5 * math.log(2 * math.pi), rel=1e-15)
    np.testing.assert_allclose(np.ravel(grads), [0.5, 0.0], atol=1e-15)
    value = Gaussian("optimal").log_prob([[1.0, 0.0], [0.0, 0.0]], np.zeros((2, 2)))
    assert value == pytest.approx(-math.log(2 * math.pi * 0.25) - 1.0, rel=1e-15)


def test_optimal_scale_is_the_best(dtype):
    x, x_recon = draw((20, 30), dtype)
    best = Gaussian("optimal").log_prob(x, x_recon)
    sigma = math.sqrt(np.mean((x.astype(np.float64) - x_recon) ** 2))
    assert best == pytest.approx(Gaussian(sigma).log_prob(x, x_recon), rel=1e-6)
    for factor in (0.9, 1.1):
        assert Gaussian(factor * sigma).log_prob(x, x_recon) < best
    rows = Gaussian("optimal").log_prob(x, x_recon, reduction="none")
    assert rows.mean() == pytest.approx(best, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("poison", [0.0, np.nan, np.inf])
def test_optimal_scale_needs_an_error(poison, dtype):
    x = np.ones((3, 4), dtype)
    x_recon = x.copy()
    x_recon[1, 2] += poison
    out = np.full((3, 4), 77, dtype)
    with pytest.raises(ValueError, match='scale="optimal"'):
        Gaussian("optimal").log_prob_and_grad(x, x_recon, out=(out,))
    np.testing.assert_array_equal(out, 77)


def test_an_optimal_scale_of_nothing(dtype):
    """What is missing adds nothing, and of nothing any scale is the best."""
    x, x_recon = np.full((3, 4), np.nan, dtype), np.ones((3, 4), dtype)
    value, (gradient,) = Gaussian("optimal", missing="nan").log_prob_and_grad(x, x_recon)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((3, 4)))
    assert Gaussian("optimal").log_prob(x_recon, x_recon, mask=np.zeros((3, 4), bool)) == 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    values = [0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, 1e30, -1e-10]
    logs = [0.0, 1.0, -30.0, 30.0, 95.0, -95.0, 800.0, -800.0, np.inf, np.nan]
    x, x_recon, log_scale = (
        np.ravel(a)[:, None].astype(dtype) for a in np.meshgrid(values, values[:6], logs)
    )
    rows, grads = Gaussian("learned").log_prob_and_grad(x, x_recon, log_scale, reduction="none")
    with np.errstate(all="ignore"):
        precision = np.exp(-log_scale)
        precision = np.where((x == x_recon) & np.isinf(precision), dtype.type(1), precision)
        scaled = (x - x_recon) * precision  # an error of 0 is one of 0 at any scale
        half, constant = dtype.type(0.5), dtype.type(0.5 * np.log(2 * np.pi))
        plain = -half * scaled * scaled - log_scale - constant
        by_mean, by_log = scaled * precision, scaled * scaled - 1
        size = np.nan_to_num(np.abs(scaled * scaled) + np.abs(log_scale) + 1, posinf=0.0)
    assert_close(rows, plain[:, 0], dtype, size[:, 0])
    assert_close(grads, (by_mean, by_log), dtype, (None, size))
    for g in grads:
        assert g.dtype == dtype


@pytest.mark.parametrize("scale", [0.5, "learned", "optimal", np.linspace(0.5, 2.0, 40)])
def test_uint8(scale, dtype):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    outputs = [rng.uniform(size=x.shape).astype(dtype)]
    if isinstance(scale, str) and scale == "learned":
        outputs.append(rng.normal(size=x.shape).astype(dtype))
    got = Gaussian(scale, x_scale=1 / 255).log_prob_and_grad(x, *outputs)
    expected = reference.Gaussian(scale, x_scale=1 / 255).log_prob_and_grad(x, *outputs)
    sigma = np.exp(outputs[1]) if len(outputs) == 2 else 0.3
    steepest = 30 * np.max(1 / np.asarray(sigma)) ** 2  # x / 255 is rounded before x_recon leaves
    assert_close(got[0], expected[0], dtype, 40 * steepest)
    for g, e in zip(got[1], expected[1], strict=True):
        assert_close(g, e, dtype, steepest)


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (0.0, ValueError),
        (-1.0, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        ("best", ValueError),
        (None, TypeError),
        (1j, TypeError),
        ([1.0, 0.0], ValueError),
        ([1.0, -1.0], ValueError),
        ([1.0, np.nan], ValueError),
        ([1.0, np.inf], ValueError),
        (["a", "b"], TypeError),
        ([[1.0], [1.0, 2.0]], TypeError),
        (np.ma.masked_array([1.0, 2.0], [True, False]), TypeError),
    ],
)
def test_scale_errors(scale, error):
    with pytest.raises(error, match="scale"):
        Gaussian(scale)


def test_scale_must_fit_the_event():
    with pytest.raises(ValueError, match="scale"):
        Gaussian([1.0, 2.0]).log_prob(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="log_scale"):
        Gaussian("learned").log_prob(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(TypeError, match="log_scale"):
        Gaussian("learned").log_prob(np.zeros((2, 3)), np.zeros((2, 3)))


def test_scale_is_taken_when_given():
    """Later changes of the caller's array do not reach it."""
    scale = np.ones(3)
    likelihood = Gaussian(scale)
    before = likelihood.log_prob(np.ones((1, 3)), np.zeros((1, 3)))
    scale[:] = 9.0
    assert likelihood.log_prob(np.ones((1, 3)), np.zeros((1, 3))) == before


def test_one_object_serves_both_dtypes():
    """What a likelihood keeps of its own numbers, it keeps of each dtype."""
    scale = [1e-45, 0.5, 3.0]
    one = Gaussian(scale)
    for dtype in (np.float32, np.float64, np.float32):
        arrays = [np.linspace(0, 1, 3, dtype=dtype)[None]] * 2
        np.testing.assert_array_equal(
            one.log_prob(*arrays, reduction="none"),
            Gaussian(scale).log_prob(*arrays, reduction="none"),
        )


def test_one_scale_of_each_of_many_features(dtype):
    """Of more than are summed once for every block of rows: columns are cut instead."""
    rng = np.random.default_rng(0)
    x, x_recon = rng.normal(size=(2, 5, 70_001)).astype(dtype)
    log_scale = rng.normal(size=70_001).astype(dtype)
    likelihood, spec = Gaussian("learned"), reference.Gaussian("learned")
    value, expected = spec.log_prob_and_grad(x, x_recon, log_scale, reduction="sum")
    terms = (np.square(x - x_recon, dtype=np.float64) * np.exp(-2.0 * log_scale) + 1).sum(0)
    runs = []
    for threads in (1, 2, 3):
        options = {"reduction": "sum", "num_threads": threads}
        got, gradients = likelihood.log_prob_and_grad(x, x_recon, log_scale, **options)
        assert_close(got, value, dtype, terms.sum())
        assert_close(gradients[1], expected[1], dtype, terms)
        runs.append(gradients)
    for other in runs[1:]:
        for mine, alone in zip(other, runs[0], strict=True):
            np.testing.assert_array_equal(mine, alone)
