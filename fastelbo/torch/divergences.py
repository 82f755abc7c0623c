"""Divergences of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import fastelbo
from fastelbo.divergences import KlNormalGrad, as_one_batch
from fastelbo.full_normal import KlFullNormalGrad
from fastelbo.torch import _checks
from fastelbo.torch._bridge import Function, Operation, function, run
from fastelbo.torch._tensors import check_constant, check_reduction, checked, has_kernels, narrowed

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits


def over_rows(divergence, options, **tensors):
    """The divergence of tensors that have more than one leading axis, as of one batch."""
    leading = next(iter(tensors.values())).shape[:-1]
    rows = as_one_batch({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    flat = [tensor.reshape(shape) for tensor, shape in zip(tensors.values(), rows, strict=True)]
    value = divergence(*flat, **options)
    return value.reshape(leading) if value.ndim else value


def counted(weight, mu, logvar):
    """The latents; for a weight that is the number 0, zeros where their KL is infinite: it counts
    nothing then, and has no gradient."""
    if isinstance(weight, torch.Tensor) or weight != 0:
        return mu, logvar
    infinite = kl_standard_normal(mu, logvar, reduction="none").isinf()[..., None]
    return tuple(torch.where(infinite, 0.0, a) for a in (mu, logvar))


def kl_standard_normal(
    mu: Tensor, logvar: Tensor, *, free_bits: float | FreeBits = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """KL(N(mu, diag(e^logvar)) || N(0, I)); see :func:`fastelbo.kl_standard_normal`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (..., L)
        With any leading axes: all of them are the batch.
    free_bits : float or FreeBits, optional
        A floor under the KL, by latent dimension if a number.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[1.0, 1.0]], requires_grad=True)
    >>> kl = fastelbo.torch.kl_standard_normal(mu, torch.zeros(1, 2))
    >>> kl.backward()
    >>> kl.item(), mu.grad
    (1.0, tensor([[1., 1.]]))
    """
    check_reduction(reduction)
    check_constant(free_bits, "free_bits")
    half, (mu, logvar) = checked(mu=mu, logvar=logvar)
    if mu.ndim > 2:
        options = {"free_bits": free_bits, "reduction": reduction}
        return narrowed(over_rows(kl_standard_normal, options, mu=mu, logvar=logvar), half)
    if torch.compiler.is_compiling() and has_kernels(mu, logvar):
        threshold, how = free_bits, ("dimension", "floor")
        if isinstance(free_bits, fastelbo.FreeBits):
            threshold, how = free_bits.threshold, (free_bits.granularity, free_bits.below)
        threshold = torch.ones((), dtype=torch.float64) * threshold  # no constant of the graph
        return narrowed(run(KlAboveThreshold(*how, reduction), mu, logvar, threshold)[0], half)
    options = {"free_bits": free_bits, "reduction": reduction}
    return narrowed(function("kl_standard_normal", mu, logvar, **options), half)


@dataclass(eq=False)
class KlAboveThreshold(Operation):
    """kl_standard_normal of tensors (mu, logvar, threshold of free bits).

    For torch.compile, which would take an option for a constant and compile again for every other
    threshold.
    """

    granularity: str
    below: str
    reduction: str

    constants = 1

    def forward(self, arrays, with_gradient, threads):
        *latents, threshold = arrays
        floor = fastelbo.FreeBits(threshold.item(), granularity=self.granularity, below=self.below)
        options = {"free_bits": floor, "reduction": self.reduction}
        kl = Function("kl_standard_normal", options)
        return kl.forward(latents, with_gradient, threads)

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.reduction == "none" else ()]


def kl_normal(
    mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL(N(mu_q, diag(e^logvar_q)) || N(mu_p, diag(e^logvar_p))); see :func:`fastelbo.kl_normal`.

    Parameters
    ----------
    mu_q, logvar_q, mu_p, logvar_p : Tensor, shape (..., L)
        With any leading axes: all of them are the batch.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> zero = torch.zeros(1, 1)
    >>> fastelbo.torch.kl_normal(zero + 3, zero, zero + 1, zero)
    tensor(2.)
    """
    check_reduction(reduction)
    half, tensors = checked(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    if mu_q.ndim > 2:
        named = dict(zip(KlNormalGrad._fields, tensors, strict=True))
        return narrowed(over_rows(kl_normal, {"reduction": reduction}, **named), half)
    return narrowed(function("kl_normal", *tensors, reduction=reduction), half)


def kl_full_normal(
    mu_q: Tensor, tril_q: Tensor, mu_p: Tensor, tril_p: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), covariances by Cholesky factors.

    See :func:`fastelbo.kl_full_normal`.

    Parameters
    ----------
    mu_q, mu_p : Tensor, shape (..., L)
        With any leading axes: all of them are the batch.
    tril_q, tril_p : Tensor, shape (..., L, L) or (L, L)
        Lower-triangular Cholesky factors with a positive diagonal, of each sample or of all. What
        lies above the diagonal is not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (...) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes do not fit or, on the CPU, a diagonal is not positive.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> one = torch.ones(1, 1)
    >>> tril_q = torch.ones(1, 1, 1, requires_grad=True)
    >>> kl = fastelbo.torch.kl_full_normal(3 * one, tril_q, one, 2 * one)
    >>> kl.backward()
    >>> kl.detach(), tril_q.grad
    (tensor(0.8181), tensor([[[-0.7500]]]))
    """
    check_reduction(reduction)
    half, tensors = checked(mu_q=mu_q, tril_q=tril_q, mu_p=mu_p, tril_p=tril_p)
    mu_q, tril_q, mu_p, tril_p = tensors
    if mu_q.ndim > 2:
        named = dict(zip(KlFullNormalGrad._fields, tensors, strict=True))
        return narrowed(over_rows(kl_full_normal, {"reduction": reduction}, **named), half)
    if reduction == "none":
        _checks.of("kl_full_normal", mu_q, tril_q, mu_p, tril_p)
        # A row's gradient must be its own to be scaled: PyTorch adds up what is shared.
        tril_q, tril_p = (
            tril.expand(len(mu_q), *tril.shape) if tril.ndim == 2 else tril
            for tril in (tril_q, tril_p)
        )
    tensors = mu_q, tril_q, mu_p, tril_p
    value = function("kl_full_normal", *tensors, takes_threads=False, reduction=reduction)
    return narrowed(value, half)
