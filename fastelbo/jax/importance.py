"""The importance-weighted bound of K samples, and bounds from log importance weights (K, B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from fastelbo import _arrays, _checks
from fastelbo._arguments import check_choice
from fastelbo.bounds import BASELINES, _as_order, _checked_n
from fastelbo.importance import ESTIMATORS
from fastelbo.jax._bridge import Operation, evaluate, options_of, pulled
from fastelbo.jax._inputs import Function, as_array, as_arrays, axes_from, check, narrowed, stand_in
from fastelbo.jax.elbo import SQUARED_ERROR
from fastelbo.jax.likelihoods import OfLikelihood, as_likelihood, made, parted
from fastelbo.jax.posterior import posterior_log_prob
from fastelbo.jax.priors import as_prior, log_density
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.jax._typing import AnyLikelihood, AnyPrior, Outputs


def iwae(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs | Callable[[Array], Outputs],
    *,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    prior: AnyPrior | None = None,
    mask: ArrayLike | None = None,
    estimator: Literal["standard", "stl", "dreg"] = "standard",
    reduction: Reduction = "mean",
) -> Array:
    """Importance-weighted bound of K samples z of each x; see :func:`fastelbo.iwae`.

    Parameters
    ----------
    x : array_like, shape (B, ...)
    z : array_like, shape (K, B, L)
        Samples of q(z|x), from ``reparameterize(mu, logvar, rng=key, samples=K)`` for example.
    mu, logvar : array_like, shape (B, L)
    x_recon : array_like, shape (K, B, ...), or a tuple of them, or a function of z
        What the decoder makes of z, or the decoder.
    likelihood : Likelihood or str, optional
        One of this module's, or of fastelbo's.
    prior : object, optional
        p(z); None is N(0, I). Else one of this module's or of fastelbo's, or anything with a method
        ``log_prob(z)`` that gives (K, B) and that JAX can differentiate.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    estimator : {"standard", "stl", "dreg"}
        Of the gradient; ``"stl"`` (sticking the landing) leaves out what reaches mu and logvar
        through log q(z|x) for given z. ``"dreg"``, doubly reparameterized, also weighs all that
        flows to z, what comes back through the decoder included: so x_recon has to be a function,
        whose row k, b depends on row k, b of z alone. See :func:`fastelbo.iwae_and_grad`.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> x, mu = jnp.array([[1.0, 2.0]]), jnp.zeros((1, 1))
    >>> z = jnp.array([[[0.0]], [[1.0]]])
    >>> fastelbo.jax.iwae(x, z, mu, mu, z * x).round(4)
    Array(-0.6864, dtype=float32)
    """
    check_reduction(reduction)
    check_choice(estimator, "estimator", ESTIMATORS)
    weighing = None
    if estimator == "dreg":
        if not callable(x_recon):
            raise TypeError('estimator="dreg": x_recon must be the decoder, a function of z')
        z, weighing = _weighed(as_array(z, "z"))
    if callable(x_recon):
        x_recon = x_recon(z)
    half, likelihood, prior, arrays = _checked(x, z, mu, logvar, x_recon, likelihood, prior, mask)
    x, z, mu, logvar, outputs, mask = arrays
    if prior is None and weighing is None:
        operation, arrays = likelihood._operation(
            Iwae, x, outputs, mask, reduction, (z, mu, logvar), estimator
        )
        return narrowed(evaluate(operation, *arrays)[0], half)
    if estimator != "standard":
        mu, logvar = stop_gradient(mu), stop_gradient(logvar)
    log_w = _log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask)
    bound = importance_bound(log_w, reduction=reduction)
    if weighing is not None:
        weights = normalized_weights(stop_gradient(log_w)).astype(weighing.dtype)
        bound = _with_weights(bound, weighing, weights)
    return narrowed(bound, half)


@jax.custom_vjp
def _weighed(z):
    """z, and a stand-in for the weights: what flows back to z is multiplied by what flows back to
    that."""
    return z, jnp.zeros(z.shape[:2], z.dtype)


_weighed.defvjp(lambda z: (_weighed(z), None), lambda _, flows: (flows[0] * flows[1][..., None],))


@jax.custom_vjp
def _with_weights(bound, weighing, weights):
    """The bound; on the way back the weights flow to their stand-in, as they are."""
    return bound


_with_weights.defvjp(
    lambda bound, weighing, weights: (bound, weights),
    lambda weights, flow: (flow, weights, jnp.zeros_like(weights)),
)


def log_weights(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    prior: AnyPrior | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """Log importance weights of K samples z of each x; see :func:`fastelbo.log_weights`.

    Parameters
    ----------
    x, z, mu, logvar, x_recon, likelihood, prior, mask
        As in :func:`iwae`.

    Returns
    -------
    Array, shape (K, B)
        log p(x|z) + log p(z) - log q(z|x), in nats: for :func:`importance_bound`, say.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> x, mu = jnp.array([[1.0, 2.0]]), jnp.zeros((1, 1))
    >>> z = jnp.array([[[0.0]], [[1.0]]])
    >>> fastelbo.jax.log_weights(x, z, mu, mu, z * x).ravel()
    Array([-5.,  0.], dtype=float32)
    """
    half, likelihood, prior, arrays = _checked(x, z, mu, logvar, x_recon, likelihood, prior, mask)
    x, z, mu, logvar, outputs, mask = arrays
    return narrowed(_log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask), half)


def _checked(x, z, mu, logvar, x_recon, likelihood, prior, mask):
    """(dtype of results or None, likelihood, prior, the arrays)."""
    likelihood, prior = as_likelihood(likelihood), as_prior(prior)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    latents = {"z": z, "mu": mu, "logvar": logvar}
    half, x, z, mu, logvar, outputs, mask = likelihood._as_arrays(x, outputs, mask, **latents)
    likelihood, outputs = likelihood._joined(outputs)
    outs = tuple(map(stand_in, outputs))
    given = [stand_in(a) for a in (x, z, mu, logvar)]
    _checks.iwae(likelihood._checked(), *given, outs, stand_in(mask))
    outputs = [jnp.broadcast_to(p, outputs[0].shape) for p in outputs]
    return half, likelihood, prior, (x, z, mu, logvar, outputs, mask)


def _log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask):
    log_p = likelihood._log_prob(x, outputs, mask, "none")
    log_q = posterior_log_prob(z, mu, logvar, reduction="none")
    return log_p + log_density(prior, z) - log_q


@dataclass(frozen=True)
class Iwae(OfLikelihood):
    """The bound, of arrays (x, z, mu, logvar, *outputs, *mask, *those of the likelihood)."""

    estimator: str

    latents = ("z", "mu", "logvar")

    def planned(self):
        if (planned := super().planned()) is None:
            return None
        arguments, options = planned
        return arguments, {**options, "estimator": self.estimator}

    def _given(self, module, arrays):
        (x, z, mu, logvar, *outputs), mask, held = parted(arrays, 4 + self.outputs, self.masked)
        likelihood = made(module, self.spec, held)
        options = {"likelihood": likelihood, "mask": mask, "reduction": self.reduction}
        return (x, z, mu, logvar, tuple(outputs)), options

    def values(self, module, arrays):
        given, options = self._given(module, arrays)
        return (module.iwae(*given, **options),)

    def gradients(self, module, arrays, out):
        given, options = self._given(module, arrays)
        options["estimator"] = self.estimator
        out = None if out is None else (*out[:3], out[3:])
        bound, gradients = module.iwae_and_grad(*given, **options_of(out, **options))
        return (bound,), (*gradients[:3], *gradients[3])

    def slots(self, arrays):
        """Samples lead in z and the outputs."""
        by_row = int(self.reduction == "none")
        of_latents = {slot: (0, axes_from(0, by_row)) for slot in (2, 3)}
        of_samples = {s: (0, axes_from(1, by_row)) for s in (1, *range(4, 4 + self.outputs))}
        return {1: of_samples.pop(1), **of_latents, **of_samples}


# Of log weights ---------------------------------------------------------------------------------


def importance_bound(
    log_w: ArrayLike, *, alpha: float = 0.0, reduction: Reduction = "mean"
) -> Array:
    """Rényi bound L_alpha of log p(x); see :func:`fastelbo.importance_bound`.

    Parameters
    ----------
    log_w : array_like, shape (K, B)
        From :func:`log_weights`.
    alpha : float, optional
        0 is the importance-weighted bound, 1 the ELBO.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If log_w is not (K, B) or empty, or an option is unknown.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import importance_bound
    >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))
    >>> value, gradient = jax.value_and_grad(importance_bound)(log_w)
    >>> jnp.exp(value).round(4), gradient.ravel().round(4)
    (Array(2., dtype=float32), Array([0.25, 0.75], dtype=float32))
    """
    return _bound("importance_bound", log_w, None, reduction, alpha=_as_order(alpha, "alpha"))


def cubo(log_w: ArrayLike, *, n: float = 2.0, reduction: Reduction = "mean") -> Array:
    """CUBO_n, the chi upper bound of log p(x); see :func:`fastelbo.cubo`.

    Parameters
    ----------
    log_w, reduction
        As in :func:`importance_bound`.
    n : float, optional
        At least 1.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> jnp.exp(fastelbo.jax.cubo(jnp.log(jnp.array([[1.0], [7.0]])))).round(4)
    Array(5., dtype=float32)
    """
    return _bound("importance_bound", log_w, None, reduction, alpha=1 - _checked_n(n))


def vimco(log_w: ArrayLike, log_q: ArrayLike, *, reduction: Reduction = "mean") -> Array:
    """The bound L_K, whose gradient is VIMCO's estimate; see :func:`fastelbo.vimco_and_grad`.

    For latents that have no reparameterization, discrete ones say. Its derivative by log_w is that
    of the bound, and its derivative by log_q the learning signal of each sample.

    Parameters
    ----------
    log_w : array_like, shape (K, B)
        Log weights log p(x, z_k) - log q(z_k|x); K > 1.
    log_q : array_like, shape (K, B)
        log q(z_k|x) by itself, of the same samples. Its numbers are not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import vimco
    >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))
    >>> jnp.exp(jax.grad(vimco, argnums=1)(log_w, 0 * log_w)).ravel().round(4)
    Array([0.6667, 2.    ], dtype=float32)
    """
    return _bound("vimco", log_w, log_q, reduction)


def reinforce(
    log_w: ArrayLike,
    log_q: ArrayLike,
    *,
    baseline: Literal["leave-one-out", "none"] = "leave-one-out",
    reduction: Reduction = "mean",
) -> Array:
    """The ELBO, whose gradient is that of REINFORCE; see :func:`fastelbo.reinforce_and_grad`.

    Parameters
    ----------
    log_w, log_q, reduction
        As in :func:`vimco`; K > 1 for a baseline from the others.
    baseline : {"leave-one-out", "none"}
        What a sample's learning signal is compared with: the mean of the others, or nothing.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import reinforce
    >>> log_w = jnp.array([[1.0], [3.0]])
    >>> jax.grad(reinforce, argnums=1)(log_w, 0 * log_w).ravel()
    Array([-1.,  1.], dtype=float32)
    """
    check_choice(baseline, "baseline", BASELINES)
    return _bound("reinforce", log_w, log_q, reduction, baseline=baseline)


def _bound(name, log_w, log_q, reduction, **options):
    """The bound of fastelbo's function of this name."""
    check_reduction(reduction)
    given = {"log_w": log_w} if log_q is None else {"log_w": log_w, "log_q": log_q}
    half, arrays = as_arrays(**given)
    check(name, arrays[0], **options)
    if arrays[-1].shape != arrays[0].shape:
        wanted = f"that of log_w, {arrays[0].shape}"
        raise _arrays.shape_error("log_q", arrays[-1].shape, wanted)
    operation = Bound(name, (*options.items(), ("reduction", reduction)), 1)
    return narrowed(evaluate(operation, *arrays)[0], half)


