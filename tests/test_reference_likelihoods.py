"""The specification of likelihoods and of the ELBO against what does not come from here.

Numbers worked by hand, mpmath at 50 digits, SciPy, PyTorch, and central differences.
"""

from array import array
from math import log, pi, sqrt

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fastelbo import reference as ref
from tests.conftest import assert_close, numerical_gradient
from tests.test_reference import F64, LN2, LOG_2PI, REDUCTIONS, exactly
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


def test_gaussian_optimal_is_the_best_scale(rng):
    x, x_recon = rng.normal(size=(2, 6, 4))
    sigma = sqrt(np.mean((x - x_recon) ** 2))
    best = ref.Gaussian("optimal").log_prob(x, x_recon)
    assert_close(best, ref.Gaussian(sigma).log_prob(x, x_recon), F64)
    assert_close(best, -0.5 * 4 * (log(2 * pi * sigma**2) + 1), F64)
    for other in (0.99 * sigma, 1.01 * sigma):
        assert ref.Gaussian(other).log_prob(x, x_recon) < best


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


def test_likelihoods_scipy(rng):
    x, x_recon = rng.normal(size=(2, 4, 3, 2))
    scale = rng.uniform(0.2, 3.0, size=(3, 2))
    expected = scipy.stats.norm.logpdf(x, x_recon, scale).sum(axis=(1, 2))
    assert_close(
        ref.Gaussian(scale).log_prob(x, x_recon, reduction="none"), expected, F64, scale=10.0
    )
    bits = rng.integers(0, 2, size=x.shape)
    expected = scipy.stats.bernoulli.logpmf(bits, scipy.special.expit(x_recon)).sum(axis=(1, 2))
    assert_close(ref.Bernoulli().log_prob(bits, x_recon, reduction="none"), expected, F64)


LIKELIHOODS = [  # and how many parameters each takes
    pytest.param(ref.SquaredError(), 1, id="squared-error"),
    pytest.param(ref.SquaredError(x_scale=0.5), 1, id="squared-error-scaled"),
    pytest.param(ref.Gaussian(), 1, id="gaussian"),
    pytest.param(ref.Gaussian(0.4), 1, id="gaussian-scalar"),
    pytest.param(ref.Gaussian(np.array([0.3, 1.0, 2.5])), 1, id="gaussian-features"),
    pytest.param(ref.Gaussian("learned"), 2, id="gaussian-learned"),
    pytest.param(ref.Gaussian("optimal", x_scale=2.0), 1, id="gaussian-optimal"),
    pytest.param(ref.Bernoulli(), 1, id="bernoulli"),
    pytest.param(ref.Bernoulli(x_scale=0.5), 1, id="bernoulli-scaled"),
]


@pytest.mark.parametrize(("likelihood", "count"), LIKELIHOODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_likelihood_differences(likelihood, count, reduction, rng):
    x = rng.uniform(size=(4, 2, 3))
    parameters = [rng.normal(size=x.shape) for _ in range(count)]
    value, grads = likelihood.log_prob_and_grad(x, *parameters, reduction=reduction)
    np.testing.assert_array_equal(value, likelihood.log_prob(x, *parameters, reduction=reduction))
    assert np.shape(value) == ((4,) if reduction == "none" else ())
    assert len(grads) == count
    for i, grad in enumerate(grads):

        def total(p, i=i):
            changed = [*parameters[:i], p, *parameters[i + 1 :]]
            return np.sum(likelihood.log_prob(x, *changed, reduction=reduction))

        np.testing.assert_allclose(
            grad, numerical_gradient(total, parameters[i]), rtol=1e-9, atol=1e-8
        )


@pytest.mark.parametrize(("likelihood", "count"), LIKELIHOODS)
def test_likelihood_reductions_and_samples(likelihood, count, rng):
    x = rng.uniform(size=(4, 2, 3))
    parameters = [rng.normal(size=(5, *x.shape)) for _ in range(count)]
    rows = likelihood.log_prob(x, *parameters, reduction="none")
    assert rows.shape == (5, 4)
    assert_close(likelihood.log_prob(x, *parameters, reduction="sum"), rows.sum(), F64, scale=100.0)
    assert_close(likelihood.log_prob(x, *parameters), rows.mean(), F64, scale=100.0)
    if getattr(likelihood, "scale", None) is not None and isinstance(likelihood.scale, str):
        return  # "optimal" shares its scale among all samples
    for k in range(5):
        alone = likelihood.log_prob(x, *(p[k] for p in parameters), reduction="none")
        assert_close(rows[k], alone, F64, scale=10.0)


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


def test_elbo_is_the_plain_formula(rng):
    x, x_recon = rng.normal(size=(2, 128, 784))
    mu, logvar = rng.normal(size=(2, 128, 20))
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), 1))
    expected = -np.mean(np.sum((x - x_recon) ** 2, 1)) - kl
    assert_close(ref.elbo(x, mu, logvar, x_recon)[0], expected, F64)


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


