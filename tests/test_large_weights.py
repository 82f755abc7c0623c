"""Weights beyond what the arrays' dtype holds: 0 times them is 0, and what fits is right."""

import inspect

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import ROWS, flatten

#: What multiplies a part of an objective, or divides all distances.
WEIGHTS = {"alpha", "beta", "gamma", "kl_weight", "weight", "bandwidth"}


def weights_of(row):
    """Those that a row takes besides its arrays, of which a search has tests of its own."""
    parameters = inspect.signature(getattr(fastelbo, row.name)).parameters.values()
    given = {"likelihood", "num_threads", "reduction"} & {p.name for p in parameters}
    keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return sorted(WEIGHTS & keywords) if given and "steps" not in keywords else []


WEIGHED = [(row.name, weight) for row in ROWS.values() for weight in weights_of(row)]


def test_there_are_some():
    assert {("elbo", "beta"), ("capacity", "gamma"), ("mmd", "bandwidth")} <= {*WEIGHED}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of references
@pytest.mark.parametrize(("name", "weight"), WEIGHED)
def test_no_nan_comes_of_a_weight(name, weight, dtype):
    """Where every other number is 0, too."""
    for case in ROWS[name].cases:
        if weight == "kl_weight":  # which the case may say itself
            continue
        arrays = list(case.draw(1, dtype, **case.within(3000, B=3, D=(6,), L=2, K=4)).values())
        rare = [a * (np.arange(a.size).reshape(a.shape) % 2 == 0).astype(a.dtype) for a in arrays]
        for given in (arrays, rare):
            for value in (1e39, 1e300, 1e-300):
                try:
                    got = flatten(case.public(*given, **{weight: value}))
                except ValueError:  # 0 may lie outside a domain, and alpha say which bound
                    continue
                expected = flatten(case.reference(*given, **{weight: value}))
                for mine, theirs in zip(got, expected, strict=True):
                    assert not (np.isnan(mine) & ~np.isnan(theirs)).any(), (case.name, value)


def test_what_fits_is_right():
    small, none = np.full((2, 3), 1e-10, np.float32), np.zeros((2, 3), np.float32)
    x = np.ones((2, 4), np.float32)
    expected = np.full((2, 3), 1e29)
    _, grad = fastelbo.elbo_and_grad(x, small, none, x, beta=1e39, reduction="sum")
    np.testing.assert_allclose(grad.mu, -expected, rtol=1e-6)
    np.testing.assert_array_equal(grad.logvar, none)
    grad = fastelbo.reparameterize_backward(none, small, none, small, kl_weight=1e39)
    np.testing.assert_allclose(grad.mu, -expected, rtol=1e-6)
    _, grad = fastelbo.capacity_and_grad(small, none, 1.0, gamma=2e39)
    np.testing.assert_allclose(grad.mu, -expected, rtol=1e-6)
    parts = {"alpha": 0, "beta": 0, "gamma": 1e39, "dataset_size": 10, "reduction": "sum"}
    wide = np.full_like(none, np.log(4))  # of the prior's slope a quarter
    _, grad = fastelbo.beta_tcvae_elbo_and_grad(x, small, none, wide, x, **parts)
    np.testing.assert_allclose(grad.z, -0.75 * expected, rtol=1e-5)
    _, grad = fastelbo.flow_elbo_and_grad(
        x, none, 0.0, none, small, none, x, weight=1e39, beta=0.0, reduction="sum"
    )
    np.testing.assert_allclose(grad.velocity, 2 * expected, rtol=1e-6)


def test_small_weights_keep_their_digits():
    """Which as denormal numbers they had lost."""
    large, none = np.full((2, 3), 1e20, np.float32), np.zeros((2, 3), np.float32)
    x = np.ones((2, 4), np.float32)
    given = {"beta": 0.0, "reduction": "sum"}
    for weight in (1e-42, 1e-50):
        expected = np.full((2, 3), 1e20 * weight)
        _, grad = fastelbo.flow_elbo_and_grad(
            x, none, 0.0, -large, none, none, x, weight=weight, **given
        )
        np.testing.assert_allclose(grad.velocity, 2 * expected, rtol=1e-6)
        _, grad = fastelbo.capacity_and_grad(large, none, 1.0, gamma=weight)
        np.testing.assert_allclose(grad.mu, 0.5 * expected, rtol=1e-6)
        _, grad = fastelbo.elbo_and_grad(x, large, none, x, beta=weight, reduction="sum")
        np.testing.assert_allclose(grad.mu, -expected, rtol=1e-6)
        np.testing.assert_array_equal(grad.logvar, none)


def test_small_weights_of_all_pairs_keep_their_digits():
    rng = np.random.default_rng(0)
    x, noise = np.ones((4, 5), np.float32), rng.normal(size=(4, 3))
    mu = (1e-10 * rng.normal(size=(4, 3))).astype(np.float32)
    z, narrow = (mu + 1e-10 * noise).astype(np.float32), np.full_like(mu, -20 * np.log(10))
    for name in ("alpha", "beta", "gamma"):
        weights = dict.fromkeys(("alpha", "beta", "gamma"), 0.0)
        given = x, z, mu, narrow, x
        _, ones = fastelbo.beta_tcvae_elbo_and_grad(
            *given, dataset_size=10, **weights | {name: 1.0}
        )
        _, grad = fastelbo.beta_tcvae_elbo_and_grad(
            *given, dataset_size=10, **weights | {name: 1e-42}
        )
        for got, one in zip(grad[:2], ones[:2], strict=True):
            expected = 1e-42 * one.astype(float)  # sums over pairs, whose terms may cancel
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_wide_and_narrow_kernels(kernel, dtype):
    """Of which nothing is far, or everything that is not the same."""
    z, y = np.zeros((3, 2), dtype), np.ones((4, 2), dtype)
    for module in (fastelbo, reference):
        for bandwidth in (1e30, 1e39, 1e300):
            value, gradients = module.mmd_and_grad(z, y, kernel=kernel, bandwidth=bandwidth)
            assert abs(value) < 1e-15
            assert all((abs(g) < 1e-15).all() for g in gradients)
        for bandwidth in (1e-30, 1e-39, 1e-300):
            assert module.mmd(z, y, kernel=kernel, bandwidth=bandwidth) == pytest.approx(2.0)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_wide_and_narrow_kernels_in_jax(kernel):
    pytest.importorskip("jax")
    jax = pytest.importorskip("fastelbo.jax")
    z, y = np.zeros((3, 2), np.float32), np.ones((4, 2), np.float32)
    for bandwidth, expected in ((1e300, 0.0), (1e-30, 2.0), (1e-300, 2.0)):
        options = {"kernel": kernel, "bandwidth": bandwidth}
        assert jax.mmd(z, y, **options) == pytest.approx(expected, abs=1e-6)
        with jax.plain():
            assert jax.mmd(z, y, **options) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("forced", [False, True], ids=["kernel", "composite"])
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_wide_and_narrow_kernels_in_pytorch(kernel, forced, composite, dtype):
    torch = pytest.importorskip("torch")
    composite(forced)
    z, y = (torch.from_numpy(make((3, 2), dtype)) for make in (np.zeros, np.ones))
    mmd = pytest.importorskip("fastelbo.torch").mmd
    for bandwidth, expected in ((1e300, 0.0), (1e-300, 2.0)):
        assert mmd(z, y, kernel=kernel, bandwidth=bandwidth) == pytest.approx(expected, abs=1e-6)
