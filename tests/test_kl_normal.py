"""kl_normal and kl_normal_and_grad."""

import numpy as np
import pytest

from fastelbo import kl_normal, kl_normal_and_grad, kl_standard_normal_and_grad, reference
from tests.cases import check
from tests.conftest import assert_close


def draw(shape, dtype, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [(spread * rng.normal(size=shape)).astype(dtype) for _ in range(4)]


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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    """Infinities and NaN are where the formula has them, in this dtype, or its limit."""
    values = [0.0, 1.0, -3.0, np.inf, -np.inf, np.nan, 90.0, -90.0, 400.0, -400.0, 800.0, -800.0]
    columns = np.array(np.meshgrid([0.0, 2.0, 1e5, np.inf, np.nan], values, [0.0], values), dtype)
    q_mu, q_lv, p_mu, p_lv = (a.reshape(-1, 1).copy() for a in columns)
    rows, grad = kl_normal_and_grad(q_mu, q_lv, p_mu, p_lv, reduction="none")
    expected, expected_grad = reference.kl_normal_and_grad(q_mu, q_lv, p_mu, p_lv, reduction="none")
    with np.errstate(all="ignore"):
        same, root = q_mu == p_mu, np.exp(-p_lv / 2)
        d = np.where(same, 0, (q_mu - p_mu) * root)  # where means agree, whatever the precision
        pull = np.where(same, 0, d * root)
        ratio = np.exp(q_lv - p_lv)
        less = np.minimum(q_lv - p_lv, dtype.type(1e4))  # nothing beside an infinite ratio
        plain = (ratio - 1 - less + d * d) * dtype.type(0.5)
        plain_grad = (pull, ratio - 1, -pull, -(ratio - 1 + d * d))
    finite = np.isfinite(plain)
    assert 50 < finite.sum() < finite.size - 50
    np.testing.assert_array_equal(rows[~finite[:, 0]], plain[~finite])
    assert_close(rows[finite[:, 0]], expected[finite[:, 0]], dtype)
    for g, e, p in zip(grad, expected_grad, plain_grad, strict=True):
        finite = np.isfinite(p)
        np.testing.assert_array_equal(g[~finite], p[~finite])
        scale = np.nan_to_num(np.abs(expected_grad[1]) + np.abs(e), posinf=0.0)
        assert_close(g[finite], e[finite], dtype, scale[finite])


def test_shapes_must_agree():
    a, b = np.zeros((2, 3)), np.zeros((3, 2))
    for position, name in enumerate(["mu_q", "logvar_q", "mu_p", "logvar_p"]):
        arguments = [a] * 4
        arguments[position] = b
        with pytest.raises(ValueError, match=name if position else "logvar_q|mu_p"):
            kl_normal(*arguments)
    with pytest.raises(ValueError, match="mu_p"):
        kl_normal(a, a, b, b)
