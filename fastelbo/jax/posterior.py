"""Samples of the posterior q(z|x), and their log density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from fastelbo import _checks
from fastelbo.jax._inputs import (
    as_array,
    as_arrays,
    check,
    function,
    narrowed,
    noise_like,
    stand_in,
)
from fastelbo.jax.divergences import kl_standard_normal
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits


def reparameterize(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Array | None = None,
    noise: ArrayLike | None = None,
    samples: int | None = None,
) -> Array:
    """Samples z = mu + e^(logvar/2) eps of the posterior; see :func:`fastelbo.reparameterize`.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
    rng : key of jax.random, optional
        eps is a function of it and of the shape alone. On the CPU it is drawn by the kernels, and
        is not what ``jax.random.normal`` gives, which draws it elsewhere.
    noise : array_like, optional
        eps itself, in the shape of z. One of the two must be given.
    samples : int, optional
        K: draw K samples, z being (K, B, L).

    Returns
    -------
    Array, shape (B, L) or (K, B, L)

    Raises
    ------
    ValueError, TypeError
        If a shape does not fit, or rng is no key.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> one = jnp.ones((1, 2))
    >>> fastelbo.jax.reparameterize(one, 0 * one, noise=jnp.array([[0.5, -1.0]]))
    Array([[1.5, 0. ]], dtype=float32)
    >>> fastelbo.jax.reparameterize(one, one, rng=jax.random.key(0), samples=5).shape
    (5, 1, 2)
    """
    half, (mu, logvar) = as_arrays(mu=mu, logvar=logvar)
    return narrowed(drawn(mu, logvar, rng, noise, samples)[0], half)


def drawn(mu, logvar, rng, noise, samples=None):
    """(z, eps), of checked arrays."""
    noise = None if noise is None else as_array(noise, "noise").astype(mu.dtype)
    _checks.samples(stand_in(mu), stand_in(logvar), None, stand_in(noise), samples)
    shape = mu.shape if samples is None else (samples, *mu.shape)
    eps = noise_like(rng, noise, shape, mu.dtype)
    return mu + jnp.exp(0.5 * logvar) * eps, eps


def reparameterize_kl(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Array | None = None,
    noise: ArrayLike | None = None,
    samples: int | None = None,
    free_bits: float | FreeBits = 0.0,
    reduction: Reduction = "mean",
) -> tuple[Array, Array]:
    """:func:`reparameterize` and :func:`kl_standard_normal`.

    Parameters
    ----------
    mu, logvar, rng, noise, samples
        As in :func:`reparameterize`.
    free_bits, reduction
        As in :func:`kl_standard_normal`.

    Returns
    -------
    z : Array, shape (B, L) or (K, B, L)
    kl : Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> one = jnp.ones((1, 1))
    >>> z, kl = fastelbo.jax.reparameterize_kl(one, 0 * one, noise=2 * one)
    >>> z, kl
    (Array([[3.]], dtype=float32), Array(0.5, dtype=float32))
    """
    z = reparameterize(mu, logvar, rng=rng, noise=noise, samples=samples)
    return z, kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)


def posterior_log_prob(
    z: ArrayLike, mu: ArrayLike, logvar: ArrayLike, *, reduction: Reduction = "mean"
) -> Array:
    """Log density log q(z|x), summed over latents; see :func:`fastelbo.posterior_log_prob`.

    Parameters
    ----------
    z : array_like, shape (B, L) or (K, B, L)
        A point for each x, or K of them.
    mu, logvar : array_like, shape (B, L)
    reduction : {"mean", "sum", "none"}
        Over the batch, and over the samples.

    Returns
    -------
    Array, shape (), or (B,) or (K, B) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> zero = jnp.zeros((1, 1))
    >>> fastelbo.jax.posterior_log_prob(zero + 2, zero, zero).round(4)
    Array(-2.9189, dtype=float32)
    """
    check_reduction(reduction)
    half, (z, mu, logvar) = as_arrays(z=z, mu=mu, logvar=logvar)
    check("posterior_log_prob", z, mu, logvar)
    if reduction == "none" and z.ndim == 3:  # a row's gradient must be its own
        rows = [jnp.broadcast_to(a, z.shape).reshape(-1, z.shape[-1]) for a in (z, mu, logvar)]
        value = function("posterior_log_prob", *rows, reduction=reduction).reshape(z.shape[:2])
    else:
        value = function("posterior_log_prob", z, mu, logvar, reduction=reduction)
    return narrowed(value, half)
