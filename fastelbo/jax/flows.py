"""Variational flow matching: flows from noise to data, learned by guessing where they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastelbo import _arrays
from fastelbo.flows import _checked_flow, _remaining_time
from fastelbo.jax._inputs import as_array, as_arrays, as_weight, narrowed, reduce, stand_in
from fastelbo.jax.elbo import SQUARED_ERROR, elbo
from fastelbo.jax.likelihoods import as_likelihood
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.jax._typing import AnyLikelihood, Outputs


class FlowElboResult(NamedTuple):
    """The parts of an ELBO with a flow: shape (), or (B,) for ``reduction="none"``."""

    objective: jax.Array
    reconstruction: jax.Array
    kl: jax.Array
    velocity_error: jax.Array


def endpoint_velocity(mu: ArrayLike, x_t: ArrayLike, t: ArrayLike) -> Array:
    """The velocity (mu - x_t) / (1 - t); see :func:`fastelbo.endpoint_velocity`.

    Parameters
    ----------
    mu : array_like, shape (B, ...)
        The endpoint's mean.
    x_t : array_like, in the shape of mu
    t : array_like, shape () or (B,)
        The time of each row, in [0, 1); checked where it is not traced.

    Returns
    -------
    Array

    Raises
    ------
    ValueError, TypeError
        If a shape does not fit, or t lies outside [0, 1).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> fastelbo.jax.endpoint_velocity(jnp.array([[2.0]]), jnp.array([[1.0]]), 0.5)
    Array([[2.]], dtype=float32)
    """
    half, (mu, x_t) = as_arrays(mu=mu, x_t=x_t)
    _checked_flow(stand_in(mu), stand_in(x_t), 0.0)
    rest = _remaining(t, mu.shape[:1], mu.dtype)
    return narrowed((mu - x_t) / rest.reshape(rest.shape + (1,) * (mu.ndim - 1)), half)


def flow_matching(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """The objective of variational flow matching; see :func:`fastelbo.flow_matching`.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Endpoints.
    t : array_like, shape (), (B,) or (T, B)
        The time of each row, in [0, 1); checked where it is not traced.
    x_recon : array_like, or a tuple of them
        What the network makes of (x_t, t); T times may lie on a leading axis.
    likelihood : Likelihood or str, optional
        log q_t(x | x_recon); None is -||x - x_recon||^2 / (1 - t)^2.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over rows and times.

    Returns
    -------
    Array, shape (), or (B,) or (T, B) for ``reduction="none"``
        To ascend.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or t lies outside [0, 1).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> x, x_recon = jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 0.0]])
    >>> fastelbo.jax.flow_matching(x, 0.5, x_recon)
    Array(-1., dtype=float32)
    """
    check_reduction(reduction)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    chosen = SQUARED_ERROR if likelihood is None else as_likelihood(likelihood)
    half, x, outputs, mask = chosen._as_arrays(x, outputs, mask)
    extra = chosen._of._layout.more_axes
    rows = outputs[0].shape[: outputs[0].ndim - extra - x.ndim + 1]
    rest = _remaining(t, rows, outputs[0].dtype)
    chosen, outputs = chosen._joined(outputs)
    if likelihood is not None:
        return narrowed(chosen._log_prob(x, outputs, mask, reduction), half)
    rows = chosen._log_prob(x, outputs, mask, "none")
    return narrowed(reduce(rows / rest**2, reduction), half)


def flow_elbo(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    weight: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> FlowElboResult:
    """An ELBO and the velocity that is learned beside it; see :func:`fastelbo.flow_elbo`.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data.
    x_t : array_like, shape (B, L)
        Where in the latent space the flow is.
    t : array_like, shape () or (B,)
        The time of each row, in [0, 1); checked where it is not traced.
    velocity, mu, logvar : array_like, shape (B, L)
        The learned velocity, and the parameters of the posterior of the flow's end.
    x_recon : array_like, or a tuple of them
        What the decoder gives.
    likelihood : Likelihood or str, optional
    weight, beta : float or Array, optional
        Weights of the velocities and of the KL, numbers; they may be traced.
    mask : array_like of bool, optional
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
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
    >>> fastelbo.jax.flow_elbo(zero, zero, 0.5, one, one, zero, zero).objective
    Array(-1.5, dtype=float32)
    """
    check_reduction(reduction)
    weight = as_weight(weight, "weight")
    half, (mu, x_t, velocity) = as_arrays(mu=mu, x_t=x_t, velocity=velocity)
    _checked_flow(stand_in(mu), stand_in(x_t), 0.0, 2)
    if velocity.shape != mu.shape:
        raise _arrays.shape_error("velocity", velocity.shape, f"that of mu, {mu.shape}")
    options = {"likelihood": likelihood, "beta": beta, "mask": mask, "reduction": reduction}
    bound, reconstruction, kl, _ = elbo(x, mu, logvar, x_recon, **options)
    error = reduce(((endpoint_velocity(mu, x_t, t) - velocity) ** 2).sum(axis=1), reduction)
    result = FlowElboResult(bound - weight * error, reconstruction, kl, error)
    return narrowed(result, half)


def _remaining(t, rows, dtype):
    """1 - t, for each of rows of this shape."""
    if isinstance(t, jax.core.Tracer):
        _remaining_time(np.zeros(t.shape), rows)
    else:
        _remaining_time(np.asarray(t), rows)
    return jnp.broadcast_to(1 - as_array(t, "t").astype(dtype), rows)
