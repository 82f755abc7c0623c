"""mixture_log_prob and its gradients."""

import tracemalloc

import numpy as np
import pytest

import fastelbo
from fastelbo import mixture_log_prob, mixture_log_prob_and_grad, reference
from tests.conftest import assert_close


def draw(dtype, points=5, components=4, cols=3, seed=0):
    rng = np.random.default_rng(seed)
    z, mu = rng.normal(size=(points, cols)), rng.normal(size=(components, cols))
    log_weights, logvar = rng.normal(size=components), 0.7 * rng.normal(size=(components, cols))
    return tuple(a.astype(dtype) for a in (z, mu, logvar, log_weights))


def test_one_component_is_a_normal(dtype):
    z = draw(dtype, 50, 1, 20)[0]
    zeros = np.zeros((1, 20), dtype)
    value, gradients = mixture_log_prob_and_grad(z, zeros, zeros, [0.0], reduction="none")
    expected = fastelbo.StandardNormal().log_prob(z)
    assert_close(value, expected, np.float64, np.abs(expected))
    assert_close(gradients.z, -z, dtype)


def test_sharp_components(dtype):
    """Deviations of 1e-3 far from the origin: the expanded square would lose all digits."""
    z, mu, logvar, log_weights = draw(dtype, 40, 6, 8)
    mu = (1000 + mu).astype(dtype)
    z = (mu[np.arange(40) % 6] + 1e-3 * z).astype(dtype)
    logvar = (-13 + logvar).astype(dtype)
    arrays = z, mu, logvar, log_weights
    got = mixture_log_prob(*arrays, reduction="none")
    expected = reference.mixture_log_prob(*arrays, reduction="none")
    precision = np.exp(-logvar.astype(np.float64))
    nearest = ((z.astype(float)[:, None] - mu) ** 2 * precision).sum(axis=2).min(axis=1)
    assert_close(got, expected, dtype, 0.5 * nearest + 100)


def test_far_away_and_extremely_sharp(dtype):
    """Densities that underflow, precisions that overflow: the logarithm is as it should be."""
    z = np.array([[0.0, 1e4], [3.0, 3.0]], dtype)
    mu = np.array([[3.0, 3.0], [0.0, 0.0]], dtype)
    logvar = np.array([[-100.0, -100.0], [100.0, 0.0]], dtype)
    arrays = z, mu, logvar, np.zeros(2, dtype)
    value, gradients = mixture_log_prob_and_grad(*arrays, reduction="none")
    expected, theirs = reference.mixture_log_prob_and_grad(*arrays, reduction="none")
    assert_close(value, expected, dtype, np.abs(expected) + 200)
    for mine, other in zip(gradients, theirs, strict=True):
        assert_close(mine, other, dtype, np.abs(other).max())


def test_components_without_weight():
    z, mu, logvar, log_weights = draw(np.float64)
    log_weights[1] = -np.inf
    value, gradients = mixture_log_prob_and_grad(z, mu, logvar, log_weights)
    rest = [0, 2, 3]
    assert value == pytest.approx(mixture_log_prob(z, mu[rest], logvar[rest], log_weights[rest]))
    assert gradients.log_weights[1] == 0
    assert not gradients.mu[1].any()
    assert not gradients.logvar[1].any()


def test_not_a_number_stays_where_it_belongs():
    arrays = draw(np.float32, 40, 4, 3)
    expected = mixture_log_prob(*arrays, reduction="none")
    arrays[0][17, 1] = np.nan
    arrays[0][18, 1] = np.inf
    value, gradients = mixture_log_prob_and_grad(*arrays, reduction="none")
    assert np.isnan(value[17])
    assert value[18] == -np.inf
    clean = np.r_[:17, 19:40]
    np.testing.assert_array_equal(value[clean], expected[clean])
    assert np.isfinite(gradients.z[clean]).all()
    assert np.isnan(gradients.z[17]).all()
    assert np.isnan(gradients.mu).all()


def test_shapes_of_z(dtype):
    z, *rest = draw(dtype, 24)
    expected, theirs = mixture_log_prob_and_grad(z, *rest, reduction="none")
    got, gradients = mixture_log_prob_and_grad(z.reshape(2, 3, 4, 3), *rest, reduction="none")
    np.testing.assert_array_equal(got, expected.reshape(2, 3, 4))
    np.testing.assert_array_equal(gradients.z, theirs.z.reshape(2, 3, 4, 3))
    assert mixture_log_prob(z[0], *rest, reduction="none").shape == ()
    assert mixture_log_prob(z[:1], *rest) == expected[0]


def test_out(dtype):
    arrays = draw(dtype)
    outs = tuple(np.full_like(a, 77) for a in arrays)
    _, gradients = mixture_log_prob_and_grad(*arrays, out=outs)
    _, expected = mixture_log_prob_and_grad(*arrays)
    for mine, out, other in zip(gradients, outs, expected, strict=True):
        assert mine is out
        np.testing.assert_array_equal(out, other)
    for i, name in enumerate(gradients._fields):
        wrong = (*outs[:i], arrays[i], *outs[i + 1 :])
        with pytest.raises(ValueError, match=f"out.{name} overlaps"):
            mixture_log_prob_and_grad(*arrays, out=wrong)
    with pytest.raises(TypeError, match="out must be a tuple"):
        mixture_log_prob_and_grad(*arrays, out=outs[:3])


@pytest.mark.parametrize("function", [mixture_log_prob, mixture_log_prob_and_grad])
def test_errors(function):
    z, mu, logvar, log_weights = draw(np.float64)
    for name, wrong in [
        ("z", (z[:, :2], mu, logvar, log_weights)),
        ("z", (1.0, mu, logvar, log_weights)),
        ("z", (z[:0], mu, logvar, log_weights)),
        ("log_weights", (z, mu, logvar, log_weights[:3])),
        ("log_weights", (z, mu, logvar, log_weights[:, None])),
        ("mu", (z, mu[0], logvar, log_weights)),
        ("mu", (z, mu[:0], logvar[:0], log_weights[:0])),
        ("logvar", (z, mu, logvar[:, :2], log_weights)),
    ]:
        with pytest.raises(ValueError, match=f"^{name} has"):
            function(*wrong)
    for i, name in enumerate(("z", "mu", "logvar", "log_weights")):
        arrays = [z, mu, logvar, log_weights]
        arrays[i] = np.full(arrays[i].shape, "text")
        with pytest.raises(TypeError, match=f"^{name} "):
            function(*arrays)
    with pytest.raises(ValueError, match="reduction"):
        function(z, mu, logvar, log_weights, reduction="median")
    with pytest.raises(TypeError, match="num_threads"):
        function(z, mu, logvar, log_weights, num_threads="2")


def test_memory():
    """Nothing of N x K elements on the NumPy side: 64 MB here."""
    arrays = draw(np.float32, 4000, 4000, 2)
    tracemalloc.start()
    mixture_log_prob(*arrays)
    assert tracemalloc.get_traced_memory()[1] < 1 << 18
    tracemalloc.stop()
