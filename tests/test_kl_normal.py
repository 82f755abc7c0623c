"""kl_normal and kl_normal_and_grad."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastelbo import kl_normal, kl_normal_and_grad, kl_standard_normal_and_grad, reference
from fastelbo._catalogue import REDUCTIONS
from tests.cases import SHAPES, any_array, check
from tests.conftest import assert_close, numerical_gradient

NAMES = ["kl_normal", "kl_normal_and_grad"]


def draw(shape, dtype, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [(spread * rng.normal(size=shape)).astype(dtype) for _ in range(4)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reference(name, shape, reduction, dtype):
    check(name, draw(shape, dtype), dtype, reduction=reduction)


@pytest.mark.parametrize("spread", [1e-6, 1e-3, 5.0, 10.0])
def test_near_and_far(spread, dtype):
    """Log-variances far apart, too: the rounding of their difference is put back."""
    check("kl_normal_and_grad", draw((50, 40), dtype, spread), dtype, reduction="none")


def test_by_hand():
    value, grad = kl_normal_and_grad([[3.0]], [[0.0]], [[1.0]], [[0.0]])
    assert value == 2.0
    np.testing.assert_array_equal(np.ravel(grad), [2.0, 0.0, -2.0, -2.0])


def test_of_itself_is_zero(dtype):
    mu, logvar, *_ = draw((20, 30), dtype)
    value, grad = kl_normal_and_grad(mu, logvar, mu, logvar)
    assert value == 0.0
    for g in grad:
        np.testing.assert_array_equal(g, 0.0)


def test_standard_prior(dtype):
    """A prior that is broadcast, never stored."""
    mu, logvar, *_ = draw((20, 30), dtype)
    zeros = np.broadcast_to(np.zeros(30, dtype), mu.shape)
    value, grad = kl_normal_and_grad(mu, logvar, zeros, zeros)
    expected, expected_grad = kl_standard_normal_and_grad(mu, logvar)
    assert_close(value, expected, dtype)
    assert_close(tuple(grad[:2]), tuple(expected_grad), dtype, (np.abs(mu), np.abs(logvar)))


@pytest.mark.parametrize("prior_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_broadcast_prior(prior_dtype, axis, dtype):
    """One prior for the batch, or one number a sample, of either dtype."""
    q = draw((6, 5), dtype)[:2]
    rng = np.random.default_rng(1)
    small = rng.normal(size=(2, 1, 5) if axis == 0 else (2, 6, 1)).astype(prior_dtype)
    p = [np.broadcast_to(a, (6, 5)) for a in small]
    computed = np.result_type(dtype, prior_dtype)
    for reduction in REDUCTIONS:
        check("kl_normal_and_grad", [*q, *p], computed, reduction=reduction)
        check("kl_normal_and_grad", [*p, *q], computed, reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_central_differences(reduction):
    arguments = draw((3, 4), np.float64)
    _, grad = kl_normal_and_grad(*arguments, reduction=reduction)
    for i in range(4):

        def value(a, i=i):
            return kl_normal(*arguments[:i], a, *arguments[i + 1 :], reduction=reduction)

        numerical = numerical_gradient(value, arguments[i])
        np.testing.assert_allclose(grad[i], numerical, rtol=1e-7, atol=1e-8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    """Infinities and NaN are where the formula has them, in this dtype."""
    values = [0.0, 1.0, -3.0, np.inf, -np.inf, np.nan, 90.0, -90.0, 400.0, -400.0, 800.0, -800.0]
    columns = np.array(np.meshgrid([0.0, 2.0, 1e5, np.inf, np.nan], values, [0.0], values), dtype)
    q_mu, q_lv, p_mu, p_lv = (a.reshape(-1, 1).copy() for a in columns)
    rows, grad = kl_normal_and_grad(q_mu, q_lv, p_mu, p_lv, reduction="none")
    expected, expected_grad = reference.kl_normal_and_grad(q_mu, q_lv, p_mu, p_lv, reduction="none")
    with np.errstate(all="ignore"):
        d, precision = q_mu - p_mu, np.exp(-p_lv)
        ratio = np.exp(q_lv - p_lv)
        plain = (ratio - 1 - (q_lv - p_lv) + d * (d * precision)) * dtype.type(0.5)
        plain_grad = (d * precision, ratio - 1, -d * precision, -(ratio - 1 + d * (d * precision)))
    finite = np.isfinite(plain)
    assert 50 < finite.sum() < finite.size - 50
    np.testing.assert_array_equal(rows[~finite[:, 0]], plain[~finite])
    assert_close(rows[finite[:, 0]], expected[finite[:, 0]], dtype)
    for g, e, p in zip(grad, expected_grad, plain_grad, strict=True):
        finite = np.isfinite(p)
        np.testing.assert_array_equal(g[~finite], p[~finite])
        scale = np.nan_to_num(np.abs(expected_grad[1]) + np.abs(e), posinf=0.0)
        assert_close(g[finite], e[finite], dtype, scale[finite])


def test_nan_poisons_its_own_row(dtype):
    arguments = draw((9, 600), dtype)
    clean = kl_normal(*arguments, reduction="none")
    for dirty in range(4):
        poisoned = [a.copy() for a in arguments]
        poisoned[dirty][4, 599] = np.nan
        rows = kl_normal(*poisoned, reduction="none")
        assert np.isnan(rows[4])
        np.testing.assert_array_equal(np.delete(rows, 4), np.delete(clean, 4))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_values(data):
    dtype = data.draw(st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)]))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))
    arguments = [any_array(data, dtype, shape, 20) for _ in range(4)]
    for reduction in REDUCTIONS:
        check("kl_normal_and_grad", arguments, dtype, reduction=reduction)


def test_shapes_must_agree():
    a, b = np.zeros((2, 3)), np.zeros((3, 2))
    for position, name in enumerate(["mu_q", "logvar_q", "mu_p", "logvar_p"]):
        arguments = [a] * 4
        arguments[position] = b
        with pytest.raises(ValueError, match=name if position else "logvar_q|mu_p"):
            kl_normal(*arguments)
    with pytest.raises(ValueError, match="mu_p"):
        kl_normal(a, a, b, b)
