"""Variational flow matching: flows from noise to data, learned by guessing where they end."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, NamedTuple

import torch

from fastelbo import _arrays
from fastelbo.flows import _checked_flow, _remaining_time
from fastelbo.torch._checks import array_of, stand_in
from fastelbo.torch._tensors import (
    as_weight,
    by_float32,
    check_reduction,
    check_tensors,
    half_of,
    narrowed,
    reduce,
    unrounded,
    widened,
)
from fastelbo.torch.elbo import elbo
from fastelbo.torch.likelihoods import as_likelihood
from fastelbo.torch.locations import SquaredError

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.torch._typing import AnyLikelihood, Outputs, Weight


class FlowElboResult(NamedTuple):
    """The parts of an ELBO with a flow: shape (), or (B,) for ``reduction="none"``."""

    objective: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor
    velocity_error: torch.Tensor


def endpoint_velocity(mu: Tensor, x_t: Tensor, t: Tensor | float) -> Tensor:
    """The velocity (mu - x_t) / (1 - t); see :func:`fastelbo.endpoint_velocity`.

    Parameters
    ----------
    mu : Tensor, shape (B, ...)
        The endpoint's mean.
    x_t : Tensor, in the shape of mu
    t : Tensor or float, shape () or (B,)
        The time of each row, in [0, 1); on the CPU it is checked.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError, TypeError
        If a shape does not fit, or t lies outside [0, 1).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> fastelbo.torch.endpoint_velocity(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 0.5)
    tensor([[2.]])
    """
    check_tensors(mu=mu, x_t=x_t)
    if (half := half_of(x_t, mu)) is not None:
        return by_float32(half, endpoint_velocity, mu, x_t, t)
    if not torch.compiler.is_compiling():
        _checked_flow(stand_in(mu), stand_in(x_t), 0.0)
    mu, x_t, t = widened((mu, x_t, t))
    return (mu - x_t) / _beside(_remaining(t, mu, 1), mu)


def flow_matching(
    x: Tensor,
    t: Tensor | float,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The objective of variational flow matching; see :func:`fastelbo.flow_matching`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Endpoints.
    t : Tensor or float, shape (), (B,) or (T, B)
        The time of each row, in [0, 1); on the CPU it is checked.
    x_recon : Tensor or tuple of Tensor
        What the network makes of (x_t, t); T times may lie on a leading axis.
    likelihood : Likelihood or str, optional
        log q_t(x | x_recon); None is -||x - x_recon||^2 / (1 - t)^2.
    mask : Tensor of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over rows and times.

    Returns
    -------
    Tensor, shape (), or (B,) or (T, B) for ``reduction="none"``
        To ascend.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or t lies outside [0, 1).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> x, x_recon = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]])
    >>> fastelbo.torch.flow_matching(x, 0.5, x_recon)
    tensor(-1.)
    """
    check_reduction(reduction)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    check_tensors(x=x, x_recon=outputs[0])
    if likelihood is not None:
        likelihood = as_likelihood(likelihood)
        rows = outputs[0].ndim - x.ndim + 1
        extra = 0 if torch.compiler.is_compiling() else likelihood.kernels._layout.more_axes
        _remaining(t, outputs[0], rows - extra)
        return likelihood.log_prob(x, *outputs, mask=mask, reduction=reduction)
    if (half := half_of(x, *outputs)) is not None:
        return by_float32(half, _matching, x, t, outputs, mask, reduction)
    return _matching(x, t, outputs, mask, reduction)


def _matching(x, t, outputs, mask, reduction):
    """Without a likelihood."""
    rows = SquaredError().log_prob(x, *outputs, mask=mask, reduction="none")
    return reduce(rows / _remaining(t, rows, rows.ndim) ** 2, reduction)


def flow_elbo(
    x: Tensor,
    x_t: Tensor,
    t: Tensor | float,
    velocity: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    weight: Weight = 1.0,
    beta: Weight = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> FlowElboResult:
    """An ELBO and the velocity that is learned beside it; see :func:`fastelbo.flow_elbo`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Data.
    x_t : Tensor, shape (B, L)
        Where in the latent space the flow is.
    t : Tensor or float, shape () or (B,)
        The time of each row, in [0, 1); on the CPU it is checked.
    velocity, mu, logvar : Tensor, shape (B, L)
        The learned velocity, and the parameters of the posterior of the flow's end.
    x_recon : Tensor or tuple of Tensor
        What the decoder gives.
    likelihood : Likelihood or str, optional
    weight, beta : float, optional
        Weights of the velocities and of the KL.
    mask : Tensor of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the rows.

    Returns
    -------
    FlowElboResult
        ``objective``, to ascend, ``reconstruction``, ``kl`` and ``velocity_error``.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or t lies outside [0, 1).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    >>> fastelbo.torch.flow_elbo(zero, zero, 0.5, one, one, zero, zero).objective
    tensor(-1.5000)
    """
    check_reduction(reduction)
    check_tensors(x=x, x_t=x_t, velocity=velocity, mu=mu, logvar=logvar)
    if not torch.compiler.is_compiling():
        weight = as_weight(weight, "weight")
        _checked_flow(stand_in(mu), stand_in(x_t), 0.0, 2)
        if velocity.shape != mu.shape:
            wanted = f"that of mu, {tuple(mu.shape)}"
            raise _arrays.shape_error("velocity", velocity.shape, wanted)
    likelihood = as_likelihood(likelihood)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    arguments = x, x_t, t, velocity, mu, logvar, outputs, likelihood, weight, beta, mask, reduction
    half = half_of(x, x_t, velocity, mu, *outputs, logvar)
    return narrowed(_flow_elbo(*unrounded(*arguments)), half)


def _flow_elbo(x, x_t, t, velocity, mu, logvar, x_recon, likelihood, weight, beta, mask, reduction):
    options = {"likelihood": likelihood, "beta": beta, "mask": mask, "reduction": reduction}
    parts = elbo(x, mu, logvar, x_recon, **options)
    target = endpoint_velocity(mu, x_t, t)
    error = -SquaredError().log_prob(target, velocity, reduction=reduction)
    return FlowElboResult(parts.elbo - weight * error, parts.reconstruction, parts.kl, error)


def _remaining(t, array, axes):
    """1 - t, one for each row of an array, whose rows have so many axes."""
    if not torch.compiler.is_compiling():
        times = t
        if not isinstance(t, numbers.Real):
            check_tensors(t=t)
            times = array_of(widened(t))
        _remaining_time(times, tuple(array.shape[:axes]))
    return 1 - t


def _beside(rows, array):
    """A number a row as it broadcasts to an array."""
    if isinstance(rows, torch.Tensor) and rows.ndim:
        return rows.reshape(rows.shape + (1,) * (array.ndim - rows.ndim))
    return rows
