from typing import Literal

from torch import Tensor, nn

from fastelbo._typing import Reduction
from fastelbo.divergences import FreeBits
from fastelbo.torch._typing import Outputs, Prior, Weight
from fastelbo.torch.likelihoods import Likelihood

class ElboLoss(nn.Module):
    likelihood: Likelihood
    beta: Weight
    free_bits: float | FreeBits
    reduction: Reduction
    def __init__(
        self,
        likelihood: Likelihood | None = ...,
        *,
        beta: Weight = ...,
        free_bits: float | FreeBits = ...,
        reduction: Reduction = ...,
    ) -> None: ...
    def forward(
        self, x: Tensor, mu: Tensor, logvar: Tensor, x_recon: Outputs, *, mask: Tensor | None = ...
    ) -> Tensor: ...
    def __call__(
        self, x: Tensor, mu: Tensor, logvar: Tensor, x_recon: Outputs, *, mask: Tensor | None = ...
    ) -> Tensor: ...
    def extra_repr(self) -> str: ...

class IwaeLoss(nn.Module):
    likelihood: Likelihood
    prior: Prior | None
    estimator: Literal["standard", "stl", "dreg"]
    reduction: Reduction
    def __init__(
        self,
        likelihood: Likelihood | None = ...,
        *,
        prior: Prior | None = ...,
        estimator: Literal["standard", "stl", "dreg"] = ...,
        reduction: Reduction = ...,
    ) -> None: ...
    def forward(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = ...,
    ) -> Tensor: ...
    def __call__(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = ...,
    ) -> Tensor: ...
    def extra_repr(self) -> str: ...

class BetaTCVAELoss(nn.Module):
    dataset_size: int
    likelihood: Likelihood
    alpha: Weight
    beta: Weight
    gamma: Weight
    method: Literal["mws", "mss"]
    normalize: bool
    mss: Literal["paper", "reference"]
    reduction: Reduction
    def __init__(
        self,
        dataset_size: int,
        likelihood: Likelihood | None = ...,
        *,
        alpha: Weight = ...,
        beta: Weight = ...,
        gamma: Weight = ...,
        method: Literal["mws", "mss"] = ...,
        normalize: bool = ...,
        mss: Literal["paper", "reference"] = ...,
        reduction: Reduction = ...,
    ) -> None: ...
    def forward(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = ...,
    ) -> Tensor: ...
    def __call__(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = ...,
    ) -> Tensor: ...
    def extra_repr(self) -> str: ...

def vae_loss(logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor: ...
def negative_binomial_loss(
    x: Tensor, mu: Tensor, theta: Tensor, *, reduction: Reduction = ...
) -> Tensor: ...
def zero_inflated_negative_binomial_loss(
    x: Tensor, mu: Tensor, theta: Tensor, pi: Tensor, *, reduction: Reduction = ...
) -> Tensor: ...
