"""What fastelbo.jax refuses, in words that name the argument."""

import pytest

import fastelbo

jax = pytest.importorskip("jax")
fj = pytest.importorskip("fastelbo.jax")
jnp = jax.numpy


class OneNumber:
    """A prior that forgets about rows."""

    def log_prob(self, z):
        return z.sum()


class ArraysOnly(OneNumber):
    def log_prob_and_grad(self, z):
        return self.log_prob(z), z


def test_errors_name_the_argument():
    x, mu = jnp.ones((2, 3)), jnp.zeros((2, 1))
    with pytest.raises(ValueError, match="x_recon has shape"):
        fj.elbo(x, mu, mu, x[:, :2])
    with pytest.raises(ValueError, match="reduction must be"):
        fj.elbo(x, mu, mu, x, reduction="all")
    with pytest.raises(TypeError, match=r"rng must be a key, jax.random.key\(seed\), got int"):
        fj.reparameterize(mu, mu, rng=1)
    with pytest.raises(ValueError, match="rng or noise, not both"):
        fj.reparameterize(mu, mu, rng=jax.random.key(0), noise=mu)
    with pytest.raises(TypeError, match="mu must hold real numbers"):
        fj.kl_standard_normal(mu * 1j, mu)
    with pytest.raises(TypeError, match="has no ColumnLikelihood"):
        fj.elbo(x, mu, mu, x, likelihood=fastelbo.ColumnLikelihood([("bernoulli", [0, 1, 2])]))
    with pytest.raises(TypeError, match=r"dreg.*must be the decoder"):
        fj.iwae(x, mu[None], mu, mu, x[None], estimator="dreg")
    with pytest.raises(TypeError, match="beta must be a number, got an array of shape"):
        fj.elbo(x, mu, mu, x, beta=x[0])
    with pytest.raises(TypeError, match="gamma must be a number, got an array of shape"):
        fj.beta_tcvae_elbo(x, mu, mu, mu, x, dataset_size=9, gamma=jnp.zeros(1))
    with pytest.raises(ValueError, match="beta must be finite and not negative"):
        fj.elbo(x, mu, mu, x, beta=-1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        fj.Gaussian(-1.0)
    with pytest.raises(TypeError, match="takes 2 decoder output"):
        fj.Gaussian("learned").log_prob(x, x)
    with pytest.raises(ValueError, match="prior: its KL is estimated"):
        fj.elbo(x, mu, mu, x, prior=fj.StandardNormal())
    with pytest.raises(ValueError, match="free_bits needs a KL in closed form"):
        fj.elbo(x, mu, mu, x, prior=fj.StandardNormal(), noise=mu, free_bits=1.0)
    with pytest.raises(ValueError, match=r"log_q has shape \(2, 3\), expected that of log_w"):
        fj.vimco(x[:, :2], x)
    with pytest.raises(ValueError, match=r"velocity has shape \(2, 3\), expected that of mu"):
        fj.flow_elbo(x, mu, mu, x, mu, x, 0.0)
    with pytest.raises(TypeError, match="mu must be an array of numbers"):
        fj.kl_standard_normal([[1.0], [2.0, 3.0]], mu)
    with pytest.raises(TypeError, match="Bernoulli takes x and decoder outputs"):
        fj.Bernoulli().log_prob(x)
    with pytest.raises(AttributeError, match="Bernoulli has no attribute 'scale'"):
        fj.Bernoulli().scale  # noqa: B018
    with pytest.raises(ValueError, match="logits"):
        fj.MixtureOfGaussians(mu, mu, jnp.zeros(3))
    with pytest.raises(TypeError, match="prior gives its gradients as arrays"):
        fj.elbo(x, mu, mu, x, noise=mu, prior=ArraysOnly())
    with pytest.raises(ValueError, match=r"prior.log_prob\(z\) has shape \(\), expected \(2,\)"):
        fj.elbo(x, mu, mu, x, noise=mu, prior=OneNumber())
    with pytest.raises(ValueError, match="mu has shape"):
        fj.beta_tcvae_elbo(x, mu[:1], mu[:1], mu[:1], x, dataset_size=9)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2, 3)], ids=str)
def test_a_scale_that_does_not_fit_the_event(shape, learned):
    x, mu = jnp.ones((2, 3)), jnp.ones((2, 1))
    for value in (
        lambda scale: fj.Gaussian(scale).log_prob(x, x),
        lambda scale: fj.elbo(x, mu, mu, x, likelihood=fj.Gaussian(scale)).elbo,
        lambda scale: fj.iwae(x, mu[None], mu, mu, x[None], likelihood=fj.Gaussian(scale)),
    ):
        with pytest.raises(ValueError, match=r"scale has shape .* broadcast to the event \(3,\)"):
            (jax.grad(value) if learned else value)(jnp.ones(shape))
