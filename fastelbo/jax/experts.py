"""Posteriors of several modalities from Gaussian experts, (M, B, L)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastelbo import experts
from fastelbo.jax._bridge import Operation, evaluate, options_of, pulled
from fastelbo.jax._inputs import as_arrays, as_flags, axes_from, narrowed, stand_in
from fastelbo.likelihoods import check_reduction
from fastelbo.reference.experts import subsets

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction


class GaussianExpert(NamedTuple):
    """A diagonal Gaussian for each sample, (B, L)."""

    mu: jax.Array
    logvar: jax.Array


class Experts(NamedTuple):
    """Gaussian experts, (S, B, L), and which of them count, (S, B)."""

    mu: jax.Array
    logvar: jax.Array
    mask: jax.Array


def product_of_experts(
    mu: ArrayLike, logvar: ArrayLike, *, mask: ArrayLike | None = None, prior: bool = True
) -> GaussianExpert:
    """The product of Gaussian experts; see :func:`fastelbo.product_of_experts`.

    Parameters
    ----------
    mu, logvar : array_like, shape (M, B, L)
    mask : array_like of bool, shape (M, B), optional
        Which experts have seen something of a sample; the others are never read.
    prior : bool, optional
        N(0, I) is one more expert.

    Returns
    -------
    GaussianExpert
        ``mu`` and ``logvar``, (B, L).

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import product_of_experts
    >>> mu = jnp.array([[[3.0]], [[0.0]]])
    >>> product_of_experts(mu, 0 * mu).mu
    Array([[1.]], dtype=float32)
    """
    half, mu, logvar, mask = _checked(mu, logvar, mask, prior, False)
    product = pulled(Products("product_of_experts", prior), mu, logvar, mask)
    return narrowed(GaussianExpert(*product), half)


def mopoe(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    prior: bool | Literal["full"] = True,
) -> Experts:
    """Products of all subsets of experts, the components of a MoPoE; see :func:`fastelbo.mopoe`.

    Parameters
    ----------
    mu, logvar : array_like, shape (M, B, L)
        Of at most 12 experts.
    mask : array_like of bool, shape (M, B), optional
        Which experts have seen something of a sample; the others are never read.
    prior : bool or "full", optional
        N(0, I) is one more expert of every product, of none, or only of that of all experts.

    Returns
    -------
    Experts
        ``mu`` and ``logvar``, (2^M - 1, B, L): at index s, the product of the experts whose
        bits are set in s + 1. ``mask`` (2^M - 1, B): whether the sample has all of them.
        Products that do not count are N(0, I).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> mu = jnp.array([[[4.0]], [[0.0]]])
    >>> fastelbo.jax.mopoe(mu, 0 * mu, prior=False).mu.ravel()
    Array([4., 0., 2.], dtype=float32)
    """
    half, mu, logvar, mask = _checked(mu, logvar, mask, prior, True)
    products = pulled(Products("mopoe", prior), mu, logvar, mask)
    members = jnp.array(subsets(len(mu)))[..., None]  # (S, M, 1)
    counts = (mask | ~members).all(1)
    return narrowed(Experts(*products, counts), half)


def mixture_of_experts(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    reduction: Reduction = "mean",
) -> Array:
    """Log density under the mixture of the experts; see :func:`fastelbo.mixture_of_experts`.

    Parameters
    ----------
    z : array_like, shape (B, L) or (K, B, L)
    mu, logvar : array_like, shape (M, B, L)
        The experts of each sample, or the products of :func:`mopoe`.
    mask : array_like of bool, shape (M, B), optional
        Which of them count.
    reduction : {"mean", "sum", "none"}
        Over samples and batch.

    Returns
    -------
    Array, shape (), or (B,) or (K, B) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> mu, zero = jnp.array([[[-1.0]], [[1.0]]]), jnp.zeros((1, 1))
    >>> fastelbo.jax.mixture_of_experts(zero, mu, 0 * mu).round(4)
    Array(-1.4189, dtype=float32)
    """
    check_reduction(reduction)
    half, (z, mu, logvar) = as_arrays(z=z, mu=mu, logvar=logvar)
    mask = _all_of(mu) if mask is None else as_flags(mask)
    experts.checked_mixture(*map(stand_in, (z, mu, logvar)), _flags(mask))
    return narrowed(evaluate(MixtureOfExperts(reduction), z, mu, logvar, mask)[0], half)


@dataclass(frozen=True)
class Products(Operation):
    """fastelbo's function of this name, which has a twin ``..._backward``; of (mu, logvar, mask).

    Which products of subsets count is not part of it.
    """

    name: str
    prior: bool | str

    def values(self, module, arrays):
        mu, logvar, mask = arrays
        return tuple(getattr(module, self.name)(mu, logvar, mask=mask, prior=self.prior)[:2])

    def pull(self, module, arrays, cotangents):
        mu, logvar, mask = arrays
        backward = getattr(module, f"{self.name}_backward")
        return tuple(backward(*cotangents, mu, logvar, mask=mask, prior=self.prior))


@dataclass(frozen=True)
class MixtureOfExperts(Operation):
    """Of arrays (z, mu, logvar, mask)."""

    reduction: str

    def values(self, module, arrays):
        return (module.mixture_of_experts(*arrays, reduction=self.reduction),)

    def gradients(self, module, arrays, out):
        options = options_of(out, reduction=self.reduction)
        value, gradients = module.mixture_of_experts_and_grad(*arrays, **options)
        return (value,), tuple(gradients)

    def slots(self, arrays):
        if self.reduction != "none":
            return dict.fromkeys(range(3), (0, ()))
        if arrays[0].ndim > 2:  # experts serve several samples
            return None
        return {0: (0, axes_from(0, 1)), 1: (0, axes_from(1, 1)), 2: (0, axes_from(1, 1))}


def _checked(mu, logvar, mask, prior, every_subset):
    """(dtype of results or None, mu, logvar, mask), as fastelbo checks them."""
    half, (mu, logvar) = as_arrays(mu=mu, logvar=logvar)
    mask = _all_of(mu) if mask is None else as_flags(mask)
    experts.checked_product(stand_in(mu), stand_in(logvar), _flags(mask), prior, every_subset)
    return half, mu, logvar, mask


def _all_of(mu):
    return jnp.ones(mu.shape[:2], bool)


def _flags(mask):
    """In the place of a mask, for checks: all True."""
    return ~stand_in(mask)
