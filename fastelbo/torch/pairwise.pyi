from typing import Literal, NamedTuple

from torch import Tensor

from fastelbo._typing import Numbers, Reduction
from fastelbo.torch._typing import Outputs, Weight
from fastelbo.torch.likelihoods import Likelihood

class TotalCorrelation(NamedTuple):
    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor

class BetaTcvaeResult(NamedTuple):
    elbo: Tensor
    reconstruction: Tensor
    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor

def total_correlation(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    dataset_size: int,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    reduction: Reduction = ...,
) -> TotalCorrelation: ...
def beta_tcvae_elbo(
    x: Tensor,
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    dataset_size: int,
    likelihood: Likelihood = ...,
    alpha: Weight = ...,
    beta: Weight = ...,
    gamma: Weight = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: Tensor | None = ...,
    reduction: Reduction = ...,
) -> BetaTcvaeResult: ...
def mixture_log_prob(
    z: Tensor, log_weights: Tensor, mu: Tensor, logvar: Tensor, *, reduction: Reduction = ...
) -> Tensor: ...
def mmd(
    z: Tensor,
    y: Tensor,
    *,
    kernel: Literal["rbf", "imq"] = ...,
    bandwidth: Numbers | Tensor | None = ...,
    estimator: Literal["unbiased", "biased"] = ...,
) -> Tensor: ...
