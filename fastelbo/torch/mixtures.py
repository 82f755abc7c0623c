"""Densities of mixtures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import fastelbo
from fastelbo.mixtures import weighted_gradients
from fastelbo.torch._bridge import Operation, function, run
from fastelbo.torch._tensors import check_reduction, checked, has_kernels, narrowed

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction


def mixture_log_prob(
    z: Tensor, mu: Tensor, logvar: Tensor, log_weights: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Log density of points under a mixture of Gaussians; see :func:`fastelbo.mixture_log_prob`.

    Parameters
    ----------
    z : Tensor, shape (..., L)
    mu, logvar : Tensor, shape (K, L)
        Means and log variances of the components.
    log_weights : Tensor, shape (K,)
        Logarithms of the components' weights, taken as they are:
        ``torch.log_softmax(logits, 0)`` gives those of logits.
    reduction : {"mean", "sum", "none"}
        Over all points.

    Returns
    -------
    Tensor, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[-1.0], [1.0]])
    >>> weights = torch.tensor([0.5, 0.5])
    >>> fastelbo.torch.mixture_log_prob(torch.zeros(1, 1), mu, torch.zeros(2, 1), weights.log())
    tensor(-1.4189)
    """
    check_reduction(reduction)
    half, tensors = checked(z=z, mu=mu, logvar=logvar, log_weights=log_weights)
    if reduction == "none" and has_kernels(*tensors):
        return narrowed(run(MixtureByPoint(), *tensors)[0], half)
    return narrowed(function("mixture_log_prob", *tensors, reduction=reduction), half)


@dataclass(eq=False)
class MixtureByPoint(Operation):
    """A value a point, of tensors (z, mu, logvar, log_weights): components are shared by points,
    so that gradients need what flows to each."""

    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        options = {"reduction": "none", "num_threads": threads}
        return (fastelbo.mixture_log_prob(*arrays, **options),), ()

    def shapes(self, tensors):
        return [tensors[0].shape[:-1]]

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        return run(MixtureByPointBackward(), *kept, upstream[0])


@dataclass(eq=False)
class MixtureByPointBackward(Operation):
    """What flows to each, of tensors (z, mu, logvar, log_weights, upstream gradients)."""

    values = 4
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        return weighted_gradients(*arrays, num_threads=threads), ()

    def shapes(self, tensors):
        return [t.shape for t in tensors[:4]]
