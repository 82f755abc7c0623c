"""Variational-inference objectives on CPUs, value and gradient in one pass over memory."""

from typing import TYPE_CHECKING

from fastelbo._info import __version__ as __version__
from fastelbo._info import build_info
from fastelbo._threads import get_num_threads, num_threads, set_num_threads
from fastelbo.aggregate import (
    AggregateDensity,
    BetaTcvaeGrad,
    BetaTcvaeResult,
    TotalCorrelation,
    TotalCorrelationGrad,
    aggregate_posterior_log_density,
    beta_tcvae_elbo,
    beta_tcvae_elbo_and_grad,
    total_correlation,
    total_correlation_and_grad,
)
from fastelbo.bounds import (
    BoundGrad,
    ScoreGrad,
    cubo,
    cubo_and_grad,
    effective_sample_size,
    importance_bound,
    importance_bound_and_grad,
    normalized_weights,
    reinforce,
    reinforce_and_grad,
    vimco,
    vimco_and_grad,
)
from fastelbo.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.discrepancies import MmdGrad, mmd, mmd_and_grad
from fastelbo.discrete import (
    BetaBinomial,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Poisson,
)
from fastelbo.divergences import (
    FreeBits,
    GaussianGrad,
    KlNormalGrad,
    kl_normal,
    kl_normal_and_grad,
    kl_standard_normal,
    kl_standard_normal_and_grad,
)
from fastelbo.elbo import ElboGrad, ElboResult, elbo, elbo_and_grad, elbo_from_buffers
from fastelbo.experts import (
    Experts,
    ExpertsGrad,
    GaussianExpert,
    mixture_of_experts,
    mixture_of_experts_and_grad,
    mopoe,
    mopoe_backward,
    product_of_experts,
    product_of_experts_backward,
)
from fastelbo.full_normal import KlFullNormalGrad, kl_full_normal, kl_full_normal_and_grad
from fastelbo.importance import IwaeGrad, iwae, iwae_and_grad, log_weights
from fastelbo.likelihoods import Bernoulli, ContinuousBernoulli, Likelihood
from fastelbo.locations import Gaussian, Laplace, SquaredError, StudentT
from fastelbo.mixtures import MixtureGrad, mixture_log_prob, mixture_log_prob_and_grad
from fastelbo.posterior import reparameterize, reparameterize_backward, reparameterize_kl
from fastelbo.priors import MixtureOfGaussians, PriorGrad, StandardNormal, VampPrior
from fastelbo.streaming import StreamingBound
from fastelbo.survival import Weibull
from fastelbo.vae import VAE

__all__ = [
    "VAE",
    "AggregateDensity",
    "Bernoulli",
    "BetaBinomial",
    "BetaTcvaeGrad",
    "BetaTcvaeResult",
    "Binomial",
    "BoundGrad",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ElboGrad",
    "ElboResult",
    "Experts",
    "ExpertsGrad",
    "FreeBits",
    "Gaussian",
    "GaussianExpert",
    "GaussianGrad",
    "IwaeGrad",
    "KlFullNormalGrad",
    "KlNormalGrad",
    "Laplace",
    "Likelihood",
    "MixtureGrad",
    "MixtureOfGaussians",
    "MmdGrad",
    "NegativeBinomial",
    "Poisson",
    "PriorGrad",
    "ScoreGrad",
    "SquaredError",
    "StandardNormal",
    "StreamingBound",
    "StudentT",
    "TotalCorrelation",
    "TotalCorrelationGrad",
    "VampPrior",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "aggregate_posterior_log_density",
    "beta_tcvae_elbo",
    "beta_tcvae_elbo_and_grad",
    "build_info",
    "cubo",
    "cubo_and_grad",
    "effective_sample_size",
    "elbo",
    "elbo_and_grad",
    "elbo_from_buffers",
    "get_num_threads",
    "importance_bound",
    "importance_bound_and_grad",
    "iwae",
    "iwae_and_grad",
    "kl_full_normal",
    "kl_full_normal_and_grad",
    "kl_normal",
    "kl_normal_and_grad",
    "kl_standard_normal",
    "kl_standard_normal_and_grad",
    "log_weights",
    "mixture_log_prob",
    "mixture_log_prob_and_grad",
    "mixture_of_experts",
    "mixture_of_experts_and_grad",
    "mmd",
    "mmd_and_grad",
    "mopoe",
    "mopoe_backward",
    "normalized_weights",
    "num_threads",
    "product_of_experts",
    "product_of_experts_backward",
    "reinforce",
    "reinforce_and_grad",
    "reparameterize",
    "reparameterize_backward",
    "reparameterize_kl",
    "set_num_threads",
    "total_correlation",
    "total_correlation_and_grad",
    "vimco",
    "vimco_and_grad",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in ("torch", "reference"):
            problem = f"fastelbo.{name} is not imported yet: write import fastelbo.{name}"
            raise AttributeError(problem)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
