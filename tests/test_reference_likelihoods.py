"""The specification of likelihoods and of the ELBO against what does not come from here.

Numbers worked by hand, mpmath at 50 digits, SciPy, PyTorch, and central differences.
"""

from array import array
from math import log, pi, sqrt

import mpmath
import numpy as np
import pytest

from fastelbo import reference as ref
from tests.conftest import assert_close
from tests.test_reference import F64, LN2, LOG_2PI, exactly
from tests.test_reference import gaussian as gaussian
from tests.test_reference import rng as rng

# Likelihoods ------------------------------------------------------------------------------------


def test_squared_error_by_hand():
    x, x_recon = [[1.0, 0.0], [2.0, 2.0]], [[0.5, 0.25], [0.0, 2.0]]  # -5/16 and -4
    assert_close(ref.SquaredError().log_prob(x, x_recon, reduction="none"), [-0.3125, -4.0], F64)
    value, (grad,) = ref.SquaredError().log_prob_and_grad(x, x_recon)
    assert_close(value, -2.15625, F64)
    assert_close(grad, [[0.5, -0.25], [2.0, 0.0]], F64)
    scaled = ref.SquaredError(x_scale=0.25).log_prob(np.array([[4, 2]], np.uint8), [[0.0, 0.0]])
    assert_close(scaled, -1.25, F64)


def test_gaussian_by_hand():
    # residual 1, scale 2: -1/8 - ln 2 - ln(2 pi) / 2, gradient 1/4
    value, (grad,) = ref.Gaussian(2.0).log_prob_and_grad([[3.0]], [[2.0]])
    assert_close(value, -0.125 - LN2 - LOG_2PI / 2, F64)
    assert_close(grad, [[0.25]], F64)
    value, grads = ref.Gaussian("learned").log_prob_and_grad([[3.0]], [[2.0]], [[LN2]])
    assert_close(value, -0.125 - LN2 - LOG_2PI / 2, F64)
    assert_close(grads, ([[0.25]], [[-0.75]]), F64)
    by_feature = ref.Gaussian([1.0, 2.0]).log_prob([[1.0, 1.0]], [[0.0, 0.0]])
    assert_close(by_feature, -0.5 - 0.125 - LN2 - LOG_2PI, F64)


def test_gaussian_optimal_by_hand():
    # Squared residuals 1, 9, 0, 10: sigma^2 = 5, D = 2.
    x, x_recon = [[1.0, 3.0], [0.0, sqrt(10.0)]], np.zeros((2, 2))
    optimal = ref.Gaussian("optimal")
    value, (grad,) = optimal.log_prob_and_grad(x, x_recon)
    assert_close(value, -log(2 * pi * 5) - 1, F64)  # -D (log(2 pi sigma^2) + 1) / 2
    assert_close(grad, np.divide(x, 5 * 2), F64)
    # Both rows sum to squares of 10: the same for each.
    rows, (grad,) = optimal.log_prob_and_grad(x, x_recon, reduction="none")
    assert_close(rows, [value, value], F64)
    assert_close(grad, np.divide(x, 5), F64)
    assert_close(optimal.log_prob(x, x_recon, reduction="sum"), 2 * value, F64)


def test_bernoulli_by_hand():
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4
    x, logits = [[1.0, 1.0, 0.0, 0.5]], [[0.0, log(3.0), log(3.0), log(3.0)]]
    expected = -LN2 + log(0.75) + log(0.25) + 0.5 * (log(0.75) + log(0.25))
    value, (grad,) = ref.Bernoulli().log_prob_and_grad(x, logits)
    assert_close(value, expected, F64)
    assert_close(grad, [[0.5, 0.25, -0.75, -0.25]], F64)
    halves = ref.Bernoulli(x_scale=1 / 255).log_prob(np.array([[255, 0]], np.uint8), [[0.0, 0.0]])
    assert_close(halves, -2 * LN2, F64)


