"""aggregate_posterior_log_density."""

import numpy as np
import pytest

from fastelbo import _threads, aggregate, aggregate_posterior_log_density, reference
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


@pytest.mark.parametrize("samples", [1, 7, 8, 9])
@pytest.mark.parametrize("points", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("dims", [1, 3, 4, 5, 65])
def test_against_the_reference(dtype, samples, points, dims):
    check(*draw(dtype, samples, points, dims), dtype)


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
    expected = reference.aggregate_posterior_log_density(z, mu, logvar)
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


def test_bits_do_not_depend_on_threads(dtype, monkeypatch):
    monkeypatch.setattr(_threads.runtime, "usable_cpus", lambda: 8)
    arrays = draw(dtype, 37, 200, 11)
    one = aggregate_posterior_log_density(*arrays, num_threads=1)
    for threads in range(2, 9):
        several = aggregate_posterior_log_density(*arrays, num_threads=threads)
        np.testing.assert_array_equal(several.joint, one.joint)
        np.testing.assert_array_equal(several.marginals, one.marginals)


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


@pytest.mark.parametrize("view", ["fortran", "rows", "broadcast", "mixed"])
def test_views(view):
    z, mu, logvar = draw(points=70)
    expected = aggregate_posterior_log_density(z, mu, logvar)
    if view == "fortran":
        z, mu, logvar = (np.asfortranarray(a) for a in (z, mu, logvar))
    elif view == "rows":
        z, mu, logvar = (np.pad(a, [(0, 0), (0, 3)])[:, :-3] for a in (z, mu, logvar))
    elif view == "broadcast":
        logvar = np.broadcast_to(logvar[0], logvar.shape)
        expected = aggregate_posterior_log_density(z, mu, logvar.copy())
    else:
        z = z.astype(np.float32)
        expected = aggregate_posterior_log_density(z.astype(np.float64), mu, logvar)
    got = aggregate_posterior_log_density(z, mu, logvar)
    np.testing.assert_array_equal(got.joint, expected.joint)
    np.testing.assert_array_equal(got.marginals, expected.marginals)