@pytest.mark.parametrize(("likelihood", "count"), LIKELIHOODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elbo_differences(likelihood, count, reduction, gaussian, rng):
    x = rng.uniform(size=(5, 3))
    parameters = tuple(rng.normal(size=(5, 3)) for _ in range(count))
    options = {
        "likelihood": likelihood,
        "beta": 1.7,
        "free_bits": 0.9,
        "noise": np.ones((5, 3)),
        "reduction": reduction,
    }

    def results(mu, logvar, *parameters):
        x_recon = parameters if count > 1 else parameters[0]
        return ref.elbo(x, mu, logvar, x_recon, **options)

    inputs = (*gaussian, *parameters)
    x_recon = parameters if count > 1 else parameters[0]
    result, grads = ref.elbo_and_grad(x, *gaussian, x_recon, **options)
    for got, expected in zip(result, results(*inputs), strict=True):
        np.testing.assert_array_equal(got, expected)
    grads = (grads[0], grads[1], *(grads[2] if count > 1 else (grads[2],)))
    for i, grad in enumerate(grads):

        def total(a, i=i):
            return np.sum(results(*inputs[:i], a, *inputs[i + 1 :])[0])

        np.testing.assert_allclose(grad, numerical_gradient(total, inputs[i]), rtol=1e-9, atol=1e-8)


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


def test_divergences_torch(gaussian, rng):
    torch = pytest.importorskip("torch")
    arrays = [*gaussian, rng.normal(size=(5, 3)), rng.normal(size=(5, 3))]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    mu_q, logvar_q, mu_p, logvar_p = tensors
    normal, divergence = torch.distributions.Normal, torch.distributions.kl_divergence
    q, p = normal(mu_q, (logvar_q / 2).exp()), normal(mu_p, (logvar_p / 2).exp())

    expected = divergence(q, p).sum(1).mean()
    expected_grads = tuple(
        g.numpy() for g in torch.autograd.grad(expected, tensors, retain_graph=True)
    )
    value, grads = ref.kl_normal_and_grad(*arrays)
    assert_close(value, expected.item(), F64)
    assert_close(grads, expected_grads, F64, scale=1.0)

    expected = divergence(q, normal(torch.zeros(()), torch.ones(()))).sum(1).mean()
    expected_grads = tuple(g.numpy() for g in torch.autograd.grad(expected, tensors[:2]))
    value, grads = ref.kl_standard_normal_and_grad(*gaussian)
    assert_close(value, expected.item(), F64)
    assert_close(grads, expected_grads, F64, scale=1.0)


@pytest.mark.parametrize("name", ["squared error", "gaussian", "learned", "optimal", "bernoulli"])
def test_elbo_torch(name, gaussian, rng):
    torch = pytest.importorskip("torch")
    scale = np.array([0.5, 1.0, 2.0, 0.1])
    x = rng.uniform(size=(5, 4))
    parameters = [rng.normal(size=(5, 4)) for _ in range(2 if name == "learned" else 1)]
    tensors = [torch.tensor(a, requires_grad=True) for a in (*gaussian, *parameters)]
    mu, logvar, x_recon = tensors[:3]
    data, normal = torch.tensor(x), torch.distributions.Normal
    if name == "squared error":
        likelihood = ref.SquaredError()
        density = -((data - x_recon) ** 2)
    elif name == "gaussian":
        likelihood = ref.Gaussian(scale)
        density = normal(x_recon, torch.tensor(scale)).log_prob(data)
    elif name == "learned":
        likelihood = ref.Gaussian("learned")
        density = normal(x_recon, tensors[3].exp()).log_prob(data)
    elif name == "optimal":
        likelihood = ref.Gaussian("optimal")
        density = normal(x_recon, ((data - x_recon) ** 2).mean().sqrt()).log_prob(data)
    else:
        likelihood = ref.Bernoulli()
        density = -torch.nn.functional.binary_cross_entropy_with_logits(
            x_recon, data, reduction="none"
        )
    prior = normal(torch.zeros(()), torch.ones(()))
    kl = torch.distributions.kl_divergence(normal(mu, (logvar / 2).exp()), prior).sum(1).mean()
    reconstruction = density.sum(1).mean()
    bound = reconstruction - 0.3 * kl
    bound.backward()

    several = tuple(parameters) if name == "learned" else parameters[0]
    result, grads = ref.elbo_and_grad(x, *gaussian, several, likelihood=likelihood, beta=0.3)
    assert_close(result[:3], (bound.item(), reconstruction.item(), kl.item()), F64, scale=10.0)
    grads = (*grads[:2], *(grads[2] if name == "learned" else grads[2:]))
    assert_close(grads, tuple(t.grad.numpy() for t in tensors), F64, scale=1.0)


def test_reparameterize_backward_torch(gaussian, rng):
    torch = pytest.importorskip("torch")
    mu, logvar = (torch.tensor(a, requires_grad=True) for a in gaussian)
    noise, grad_z = rng.normal(size=(2, 4, 5, 3))
    z = mu + (logvar / 2).exp() * torch.tensor(noise)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    ((torch.tensor(grad_z) * z).sum() - 0.2 * kl).backward()
    grads = ref.reparameterize_backward(grad_z, *gaussian, z.detach().numpy(), kl_weight=0.2)
    assert_close(grads, (mu.grad.numpy(), logvar.grad.numpy()), F64, scale=10.0)
