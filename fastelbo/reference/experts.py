"""Gaussian experts of several modalities, on axis 0."""

import functools

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows


def _subset_product(mu, logvar, present, prior):
    """(mu, logvar, shares in the precision) of the experts present; all arrays (M, B, L)."""
    log_precision = np.where(present[..., None], -logvar, -np.inf)
    zero = np.zeros((1, *mu.shape[1:]))
    log_precision = np.concatenate([log_precision, zero if prior else zero - np.inf])
    total = functools.reduce(np.logaddexp, log_precision)
    shares = np.exp(log_precision - total)[:-1]
    mean = np.where(present[..., None], shares * mu, 0.0).sum(axis=0)
    return mean, -total, shares


@quiet
def product_of_experts(mu, logvar, *, mask=None, prior=True):
    """(mu, logvar) of the product, a Gaussian again (Wu & Goodman 2018).

    Examples
    --------
    >>> product_of_experts([[[3.0]], [[0.0]]], [[[0.0]], [[0.0]]])[0]
    array([[1.]])
    """
    mu, logvar = as_float64(mu, logvar)
    present = np.ones(mu.shape[:2], bool) if mask is None else np.asarray(mask)
    return _subset_product(mu, logvar, present, prior)[:2]


@quiet
def product_of_experts_backward(grad_mu, grad_logvar, mu, logvar, *, mask=None, prior=True):
    """(mu, logvar), each (M, B, L)."""
    grad_mu, grad_logvar, mu, logvar = as_float64(grad_mu, grad_logvar, mu, logvar)
    present = np.ones(mu.shape[:2], bool) if mask is None else np.asarray(mask)
    mean, _, shares = _subset_product(mu, logvar, present, prior)
    by_mu = np.where(present[..., None], shares * grad_mu, 0.0)
    by_logvar = shares * (grad_logvar - grad_mu * (mu - mean))
    return by_mu, np.where(present[..., None], by_logvar, 0.0)


def subsets(experts):
    """Which experts are in each nonempty subset, 2^M - 1 lists of M."""
    return [[s >> m & 1 == 1 for m in range(experts)] for s in range(1, 1 << experts)]


def mopoe(mu, logvar, *, mask=None, prior=True):
    """(mu, logvar, mask) of the products of all subsets (Sutter et al. 2021).

    With prior="full", N(0, I) is one more expert of the product of all only.

    Examples
    --------
    >>> mopoe([[[4.0]], [[0.0]]], [[[0.0]], [[0.0]]], prior=False)[0].ravel()
    array([4., 0., 2.])
    """
    mu, logvar = as_float64(mu, logvar)
    seen = np.ones(mu.shape[:2], bool) if mask is None else np.asarray(mask)
    parts = []
    for members in subsets(len(mu)):
        whole = np.broadcast_to(np.array(members)[:, None], seen.shape)
        counts = (seen | ~whole).all(axis=0)
        stands = all(members) if prior == "full" else prior
        mean, log_variance = product_of_experts(mu, logvar, mask=whole, prior=stands)
        neutral = ~counts[:, None]
        parts.append((np.where(neutral, 0, mean), np.where(neutral, 0, log_variance), counts))
    return tuple(np.array(part) for part in zip(*parts, strict=True))


def mopoe_backward(grad_mu, grad_logvar, mu, logvar, *, mask=None, prior=True):
    """(mu, logvar), each (M, B, L)."""
    grad_mu, grad_logvar, mu, logvar = as_float64(grad_mu, grad_logvar, mu, logvar)
    seen = np.ones(mu.shape[:2], bool) if mask is None else np.asarray(mask)
    by_mu, by_logvar = np.zeros_like(mu), np.zeros_like(mu)
    for members, g, h in zip(subsets(len(mu)), grad_mu, grad_logvar, strict=True):
        whole = np.broadcast_to(np.array(members)[:, None], seen.shape)
        counts = whole & (seen | ~whole).all(axis=0)
        stands = all(members) if prior == "full" else prior
        of_mu, of_logvar = product_of_experts_backward(g, h, mu, logvar, mask=counts, prior=stands)
        by_mu += of_mu
        by_logvar += of_logvar
    return by_mu, by_logvar


def mixture_of_experts(z, mu, logvar, mask=None, *, reduction="mean"):
    """log (1/M) sum_m N(z; mu_m, e^logvar_m), over the experts that a sample has (Shi et al. 2019).

    Examples
    --------
    >>> mu, logvar = [[[-1.0]], [[1.0]]], [[[0.0]], [[0.0]]]
    >>> round(mixture_of_experts([[0.0]], mu, logvar), 6)
    -1.418939
    """
    return mixture_of_experts_and_grad(z, mu, logvar, mask, reduction=reduction)[0]


@quiet
def mixture_of_experts_and_grad(z, mu, logvar, mask=None, *, reduction="mean"):
    """(value, (z, mu, logvar))."""
    z, mu, logvar = as_float64(z, mu, logvar)
    seen = np.ones(mu.shape[:2], bool) if mask is None else np.asarray(mask)
    samples = z[None] if z.ndim == 2 else z
    samples = samples[:, None]  # (K, 1, B, L) against (M, B, L)
    d = samples - mu
    log_p = -0.5 * (d * d * np.exp(-logvar) + logvar + LOG_2PI).sum(axis=3)
    log_p = np.where(seen, log_p - np.log(seen.sum(axis=0)), -np.inf)
    values = functools.reduce(np.logaddexp, np.moveaxis(log_p, 1, 0))
    weight = 1.0 / values.size if reduction == "mean" else 1.0
    share = np.where(seen, weight * np.exp(log_p - values[:, None]), 0.0)[..., None]
    pull = np.where(seen[..., None], share * d * np.exp(-logvar), 0.0)
    spread = np.where(seen[..., None], 0.5 * (pull * d - share), 0.0)
    gradients = (-pull.sum(axis=1).reshape(z.shape), pull.sum(axis=0), spread.sum(axis=0))
    return reduce_rows(values.reshape(z.shape[:-1]), reduction), gradients