@dataclass(frozen=True)
class Bound(Function):
    """Of arrays (log_w,), or (log_w, log_q): of the latter only the gradient counts."""

    def values(self, module, arrays):
        return super().values(module, arrays[:1])

    def gradients(self, module, arrays, out):
        return super().gradients(module, arrays[:1], out)


def normalized_weights(log_w: ArrayLike) -> Array:
    """w_k / sum_j w_j of each column; see :func:`fastelbo.normalized_weights`.

    Parameters
    ----------
    log_w : array_like, shape (K, B)

    Returns
    -------
    Array, shape (K, B)
        NaN where no weight is positive, and for infinite weights; those beside one are zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> fastelbo.jax.normalized_weights(jnp.log(jnp.array([[1.0], [3.0]]))).ravel().round(4)
    Array([0.25, 0.75], dtype=float32)
    """
    return _of_weights("normalized_weights", log_w)


def effective_sample_size(log_w: ArrayLike) -> Array:
    """(sum_k w_k)^2 / sum_k w_k^2 of each column; see :func:`fastelbo.effective_sample_size`.

    Parameters
    ----------
    log_w : array_like, shape (K, B)

    Returns
    -------
    Array, shape (B,)
        From 1 to K. NaN where no weight is positive, or one is infinite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> fastelbo.jax.effective_sample_size(jnp.array([[0.0, 0.0], [0.0, -1000.0]]))
    Array([2., 1.], dtype=float32)
    """
    return _of_weights("effective_sample_size", log_w)


def _of_weights(name, log_w):
    half, (log_w,) = as_arrays(log_w=log_w)
    check(name, log_w)
    return narrowed(pulled(OfWeights(name), log_w)[0], half)


@dataclass(frozen=True)
class OfWeights(Operation):
    """What normalised weights are like, of the array (log_w,)."""

    name: str

    def values(self, module, arrays):
        return (getattr(module, self.name)(*arrays),)

    def pull(self, module, arrays, cotangents):
        """The logarithm of the effective sample size is 2 log sum w - log sum w^2."""
        (log_w,), (flow,) = arrays, cotangents
        weights = module.normalized_weights(log_w)
        if self.name == "normalized_weights":
            return (flow * weights - weights * (flow * weights).sum(0),)
        squares = module.normalized_weights(2 * log_w)
        return (2 * flow * module.effective_sample_size(log_w) * (weights - squares),)
