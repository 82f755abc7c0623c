"""Posteriors that cannot collapse, and a KL with a target."""

from functools import cache

import numpy as np

from fastelbo.reference._common import as_float64, exp_minus_one_minus, quiet, weighed
from fastelbo.reference.divergences import kl_standard_normal_and_grad

_EPS = float(np.finfo(np.float64).eps)


@cache
def delta_roots(delta):
    """The log variances s at which KL(N(0, e^s) || N(0, 1)) = (e^s - 1 - s) / 2 is delta.

    Examples
    --------
    >>> delta_roots((np.e - 2) / 2)[1]
    1.0
    """
    width = 2.0 * (delta + np.sqrt(delta))
    roots = []
    for inside, outside in ((0.0, -width), (0.0, float(np.log1p(width)))):
        for _ in range(200):  # by bisection
            middle = 0.5 * (inside + outside)
            if 0.5 * exp_minus_one_minus(middle) < delta:
                inside = middle
            else:
                outside = middle
        roots.append(outside)
    return tuple(roots)


@quiet
def _delta(mu, logvar, delta):
    """(posterior mu, posterior logvar, its derivative, where the mean depends on it)."""
    low, high = delta_roots(delta)
    of_low, of_high = 1 / (1 + np.exp(logvar)), 1 / (1 + np.exp(-logvar))
    between = low * of_low + high * of_high
    room = 2 * delta * (1 + 8 * _EPS) - exp_minus_one_minus(between)
    least = 2 * delta * _EPS
    mean = np.sqrt(np.maximum(room, least) + np.maximum(mu, 0))
    return mean, between, (high - low) * of_low * of_high, room > least


def delta_posterior(mu, logvar, *, delta):
    """(mu, logvar) of N(mu, e^logvar) whose KL is delta + max(0, mu) / 2 (Razavi et al. 2019).

    Examples
    --------
    >>> mean, between = delta_posterior([[2.0]], [[50.0]], delta=(np.e - 2) / 2)
    >>> mean.round(6), between
    (array([[1.414214]]), array([[1.]]))
    """
    return _delta(*as_float64(mu, logvar), delta)[:2]


@quiet
def delta_posterior_backward(grad_mu, grad_logvar, mu, logvar, *, delta):
    """(mu, logvar)."""
    grad_mu, grad_logvar, mu, logvar = as_float64(grad_mu, grad_logvar, mu, logvar)
    mean, between, slope, depends = _delta(mu, logvar, delta)
    pull = grad_mu / (2 * mean)
    by_logvar = slope * (grad_logvar - np.where(depends, np.expm1(between) * pull, 0))
    return np.where(mu <= 0, 0, pull), by_logvar


def capacity(mu, logvar, target, *, gamma=1000.0, of="mean"):
    """``gamma |KL - C|`` of the mean KL, or the mean of it over samples (Burgess et al. 2018).

    Examples
    --------
    >>> capacity([[2.0], [0.0]], [[0.0], [0.0]], 1.5, gamma=10.0, of="sample")
    10.0
    """
    return capacity_and_grad(mu, logvar, target, gamma=gamma, of=of)[0]


@quiet
def capacity_and_grad(mu, logvar, target, *, gamma=1000.0, of="mean"):
    """(value, (mu, logvar))."""
    rows, slopes = kl_standard_normal_and_grad(mu, logvar, reduction="none")
    kl = np.array([rows.mean()]) if of == "mean" else rows
    signs = np.sign(kl - target)[:, None] / len(rows)
    distance = float(np.abs(kl - target).mean())
    return float(weighed(gamma, distance)), tuple(signs * weighed(gamma, s) for s in slopes)
