"""Priors p(z) as pytrees, for ``prior=`` of bounds; see :mod:`fastelbo.priors`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

import fastelbo
from fastelbo import _arrays, priors, reference
from fastelbo.jax._inputs import as_arrays, stand_in
from fastelbo.jax.mixtures import mixture_log_prob
from fastelbo.mixtures import Components

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo.jax._typing import AnyPrior, Prior


@jax.tree_util.register_pytree_node_class
class StandardNormal:
    """N(0, I), the prior that ``prior=None`` stands for.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import StandardNormal
    >>> print(f"{StandardNormal().log_prob(jnp.array([[1.0, 2.0]])).item():.2f}")
    -4.34
    """

    def log_prob(self, z: ArrayLike) -> Array:
        """Log densities (...) of z (..., L), in nats."""
        z = jnp.asarray(z)
        return -0.5 * (z * z + reference.LOG_2PI).sum(-1)

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """As JAX asks of a pytree."""
        return (), None

    @classmethod
    def tree_unflatten(cls, structure: None, leaves: tuple[Any, ...]) -> StandardNormal:
        """As JAX asks of a pytree."""
        return cls()

    def __repr__(self):
        return "StandardNormal()"


@jax.tree_util.register_pytree_node_class
class MixtureOfGaussians:
    """A mixture of K diagonal Gaussians with weights softmax(logits).

    Parameters
    ----------
    mu, logvar : array_like, shape (K, L)
        Means and log variances: leaves of the pytree that the prior is.
    logits : array_like of shape (K,), optional
        Logarithms of the weights, up to a constant. Without them weights are equal, and fixed.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import MixtureOfGaussians
    >>> mu = jnp.array([[-1.0], [1.0]])
    >>> prior = MixtureOfGaussians(mu, 0 * mu)
    >>> print(f"{prior.log_prob(jnp.zeros((1, 1))).item():.4f}")
    -1.4189
    >>> gradient = jax.grad(lambda p: p.log_prob(jnp.zeros((1, 1))).sum())(prior)
    >>> [round(each, 4) for each in gradient.mu.ravel().tolist()]
    [0.5, -0.5]
    """

    mu: Array
    logvar: Array
    logits: Array | None

    def __init__(self, mu: ArrayLike, logvar: ArrayLike, logits: ArrayLike | None = None) -> None:
        given = {} if logits is None else {"logits": logits}
        _, (mu, logvar, *given) = as_arrays(mu=mu, logvar=logvar, **given)
        weights = given[0] if given else jnp.zeros(mu.shape[:1], mu.dtype)
        try:
            Components(*map(stand_in, (mu, logvar, weights)))
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("log_weights", "logits")) from None
        self.mu, self.logvar = mu, logvar
        self.logits = given[0] if given else None

    @property
    def log_weights(self) -> Array:
        """Logarithms of the components' weights, which add up to one; (K,)."""
        if self.logits is None:
            return jnp.full(len(self.mu), -math.log(len(self.mu)), self.mu.dtype)
        return jax.nn.log_softmax(self.logits)

    def log_prob(self, z: ArrayLike) -> Array:
        """Log densities (...) of z (..., L), in nats."""
        return mixture_log_prob(z, self.mu, self.logvar, self.log_weights, reduction="none")

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """As JAX asks of a pytree."""
        return (self.mu, self.logvar, self.logits), None

    @classmethod
    def tree_unflatten(cls, structure: None, leaves: tuple[Any, ...]) -> MixtureOfGaussians:
        """As JAX asks of a pytree."""
        prior = object.__new__(cls)
        prior.mu, prior.logvar, prior.logits = leaves
        return prior

    def __repr__(self):
        return f"{type(self).__name__}({len(self.mu)} components, {self.mu.shape[1]} dimensions)"


@jax.tree_util.register_pytree_node_class
class VampPrior(MixtureOfGaussians):
    """Variational mixture of posteriors: the components are q(z|u_k) of pseudo-inputs u_k.

    See :class:`fastelbo.VampPrior`. Made inside of the function that is differentiated, of what the
    encoder makes of the pseudo-inputs, it passes gradients on to both.

    Parameters
    ----------
    mu, logvar : array_like, shape (K, L)
        What the encoder makes of K pseudo-inputs.
    logits : array_like of shape (K,), optional
        Weights of the components, softmax(logits); equal ones by default.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import VampPrior
    >>> mu = jnp.array([[-1.0], [1.0]])
    >>> VampPrior(mu, 0 * mu).log_prob(jnp.zeros((1, 1))).round(4)
    Array([-1.4189], dtype=float32)
    """


#: The classes that stand for one of fastelbo's.
_TWINS = {
    fastelbo.StandardNormal: StandardNormal,
    fastelbo.MixtureOfGaussians: MixtureOfGaussians,
    fastelbo.VampPrior: VampPrior,
}


def as_prior(prior: AnyPrior | None) -> Prior | None:
    """One that JAX can differentiate, or None: itself, or the twin of one of fastelbo."""
    if prior is None or (isinstance(prior, str) and prior == "standard"):
        return None
    if (twin := _TWINS.get(type(prior))) is not None:
        return twin(**vars(prior))
    priors.check_prior(prior)
    if hasattr(prior, "log_prob_and_grad"):
        raise TypeError(
            "prior gives its gradients as arrays (log_prob_and_grad): here it must have a method "
            f"log_prob that JAX can differentiate, got {prior!r}"
        )
    return prior


def log_density(prior: Prior | None, z: Array) -> Array:
    """log p(z) in the leading shape of z, checked; None is N(0, I)."""
    log_p = (StandardNormal() if prior is None else prior).log_prob(z)
    if jnp.shape(log_p) != z.shape[:-1]:
        raise _arrays.shape_error("prior.log_prob(z)", jnp.shape(log_p), str(z.shape[:-1]))
    return log_p
