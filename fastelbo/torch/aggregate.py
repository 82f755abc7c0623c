"""Parts of the aggregate posterior's divergence: total correlation, beta-TCVAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

import fastelbo
from fastelbo.aggregate import Sampling
from fastelbo.torch import _checks, composites
from fastelbo.torch._bridge import Operation, run, scaled
from fastelbo.torch._tensors import (
    as_weight,
    by_float32,
    check_reduction,
    check_tensors,
    half_of,
    has_kernels,
    promoted,
    unrounded,
)
from fastelbo.torch.likelihoods import as_likelihood
from fastelbo.torch.locations import SquaredError

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.torch._typing import AnyLikelihood, Outputs, Weight


class TotalCorrelation(NamedTuple):
    """The parts of log q(z|x) - log p(z), in nats: shape (), or (B,) for ``reduction="none"``."""

    mutual_information: torch.Tensor
    total_correlation: torch.Tensor
    dimension_wise_kl: torch.Tensor


class BetaTcvaeResult(NamedTuple):
    """The parts of a beta-TCVAE objective: shape (), or (B,) for ``reduction="none"``."""

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    mutual_information: torch.Tensor
    total_correlation: torch.Tensor
    dimension_wise_kl: torch.Tensor


def total_correlation(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    dataset_size: int,
    method: Literal["mws", "mss"] = "mws",
    normalize: bool = True,
    mss: Literal["paper", "reference"] = "paper",
    reduction: Reduction = "mean",
) -> TotalCorrelation:
    """Mutual information, total correlation and dimension-wise KL, from one minibatch.

    See :func:`fastelbo.total_correlation`.

    Parameters
    ----------
    z : Tensor, shape (B, L)
        One sample of q(z|x) for each x.
    mu, logvar : Tensor, shape (B, L)
    dataset_size : int
        How many data points the minibatch was drawn from.
    method : {"mws", "mss"}
        Minibatch-weighted or minibatch-stratified sampling.
    normalize : bool, optional
        False leaves out 1 / (B N). For ``method="mws"`` only.
    mss : {"paper", "reference"}
        Whose weights ``method="mss"`` takes.
    reduction : {"mean", "sum", "none"}
        Over the batch. With "none" gradients take PyTorch operations, and O(B^2 L) memory.

    Returns
    -------
    TotalCorrelation
        ``mutual_information``, ``total_correlation``, ``dimension_wise_kl``, in nats. Gradients
        flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape or option does not fit.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> z = mu = torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
    >>> parts = fastelbo.torch.total_correlation(z, mu, torch.zeros(2, 2), dataset_size=2)
    >>> parts.total_correlation
    tensor(0.6931)
    """
    sampling = {"dataset_size": dataset_size, "method": method, "normalize": normalize, "mss": mss}
    return TotalCorrelation(*_parts(z, mu, logvar, sampling, reduction))


def beta_tcvae_elbo(
    x: Tensor,
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    dataset_size: int,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    alpha: Weight = 1.0,
    beta: Weight = 6.0,
    gamma: Weight = 1.0,
    method: Literal["mws", "mss"] = "mws",
    normalize: bool = True,
    mss: Literal["paper", "reference"] = "paper",
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> BetaTcvaeResult:
    """The beta-TCVAE objective: reconstruction - alpha MI - beta TC - gamma KL_dims.

    See :func:`fastelbo.beta_tcvae_elbo`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Data; uint8 and other integers are read as they are.
    z, mu, logvar, dataset_size, method, normalize, mss
        As in :func:`total_correlation`.
    x_recon : Tensor or tuple of Tensor
        What the decoder makes of z, as the likelihood reads it.
    likelihood : Likelihood or str, optional
        One of this module's.
    alpha, beta, gamma : float, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL.
    mask : Tensor of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the batch, as in :func:`total_correlation`.

    Returns
    -------
    BetaTcvaeResult
        ``elbo``, ``reconstruction``, ``mutual_information``, ``total_correlation``,
        ``dimension_wise_kl``, in nats. Gradients flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> x = x_recon = torch.tensor([[0.0], [1.0]])
    >>> z = mu = torch.tensor([[-3.0], [3.0]])
    >>> fastelbo.torch.beta_tcvae_elbo(x, z, mu, 0 * mu, x_recon, dataset_size=2).elbo
    tensor(-4.5000)
    """
    weights = alpha, beta, gamma
    sampling = {"dataset_size": dataset_size, "method": method, "normalize": normalize, "mss": mss}
    options = likelihood, weights, sampling, mask, reduction
    value, parts = signed_beta_tcvae(x, z, mu, logvar, x_recon, *options)
    return BetaTcvaeResult(value, *parts)


def signed_beta_tcvae(
    x, z, mu, logvar, x_recon, likelihood, weights, sampling, mask, reduction, sign=1.0
):
    """`sign` times the objective, and (`sign` times the log-likelihood, *parts).

    The weighted sum of the parts comes with its gradient but where torch.compile would take the
    weights for constants.
    """
    likelihood = as_likelihood(likelihood)
    check_tensors(x=x, z=z, mu=mu, logvar=logvar)
    if x.shape[:1] != mu.shape[:1]:
        raise ValueError(f"mu has shape {tuple(mu.shape)}, expected ({len(x)}, latent dimensions)")
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    if (half := half_of(x, z, *outputs, *likelihood._held_tensors, logvar, mu)) is not None:
        options = likelihood, weights, sampling, mask, reduction, sign
        return by_float32(half, signed_beta_tcvae, x, z, mu, logvar, tuple(outputs), *options)
    z, mu, logvar, outputs = unrounded(z, mu, logvar, tuple(outputs))
    reconstruction = likelihood._signed(x, outputs, mask, reduction, sign)
    numbers = not any([isinstance(weight, torch.Tensor) for weight in weights])
    compiling = torch.compiler.is_compiling()
    if not compiling:
        weights = list(map(as_weight, weights, ("alpha", "beta", "gamma")))
    if numbers and not compiling:
        cost, *parts = _parts(z, mu, logvar, sampling, reduction, weights)
    else:
        parts = _parts(z, mu, logvar, sampling, reduction)
        cost = _weighted(weights, parts)
    return reconstruction - cost if sign > 0 else reconstruction + cost, (reconstruction, *parts)


def _parts(z, mu, logvar, sampling, reduction, weights=None):
    """The parts; before them, given weights, their weighted sum."""
    check_reduction(reduction)
    check_tensors(z=z, mu=mu, logvar=logvar)
    if (half := half_of(z, mu, logvar)) is not None:
        return by_float32(half, _parts, z, mu, logvar, sampling, reduction, weights)
    z, mu, logvar = promoted(z, mu, logvar)
    Sampling(len(z), **sampling)
    options = {**sampling, "reduction": reduction}
    wanted = torch.is_grad_enabled() and any([t.requires_grad for t in (z, mu, logvar)])
    served = has_kernels(z, mu, logvar)
    if served and not (wanted and reduction == "none"):
        return run(AggregateParts(options, weights), z, mu, logvar)
    _checks.of("total_correlation", z, mu, logvar, **options)
    dtype = mu.dtype
    if served:  # as exact as the kernels
        z, mu, logvar = z.double(), mu.double(), logvar.double()
    parts = composites.total_correlation(z, mu, logvar, **options)
    parts = tuple([part.to(dtype) for part in parts])
    return (_weighted(weights, parts), *parts) if weights else parts


def _weighted(weights, parts):
    return sum([weight * part for weight, part in zip(weights, parts, strict=True)])


@dataclass(eq=False)
class AggregateParts(Operation):
    """The parts of tensors (z, mu, logvar); before them, given three weights, their weighted sum.

    Gradients are those of the sum; those of the parts are computed when they are known to be
    wanted.
    """

    options: dict
    weights: list | None = None

    @property
    def values(self):
        return 4 if self.weights else 3

    @property
    def gives_gradients(self):
        return bool(self.weights)

    def forward(self, arrays, with_gradient, threads):
        options, weights = {**self.options, "num_threads": threads}, self.weights
        if not (with_gradient and weights):
            parts, gradients = fastelbo.total_correlation(*arrays, **options), ()
        else:
            parts, gradients = fastelbo.total_correlation_and_grad(
                *arrays, weights=tuple(weights), **options
            )
        return ((_weighted(weights, parts), *parts) if weights else parts), gradients

    def shapes(self, tensors):
        by_row = self.options["reduction"] == "none"
        return [tensors[0].shape[:1] if by_row else ()] * self.values

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        flows = [None] * 3
        if self.weights and upstream[0] is not None:
            flows = [scaled(gradient, upstream[0]) for gradient in gradients]
        of_parts = upstream[-3:]
        if any([g is not None for g in of_parts]):
            stacked = _stacked(of_parts, kept[0])
            more = run(AggregatePartsBackward(self.options), *kept, stacked)
            flows = [m if f is None else f + m for f, m in zip(flows, more, strict=True)]
        return flows


@dataclass(eq=False)
class AggregatePartsBackward(Operation):
    """What flows to z, mu and logvar, of tensors (z, mu, logvar, upstream gradients of parts)."""

    options: dict

    values = 3
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        *latent, weights = arrays
        _, gradients = fastelbo.total_correlation_and_grad(
            *latent, weights=weights.tolist(), **self.options, num_threads=threads
        )
        return gradients, ()

    def shapes(self, tensors):
        return [t.shape for t in tensors[:3]]


def _stacked(upstream, like):
    """Upstream gradients, numbers, tensors () or None, as one tensor."""
    return torch.stack(
        [torch.as_tensor(0.0 if g is None else g, dtype=like.dtype) for g in upstream]
    )
