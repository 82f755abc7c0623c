"""reparameterize. The distribution of its noise: test_noise.py."""

import numpy as np
import pytest

from fastelbo import reparameterize
from tests.conftest import assert_close


def draw(shape, dtype, samples=None, seed=0):
    rng = np.random.default_rng(seed)
    full = shape if samples is None else (samples, *shape)
    return [rng.normal(size=s).astype(dtype) for s in (shape, shape, full)]


def test_by_hand(dtype):
    z = reparameterize(
        np.array([[1.0, 2.0]], dtype),
        np.array([[0.0, 2 * np.log(3.0)]], dtype),
        noise=np.array([[0.5, -1.0]], dtype),
    )
    np.testing.assert_allclose(z, [[1.5, -1.0]], 4 * np.finfo(dtype).eps)


def test_mean_and_spread():
    mu, logvar = np.array([[3.0, -1.0]]), np.log([[4.0, 0.25]])
    z = reparameterize(mu, logvar, rng=1, samples=100_000)
    np.testing.assert_allclose(z.mean(axis=(0, 1)), mu[0], atol=0.03)
    np.testing.assert_allclose(z.std(axis=(0, 1)), [2.0, 0.5], rtol=0.02)


def test_noise_of_another_dtype(dtype):
    """Noise is converted to the dtype of the latents."""
    mu, logvar, eps = draw((5, 7), dtype)
    other = np.float32 if dtype == np.float64 else np.float64
    z = reparameterize(mu, logvar, noise=eps.astype(other))
    assert z.dtype == dtype
    np.testing.assert_array_equal(
        z, reparameterize(mu, logvar, noise=eps.astype(other).astype(dtype))
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    info = np.finfo(dtype)
    values = [
        0.0,
        -0.0,
        1.0,
        np.inf,
        -np.inf,
        np.nan,
        info.max,
        -info.max,
        info.tiny,
        170.0,
        -200.0,
    ]
    values += [1e5, -1e5, 2000.0, -2000.0]
    columns = np.array(np.meshgrid(values, values, [0.0, -1.0, 6.0, np.nan, np.inf]), dtype)
    mu, logvar, eps = (a.reshape(-1, 1).copy() for a in columns)
    z = reparameterize(mu, logvar, noise=eps)
    with np.errstate(all="ignore"):
        plain = mu + np.exp(logvar / 2) * eps
        scale = np.abs(mu) + np.abs(np.exp(logvar / 2) * eps)
    assert_close(z, plain, dtype, np.where(np.isfinite(scale), scale, 0.0))
    assert np.isfinite(plain).any()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"samples": 0}, ValueError, "samples"),
        ({"samples": -1}, ValueError, "samples"),
        ({"samples": 1.5}, TypeError, "samples"),
        ({"noise": np.zeros((3, 2))}, ValueError, "noise"),
        ({"noise": np.zeros((2, 3)), "samples": 2}, ValueError, "noise"),
        ({"noise": np.zeros((1, 2, 3))}, ValueError, "noise"),
        ({"noise": "loud"}, TypeError, "noise"),
        ({"rng": -1}, ValueError, "rng"),
        ({"rng": np.random.RandomState(0)}, TypeError, "rng"),
        ({"out": np.zeros((2, 2))}, ValueError, "out"),
        ({"num_threads": 0}, ValueError, "num_threads"),
    ],
)
def test_errors(options, error, match):
    with pytest.raises(error, match=match):
        reparameterize(np.zeros((2, 3)), np.zeros((2, 3)), **options)
