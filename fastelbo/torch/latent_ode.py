"""Continuous-time VAE: the bound of irregular time series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastelbo import latent_ode
from fastelbo.torch._checks import numbers_of, stand_in
from fastelbo.torch._tensors import can_read, check_tensors, widened
from fastelbo.torch.elbo import ElboResult, elbo
from fastelbo.torch.locations import SquaredError

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.torch._typing import AnyLikelihood, Outputs, Weight


def latent_ode_elbo(
    x: Tensor,
    times: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    beta: Weight = 1.0,
    free_bits: float | FreeBits = 0.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> ElboResult:
    """Evidence lower bound of a latent ODE; see :func:`fastelbo.latent_ode_elbo`.

    ``fastelbo.union_of_times`` takes tensors, too, and says at which times to solve.

    Parameters
    ----------
    x : Tensor, shape (B, T, ...)
        Series of T values each.
    times : Tensor, shape (T,) or (B, T)
        When they were observed, in order. On the CPU they are checked.
    mu, logvar : Tensor, shape (B, L)
        Parameters of q(z_0|x).
    x_recon : Tensor or tuple of Tensor
        What the decoder makes of the solution.
    likelihood : Likelihood or str, optional
    beta : float, optional
        Weight of the KL.
    free_bits : float or FreeBits, optional
    mask : Tensor of bool, optional
        True where x was observed: (B, T), or what broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the series.

    Returns
    -------
    ElboResult
        ``elbo``, ``reconstruction``, ``kl``, through all of which gradients flow; ``z`` is None.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or times are out of order.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> x, x_recon = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> one, times = torch.ones(1, 1), torch.tensor([0.0, 0.7])
    >>> fastelbo.torch.latent_ode_elbo(x, times, one, 0 * one, x_recon).elbo
    tensor(-4.5000)
    """
    check_tensors(x=x, times=times)
    if mask is not None:
        check_tensors(mask=mask)
        if mask.shape == x.shape[:2]:
            mask = mask.reshape(x.shape[:2] + (1,) * (x.ndim - 2))
    if not torch.compiler.is_compiling():
        given = (widened(times),) if mask is None else (widened(times), mask)
        readable = all([can_read(t) for t in given])
        as_array = numbers_of if readable else stand_in
        latent_ode._checked_series(stand_in(x), *map(as_array, given), *[None] * (2 - len(given)))
    return elbo(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        free_bits=free_bits,
        mask=mask,
        reduction=reduction,
    )
