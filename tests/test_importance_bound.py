"""importance_bound and its gradient; what holds for every function of log weights."""

import mpmath
import numpy as np
import pytest

import fastelbo
from fastelbo import importance_bound, importance_bound_and_grad, iwae, reference
from fastelbo._catalogue import flatten
from tests.conftest import DTYPES, TOLERANCE, assert_close, together
from tests.importance import draw, peak_of

ALPHAS = [0.0, 1, 0.5, -1.0, 2.0, -3.5, 1 - 1e-4, 1 + 1e-4, 30.0]
#: Every function of log weights, by name: (function, options, K that it needs).
FUNCTIONS = {
    "importance_bound": ({}, 1),
    "importance_bound_and_grad": ({"alpha": 0.5}, 1),
    "cubo": ({}, 1),
    "cubo_and_grad": ({"n": 3}, 1),
    "vimco": ({}, 2),
    "vimco_and_grad": ({}, 2),
    "reinforce": ({}, 2),
    "reinforce_and_grad": ({}, 2),
    "effective_sample_size": ({}, 1),
    "normalized_weights": ({}, 1),
}


def log_weights(shape, dtype, spread=3.0, shift=-90.0, seed=0):
    return np.random.default_rng(seed).normal(shift, spread, shape).astype(dtype)


def call(name, log_w, **options):
    return getattr(fastelbo, name)(log_w, **FUNCTIONS[name][0], **options)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_mpmath(alpha):
    log_w = log_weights((50, 1), np.float64, 20.0, -900.0)
    value, (grad,) = importance_bound_and_grad(log_w, alpha=alpha)
    with mpmath.workdps(60):
        exact = [mpmath.mpf(float(a)) for a in log_w.ravel()]
        power = 1 - mpmath.mpf(float(alpha))
        powers = [mpmath.exp(power * a) for a in exact]
        bound = sum(exact) / 50 if alpha == 1 else mpmath.log(sum(powers) / 50) / power
        weights = np.array([float(w / sum(powers)) for w in powers])
    assert value == pytest.approx(float(bound), rel=1e-14 * max(1, 1 / abs(float(power) or 1)))
    np.testing.assert_allclose(grad.ravel(), weights, rtol=1e-12, atol=1e-15)


def test_alpha_one_is_the_elbo_and_the_limit():
    log_w = log_weights((6, 4), np.float64)
    elbo = importance_bound(log_w, alpha=1, reduction="none")
    np.testing.assert_allclose(elbo, log_w.mean(axis=0), rtol=1e-15)
    for alpha in (1 - 1e-6, 1 + 1e-6):
        near = importance_bound(log_w, alpha=alpha, reduction="none")
        np.testing.assert_allclose(near, elbo, rtol=1e-6)


def test_falls_with_alpha():
    log_w = log_weights((20, 5), np.float64)
    bounds = [importance_bound(log_w, alpha=a, reduction="none") for a in (-2, 0, 0.5, 1, 3)]
    assert np.all(np.diff(bounds, axis=0) < 0)


def test_is_the_bound_of_the_model():
    arrays = draw(np.float64)
    log_w = fastelbo.log_weights(*arrays)
    np.testing.assert_allclose(importance_bound(log_w), iwae(*arrays), rtol=1e-14)


def test_one_sample_is_exact(dtype):
    log_w = log_weights((1, 40), dtype)
    for alpha in ALPHAS:
        rows = importance_bound(log_w, alpha=alpha, reduction="none")
        np.testing.assert_array_equal(rows, log_w[0].astype(np.float64))


@pytest.mark.parametrize("alpha", ["one", None, np.nan, np.inf, [0.0, 1.0]])
def test_alphas_that_are_none(alpha):
    with pytest.raises((TypeError, ValueError), match="alpha"):
        importance_bound(np.zeros((2, 2)), alpha=alpha)


# Every function of log weights ------------------------------------------------------------------

