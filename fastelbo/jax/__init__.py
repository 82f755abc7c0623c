"""fastelbo for JAX: the same functions on JAX arrays, under jit, grad, vmap, scan and shard_map.

On the CPU XLA calls the kernels, which give value and gradient in one pass; on other platforms the
same functions are traced as operations of JAX, from the formulas of ``fastelbo.reference``. Keys
are those of ``jax.random``. Likelihoods and priors are pytrees.

>>> import jax
>>> import jax.numpy as jnp
>>> from fastelbo.jax import Bernoulli, elbo
>>> x, mu = jnp.array([[0.0, 1.0]]), jnp.ones((1, 1))
>>> loss = lambda logits: -elbo(x, mu, 0 * mu, logits, likelihood=Bernoulli()).elbo
>>> jax.jit(jax.grad(loss))(0 * x)
Array([[ 0.5, -0.5]], dtype=float32)
"""

try:
    import jax as _jax

    if _jax.version.__version_info__ < (0, 4, 35):
        raise ModuleNotFoundError(f"this is jax {_jax.__version__}", name="jax")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'fastelbo.jax needs JAX 0.4.35 or newer: pip install "fastelbo[jax]"', name="jax"
    ) from error

from fastelbo.divergences import FreeBits
from fastelbo.jax._bridge import plain
from fastelbo.jax.aggregate import (
    BetaTcvaeResult,
    TotalCorrelation,
    beta_tcvae_elbo,
    mmd,
    total_correlation,
)
from fastelbo.jax.divergences import (
    kl_bernoulli,
    kl_categorical,
    kl_full_normal,
    kl_normal,
    kl_standard_normal,
)
from fastelbo.jax.elbo import ElboResult, elbo
from fastelbo.jax.experts import (
    Experts,
    GaussianExpert,
    mixture_of_experts,
    mopoe,
    product_of_experts,
)
from fastelbo.jax.flows import FlowElboResult, endpoint_velocity, flow_elbo, flow_matching
from fastelbo.jax.importance import (
    cubo,
    effective_sample_size,
    importance_bound,
    iwae,
    log_weights,
    normalized_weights,
    reinforce,
    vimco,
)
from fastelbo.jax.latent_ode import latent_ode_elbo
from fastelbo.jax.likelihoods import (
    Bernoulli,
    BetaBinomial,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Poisson,
    SquaredError,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
)
from fastelbo.jax.mixtures import mixture_log_prob
from fastelbo.jax.posterior import posterior_log_prob, reparameterize, reparameterize_kl
from fastelbo.jax.priors import MixtureOfGaussians, StandardNormal, VampPrior
from fastelbo.jax.remedies import capacity, delta_posterior
from fastelbo.jax.semi_supervised import m2_elbo

del _jax

__all__ = [
    "Bernoulli",
    "BetaBinomial",
    "BetaTcvaeResult",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ElboResult",
    "Experts",
    "FlowElboResult",
    "FreeBits",
    "Gaussian",
    "GaussianExpert",
    "Laplace",
    "Likelihood",
    "MixtureOfGaussians",
    "NegativeBinomial",
    "Poisson",
    "SquaredError",
    "StandardNormal",
    "StudentT",
    "TotalCorrelation",
    "VampPrior",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "beta_tcvae_elbo",
    "capacity",
    "cubo",
    "delta_posterior",
    "effective_sample_size",
    "elbo",
    "endpoint_velocity",
    "flow_elbo",
    "flow_matching",
    "importance_bound",
    "iwae",
    "kl_bernoulli",
    "kl_categorical",
    "kl_full_normal",
    "kl_normal",
    "kl_standard_normal",
    "latent_ode_elbo",
    "log_weights",
    "m2_elbo",
    "mixture_log_prob",
    "mixture_of_experts",
    "mmd",
    "mopoe",
    "normalized_weights",
    "plain",
    "posterior_log_prob",
    "product_of_experts",
    "reinforce",
    "reparameterize",
    "reparameterize_kl",
    "total_correlation",
    "vimco",
]
