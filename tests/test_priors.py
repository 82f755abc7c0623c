"""Priors, by themselves and in the ELBO, log weights and IWAE."""

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from tests.conftest import assert_close, numerical_gradient
from tests.importance import draw as draw_samples
from tests.importance import magnitudes

KINDS = ("mixture", "uniform", "vamp")


def parameters(dtype, components=4, cols=3, seed=5):
    rng = np.random.default_rng(seed)
    logits, mu = rng.normal(size=components), rng.normal(size=(components, cols))
    return tuple(a.astype(dtype) for a in (mu, 0.5 * rng.normal(size=mu.shape), logits))


def priors(kind, dtype, module=fastelbo, **options):
    mu, logvar, logits = parameters(dtype, **options)
    if kind == "vamp":
        return module.VampPrior(mu, logvar)
    return module.MixtureOfGaussians(mu, logvar, logits if kind == "mixture" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_backward_by_differences(kind):
    mu, logvar, logits = parameters(np.float64)
    z = np.random.default_rng(0).normal(size=(6, 3))
    weights = np.random.default_rng(1).normal(size=6)

    def value(mu, logvar, logits):
        given = None if kind != "mixture" else logits
        return float(weights @ fastelbo.MixtureOfGaussians(mu, logvar, given).log_prob(z))

    grad = priors(kind, np.float64).backward(z, weights)
    by = {
        "logits": numerical_gradient(lambda a: value(mu, logvar, a), logits),
        "mu": numerical_gradient(lambda a: value(a, logvar, logits), mu),
        "logvar": numerical_gradient(lambda a: value(mu, a, logits), logvar),
    }
    if kind != "mixture":
        assert grad.logits is None
        del by["logits"]
    for name, expected in by.items():
        np.testing.assert_allclose(getattr(grad, name), expected, rtol=1e-7, atol=1e-9)


def test_log_weights_serve_as_logits():
    mu, logvar, logits = parameters(np.float64)
    prior = fastelbo.MixtureOfGaussians(mu, logvar, logits)
    assert np.exp(prior.log_weights).sum() == pytest.approx(1)
    again = fastelbo.MixtureOfGaussians(mu, logvar, prior.log_weights)
    z = np.zeros((1, 3))
    np.testing.assert_allclose(again.log_prob(z), prior.log_prob(z), rtol=1e-13)


def test_sample():
    prior = fastelbo.MixtureOfGaussians([[-9.0], [9.0]], [[0.0], [0.0]], [0.0, np.log(3)])
    z = prior.sample(4000, rng=1)
    assert z.shape == (4000, 1)
    assert (z > 0).mean() == pytest.approx(0.75, abs=0.03)
    assert z[z > 0].std() == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(prior.sample(9, rng=1), prior.sample(9, rng=1))
    assert (prior.sample(9, rng=1) != prior.sample(9, rng=2)).all()


def test_errors():
    mu, logvar, logits = parameters(np.float64)
    with pytest.raises(ValueError, match="logits has shape"):
        fastelbo.MixtureOfGaussians(mu, logvar, logits[:2])
    with pytest.raises(ValueError, match="mu has shape"):
        fastelbo.VampPrior(mu[0], logvar)
    with pytest.raises(ValueError, match="logvar has shape"):
        fastelbo.VampPrior(mu, logvar[0])
    prior = fastelbo.VampPrior(mu, logvar)
    with pytest.raises(ValueError, match="z has shape"):
        prior.log_prob(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="z has shape"):
        fastelbo.StandardNormal().log_prob(1.0)
    with pytest.raises(ValueError, match="weights has shape"):
        prior.backward(np.zeros((2, 3)), np.ones(3))
    assert repr(prior) == "VampPrior(4 components, 3 dimensions)"
    assert repr(fastelbo.StandardNormal()) == "StandardNormal()"


# In bounds --------------------------------------------------------------------------------------


def test_the_standard_normal_is_the_default(dtype):
    arrays = draw_samples(dtype)
    expected = fastelbo.log_weights(*arrays)
    scale = magnitudes(*arrays, "SquaredError")
    got = fastelbo.log_weights(*arrays, prior=fastelbo.StandardNormal())
    assert_close(got, expected, dtype, scale)
    zeros = np.zeros((1, 3), dtype)
    got = fastelbo.log_weights(*arrays, prior=fastelbo.MixtureOfGaussians(zeros, zeros))
    assert_close(got, expected, dtype, scale)


@pytest.mark.parametrize("kind", KINDS)
def test_log_weights_and_iwae(kind, dtype):
    arrays = draw_samples(dtype)
    ours, theirs = priors(kind, dtype), priors(kind, dtype, reference)
    scale = magnitudes(*arrays, "SquaredError") + 20
    got = fastelbo.log_weights(*arrays, prior=ours)
    assert_close(got, reference.log_weights(*arrays, prior=theirs), dtype, scale)
    bound, grad = fastelbo.iwae_and_grad(*arrays, prior=ours)
    expected, (their_z, *_) = reference.iwae_and_grad(*arrays, prior=theirs)
    assert_close(bound, expected, dtype, scale.max())
    assert_close(grad.z, their_z, dtype, 10 * scale.max())


def test_the_priors_share_of_the_gradient_of_iwae():
    x, z, mu, logvar, x_recon = draw_samples(np.float64)
    means, logvars, logits = parameters(np.float64)

    def bound(means):
        prior = fastelbo.MixtureOfGaussians(means, logvars, logits)
        return fastelbo.iwae(x, z, mu, logvar, x_recon, prior=prior)

    prior = fastelbo.MixtureOfGaussians(means, logvars, logits)
    _, grad = fastelbo.iwae_and_grad(x, z, mu, logvar, x_recon, prior=prior)
    got = prior.backward(z, grad.weights / len(x)).mu
    np.testing.assert_allclose(got, numerical_gradient(bound, means), rtol=1e-7, atol=1e-9)


def problem(dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, x_recon = rng.normal(size=(2, 6, 7)).astype(dtype)
    mu, logvar, noise = rng.normal(size=(3, 6, 3)).astype(dtype)
    return (x, mu, logvar, x_recon), noise


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noisy", [False, True])
def test_elbo(noisy, kind, reduction, dtype):
    arrays, noise = problem(dtype)
    drawn = {"noise": noise} if noisy else {"rng": 7}
    options = {"beta": 0.5, "reduction": reduction, **drawn}
    ours, theirs = priors(kind, dtype), priors(kind, dtype, reference)
    result, grad = fastelbo.elbo_and_grad(*arrays, prior=ours, **options)
    expected, their_grad = reference.elbo_and_grad(*arrays, prior=theirs, **options)
    assert type(result.kl) is (np.ndarray if reduction == "none" else float)
    assert_close(tuple(result), tuple(expected), dtype, 200.0)
    assert_close(tuple(grad), tuple(their_grad), dtype, 50.0)
    alone = fastelbo.elbo(*arrays, prior=ours, **options)
    for a, b in zip(alone, result, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_of_the_elbo_by_differences():
    (x, mu, logvar, x_recon), noise = problem(np.float64)
    prior = priors("mixture", np.float64)

    def value(mu, logvar):
        return fastelbo.elbo(x, mu, logvar, x_recon, prior=prior, beta=2.0, noise=noise).elbo

    options = {"prior": prior, "beta": 2.0, "noise": noise}
    result, grad = fastelbo.elbo_and_grad(x, mu, logvar, x_recon, **options)
    by_mu = numerical_gradient(lambda a: value(a, logvar), mu)
    by_logvar = numerical_gradient(lambda a: value(mu, a), logvar)
    np.testing.assert_allclose(grad.mu, by_mu, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(grad.logvar, by_logvar, rtol=1e-7, atol=1e-8)

    def by_prior(means):
        moved = fastelbo.MixtureOfGaussians(means, prior.logvar, prior.logits)
        return fastelbo.elbo(x, mu, logvar, x_recon, **{**options, "prior": moved}).elbo

    got = prior.backward(result.z, 2.0 / len(x)).mu
    np.testing.assert_allclose(got, numerical_gradient(by_prior, prior.mu), rtol=1e-7, atol=1e-8)


def test_the_estimated_kl_has_the_right_mean():
    x = np.zeros((20_000, 1))
    mu, logvar = np.full((2, 20_000, 2), 0.7)
    prior = fastelbo.StandardNormal()
    estimate = fastelbo.elbo(x, mu, logvar, x, prior=prior, rng=3).kl
    exact = fastelbo.kl_standard_normal(mu, logvar)
    assert estimate == pytest.approx(exact, abs=0.05)


def test_elbo_errors():
    arrays, noise = problem(np.float64)
    prior = fastelbo.StandardNormal()
    with pytest.raises(ValueError, match=r"prior: .* give rng or noise"):
        fastelbo.elbo(*arrays, prior=prior)
    with pytest.raises(ValueError, match="free_bits"):
        fastelbo.elbo(*arrays, prior=prior, noise=noise, free_bits=0.5)
    with pytest.raises(TypeError, match="prior must be an object"):
        fastelbo.elbo(*arrays, prior="vamp", noise=noise)
    assert fastelbo.elbo(*arrays, prior="standard") == fastelbo.elbo(*arrays)
    for given, error, message in (
        ((np.zeros(6),), TypeError, "must return two arrays"),
        ((np.zeros(6), np.zeros((6, 2))), ValueError, r"gradient of prior\.log_prob_and_grad\(z\)"),
    ):
        prior.log_prob_and_grad = lambda z, given=given: given
        with pytest.raises(error, match=message):
            fastelbo.elbo_and_grad(*arrays, prior=prior, noise=noise)


@pytest.mark.parametrize("logits", [None, np.float32([0.1, -2.3])])
def test_weights_are_as_exact_as_what_they_are_beside(logits):
    mu, logvar = np.zeros((2, 2, 1), np.float32)
    z = np.ones((1, 1))
    got = fastelbo.MixtureOfGaussians(mu, logvar, logits).log_prob(z)
    exact = fastelbo.MixtureOfGaussians(
        mu.astype(float), logvar.astype(float), None if logits is None else logits.astype(float)
    )
    np.testing.assert_allclose(got, exact.log_prob(z), rtol=1e-14)
