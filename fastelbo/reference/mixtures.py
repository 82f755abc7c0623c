"""Mixtures of diagonal Gaussians."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows, scaled_twice
from fastelbo.reference.aggregate import log_sum_and_shares


def mixture_log_prob(z, log_weights, mu, logvar, *, reduction="mean"):
    """log sum_k e^log_weights_k N(z; mu_k, e^logvar_k) of points z (..., L).

    Examples
    --------
    >>> round(mixture_log_prob([[0.0]], np.log([0.5, 0.5]), [[-1.0], [1.0]], [[0.0], [0.0]]), 6)
    -1.418939
    """
    return mixture_log_prob_and_grad(z, log_weights, mu, logvar, reduction=reduction)[0]


@quiet
def mixture_log_prob_and_grad(z, log_weights, mu, logvar, *, reduction="mean"):
    """(value, (z, log_weights, mu, logvar)).

    Examples
    --------
    >>> log_weights, mu, logvar = np.log([0.5, 0.5]), [[-1.0], [1.0]], [[0.0], [0.0]]
    >>> mixture_log_prob_and_grad([[0.0]], log_weights, mu, logvar)[1][1]
    array([0.5, 0.5])
    """
    z, log_weights, mu, logvar = as_float64(z, log_weights, mu, logvar)
    points = z.reshape(int(np.prod(z.shape[:-1])), z.shape[-1])
    weight = 1.0 / len(points) if reduction == "mean" else 1.0
    rows = np.empty(len(points))
    dz, dlog_weights, dmu, dlogvar = map(np.zeros_like, (points, log_weights, mu, logvar))
    for i, point in enumerate(points):
        scaled, pull = scaled_twice(point - mu, logvar)
        square = scaled * scaled
        log_p = -0.5 * (square + logvar + LOG_2PI)
        log_p = np.where(square == np.inf, -np.inf, log_p).sum(axis=1)  # logvar may be -inf
        (rows[i],), (share,) = log_sum_and_shares((log_weights + log_p)[None])
        share = weight * share[:, None]
        pull = np.where(share == 0, 0.0, share * pull)
        dz[i] = -pull.sum(axis=0)
        dlog_weights += share[:, 0]
        dmu += pull
        dlogvar += 0.5 * np.where(share == 0, 0.0, share * (square - 1.0))
    value = reduce_rows(rows.reshape(z.shape[:-1]), reduction)
    return value, (dz.reshape(z.shape), dlog_weights, dmu, dlogvar)