def test_bernoulli_domain():
    for x in (-0.1, 1.1):
        with pytest.raises(ValueError, match="outside the domain"):
            ref.Bernoulli().log_prob([[x]], [[0.0]])
        ref.Bernoulli(validate=False).log_prob([[x]], [[0.0]])
    assert np.isnan(ref.Bernoulli().log_prob([[np.nan]], [[0.0]]))


def test_bernoulli_mpmath():
    logits = np.array(
        [
            0.0,
            1e-300,
            -1e-12,
            1e-5,
            0.1,
            -0.7,
            3.0,
            20.0,
            -20.0,
            40.0,
            -40.0,
            700.0,
            -700.0,
            1e5,
            -1e5,
        ]
    ).reshape(-1, 1)
    x = np.array([0.0, 0.25, 1.0])
    all_x, all_logits = (a.reshape(-1, 1) for a in np.broadcast_arrays(x, logits))
    # At |l| = 1e5, e^-|l| underflows in float64: the limits will do, and mpmath need not.
    expected = exactly(
        lambda x, a: x * a - (max(a, 0) if abs(a) > 900 else mpmath.log1p(mpmath.exp(a))),
        all_x,
        all_logits,
        digits=700,
    )
    gradient = exactly(
        lambda x, a: x - (a > 0 if abs(a) > 900 else 1 / (1 + mpmath.exp(-a))),
        all_x,
        all_logits,
        digits=700,
    )
    values, (grad,) = ref.Bernoulli().log_prob_and_grad(all_x, all_logits, reduction="none")
    np.testing.assert_allclose(values, expected[:, 0], rtol=1e-15)
    np.testing.assert_allclose(grad, gradient, rtol=1e-15, atol=1e-17)
    far = ref.Bernoulli().log_prob([[1.0]], [[700.0]])
    assert_close(far, -np.exp(-700.0), F64)


def test_gaussian_extremes_mpmath():
    x = np.array([[0.0], [1e-8], [-3.0], [1e5]])
    log_scale = np.array([-30.0, -1.0, 0.0, 1e-9, 30.0])
    all_x, all_s = (a.reshape(-1, 1) for a in np.broadcast_arrays(x, log_scale))
    expected = exactly(
        lambda x, s: -((x * mpmath.exp(-s)) ** 2) / 2 - s - mpmath.log(2 * mpmath.pi) / 2,
        all_x,
        all_s,
    )[:, 0]
    zero = np.zeros_like(all_x)
    learned = ref.Gaussian("learned").log_prob(all_x, zero, all_s, reduction="none")
    np.testing.assert_allclose(learned, expected, rtol=5e-15)
    fixed = [
        ref.Gaussian(np.exp(s)).log_prob([[v]], [[0.0]])
        for v, s in zip(all_x[:, 0], all_s[:, 0], strict=True)
    ]
    np.testing.assert_allclose(fixed, expected, rtol=5e-15)


# The evidence bound -----------------------------------------------------------------------------


def test_elbo_by_hand():
    # Reconstructions -5/16, -4; KL 1/2, 0. With beta = 2: -21/16, -4.
    args = [[1.0, 0.0], [2.0, 2.0]], [[1.0], [0.0]], [[0.0], [0.0]], [[0.5, 0.25], [0.0, 2.0]]
    bound, reconstruction, kl, z = ref.elbo(*args, beta=2.0, reduction="none")
    assert_close((bound, reconstruction, kl), ([-1.3125, -4.0], [-0.3125, -4.0], [0.5, 0.0]), F64)
    assert z is None
    assert_close(ref.elbo(*args, beta=2.0)[:3], (-2.65625, -2.15625, 0.25), F64)
    assert_close(ref.elbo(*args, reduction="sum")[:3], (-4.8125, -4.3125, 0.5), F64)
    bound, _, kl, z = ref.elbo(*args, free_bits=0.75, noise=[[2.0], [-1.0]])
    assert_close((bound, kl, z), (-2.90625, 0.75, [[3.0], [-1.0]]), F64)
    _, grads = ref.elbo_and_grad(*args, beta=2.0)
    assert_close(grads, ([[-1.0], [0.0]], [[0.0], [0.0]], [[0.5, -0.25], [2.0, 0.0]]), F64)