INF, NAN = np.inf, np.nan
COLUMNS = {
    "a zero": [0.0, -INF, 1.0],
    "two zeros": [-INF, -INF, 1.0],
    "all zero": [-INF, -INF, -INF],
    "infinite": [INF, 0.0, 1.0],
    "two infinite": [INF, INF, 1.0],
    "both": [INF, -INF, 1.0],
    "nan": [NAN, 0.0, 1.0],
    "nan and infinite": [NAN, INF, 1.0],
    "nan and zero": [NAN, -INF, 1.0],
    "far apart": [-1e4, 0.0, 1e4],
    "very far": [-1e308, 1.0, 1e308],
    "equal": [-700.0, -700.0, -700.0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@together(kind=COLUMNS, order=[(0, 1, 2), (2, 1, 0), (1, 2, 0)], dtype=DTYPES)
def test_infinities_and_nan(name, kind, order, dtype):
    """As the definition says; the columns beside are as if alone."""
    if "very" in kind and (dtype == np.float32 or "grad" in name or "cubo" in name):
        return  # overflows as it is read, or in the reference
    log_w = log_weights((3, 3), dtype, 1.0, 0.0)
    log_w[:, 1] = np.array(COLUMNS[kind], dtype)[list(order)]
    options = {} if "size" in name or "weights" in name else {"reduction": "none"}
    got = flatten(call(name, log_w, **options))
    expected = flatten(getattr(reference, name)(log_w, **FUNCTIONS[name][0], **options))
    terms = np.abs(log_w[np.isfinite(log_w)]).max()
    for mine, desired in zip(got, expected, strict=True):
        assert_close(mine, desired, dtype, terms)
    alone = flatten(call(name, log_w[:, [0, 2]], **options))
    for mine, desired in zip(got, alone, strict=True):
        np.testing.assert_array_equal(mine[..., [0, 2]], desired)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1, 2.0, 3.5])
@pytest.mark.parametrize("kind", COLUMNS)
def test_infinities_and_nan_of_any_order(kind, alpha):
    if "very" in kind:
        return  # overflows in the reference
    log_w = np.array([COLUMNS[kind]]).T
    got = importance_bound_and_grad(log_w, alpha=alpha)
    expected = reference.importance_bound_and_grad(log_w, alpha=alpha)
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), np.float64, 1.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_layouts(name):
    log_w = log_weights((6, 5), np.float64)
    for view in (
        np.broadcast_to(log_w[:1], log_w.shape),
        np.broadcast_to(log_w[:, :1], log_w.shape),
        log_w[::-1],
        np.repeat(log_w, 3, axis=0)[::3],
    ):
        expected = flatten(call(name, view.copy()))
        for mine, first in zip(flatten(call(name, view)), expected, strict=True):
            np.testing.assert_array_equal(mine, first)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_log_weights(name):
    for bad in (np.zeros(3), np.zeros((2, 3, 4)), 1.0, np.zeros((0, 3)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match="log_w"):
            call(name, bad)
    for bad in ("text", None, np.zeros((2, 2), complex), [[1.0], [1.0, 2.0]]):
        with pytest.raises(TypeError, match="log_w"):
            call(name, bad)
    if FUNCTIONS[name][1] > 1:
        with pytest.raises(ValueError, match="K > 1"):
            call(name, np.zeros((1, 3)))
    if "size" not in name and "weights" not in name:
        with pytest.raises(ValueError, match="reduction"):
            call(name, np.zeros((2, 3)), reduction="median")
    with pytest.raises(TypeError, match="num_threads"):
        call(name, np.zeros((2, 3)), num_threads="2")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_integers_count_as_float64(name):
    log_w = np.arange(12).reshape(4, 3)
    for mine, first in zip(
        flatten(call(name, log_w)), flatten(call(name, log_w.astype(float))), strict=True
    ):
        np.testing.assert_array_equal(mine, first)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_memory(name):
    """Besides what is returned, O(B): log_w takes 3 MB."""
    log_w = log_weights((20_000, 20), np.float64)
    returned = sum(a.nbytes for a in flatten(call(name, log_w)) if np.ndim(a) == 2)
    assert peak_of(lambda: call(name, log_w)) < returned + 20_000


@pytest.mark.parametrize("batch", [1, 3, 32, 40])
def test_many_samples_keep_their_digits(batch):
    """Against sums in twice the precision."""
    log_w = log_weights((100_000, batch), np.float64, 2.0)
    exact = log_w.astype(np.longdouble)
    top = exact.max(axis=0)
    w = np.exp(exact - top)
    rows = (top + np.log(w.mean(axis=0))).astype(np.float64)
    bound = importance_bound(log_w, reduction="none")
    np.testing.assert_allclose(bound, rows, rtol=1e-15)
    effective = (w.sum(axis=0) ** 2 / (w * w).sum(axis=0)).astype(np.float64)
    mine = fastelbo.effective_sample_size(log_w)
    np.testing.assert_allclose(mine, effective, rtol=TOLERANCE[np.dtype(np.float64)] / 10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if "weight" not in name and "size" not in name]
)
def test_bounds_of_both_infinities_are_nan_without_a_warning(name, reduction):
    """pytest makes errors of warnings."""
    log_w = np.tile([np.inf, -np.inf], (3, 1))
    value = call(name, log_w, reduction=reduction)
    assert np.isnan(value[0] if isinstance(value, tuple) else value)
