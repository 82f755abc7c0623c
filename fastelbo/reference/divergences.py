"""KL divergences between diagonal Gaussians."""

import functools
from typing import NamedTuple

import numpy as np

from fastelbo.reference._common import (
    as_float64,
    exp_minus_one_minus,
    quiet,
    reduce_rows,
    row_weight,
    scaled_twice,
)


class FreeBits(NamedTuple):
    """KL that costs nothing (Kingma et al. 2016); a bare number is its threshold in nats."""

    threshold: float
    granularity: str = "dimension"
    below: str = "floor"


def of_any_axes(function):
    """`function` of arrays (..., L), and of factors (..., L, L): all leading axes are one batch."""

    @functools.wraps(function)
    def run(*arrays, **options):
        arrays = as_float64(*arrays)
        *leading, dims = arrays[0].shape
        if len(leading) < 2:
            return function(*arrays, **options)
        rows = [
            a if a.shape == (dims, dims) else a.reshape(-1, *a.shape[len(leading) :])
            for a in arrays
        ]
        value, gradients = function(*rows, **options)
        gradients = tuple(g.reshape(a.shape) for g, a in zip(gradients, arrays, strict=True))
        return value.reshape(leading) if np.ndim(value) else value, gradients

    return run


def with_free_bits(kl, free_bits):
    """KL (B, L) to its value a sample (B,), and which elements have a gradient, (B, L)."""
    bits = free_bits if hasattr(free_bits, "threshold") else FreeBits(free_bits)
    floor = {"floor": bits.threshold, "zero": 0.0}[bits.below]
    level = {  # what is compared with the threshold
        "dimension": kl.mean(axis=0, keepdims=True),
        "sample": kl,
        "total": kl.sum(axis=1, keepdims=True),
    }[bits.granularity]
    above = (bits.threshold == 0) | ~(level <= bits.threshold)  # NaN counts as above
    counted = level if bits.granularity == "total" else kl
    return np.where(above, counted, floor).sum(axis=1), np.broadcast_to(above, kl.shape)


def kl_standard_normal(mu, logvar, *, free_bits=0.0, reduction="mean"):
    """KL(N(mu, e^logvar) || N(0, I)) = sum(mu^2 + e^logvar - 1 - logvar) / 2.

    Examples
    --------
    >>> kl_standard_normal([[1.0, 2.0]], [[0.0, 0.0]])
    2.5
    >>> kl_standard_normal([[1.0, 2.0]], [[0.0, 0.0]], free_bits=1.0)
    3.0
    """
    return kl_standard_normal_and_grad(mu, logvar, free_bits=free_bits, reduction=reduction)[0]


@quiet
@of_any_axes
def kl_standard_normal_and_grad(mu, logvar, *, free_bits=0.0, reduction="mean"):
    """(kl, (mu, logvar)).

    Examples
    --------
    >>> kl_standard_normal_and_grad([[1.0, 2.0]], [[0.0, 0.0]])
    (2.5, (array([[1., 2.]]), array([[0., 0.]])))
    """
    mu, logvar = as_float64(mu, logvar)
    kl = 0.5 * (mu * mu + exp_minus_one_minus(logvar))
    rows, above = with_free_bits(kl, free_bits)
    weight = row_weight(len(rows), reduction)
    dmu = np.where(above, weight * mu, 0.0)
    dlogvar = np.where(above, weight * 0.5 * np.expm1(logvar), 0.0)
    return reduce_rows(rows, reduction), (dmu, dlogvar)


