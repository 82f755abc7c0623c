"""fastelbo for PyTorch: the same functions on tensors, differentiable, and losses.

On the CPU the kernels read tensors in place and give value and gradient in one pass; on other
devices the same functions run as PyTorch operations, with the same errors, but for domains: to look
at numbers there would make the processor wait for the device. Under ``torch.compile`` they are part
of the graph. Under the transforms of ``torch.func`` they are PyTorch operations, too; of those,
``estimator="dreg"`` is refused, and ``torch.jit.trace`` altogether.

Gradients are made with the values and saved for backward as PyTorch's own are: hooks of saved
tensors see them, a second backward needs ``retain_graph=True``, and to change them in place before
that is an error; ``torch.autograd.grad`` returns them, not copies. Of most functions the inputs are
not kept, so that they may change in place in between. Hooks of values and of their ``grad_fn`` are
PyTorch's; a gradient of gradients (``create_graph=True``) is an error.

float16 and bfloat16 are computed in float32, and gradients come back in them. Where all tensors
have one of them, values do, too; beside float32, and under ``torch.autocast``, values are float32,
as those of PyTorch's own losses are. ELBOs and likelihoods read dense decoder outputs and data of
half precision as they are stored, and write gradients so: what float16 cannot hold, less than 6e-8,
is lost before a ``GradScaler`` multiplies it, which bfloat16 does without.

>>> import torch
>>> from fastelbo.torch import Bernoulli, ElboLoss
>>> loss = ElboLoss(likelihood=Bernoulli())
"""

try:
    import torch as _torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'fastelbo.torch needs PyTorch 2.4 or newer: pip install "fastelbo[torch]"', name="torch"
    ) from error

from fastelbo.divergences import FreeBits
from fastelbo.remedies import Geco
from fastelbo.schedules import BetaSchedule, LearningRateSchedule
from fastelbo.torch.aggregate import (
    BetaTcvaeResult,
    TotalCorrelation,
    beta_tcvae_elbo,
    total_correlation,
)
from fastelbo.torch.bounds import (
    cubo,
    effective_sample_size,
    importance_bound,
    normalized_weights,
    reinforce,
    vimco,
)
from fastelbo.torch.columns import ColumnLikelihood
from fastelbo.torch.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.torch.discrepancies import mmd
from fastelbo.torch.discrete import (
    BetaBinomial,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Poisson,
)
from fastelbo.torch.discrete_divergences import kl_bernoulli, kl_categorical
from fastelbo.torch.divergences import kl_full_normal, kl_normal, kl_standard_normal
from fastelbo.torch.elbo import ElboResult, elbo
from fastelbo.torch.experts import (
    Experts,
    GaussianExpert,
    JointPosterior,
    joint_posterior,
    mixture_of_experts,
    mopoe,
    product_of_experts,
)
from fastelbo.torch.flows import (
    FlowElboResult,
    endpoint_velocity,
    flow_elbo,
    flow_matching,
)
from fastelbo.torch.importance import iwae, log_weights
from fastelbo.torch.latent_ode import latent_ode_elbo
from fastelbo.torch.likelihoods import Bernoulli, ContinuousBernoulli, Likelihood
from fastelbo.torch.locations import Gaussian, Laplace, SquaredError, StudentT
from fastelbo.torch.losses import (
    BetaTCVAELoss,
    ElboLoss,
    IwaeLoss,
    negative_binomial_loss,
    vae_loss,
    zero_inflated_negative_binomial_loss,
)
from fastelbo.torch.mixtures import mixture_log_prob
from fastelbo.torch.multimodal import MultimodalResult, multimodal_elbo
from fastelbo.torch.posterior import posterior_log_prob, reparameterize, reparameterize_kl
from fastelbo.torch.priors import MixtureOfGaussians, StandardNormal, VampPrior
from fastelbo.torch.relaxations import gumbel_softmax
from fastelbo.torch.remedies import capacity, delta_posterior
from fastelbo.torch.semi_supervised import m2_elbo
from fastelbo.torch.streaming import StreamingBound
from fastelbo.torch.survival import Weibull

del _torch

__all__ = [
    "Bernoulli",
    "BetaBinomial",
    "BetaSchedule",
    "BetaTCVAELoss",
    "BetaTcvaeResult",
    "Binomial",
    "Categorical",
    "ColumnLikelihood",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ElboLoss",
    "ElboResult",
    "Experts",
    "FlowElboResult",
    "FreeBits",
    "Gaussian",
    "GaussianExpert",
    "Geco",
    "IwaeLoss",
    "JointPosterior",
    "Laplace",
    "LearningRateSchedule",
    "Likelihood",
    "MixtureOfGaussians",
    "MultimodalResult",
    "NegativeBinomial",
    "Poisson",
    "SquaredError",
    "StandardNormal",
    "StreamingBound",
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
    "gumbel_softmax",
    "importance_bound",
    "iwae",
    "joint_posterior",
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
    "multimodal_elbo",
    "negative_binomial_loss",
    "normalized_weights",
    "posterior_log_prob",
    "product_of_experts",
    "reinforce",
    "reparameterize",
    "reparameterize_kl",
    "total_correlation",
    "vae_loss",
    "vimco",
    "zero_inflated_negative_binomial_loss",
]
