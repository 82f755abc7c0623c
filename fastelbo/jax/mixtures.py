"""Mixtures of diagonal Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastelbo import mixtures
from fastelbo.jax._bridge import Operation, pulled
from fastelbo.jax._formulas import formulas_of
from fastelbo.jax._inputs import as_arrays, check, function, narrowed
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction


def mixture_log_prob(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    log_weights: ArrayLike,
    *,
    reduction: Reduction = "mean",
) -> Array:
    """Log density under a mixture of Gaussians; see :func:`fastelbo.mixture_log_prob`.

    Parameters
    ----------
    z : array_like, shape (..., L)
    mu, logvar : array_like, shape (K, L)
        Means and log variances of the components.
    log_weights : array_like, shape (K,)
        Logarithms of the components' weights, taken as they are: ``jax.nn.log_softmax(logits)``
        gives those of logits.
    reduction : {"mean", "sum", "none"}
        Over all points.

    Returns
    -------
    Array, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> mu, log_weights = jnp.array([[-1.0], [1.0]]), jnp.log(jnp.array([0.5, 0.5]))
    >>> fastelbo.jax.mixture_log_prob(jnp.zeros((1, 1)), mu, 0 * mu, log_weights).round(4)
    Array(-1.4189, dtype=float32)
    """
    check_reduction(reduction)
    half, arrays = as_arrays(z=z, mu=mu, logvar=logvar, log_weights=log_weights)
    check("mixture_log_prob", *arrays)
    if reduction == "none":
        return narrowed(pulled(MixtureByPoint(), *arrays)[0], half)
    return narrowed(function("mixture_log_prob", *arrays, reduction=reduction), half)


@dataclass(frozen=True)
class MixtureByPoint(Operation):
    """Log densities of points, of arrays (z, mu, logvar, log_weights): components serve all, so
    that gradients need what flows to each."""

    def values(self, module, arrays):
        return (module.mixture_log_prob(*arrays, reduction="none"),)

    def pull(self, module, arrays, cotangents):
        z, *components = arrays
        if isinstance(z, np.ndarray):
            return mixtures.weighted_gradients(z, *components, *cotangents)
        points = z.reshape(math.prod(z.shape[:-1]), z.shape[-1])
        weighted_gradients = formulas_of("mixtures").weighted_gradients
        _, (by_z, *rest) = weighted_gradients(points, *components, cotangents[0].ravel())
        return (by_z.reshape(z.shape), *rest)
