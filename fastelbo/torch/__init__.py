"""fastelbo for PyTorch: the same functions on tensors, differentiable, and losses.

On the CPU the kernels read tensors in place and give value and gradient in one pass; on other
devices the same functions run as PyTorch operations, with the same errors, but for domains: to look
at numbers there would make the processor wait for the device. Under ``torch.compile`` they are part
of the graph. Under the transforms of ``torch.func`` they are PyTorch operations, too; of those,
``estimator="dreg"`` is refused, and ``torch.jit.trace`` altogether.

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
from fastelbo.torch.aggregate import (
    BetaTcvaeResult,
    TotalCorrelation,
    beta_tcvae_elbo,
    total_correlation,
)
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
from fastelbo.torch.divergences import kl_full_normal, kl_normal, kl_standard_normal
from fastelbo.torch.elbo import ElboResult, elbo
from fastelbo.torch.importance import iwae
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
from fastelbo.torch.posterior import reparameterize, reparameterize_kl
from fastelbo.torch.survival import Weibull

del _torch

__all__ = [
    "Bernoulli",
    "BetaBinomial",
    "BetaTCVAELoss",
    "BetaTcvaeResult",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ElboLoss",
    "ElboResult",
    "FreeBits",
    "Gaussian",
    "IwaeLoss",
    "Laplace",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "SquaredError",
    "StudentT",
    "TotalCorrelation",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "beta_tcvae_elbo",
    "elbo",
    "iwae",
    "kl_full_normal",
    "kl_normal",
    "kl_standard_normal",
    "mixture_log_prob",
    "mmd",
    "negative_binomial_loss",
    "reparameterize",
    "reparameterize_kl",
    "total_correlation",
    "vae_loss",
    "zero_inflated_negative_binomial_loss",
]
