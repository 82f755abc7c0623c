"""aggregate_posterior_log_density."""

import numpy as np
import pytest

from fastelbo import aggregate, aggregate_posterior_log_density, reference
from fastelbo._catalogue.aggregate import density_magnitudes
from tests.conftest import assert_close
from tests.importance import peak_of


def draw(dtype=np.float64, samples=5, points=7, dims=3, spread=1.0):
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(2, points, dims))
    z = spread * rng.normal(size=(samples, dims))
    return z.astype(dtype), mu.astype(dtype), (0.5 * logvar).astype(dtype)


def check(z, mu, logvar, dtype):
    got = aggregate_posterior_log_density(z, mu, logvar)
    expected = reference.aggregate_posterior_log_density(z, mu, logvar)
    assert got.joint.dtype == got.marginals.dtype == np.float64
    assert_close(tuple(got), expected, dtype, density_magnitudes(z, mu, logvar))
    return got


@pytest.mark.parametrize("spread", [10.0, 100.0, 1e4])
def test_far_from_all_points(dtype, spread):
    """All densities underflow; their logarithms do not."""
    got = check(*draw(dtype, 9, 70, 5, spread), dtype)
    assert np.isfinite(got.joint).all()
    assert got.joint.min() < -200


def test_blocks_of_points(dtype, monkeypatch):
    """The data set in pieces, which progress is told of."""
    z, mu, logvar = draw(dtype, points=300)
    monkeypatch.setattr(aggregate, "POINTS_AT_ONCE", 128)
    seen = []
    got = aggregate_posterior_log_density(z, mu, logvar, progress=lambda *done: seen.append(done))
    assert seen == [(128, 300), (256, 300), (300, 300)]
    expected = reference.aggregate_posterior_log_density(
        z, mu, logvar, progress=lambda *done: seen.append(done)
    )
    assert seen[3:] == [(300, 300)]
    assert_close(tuple(got), expected, dtype, density_magnitudes(z, mu, logvar))


def test_an_error_of_progress_comes_through():
    def stop(done, total):
        raise KeyError(done)

    with pytest.raises(KeyError):
        aggregate_posterior_log_density(*draw(), progress=stop)
    with pytest.raises(TypeError, match="progress"):
        aggregate_posterior_log_density(*draw(), progress=1)


def test_one_point_is_its_own_density():
    z, mu, logvar = draw(points=1)
    joint, marginals = aggregate_posterior_log_density(z, mu, logvar)
    expected = -0.5 * (np.log(2 * np.pi) + logvar + (z - mu) ** 2 * np.exp(-logvar))
    np.testing.assert_allclose(marginals, expected, rtol=1e-13)
    np.testing.assert_allclose(joint, expected.sum(axis=1), rtol=1e-13)


def test_nan_and_infinity(dtype):
    """A sample's NaN is its own; a point's is everybody's, in that dimension and jointly."""
    z, mu, logvar = draw(dtype, 9, 70)
    for value in (np.nan, np.inf, -np.inf):
        spoiled = z.copy()
        spoiled[2, 1] = value
        got = aggregate_posterior_log_density(spoiled, mu, logvar)
        expected = reference.aggregate_posterior_log_density(spoiled, mu, logvar)
        assert_close(tuple(got), expected, np.float32, 100.0)
        assert np.isfinite(np.delete(got.joint, 2)).all()
        for which in (1, 2):
            arrays = [z, mu.copy(), logvar.copy()]
            arrays[which][5, 1] = value
            got = aggregate_posterior_log_density(*arrays)
            expected = reference.aggregate_posterior_log_density(*arrays)
            assert_close(tuple(got), expected, np.float32, 100.0)


def test_a_large_data_set_takes_no_memory():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(100_000, 4)).astype(np.float32)
    logvar = np.zeros_like(mu)
    z = mu[:8]
    assert peak_of(lambda: aggregate_posterior_log_density(z, mu, logvar)) < 50_000
    marginals = aggregate_posterior_log_density(z, mu, logvar).marginals
    np.testing.assert_allclose(
        marginals, -0.5 * (np.log(4 * np.pi) + z.astype(float) ** 2 / 2), atol=0.02
    )


def test_errors():
    z, mu, logvar = draw()
    for arrays, match in [
        ((z[:, :2], mu, logvar), "z has shape"),
        ((z[0], mu, logvar), "z has shape"),
        ((z[:0], mu, logvar), "z has an empty batch"),
        ((z, mu[:0], logvar[:0]), "mu has an empty batch"),
        ((z, mu, logvar[1:]), "logvar has shape"),
    ]:
        with pytest.raises(ValueError, match=match):
            aggregate_posterior_log_density(*arrays)
    with pytest.raises(TypeError, match="num_threads"):
        aggregate_posterior_log_density(z, mu, logvar, num_threads="2")
