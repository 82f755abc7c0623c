"""Variational flow matching."""

import numpy as np

from fastelbo.reference._common import as_float64, reduce_rows, row_weight
from fastelbo.reference.elbo import elbo_and_grad
from fastelbo.reference.likelihoods import SquaredError


def _beside(t, array, axes=1):
    """1 - t as it broadcasts to an array, whose first `axes` axes are those of rows."""
    t = np.broadcast_to(as_float64(t), np.shape(array)[:axes])
    return (1 - t).reshape(t.shape + (1,) * (np.ndim(array) - axes))


def endpoint_velocity(mu, x_t, t):
    """(mu - x_t) / (1 - t).

    Examples
    --------
    >>> endpoint_velocity([[2.0]], [[1.0]], 0.5)
    array([[2.]])
    """
    mu, x_t = as_float64(mu, x_t)
    return (mu - x_t) / _beside(t, mu)


def flow_matching(x, t, x_recon, *, likelihood=None, mask=None, reduction="mean"):
    """log q(x | x_recon), or without a likelihood -||x - x_recon||^2 / (1 - t)^2.

    Examples
    --------
    >>> flow_matching([[1.0]], 0.5, [[0.5]])
    -1.0
    """
    return flow_matching_and_grad(
        x, t, x_recon, likelihood=likelihood, mask=mask, reduction=reduction
    )[0]


def flow_matching_and_grad(x, t, x_recon, *, likelihood=None, mask=None, reduction="mean"):
    """(what :func:`flow_matching` returns, (x_recon,)).

    Examples
    --------
    >>> flow_matching_and_grad([[1.0]], 0.5, [[0.5]])
    (-1.0, (array([[4.]]),))
    """
    several = isinstance(x_recon, tuple)
    outputs = x_recon if several else (x_recon,)
    if likelihood is not None:
        value, gradients = likelihood.log_prob_and_grad(x, *outputs, mask=mask, reduction=reduction)
        return value, (gradients if several else gradients[0],)
    rows, (gradient,) = SquaredError().log_prob_and_grad(x, *outputs, mask=mask, reduction="none")
    remaining = _beside(t, rows, rows.ndim)
    gradient = gradient * row_weight(rows.size, reduction) / _beside(t, gradient, rows.ndim) ** 2
    return reduce_rows(rows / remaining**2, reduction), (gradient,)


def flow_elbo(
    x,
    x_t,
    t,
    velocity,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    weight=1.0,
    beta=1.0,
    mask=None,
    reduction="mean",
):
    """(objective, reconstruction, kl, velocity_error).

    Examples
    --------
    >>> flow_elbo([[0.0]], [[0.0]], 0.5, [[1.0]], [[1.0]], [[0.0]], [[0.0]], weight=2.0)
    (-2.5, 0.0, 0.5, 1.0)
    """
    return flow_elbo_and_grad(
        x,
        x_t,
        t,
        velocity,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        weight=weight,
        beta=beta,
        mask=mask,
        reduction=reduction,
    )[0]


def flow_elbo_and_grad(
    x,
    x_t,
    t,
    velocity,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    weight=1.0,
    beta=1.0,
    mask=None,
    reduction="mean",
):
    """(what :func:`flow_elbo` returns, (velocity, mu, logvar, x_recon)).

    Examples
    --------
    >>> flow_elbo_and_grad([[0.0]], [[0.0]], 0.5, [[1.0]], [[1.0]], [[0.0]], [[0.0]])[1][:2]
    (array([[2.]]), array([[-5.]]))
    """
    (bound, reconstruction, kl, _), (d_mu, d_logvar, d_x_recon) = elbo_and_grad(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        mask=mask,
        reduction=reduction,
    )
    difference = endpoint_velocity(mu, x_t, t) - as_float64(velocity)
    error = reduce_rows((difference**2).sum(axis=1), reduction)
    d_velocity = 2 * weight * row_weight(len(difference), reduction) * difference
    d_mu = d_mu - d_velocity / _beside(t, d_velocity)
    result = (bound - weight * error, reconstruction, kl, error)
    return result, (d_velocity, d_mu, d_logvar, d_x_recon)
