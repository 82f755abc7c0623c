"""reparameterize_backward: the way back through z and the KL."""

import numpy as np
import pytest

from fastelbo import reference, reparameterize, reparameterize_backward
from fastelbo._catalogue.posterior import backward_magnitudes
from tests.conftest import assert_close, numerical_gradient, together


def draw(shape, dtype, samples=None, seed=0):
    """grad_z, mu, logvar, z."""
    rng = np.random.default_rng(seed)
    full = shape if samples is None else (samples, *shape)
    return [rng.normal(size=s).astype(dtype) for s in (full, shape, shape, full)]


def weight_of(kind, latent):
    return {"none": 0.0, "number": 0.7, "dimensions": np.linspace(0.0, 2.0, latent)}[kind]


@pytest.mark.parametrize("source", ["noise", "rng"])
@together(
    samples=[None, 3],
    kind=["none", "number", "dimensions"],
    shape=[(1, 1), (7, 31), (3, 1025), (130, 20)],
)
def test_noise_stands_for_z(source, shape, kind, samples, dtype):
    grad_z, mu, logvar, eps = draw(shape, dtype, samples)
    given = {"noise": eps} if source == "noise" else {"rng": 77}
    options = {**given, "kl_weight": weight_of(kind, shape[1])}
    got = reparameterize_backward(grad_z, mu, logvar, None, **options)
    expected = reference.reparameterize_backward(grad_z, mu, logvar, None, **options)
    if source == "rng":
        eps = reference.standard_normal(77, eps.size, dtype).reshape(eps.shape)
    grad_z, mu, logvar, eps = (a.astype(np.float64) for a in (grad_z, mu, logvar, eps))
    z = mu + np.exp(logvar / 2) * eps
    scales = backward_magnitudes(grad_z, mu, logvar, z, options["kl_weight"])
    assert_close(tuple(got), expected, dtype, scales)


def test_noise_keeps_the_digits_that_z_lost():
    """sigma far below mu: z - mu is rounding, sigma noise is right."""
    mu, logvar, eps = (
        np.full((1, 4), 1e6),
        np.full((1, 4), -60.0),
        np.array([[1.0, -2.0, 0.5, 3.0]]),
    )
    z = reparameterize(mu, logvar, noise=eps)
    good = reparameterize_backward(np.ones((1, 4)), mu, logvar, z, noise=eps)
    np.testing.assert_allclose(good.logvar, 0.5 * np.exp(-30.0) * eps, rtol=1e-14)
    np.testing.assert_array_equal(z, mu)


def test_by_hand():
    grad = reparameterize_backward([[2.0]], [[1.0]], [[np.log(4.0)]], [[4.0]], kl_weight=0.5)
    np.testing.assert_allclose(grad.mu, [[1.5]], 1e-15)
    np.testing.assert_allclose(grad.logvar, [[3.0 - 0.75]], 1e-15)


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("kind", ["none", "number", "dimensions"])
def test_central_differences(samples, kind):
    """Of sum(sin z) - sum(kl_weight KL), through z."""
    _, mu, logvar, eps = draw((3, 4), np.float64, samples)
    weight = weight_of(kind, 4)

    def objective(mu, logvar):
        z = reparameterize(mu, logvar, noise=eps, samples=samples)
        kl = 0.5 * (mu**2 + np.expm1(logvar) - logvar)
        return np.sin(z).sum() - (weight * kl).sum()

    z = reparameterize(mu, logvar, noise=eps, samples=samples)
    grad = reparameterize_backward(np.cos(z), mu, logvar, z, kl_weight=weight)
    by_mu = numerical_gradient(lambda m: objective(m, logvar), mu)
    by_logvar = numerical_gradient(lambda v: objective(mu, v), logvar)
    np.testing.assert_allclose(grad.mu, by_mu, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(grad.logvar, by_logvar, rtol=1e-8, atol=1e-9)


def test_redrawn_noise_is_that_of_the_way_in(dtype):
    grad_z, mu, logvar, _ = draw((33, 20), dtype, 2)
    z = reparameterize(mu, logvar, rng=6, samples=2)
    zeros = np.zeros_like(mu)
    eps = reparameterize(zeros, zeros, rng=6, samples=2)
    redrawn = reparameterize_backward(grad_z, mu, logvar, z, rng=6)
    given = reparameterize_backward(grad_z, mu, logvar, z, noise=eps)
    np.testing.assert_array_equal(redrawn, given)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    info = np.finfo(dtype)
    values = [0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, info.max, info.tiny]
    columns = np.array(np.meshgrid(values, values, [0.0, -1e4, 1e4, np.inf, np.nan], values), dtype)
    grad_z, mu, logvar, z = (a.reshape(-1, 1).copy() for a in columns)
    for weight in (0.0, 0.5):
        got = reparameterize_backward(grad_z, mu, logvar, z, kl_weight=weight)
        with np.errstate(all="ignore"):
            half = dtype.type(0.5)
            by_mu, by_logvar = grad_z, half * grad_z * (z - mu)
            if weight:  # a weight of zero stands for no KL at all
                by_mu = by_mu - weight * mu.astype(np.float64)
                spread = half * np.expm1(logvar).astype(np.float64)
                by_logvar = by_logvar - weight * spread
            by_mu, by_logvar = np.asarray(by_mu, dtype), np.asarray(by_logvar, dtype)
        assert_close(tuple(got), (by_mu, by_logvar), dtype)


A = np.zeros((2, 3))


def test_a_weight_of_any_type_is_a_number():
    mu, logvar, z = np.random.default_rng(0).normal(size=(3, 2, 3))
    expected = reparameterize_backward(z, mu, logvar, z, kl_weight=2.0)
    for weight in (2, np.float32(2), np.array(2)):
        found = reparameterize_backward(z, mu, logvar, z, kl_weight=weight)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((A.T, A, A, A), {}, ValueError, "grad_z"),
        ((A[0], A, A, A), {}, ValueError, "grad_z"),
        ((np.zeros((0, 2, 3)), A, A, A), {}, ValueError, "grad_z"),
        ((np.zeros((1, 1, 2, 3)), A, A, A), {}, ValueError, "grad_z"),
        ((A, A, A, A.T), {}, ValueError, "z has"),
        ((A, A, A, A[None]), {}, ValueError, "z has"),
        ((A, A, A, None), {}, TypeError, "z is None"),
        ((A, A, A, None), {"noise": A.T}, ValueError, "noise"),
        ((A, A, A, None), {"noise": A, "rng": 1}, ValueError, "rng or noise"),
        ((A, A, A, None), {"rng": np.random.default_rng()}, TypeError, "rng"),
        ((A, A, A, A), {"kl_weight": [1.0, 2.0]}, ValueError, "kl_weight"),
        ((A, A, A, A), {"kl_weight": "heavy"}, TypeError, "kl_weight"),
        ((A, A, A, A), {"kl_weight": [1, 2, 3j]}, TypeError, "kl_weight"),
        ((A, A, A, A), {"out": (None, A)}, ValueError, "out.logvar"),
        ((A, A, A, A), {"out": A}, TypeError, "out"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        reparameterize_backward(*arguments, **options)
