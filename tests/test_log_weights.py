"""log_weights."""

import numpy as np
import pytest

import fastelbo
from fastelbo import importance, log_weights, reference
from tests.conftest import assert_close
from tests.importance import (
    StandardNormal,
    draw,
    magnitudes,
    peak_of,
)


@pytest.mark.parametrize("grouped", [False, True])
def test_does_not_depend_on_threads_or_groups(grouped, dtype, monkeypatch):
    if grouped:
        monkeypatch.setattr(importance, "VALUES_AT_ONCE", 64)
    arrays = draw(dtype, 17, 40, (100,), 20)
    expected = log_weights(*arrays, num_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(log_weights(*arrays, num_threads=threads), expected)
    monkeypatch.undo()
    np.testing.assert_array_equal(log_weights(*arrays), expected)


def test_integers_are_read_as_they_are():
    x, *rest = draw(np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8)
    got = log_weights(pixels, *rest, likelihood=fastelbo.Bernoulli(x_scale=1 / 255))
    expected = reference.log_weights(pixels / 255, *rest, likelihood=reference.Bernoulli())
    assert_close(got, expected, np.float32, np.abs(expected))


def test_strided_views(dtype):
    arrays = draw(dtype, 6, 5, (7,), 3)
    expected = log_weights(*arrays)
    views = {
        "every other sample": lambda a: np.repeat(a, 2, axis=0)[::2],
        "backwards": lambda a: a[::-1].copy()[::-1],
        "crop": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(1, 2)])[..., 1:-2],
        "last axis first": lambda a: np.moveaxis(np.moveaxis(a, -1, 0).copy(), 0, -1),
        "batch first": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    }
    for view in views.values():
        np.testing.assert_array_equal(log_weights(*map(view, arrays)), expected)
    one_z = np.broadcast_to(arrays[1][..., :1], arrays[1].shape)
    got = log_weights(arrays[0], one_z, *arrays[2:])
    np.testing.assert_array_equal(got, log_weights(arrays[0], one_z.copy(), *arrays[2:]))


def test_a_prior_of_ones_own(dtype):
    arrays = draw(dtype)
    expected = log_weights(*arrays)
    got = log_weights(*arrays, prior=StandardNormal())
    assert_close(got, expected, dtype, magnitudes(*arrays, "SquaredError"))


def test_priors_that_do_not_fit():
    arrays = draw(np.float64)

    class Wrong(StandardNormal):
        def log_prob(self, z):
            return np.zeros(3)

    with pytest.raises(TypeError, match="prior"):
        log_weights(*arrays, prior="normal")
    with pytest.raises(ValueError, match=r"prior.log_prob\(z\) has shape"):
        log_weights(*arrays, prior=Wrong())


def test_infinities_and_nan():
    x, z, mu, logvar, x_recon = draw(np.float64, samples=5)
    x_recon[0, 0, 0] = np.nan
    x_recon[1, 0, 0] = np.inf
    z[2, 0, 0] = np.nan
    logvar[1, 0] = -np.inf
    got = log_weights(x, z, mu, logvar, x_recon)
    expected = reference.log_weights(x, z, mu, logvar, x_recon)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert got[1, 0] == -np.inf
    assert np.isfinite(got[:, 2:]).all()


def test_out():
    arrays = draw(np.float32)
    out = np.empty((4, 5))
    assert log_weights(*arrays, out=out) is out
    np.testing.assert_array_equal(out, log_weights(*arrays))
    with pytest.raises(TypeError, match="out has dtype float32"):
        log_weights(*arrays, out=np.empty((4, 5), np.float32))
    with pytest.raises(ValueError, match="out has shape"):
        log_weights(*arrays, out=np.empty((5, 4)))


@pytest.mark.parametrize("position", range(5))
def test_shapes_that_do_not_fit(position):
    arrays = draw(np.float64, samples=4, batch=5, latent=3)
    name = ("x", "z", "mu", "logvar", "x_recon")[position]
    good = arrays[position]
    for bad in (good[:-1], good[..., None], good[0], good[:, :-1], np.float64(1.0), good[:0]):
        given = [*arrays[:position], bad, *arrays[position + 1 :]]
        with pytest.raises(ValueError, match="shape"):
            log_weights(*given)
    given = [*arrays[:position], "text", *arrays[position + 1 :]]
    with pytest.raises(TypeError, match=name):
        log_weights(*given)


def test_other_errors():
    arrays = draw(np.float64)
    with pytest.raises(TypeError, match="likelihood must be"):
        log_weights(*arrays, likelihood=3)
    with pytest.raises(ValueError, match=r"likelihood: .*optimal"):
        log_weights(*arrays, likelihood=fastelbo.Gaussian("optimal"))
    with pytest.raises(TypeError, match="decoder output"):
        log_weights(*arrays, likelihood=fastelbo.Gaussian("learned"))
    with pytest.raises(ValueError, match="scale has shape"):
        log_weights(*arrays, likelihood=fastelbo.Gaussian(np.ones(3)))


def test_x_outside_the_domain_is_named_in_the_callers_numbering(monkeypatch):
    monkeypatch.setattr(importance, "VALUES_AT_ONCE", 8)
    x, *rest = draw(np.float64, samples=4, batch=9)
    x[7, 2] = 1.5
    with pytest.raises(ValueError, match=r"x\[7, 2\] = 1.5"):
        log_weights(x, *rest, likelihood=fastelbo.Bernoulli())
    log_weights(x, *rest, likelihood=fastelbo.Bernoulli(validate=False))


def test_x_that_is_mended_meanwhile_is_refused(monkeypatch):
    """As by another thread, before the offender has its name."""
    one_pass = fastelbo.Poisson._pass

    def mending(self, *given):
        try:
            one_pass(self, *given)
        finally:
            x[:] = 1

    x, *rest = draw(np.float64)
    x[:] = -1
    monkeypatch.setattr(fastelbo.Poisson, "_pass", mending)
    with pytest.raises(ValueError, match=r"= -1 lies outside the domain of Poisson"):
        log_weights(x, *rest, likelihood=fastelbo.Poisson())


def test_memory():
    """Nothing of the size of x_recon: 3 MB here."""
    arrays = draw(np.float32, 20, 50, (800,), 4)
    assert peak_of(lambda: log_weights(*arrays)) < 4 * 20 * 50 * 8 + 20_000
