"""Posteriors that cannot collapse, and a KL with a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from fastelbo import remedies
from fastelbo._arguments import check_choice
from fastelbo.jax._formulas import formulas_of, precision
from fastelbo.jax._inputs import as_arrays, as_weight, check, narrowed
from fastelbo.jax.divergences import counted, kl_standard_normal

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike


def delta_posterior(mu: ArrayLike, logvar: ArrayLike, *, delta: float) -> tuple[Array, Array]:
    """Posteriors whose KL to N(0, I) is at least delta in each dimension, whatever is given.

    See :func:`fastelbo.delta_posterior`.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
        What the encoder gives: any numbers.
    delta : float
        In nats a dimension.

    Returns
    -------
    mu, logvar : Array, shape (B, L)
        In float32 and float64 the KL is at least delta as it is rounded.

    Raises
    ------
    ValueError, TypeError
        If shapes differ, or delta is not positive.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> anything = jnp.zeros((1, 2))
    >>> mu, logvar = fastelbo.jax.delta_posterior(anything - 3, anything, delta=0.5)
    >>> fastelbo.jax.kl_standard_normal(mu, logvar).round(4)
    Array(1., dtype=float32)
    """
    delta = remedies.as_delta(delta)
    half, (mu, logvar) = as_arrays(mu=mu, logvar=logvar)
    check("kl_standard_normal", mu, logvar)
    limits = remedies.committed(delta, float(jnp.finfo(mu.dtype).eps))
    between = limits.low * jax.nn.sigmoid(-logvar) + limits.high * jax.nn.sigmoid(logvar)
    with precision(mu.dtype):
        kl = formulas_of("_common").exp_minus_one_minus(between)
    room = jnp.maximum(limits.most - kl, limits.least)
    return narrowed((jnp.sqrt(room + jax.nn.relu(mu)), between), half)


def capacity(
    mu: ArrayLike,
    logvar: ArrayLike,
    target: ArrayLike,
    *,
    gamma: ArrayLike = 1000.0,
    of: Literal["mean", "sample"] = "mean",
) -> Array:
    """``gamma |KL - C|``, which takes the place of the KL in a loss; see :func:`fastelbo.capacity`.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
    target, gamma : float or Array
        C and its weight, numbers; they may be traced.
    of : {"mean", "sample"}
        Of the batch's mean KL, or the mean over samples.

    Returns
    -------
    Array, shape ()

    Raises
    ------
    ValueError, TypeError
        If a shape or option does not fit.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import capacity
    >>> mu = jnp.array([[2.0]])
    >>> jax.value_and_grad(capacity)(mu, 0 * mu, 3.0, gamma=10.0)
    (Array(10., dtype=float32), Array([[-20.]], dtype=float32))
    """
    check_choice(of, "of", remedies.TARGETS)
    target, gamma = as_weight(target, "target"), as_weight(gamma, "gamma")
    half, (mu, logvar) = as_arrays(mu=mu, logvar=logvar)
    check("kl_standard_normal", mu, logvar)
    latents, _ = counted(gamma, mu, logvar)
    kl = kl_standard_normal(*latents, reduction="none" if of == "sample" else "mean")
    return narrowed(gamma * jnp.abs(kl - target).mean(), half)
