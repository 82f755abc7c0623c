"""Kullback-Leibler divergences: of Gaussians, and of discrete latents by logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from fastelbo.divergences import as_free_bits
from fastelbo.jax._bridge import evaluate
from fastelbo.jax._inputs import Function, as_array, as_arrays, check, function, narrowed
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits


def literal_free_bits(free_bits):
    """(threshold, granularity, below), or () where nothing is free."""
    floor = as_free_bits(free_bits)
    return () if floor is None else (float(floor.threshold), floor.granularity, floor.below)


def free_bits_of(module, literal):
    """As the functions of a module take them."""
    if not literal:
        return 0.0
    threshold, granularity, below = literal
    return module.FreeBits(threshold, granularity=granularity, below=below)


def counted(weight, mu, logvar):
    """(latents, what is missing of their KLs or None): for a weight of 0, zeros where the KL is
    infinite. It counts nothing then, and has a gradient by itself alone."""
    if isinstance(weight, jax.core.Tracer):
        missing = jax.lax.cond(weight == 0, _infinite, _nothing, mu, logvar)
    elif weight == 0:
        missing = _infinite(mu, logvar)
    else:
        return (mu, logvar), None
    rows = missing != 0
    return tuple([jnp.where(rows[:, None], 0.0, a) for a in (mu, logvar)]), missing


def _infinite(mu, logvar):
    """The KLs that are, (B,), and zeros."""
    rows = kl_standard_normal(mu, logvar, reduction="none")
    return jnp.where(jnp.isinf(rows), rows, 0.0)


def _nothing(mu, logvar):
    """Zeros; under shard_map as much of a shard as those."""
    return jnp.where(mu[:, 0] == mu[:, 0], 0.0, 0.0).astype(mu.dtype)


@dataclass(frozen=True)
class KlStandardNormal(Function):
    """kl_standard_normal; free bits are the literal of `literal_free_bits`."""

    free_bits: tuple = ()

    def planned(self):
        return None if self.free_bits else super().planned()

    def keywords(self, module):
        return {**super().keywords(module), "free_bits": free_bits_of(module, self.free_bits)}


def kl_standard_normal(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    free_bits: float | FreeBits = 0.0,
    reduction: Reduction = "mean",
) -> Array:
    """KL(N(mu, diag(e^logvar)) || N(0, I)); see :func:`fastelbo.kl_standard_normal`.

    Parameters
    ----------
    mu, logvar : array_like, shape (..., L)
        With any leading axes: all of them are the batch.
    free_bits : float or FreeBits, optional
        A floor under the KL, by latent dimension if a number. A constant: it is not traced.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (...) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If shapes differ, or an option is unknown.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import kl_standard_normal
    >>> mu = jnp.array([[1.0, 1.0]])
    >>> jax.value_and_grad(kl_standard_normal)(mu, 0 * mu)
    (Array(1., dtype=float32), Array([[1., 1.]], dtype=float32))
    """
    check_reduction(reduction)
    half, arrays = as_arrays(mu=mu, logvar=logvar)
    check("kl_standard_normal", *arrays)
    options = (("reduction", reduction),)
    operation = KlStandardNormal(
        "kl_standard_normal", options, 0, arrays[0].ndim - 1, literal_free_bits(free_bits)
    )
    return narrowed(evaluate(operation, *arrays)[0], half)


def kl_normal(
    mu_q: ArrayLike,
    logvar_q: ArrayLike,
    mu_p: ArrayLike,
    logvar_p: ArrayLike,
    *,
    reduction: Reduction = "mean",
) -> Array:
    """KL(N(mu_q, diag(e^logvar_q)) || N(mu_p, diag(e^logvar_p))); see :func:`fastelbo.kl_normal`.

    Parameters
    ----------
    mu_q, logvar_q, mu_p, logvar_p : array_like, shape (..., L)
        With any leading axes: all of them are the batch.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> zero = jnp.zeros((1, 1))
    >>> fastelbo.jax.kl_normal(zero + 3, zero, zero + 1, zero)
    Array(2., dtype=float32)
    """
    check_reduction(reduction)
    half, arrays = as_arrays(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    check("kl_normal", *arrays)
    value = function("kl_normal", *arrays, rows=arrays[0].ndim - 1, reduction=reduction)
    return narrowed(value, half)


def kl_full_normal(
    mu_q: ArrayLike,
    tril_q: ArrayLike,
    mu_p: ArrayLike,
    tril_p: ArrayLike,
    *,
    reduction: Reduction = "mean",
) -> Array:
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), covariances by Cholesky factors.

    See :func:`fastelbo.kl_full_normal`.

    Parameters
    ----------
    mu_q, mu_p : array_like, shape (..., L)
        With any leading axes: all of them are the batch.
    tril_q, tril_p : array_like, shape (..., L, L) or (L, L)
        Lower-triangular Cholesky factors with a positive diagonal, of each sample or of all. What
        lies above the diagonal is not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> one = jnp.ones((1, 1))
    >>> fastelbo.jax.kl_full_normal(3 * one, one, one, 2 * one).round(4)
    Array(0.8181, dtype=float32)
    """
    check_reduction(reduction)
    half, arrays = as_arrays(mu_q=mu_q, tril_q=tril_q, mu_p=mu_p, tril_p=tril_p)
    check("kl_full_normal", *arrays)
    leading = arrays[0].shape[:-1]
    if reduction == "none":  # a row's gradient must be its own
        arrays = [
            jnp.broadcast_to(a, (*leading, *a.shape[-2:])) if i % 2 else a
            for i, a in enumerate(arrays)
        ]
    value = function("kl_full_normal", *arrays, rows=len(leading), reduction=reduction)
    return narrowed(value, half)


def kl_categorical(
    logits: ArrayLike, prior_logits: ArrayLike | None = None, *, reduction: Reduction = "mean"
) -> Array:
    """KL between categorical distributions; see :func:`fastelbo.kl_categorical`.

    Parameters
    ----------
    logits : array_like, shape (B, ..., C)
    prior_logits : array_like, optional
        In a shape that broadcasts to that of logits and has all classes; by default all are
        equally likely.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> fastelbo.jax.kl_categorical(jnp.array([[2.0, 0.0]])).round(4)
    Array(0.3278, dtype=float32)
    """
    return _of_logits("kl_categorical", logits, prior_logits, reduction)


def kl_bernoulli(
    logits: ArrayLike, prior_logits: ArrayLike | None = None, *, reduction: Reduction = "mean"
) -> Array:
    """KL between Bernoulli distributions; see :func:`fastelbo.kl_bernoulli`.

    Parameters
    ----------
    logits : array_like, shape (B, ...)
    prior_logits : array_like, optional
        In a shape that broadcasts to that of logits; by default 0, a fair coin.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> fastelbo.jax.kl_bernoulli(jnp.array([[2.0]])).round(4)
    Array(0.3278, dtype=float32)
    """
    return _of_logits("kl_bernoulli", logits, prior_logits, reduction)


def _of_logits(name, logits, prior_logits, reduction):
    check_reduction(reduction)
    if prior_logits is None:
        logits = as_array(logits, "logits")
        classes = logits.shape[-1:] if name == "kl_categorical" else ()
        prior_logits = jnp.zeros(classes, logits.dtype)
    half, (logits, prior) = as_arrays(logits=logits, prior_logits=prior_logits)
    check(name, logits, prior)
    if reduction == "none":  # a row's gradient must be its own
        prior = jnp.broadcast_to(prior, logits.shape)
    return narrowed(function(name, logits, prior, reduction=reduction), half)
