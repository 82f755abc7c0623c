"""Samples of q(z|x), and their log density."""

import numpy as np

from fastelbo.reference._common import (
    LOG_2PI,
    as_float64,
    quiet,
    reduce_rows,
    row_weight,
    scaled_twice,
)
from fastelbo.reference.divergences import kl_standard_normal
from fastelbo.reference.noise import noise_of


@quiet
def reparameterize(mu, logvar, *, rng=None, noise=None, samples=None):
    """z = mu + exp(logvar / 2) noise (Kingma & Welling 2014).

    (B, L), or (K, B, L) with ``samples=K``. Element i of the flattened z takes normal i of the key.

    Examples
    --------
    >>> reparameterize([[1.0]], [[0.0]], noise=[[2.0]])
    array([[3.]])
    """
    shape = np.shape(mu) if samples is None else (samples, *np.shape(mu))
    eps = noise_of(noise, rng, shape, mu, logvar)
    mu, logvar = as_float64(mu, logvar)
    return mu + np.exp(0.5 * logvar) * eps


def reparameterize_kl(
    mu, logvar, *, rng=None, noise=None, samples=None, free_bits=0.0, reduction="mean"
):
    """(z, kl): :func:`reparameterize` and :func:`kl_standard_normal`.

    Examples
    --------
    >>> reparameterize_kl([[1.0]], [[0.0]], noise=[[2.0]])
    (array([[3.]]), 0.5)
    """
    z = reparameterize(mu, logvar, rng=rng, noise=noise, samples=samples)
    return z, kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)


@quiet
def reparameterize_backward(grad_z, mu, logvar, z, *, kl_weight=0.0, noise=None, rng=None):
    """(mu, logvar): the gradients of f(z(mu, logvar)) - sum(kl_weight KL), given df/dz.

    sigma noise is z - mu, unless the noise or its key is given; then ``z`` is not read.
    ``kl_weight`` is a number or (L,).

    Examples
    --------
    >>> reparameterize_backward([[1.0]], [[1.0]], [[0.0]], [[3.0]], kl_weight=1.0)
    (array([[0.]]), array([[1.]]))
    """
    eps = None
    if noise is not None or rng is not None:
        eps = noise_of(noise, rng, np.shape(grad_z), mu, logvar)
    mu, logvar, grad_z, kl_weight = as_float64(mu, logvar, grad_z, kl_weight)
    step = as_float64(z) - mu if eps is None else np.exp(0.5 * logvar) * eps
    samples = tuple(range(grad_z.ndim - 2))  # the leading axis, if there is one
    return (
        grad_z.sum(axis=samples) - kl_weight * mu,
        0.5 * (grad_z * step).sum(axis=samples) - kl_weight * 0.5 * np.expm1(logvar),
    )


def posterior_log_prob(z, mu, logvar, *, reduction="mean"):
    """log N(z; mu, e^logvar) of points z (B, L), or (K, B, L) for K of each.

    Examples
    --------
    >>> round(posterior_log_prob([[1.0]], [[0.0]], [[0.0]]), 6)
    -1.418939
    """
    return posterior_log_prob_and_grad(z, mu, logvar, reduction=reduction)[0]


@quiet
def posterior_log_prob_and_grad(z, mu, logvar, *, reduction="mean"):
    """(value, (z, mu, logvar)).

    Examples
    --------
    >>> posterior_log_prob_and_grad([[2.0]], [[0.0]], [[0.0]])[1]
    (array([[-2.]]), array([[2.]]), array([[1.5]]))
    """
    z, mu, logvar = as_float64(z, mu, logvar)
    scaled, pull = scaled_twice(z - mu, logvar)
    square = scaled * scaled
    log_p = -0.5 * (square + logvar + LOG_2PI)
    rows = np.where(square == np.inf, -np.inf, log_p).sum(axis=-1)  # logvar may be -inf
    weight = row_weight(rows.size, reduction)
    samples = tuple(range(z.ndim - 2))  # the leading axis, if there is one
    gradients = (
        -weight * pull,
        weight * pull.sum(axis=samples),
        weight * 0.5 * (square - 1.0).sum(axis=samples),
    )
    return reduce_rows(rows, reduction), gradients
