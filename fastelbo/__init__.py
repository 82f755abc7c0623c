"""Variational-inference objectives on CPUs, value and gradient in one pass over memory."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from fastelbo._info import __version__ as __version__
from fastelbo._info import build_info, get_include
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
from fastelbo.amortization import (
    GeneralizationGap,
    RefinedPosterior,
    amortization_gap,
    generalization_gap,
    refine_posterior,
)
from fastelbo.bernoulli import Bernoulli, ContinuousBernoulli
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
from fastelbo.columns import ColumnLikelihood
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
from fastelbo.discrete_divergences import (
    KlDiscreteGrad,
    kl_bernoulli,
    kl_bernoulli_and_grad,
    kl_categorical,
    kl_categorical_and_grad,
)
from fastelbo.disentanglement import (
    Dci,
    DciScores,
    MutualInformationGap,
    Sap,
    dci,
    dci_from_importance,
    mutual_information_gap,
    sap,
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
from fastelbo.flows import (
    FlowElboGrad,
    FlowElboResult,
    FlowMatchingGrad,
    endpoint_velocity,
    flow_elbo,
    flow_elbo_and_grad,
    flow_matching,
    flow_matching_and_grad,
)
from fastelbo.full_normal import KlFullNormalGrad, kl_full_normal, kl_full_normal_and_grad
from fastelbo.importance import IwaeGrad, iwae, iwae_and_grad, log_weights
from fastelbo.joint import JointPosterior, joint_posterior, joint_posterior_backward
from fastelbo.latent_ode import (
    TimeGrid,
    latent_ode_elbo,
    latent_ode_elbo_and_grad,
    union_of_times,
)
from fastelbo.likelihoods import Likelihood
from fastelbo.locations import Gaussian, Laplace, SquaredError, StudentT
from fastelbo.metrics import active_units
from fastelbo.mixtures import MixtureGrad, mixture_log_prob, mixture_log_prob_and_grad
from fastelbo.multimodal import (
    MultimodalGrad,
    MultimodalResult,
    multimodal_elbo,
    multimodal_elbo_and_grad,
)
from fastelbo.posterior import (
    PosteriorGrad,
    posterior_log_prob,
    posterior_log_prob_and_grad,
    reparameterize,
    reparameterize_backward,
    reparameterize_kl,
)
from fastelbo.priors import MixtureOfGaussians, PriorGrad, StandardNormal, VampPrior
from fastelbo.rate_distortion import RateDistortion, rate_distortion
from fastelbo.relaxations import gumbel_softmax, gumbel_softmax_backward
from fastelbo.remedies import (
    Geco,
    capacity,
    capacity_and_grad,
    delta_posterior,
    delta_posterior_backward,
)
from fastelbo.schedules import BetaSchedule, LearningRateSchedule
from fastelbo.semi_supervised import M2Grad, m2_elbo, m2_elbo_and_grad
from fastelbo.streaming import StreamingBound
from fastelbo.survival import Weibull

if TYPE_CHECKING:
    from fastelbo._training import TrainingWarning
    from fastelbo.count_vae import CountVAE
    from fastelbo.outliers import VAEOutlierDetector
    from fastelbo.semi_supervised_vae import SemiSupervisedVAE
    from fastelbo.vae import VAE

__all__ = [
    "VAE",
    "AggregateDensity",
    "Bernoulli",
    "BetaBinomial",
    "BetaSchedule",
    "BetaTcvaeGrad",
    "BetaTcvaeResult",
    "Binomial",
    "BoundGrad",
    "Categorical",
    "ColumnLikelihood",
    "ContinuousBernoulli",
    "CountVAE",
    "Dci",
    "DciScores",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ElboGrad",
    "ElboResult",
    "Experts",
    "ExpertsGrad",
    "FlowElboGrad",
    "FlowElboResult",
    "FlowMatchingGrad",
    "FreeBits",
    "Gaussian",
    "GaussianExpert",
    "GaussianGrad",
    "Geco",
    "GeneralizationGap",
    "IwaeGrad",
    "JointPosterior",
    "KlDiscreteGrad",
    "KlFullNormalGrad",
    "KlNormalGrad",
    "Laplace",
    "LearningRateSchedule",
    "Likelihood",
    "M2Grad",
    "MixtureGrad",
    "MixtureOfGaussians",
    "MmdGrad",
    "MultimodalGrad",
    "MultimodalResult",
    "MutualInformationGap",
    "NegativeBinomial",
    "Poisson",
    "PosteriorGrad",
    "PriorGrad",
    "RateDistortion",
    "RefinedPosterior",
    "Sap",
    "ScoreGrad",
    "SemiSupervisedVAE",
    "SquaredError",
    "StandardNormal",
    "StreamingBound",
    "StudentT",
    "TimeGrid",
    "TotalCorrelation",
    "TotalCorrelationGrad",
    "TrainingWarning",
    "VAEOutlierDetector",
    "VampPrior",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "active_units",
    "aggregate_posterior_log_density",
    "amortization_gap",
    "beta_tcvae_elbo",
    "beta_tcvae_elbo_and_grad",
    "build_info",
    "capacity",
    "capacity_and_grad",
    "cubo",
    "cubo_and_grad",
    "dci",
    "dci_from_importance",
    "delta_posterior",
    "delta_posterior_backward",
    "effective_sample_size",
    "elbo",
    "elbo_and_grad",
    "elbo_from_buffers",
    "endpoint_velocity",
    "flow_elbo",
    "flow_elbo_and_grad",
    "flow_matching",
    "flow_matching_and_grad",
    "generalization_gap",
    "get_include",
    "get_num_threads",
    "gumbel_softmax",
    "gumbel_softmax_backward",
    "importance_bound",
    "importance_bound_and_grad",
    "iwae",
    "iwae_and_grad",
    "joint_posterior",
    "joint_posterior_backward",
    "kl_bernoulli",
    "kl_bernoulli_and_grad",
    "kl_categorical",
    "kl_categorical_and_grad",
    "kl_full_normal",
    "kl_full_normal_and_grad",
    "kl_normal",
    "kl_normal_and_grad",
    "kl_standard_normal",
    "kl_standard_normal_and_grad",
    "latent_ode_elbo",
    "latent_ode_elbo_and_grad",
    "log_weights",
    "m2_elbo",
    "m2_elbo_and_grad",
    "mixture_log_prob",
    "mixture_log_prob_and_grad",
    "mixture_of_experts",
    "mixture_of_experts_and_grad",
    "mmd",
    "mmd_and_grad",
    "mopoe",
    "mopoe_backward",
    "multimodal_elbo",
    "multimodal_elbo_and_grad",
    "mutual_information_gap",
    "normalized_weights",
    "num_threads",
    "posterior_log_prob",
    "posterior_log_prob_and_grad",
    "product_of_experts",
    "product_of_experts_backward",
    "rate_distortion",
    "refine_posterior",
    "reinforce",
    "reinforce_and_grad",
    "reparameterize",
    "reparameterize_backward",
    "reparameterize_kl",
    "sap",
    "set_num_threads",
    "total_correlation",
    "total_correlation_and_grad",
    "union_of_times",
    "vimco",
    "vimco_and_grad",
]


#: The modules of estimators, which import scikit-learn where it is installed: once asked for.
_ESTIMATORS = {
    "CountVAE": "count_vae",
    "SemiSupervisedVAE": "semi_supervised_vae",
    "TrainingWarning": "_training",
    "VAE": "vae",
    "VAEOutlierDetector": "outliers",
}


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in _ESTIMATORS:
            estimator = getattr(_import_module(f"fastelbo.{_ESTIMATORS[name]}"), name)
            return globals().setdefault(name, estimator)
        if name in ("dask", "jax", "reference", "torch"):
            problem = f"fastelbo.{name} is not imported yet: write import fastelbo.{name}"
            raise AttributeError(problem)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
