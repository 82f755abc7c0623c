from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastelbo._typing import Reduction
from fastelbo.divergences import FreeBits
from fastelbo.torch._typing import Outputs, Prior, Weight
from fastelbo.torch.likelihoods import Likelihood

class ElboResult(NamedTuple):
    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor
    z: Tensor | None

def kl_standard_normal(
    mu: Tensor, logvar: Tensor, *, free_bits: float | FreeBits = ..., reduction: Reduction = ...
) -> Tensor: ...
def kl_normal(
    mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor, *, reduction: Reduction = ...
) -> Tensor: ...
def kl_full_normal(
    mu_q: Tensor, tril_q: Tensor, mu_p: Tensor, tril_p: Tensor, *, reduction: Reduction = ...
) -> Tensor: ...
def reparameterize(
    mu: Tensor,
    logvar: Tensor,
    *,
    rng: torch.Generator | int | None = ...,
    noise: Tensor | None = ...,
    samples: int | None = ...,
) -> Tensor: ...
def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    rng: torch.Generator | int | None = ...,
    noise: Tensor | None = ...,
    samples: int | None = ...,
    free_bits: float | FreeBits = ...,
    reduction: Reduction = ...,
) -> tuple[Tensor, Tensor]: ...
def elbo(
    x: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: Likelihood = ...,
    prior: Prior | None = ...,
    beta: Weight = ...,
    free_bits: float | FreeBits = ...,
    rng: torch.Generator | int | None = ...,
    noise: Tensor | None = ...,
    mask: Tensor | None = ...,
    reduction: Reduction = ...,
) -> ElboResult: ...
def iwae(
    x: Tensor,
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: Likelihood = ...,
    prior: Prior | None = ...,
    mask: Tensor | None = ...,
    estimator: Literal["standard", "stl", "dreg"] = ...,
    reduction: Reduction = ...,
) -> Tensor: ...
