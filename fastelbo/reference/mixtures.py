"""Mixtures of diagonal Gaussians."""

import math

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows, scaled_twice
from fastelbo.reference.aggregate import log_sum_and_shares


def mixture_log_prob(z, mu, logvar, log_weights, *, reduction="mean"):
    """log sum_k e^log_weights_k N(z; mu_k, e^logvar_k) of points z (..., L).

    Examples
    --------
    >>> round(mixture_log_prob([[0.0]], [[-1.0], [1.0]], [[0.0], [0.0]], np.log([0.5, 0.5])), 6)
    -1.418939
    """
    return mixture_log_prob_and_grad(z, mu, logvar, log_weights, reduction=reduction)[0]


@quiet
def mixture_log_prob_and_grad(z, mu, logvar, log_weights, *, reduction="mean"):
    """(value, (z, mu, logvar, log_weights)).

    Examples
    --------
    >>> mu, logvar, log_weights = [[-1.0], [1.0]], [[0.0], [0.0]], np.log([0.5, 0.5])
    >>> mixture_log_prob_and_grad([[0.0]], mu, logvar, log_weights)[1][3]
    array([0.5, 0.5])
    """
    z, mu, logvar, log_weights = as_float64(z, mu, logvar, log_weights)
    points = z.reshape(math.prod(z.shape[:-1]), z.shape[-1])
    weight = 1.0 / len(points) if reduction == "mean" else 1.0
    rows, (dz, *others) = weighted_gradients(points, mu, logvar, log_weights, weight)
    value = reduce_rows(rows.reshape(z.shape[:-1]), reduction)
    return value, (dz.reshape(z.shape), *others)


@quiet
def weighted_gradients(z, mu, logvar, log_weights, weights):
    """Of points z (B, L): log densities, and the gradients of the sum of so much of each."""
    scaled, pull = scaled_twice(z[:, None] - mu, logvar)
    square = scaled * scaled
    log_p = -0.5 * (square + logvar + LOG_2PI)
    log_p = np.where(square == np.inf, -np.inf, log_p).sum(axis=2)  # logvar may be -inf
    rows, share = log_sum_and_shares(log_weights + log_p)
    share = (np.reshape(weights, (-1, 1)) * share)[..., None]
    pull = np.where(share == 0, 0.0, share * pull)
    by_logvar = 0.5 * np.where(share == 0, 0.0, share * (square - 1.0))
    by_z = -pull.sum(axis=1)
    return rows, (by_z, *(g.sum(axis=0) for g in (pull, by_logvar, share[..., 0])))