def test_elbo_draws_in_the_dtype(gaussian, dtype, rng):
    mu, logvar = (a.astype(dtype) for a in gaussian)
    x, x_recon = rng.normal(size=(2, 5, 4)).astype(dtype)
    z = ref.elbo(x, mu, logvar, x_recon, rng=3)[3]
    np.testing.assert_array_equal(z, ref.reparameterize(mu, logvar, rng=3))
    other = np.float64 if dtype == np.float32 else np.float32
    assert not np.allclose(z, ref.reparameterize(mu.astype(other), logvar.astype(other), rng=3))
    bits = rng.integers(0, 2, size=(5, 4))  # integer data does not decide
    np.testing.assert_array_equal(ref.elbo(bits, mu, logvar, x_recon, rng=3)[3], z)
    z = ref.elbo(x.astype(F64), mu, logvar, x_recon, rng=3)[3]
    double = ref.reparameterize(mu.astype(F64), logvar.astype(F64), rng=3)
    np.testing.assert_array_equal(z, double)


@pytest.mark.parametrize("code", ["f", "d"])
def test_elbo_from_buffers(code, rng, tmp_path):
    arrays = [rng.uniform(size=shape).astype(code) for shape in [(3, 4), (3, 2), (3, 2), (3, 4)]]
    expected = ref.elbo(*arrays, beta=3.0, rng=1)
    path = tmp_path / "x"
    path.write_bytes(arrays[0].tobytes())
    _, mu, logvar, x_recon = arrays
    buffers = [
        np.memmap(path, mode="r"),
        mu.tobytes(),
        array(code, logvar.ravel()),
        memoryview(x_recon),
    ]
    result = ref.elbo_from_buffers(*buffers, 3, 4, 2, dtype=code, beta=3.0, rng=1)
    for got, value in zip(result, expected, strict=True):
        np.testing.assert_array_equal(got, value)
    typed = [array(code, a.ravel()) for a in arrays]  # these say what they hold
    assert ref.elbo_from_buffers(*typed, 3, 4, 2, beta=3.0)[:3] == result[:3]
    raw = np.arange(12, dtype=np.uint8)
    result = ref.elbo_from_buffers(
        raw.tobytes(), *buffers[1:], 3, 4, 2, dtype=code, x_dtype="uint8", rng=1
    )
    expected = ref.elbo(raw.reshape(3, 4), *arrays[1:], rng=1)
    for got, value in zip(result, expected, strict=True):
        np.testing.assert_array_equal(got, value)
    with pytest.raises(ValueError, match="reshape"):
        ref.elbo_from_buffers(*buffers, 3, 5, 2, dtype=code)


def test_layouts_change_nothing(layout, rng):
    arrays = [rng.uniform(size=shape) for shape in [(3, 4), (3, 2), (3, 2), (3, 4)]]
    result, grads = ref.elbo_and_grad(*map(layout, arrays), rng=1, likelihood=ref.Bernoulli())
    expected, expected_grads = ref.elbo_and_grad(*arrays, rng=1, likelihood=ref.Bernoulli())
    # the order of NumPy's sums follows the layout
    assert_close(result, expected, F64)
    assert_close(grads, expected_grads, F64)


def test_unknown_options(gaussian):
    with pytest.raises(KeyError):
        ref.kl_standard_normal(*gaussian, reduction="median")
    with pytest.raises(KeyError):
        ref.kl_standard_normal(*gaussian, free_bits=ref.FreeBits(1.0, "latent"))
    with pytest.raises(KeyError):
        ref.kl_standard_normal(*gaussian, free_bits=ref.FreeBits(1.0, "total", "cut"))


# PyTorch ----------------------------------------------------------------------------------------