def kl_normal(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean"):
    """KL(N(mu_q, e^logvar_q) || N(mu_p, e^logvar_p)), both diagonal.

    = sum(e^(logvar_q - logvar_p) - 1 - (logvar_q - logvar_p) + (mu_q - mu_p)^2 e^-logvar_p) / 2

    Examples
    --------
    >>> kl_normal([[1.0]], [[0.0]], [[3.0]], [[0.0]])
    2.0
    """
    return kl_normal_and_grad(mu_q, logvar_q, mu_p, logvar_p, reduction=reduction)[0]


@quiet
@of_any_axes
def kl_normal_and_grad(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean"):
    """(kl, (mu_q, logvar_q, mu_p, logvar_p)).

    Examples
    --------
    >>> kl_normal_and_grad([[1.0]], [[0.0]], [[3.0]], [[0.0]])[1]
    (array([[-2.]]), array([[0.]]), array([[2.]]), array([[-2.]]))
    """
    mu_q, logvar_q, mu_p, logvar_p = as_float64(mu_q, logvar_q, mu_p, logvar_p)
    difference = mu_q - mu_p
    scaled, pull = scaled_twice(difference, logvar_p)
    rows = 0.5 * (exp_minus_one_minus(logvar_q - logvar_p) + scaled * scaled).sum(axis=1)
    weight = row_weight(len(rows), reduction)
    spread = 0.5 * np.expm1(logvar_q - logvar_p)
    grads = (pull, spread, -pull, -(spread + 0.5 * scaled * scaled))
    return reduce_rows(rows, reduction), tuple(weight * g for g in grads)


def forward(tril, b):
    """tril^-1 b of each sample, row by row: what overflows is infinite then, and not NaN."""
    solved = b[:, :0]
    for i in range(b.shape[1]):
        known = (tril[:, i, :i, None] * solved).sum(axis=1)
        row = (b[:, i] - known) / tril[:, i, i, None]
        solved = np.concatenate([solved, row[:, None]], axis=1)
    return solved


def kl_full_normal(mu_q, tril_q, mu_p, tril_p, *, reduction="mean"):
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), tril the Cholesky factors.

    = (trace(S_p^-1 S_q) + (mu_q - mu_p)^T S_p^-1 (mu_q - mu_p) - L + log det S_p - log det S_q) / 2

    Examples
    --------
    >>> tril_p = np.linalg.cholesky([[1.0, 0.2], [0.2, 1.0]])
    >>> round(kl_full_normal([[1.0, 3.0]], np.eye(2), [[0.0, 0.0]], tril_p), 12)
    4.60458900274
    """
    return kl_full_normal_and_grad(mu_q, tril_q, mu_p, tril_p, reduction=reduction)[0]


@quiet
@of_any_axes
def kl_full_normal_and_grad(mu_q, tril_q, mu_p, tril_p, *, reduction="mean"):
    """(kl, (mu_q, tril_q, mu_p, tril_p)); that of a factor shared by the batch is summed over it.

    Examples
    --------
    >>> kl_full_normal_and_grad([[3.0]], [[1.0]], [[1.0]], [[1.0]])[1]
    (array([[2.]]), array([[0.]]), array([[-2.]]), array([[-4.]]))
    """
    mu_q, tril_q, mu_p, tril_p = as_float64(mu_q, tril_q, mu_p, tril_p)
    d = (mu_q - mu_p)[..., None]
    batch = (len(mu_q), *tril_q.shape[-2:])
    q, p = (np.broadcast_to(np.tril(tril), batch) for tril in (tril_q, tril_p))
    eye = np.eye(batch[-1])
    ratio, scaled = forward(p, q), forward(p, d)
    back = forward(p, np.broadcast_to(eye, batch)).swapaxes(1, 2)
    of_q, of_p = (np.diagonal(tril, axis1=1, axis2=2) for tril in (q, p))
    weight = row_weight(len(mu_q), reduction)
    spread = exp_minus_one_minus(2 * np.log(of_q / of_p)).sum(axis=1)
    spread = spread + (np.tril(ratio, -1) ** 2).sum(axis=(1, 2))
    rows = 0.5 * (spread + (scaled**2).sum(axis=(1, 2)))
    by_mu = weight * (back @ scaled)[..., 0]
    by_tril_q = weight * np.tril(back @ ratio - eye / of_q[..., None])
    moment = ratio @ ratio.swapaxes(1, 2) + scaled @ scaled.swapaxes(1, 2)
    by_tril_p = weight * np.tril(eye / of_p[..., None] - back @ moment)
    by_tril_q = by_tril_q if tril_q.ndim == 3 else by_tril_q.sum(axis=0)
    by_tril_p = by_tril_p if tril_p.ndim == 3 else by_tril_p.sum(axis=0)
    return reduce_rows(rows, reduction), (by_mu, by_tril_q, -by_mu, by_tril_p)
