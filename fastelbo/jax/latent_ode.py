"""Continuous-time VAE: the bound of irregular time series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from fastelbo import latent_ode
from fastelbo.jax._inputs import as_array, as_flags, stand_in
from fastelbo.jax.elbo import SQUARED_ERROR, ElboResult, elbo

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.jax._typing import AnyLikelihood, Outputs


def latent_ode_elbo(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    beta: ArrayLike = 1.0,
    free_bits: float | FreeBits = 0.0,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> ElboResult:
    """Evidence lower bound of a latent ODE; see :func:`fastelbo.latent_ode_elbo`.

    Parameters
    ----------
    x : array_like, shape (B, T, ...)
        Series of T values each.
    times : array_like, shape (T,) or (B, T)
        When they were observed, in order; checked where nothing is traced.
    mu, logvar : array_like, shape (B, L)
        Parameters of q(z_0|x).
    x_recon : array_like, or a tuple of them
        What the decoder makes of the solution.
    likelihood : Likelihood or str, optional
    beta : float or Array, optional
        Weight of the KL.
    free_bits : float or FreeBits, optional
    mask : array_like of bool, optional
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
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> x, x_recon = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
    >>> one, times = jnp.ones((1, 1)), jnp.array([0.0, 0.7])
    >>> fastelbo.jax.latent_ode_elbo(x, times, one, 0 * one, x_recon).elbo
    Array(-4.5, dtype=float32)
    """
    x, times = as_array(x, "x"), as_array(times, "times")
    mask = None if mask is None else as_flags(mask)
    traced = any(isinstance(a, jax.core.Tracer) for a in (times, mask))
    of = stand_in if traced else lambda a: None if a is None else np.asarray(a)
    latent_ode._checked_series(stand_in(x), of(times), of(mask))
    if mask is not None and mask.shape == x.shape[:2]:
        mask = mask.reshape(x.shape[:2] + (1,) * (x.ndim - 2))
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
