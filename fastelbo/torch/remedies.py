"""Posteriors that cannot collapse, and a KL with a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from fastelbo import remedies
from fastelbo._arguments import check_choice
from fastelbo.torch import _checks
from fastelbo.torch._elementwise import exp_minus_one_minus
from fastelbo.torch._tensors import as_weight, checked, narrowed
from fastelbo.torch.divergences import counted, kl_standard_normal

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo.torch._typing import Weight


@torch.compiler.assume_constant_result
def _committed(delta, eps):
    """What torch.compile takes as it is."""
    return remedies.committed(delta, eps)


def delta_posterior(mu: Tensor, logvar: Tensor, *, delta: float) -> tuple[Tensor, Tensor]:
    """Posteriors whose KL to N(0, I) is at least delta in each dimension, whatever is given.

    See :func:`fastelbo.delta_posterior`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (B, L)
        What the encoder gives: any numbers.
    delta : float
        In nats a dimension.

    Returns
    -------
    mu, logvar : Tensor, shape (B, L)
        In float32 and float64 the KL is at least delta as it is rounded. Half precision, in which
        they come back from tensors of it, rounds more than that.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> anything = torch.zeros(1, 2, requires_grad=True)
    >>> mu, logvar = fastelbo.torch.delta_posterior(anything - 3, anything, delta=0.5)
    >>> fastelbo.torch.kl_standard_normal(mu, logvar).detach()
    tensor(1.0000)
    """
    delta = remedies.as_delta(delta)
    half, (mu, logvar) = checked(mu=mu, logvar=logvar)
    _checks.of("kl_standard_normal", mu, logvar)
    limits = _committed(delta, torch.finfo(mu.dtype).eps)
    between = limits.low * torch.sigmoid(-logvar) + limits.high * torch.sigmoid(logvar)
    room = (limits.most - exp_minus_one_minus(between)).clamp_min(limits.least)
    return narrowed(((room + torch.relu(mu)).sqrt(), between), half)


def capacity(
    mu: Tensor,
    logvar: Tensor,
    target: Weight,
    *,
    gamma: Weight = 1000.0,
    of: Literal["mean", "sample"] = "mean",
) -> Tensor:
    """``gamma |KL - C|``, which takes the place of the KL in a loss; see :func:`fastelbo.capacity`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (B, L)
    target, gamma : float or Tensor
        C and its weight.
    of : {"mean", "sample"}
        Of the batch's mean KL, or the mean over samples.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[2.0]], requires_grad=True)
    >>> loss = fastelbo.torch.capacity(mu, torch.zeros(1, 1), 3.0, gamma=10.0)
    >>> loss.backward()
    >>> loss.item(), mu.grad
    (10.0, tensor([[-20.]]))
    """
    check_choice(of, "of", remedies.TARGETS)
    target, gamma = as_weight(target, "target"), as_weight(gamma, "gamma")
    half, (mu, logvar) = checked(mu=mu, logvar=logvar)
    mu, logvar = counted(gamma, mu, logvar)
    reduction = "none" if of == "sample" else "mean"
    kl = kl_standard_normal(mu, logvar, reduction=reduction)
    return narrowed(gamma * (kl - target).abs().mean(), half)
