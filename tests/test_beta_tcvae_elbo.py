"""beta_tcvae_elbo and beta_tcvae_elbo_and_grad: a composition."""

import numpy as np
import pytest

import fastelbo
from fastelbo import beta_tcvae_elbo, beta_tcvae_elbo_and_grad, reference
from fastelbo._catalogue import flatten
from tests.test_total_correlation import SIZE, VARIANTS
from tests.test_total_correlation import draw as draw_latents


def draw(dtype=np.float64, batch=6, features=4):
    rng = np.random.default_rng(1)
    x, x_recon = rng.uniform(size=(2, batch, features)).astype(dtype)
    return x, *draw_latents(dtype, batch), x_recon


@pytest.mark.parametrize("options", VARIANTS)
def test_is_what_its_parts_make(options):
    x, z, mu, logvar, x_recon = draw()
    options = {"dataset_size": SIZE, **options}
    parts = fastelbo.total_correlation(z, mu, logvar, **options)
    result = beta_tcvae_elbo(x, z, mu, logvar, x_recon, alpha=0.5, beta=2.0, gamma=3.0, **options)
    assert result[2:] == parts
    expected = fastelbo.SquaredError().log_prob(x, x_recon)
    assert result.reconstruction == pytest.approx(expected, rel=1e-14)
    cost = np.dot([0.5, 2.0, 3.0], parts)
    assert result.elbo == pytest.approx(result.reconstruction - cost, rel=1e-14)


def test_with_equal_weights_it_estimates_the_elbo():
    """Its mean over z is the ELBO."""
    x, _, mu, logvar, x_recon = draw()
    noise = np.random.default_rng(2).normal(size=(4000, *mu.shape))
    values = [
        beta_tcvae_elbo(x, z, mu, logvar, x_recon, dataset_size=SIZE, beta=1.0).elbo
        for z in mu + np.exp(0.5 * logvar) * noise
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - fastelbo.elbo(x, mu, logvar, x_recon).elbo) < 5 * error


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Bernoulli", ()), ("Gaussian", ("learned",)), ("Gaussian", ("optimal",))],
)
def test_likelihoods_and_masks(name, arguments):
    x, *latent, x_recon = draw(batch=9)
    mask = np.random.default_rng(3).uniform(size=x.shape) < 0.7
    several = arguments == ("learned",)
    x_recon = (x_recon, 0.3 * x_recon) if several else x_recon
    ours, theirs = (getattr(module, name)(*arguments) for module in (fastelbo, reference))
    options = {"dataset_size": SIZE, "mask": mask}
    got = beta_tcvae_elbo_and_grad(x, *latent, x_recon, likelihood=ours, **options)
    expected = reference.beta_tcvae_elbo_and_grad(x, *latent, x_recon, likelihood=theirs, **options)
    assert isinstance(got[1].x_recon, tuple) == several
    for mine, specified in zip(flatten(got), flatten(expected), strict=True):
        np.testing.assert_allclose(mine, specified, rtol=1e-11, atol=1e-12)


def test_errors():
    arrays = draw()
    with pytest.raises(TypeError, match="likelihood"):
        beta_tcvae_elbo(*arrays, dataset_size=SIZE, likelihood=3)
    for name in ("alpha", "beta", "gamma"):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            beta_tcvae_elbo(*arrays, dataset_size=SIZE, **{name: "six"})
    with pytest.raises(TypeError, match=r"takes 1 decoder output\(s\) .* got 2"):
        beta_tcvae_elbo(*arrays[:4], (arrays[4],) * 2, dataset_size=SIZE)
    with pytest.raises(ValueError, match="mu has shape"):
        beta_tcvae_elbo(arrays[0][:3], *arrays[1:4], arrays[4][:3], dataset_size=SIZE)
    with pytest.raises(TypeError, match="out must be"):
        beta_tcvae_elbo_and_grad(*arrays, dataset_size=SIZE, out=arrays[0])
