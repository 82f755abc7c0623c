"""KL divergences between distributions of discrete latents, by logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastelbo.torch import _checks
from fastelbo.torch._bridge import function
from fastelbo.torch._tensors import check_reduction, check_tensors, checked, narrowed

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction


def kl_categorical(
    logits: Tensor, prior_logits: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL between categorical distributions; see :func:`fastelbo.kl_categorical`.

    Parameters
    ----------
    logits : Tensor, shape (B, ..., C)
    prior_logits : Tensor, optional
        In a shape that broadcasts to that of logits and has all classes; by default all are
        equally likely.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    >>> kl = fastelbo.torch.kl_categorical(logits)
    >>> kl.backward()
    >>> kl.detach(), logits.grad
    (tensor(0.3278), tensor([[ 0.2100, -0.2100]]))
    """
    return _divergence("kl_categorical", logits, prior_logits, reduction)


def kl_bernoulli(
    logits: Tensor, prior_logits: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL between Bernoulli distributions; see :func:`fastelbo.kl_bernoulli`.

    Parameters
    ----------
    logits : Tensor, shape (B, ...)
    prior_logits : Tensor, optional
        In a shape that broadcasts to that of logits; by default 0, a fair coin.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> fastelbo.torch.kl_bernoulli(torch.tensor([[2.0]]))
    tensor(0.3278)
    """
    return _divergence("kl_bernoulli", logits, prior_logits, reduction)


def _divergence(name, logits, prior_logits, reduction):
    check_reduction(reduction)
    check_tensors(logits=logits)
    if prior_logits is None:
        classes = logits.shape[-1:] if name == "kl_categorical" else ()
        prior_logits = torch.zeros(classes, dtype=logits.dtype, device=logits.device)
    half, tensors = checked(logits=logits, prior_logits=prior_logits)
    if reduction == "none":
        _checks.of(name, *tensors)
        # A row's gradient must be its own to be scaled: PyTorch adds up what is shared.
        tensors = tensors[0], tensors[1].expand(tensors[0].shape)
    value = function(name, *tensors, takes_threads=False, batch_axes=1, reduction=reduction)
    return narrowed(value, half)
