"""The aggregate posterior: every sample against every data point, in (B, B, L) arrays."""

import numpy as np

from fastelbo.reference._common import (
    LOG_2PI,
    as_float64,
    quiet,
    reduce_rows,
    row_weight,
    scaled_twice,
)
from fastelbo.reference.likelihoods import SquaredError


def log_normals(z, mu, logvar):
    """log N(z_i; mu_j, e^logvar_j) of every sample, point and dimension, (S, N, L)."""
    scaled, _ = scaled_twice(z[:, None] - mu, logvar)
    return -0.5 * (LOG_2PI + logvar + scaled * scaled)


def log_sum(a):
    """Over axis 1, relative to the largest that is a number: -inf where all are."""
    return log_sum_and_shares(a)[0]


def log_sum_and_shares(a):
    """The same and what each adds to the sum, relative to it: rounding log_sum spoils no share."""
    largest = np.where(np.isnan(a), -np.inf, a).max(axis=1, keepdims=True)
    above = np.where(largest == np.inf, np.where(a == np.inf, 0.0, -np.inf), a - largest)
    e = np.exp(np.where(np.isneginf(largest), a, above))
    total = e.sum(axis=1)
    return np.log(total) + np.where(np.isneginf(largest), 0.0, largest)[:, 0], e / total[:, None]


def importance_weights(batch, dataset_size, method, normalize, mss):
    """log w_ij, (B, B): what point j counts in the density at sample i."""
    if method == "mws":
        return np.full((batch, batch), -np.log(batch * dataset_size) if normalize else 0.0)
    others = batch - 1
    special = (dataset_size - others) / (dataset_size * others)
    i, j = np.indices((batch, batch))
    if mss == "paper":
        own, weighted = j == i, j == (i + 1) % batch
    else:  # strides of B where B + 1 is meant, as published
        own, weighted = j == 0, (j == 1) | ((i == batch - 2) & (j == 0))
    return np.log(np.where(weighted, special, np.where(own, 1 / dataset_size, 1 / others)))


def total_correlation(
    z, mu, logvar, *, dataset_size, method="mws", normalize=True, mss="paper", reduction="mean"
):
    """(mutual information, total correlation, dimension-wise KL).

    The means of log q(z|x) - log q(z), log q(z) - sum_l log q(z_l), sum_l log q(z_l) - log p(z).

    Examples
    --------
    >>> z = mu = [[-3.0, 0.0], [3.0, 0.0]]
    >>> parts = total_correlation(z, mu, [[0.0, 0.0], [0.0, 0.0]], dataset_size=2)
    >>> [round(part, 6) for part in parts]
    [1.386294, 0.693147, 2.420558]
    """
    return total_correlation_and_grad(
        z,
        mu,
        logvar,
        dataset_size=dataset_size,
        method=method,
        normalize=normalize,
        mss=mss,
        reduction=reduction,
    )[0]


@quiet
def total_correlation_and_grad(
    z,
    mu,
    logvar,
    *,
    dataset_size,
    weights=(0.0, 1.0, 0.0),
    method="mws",
    normalize=True,
    mss="paper",
    reduction="mean",
):
    """(what :func:`total_correlation` returns, (z, mu, logvar)).

    Examples
    --------
    >>> z = mu = [[-3.0], [3.0]]
    >>> _, (dz, _, _) = total_correlation_and_grad(
    ...     z, mu, [[0.0], [0.0]], dataset_size=2, weights=(0, 0, 1), reduction="sum"
    ... )
    >>> dz.round(3)
    array([[-3.],
           [ 3.]])
    """
    z, mu, logvar = as_float64(z, mu, logvar)
    batch = len(z)
    log_q = log_normals(z, mu, logvar)
    log_w = importance_weights(batch, dataset_size, method, normalize, mss)
    pairs, marginals = log_q.sum(axis=2) + log_w, log_q + log_w[..., None]
    rows = np.arange(batch)
    own = log_q[rows, rows].sum(axis=1)
    (joint, of_pairs), (marginal, of_marginals) = map(log_sum_and_shares, (pairs, marginals))
    prior = -0.5 * (LOG_2PI + z**2).sum(axis=1)
    product = marginal.sum(axis=1)
    parts = own - joint, joint - product, product - prior

    # The derivative by each log q_ijl, which is all that mu and logvar reach.
    alpha, beta, gamma = (row_weight(batch, reduction) * weight for weight in weights)
    by_log_q = (beta - alpha) * of_pairs[..., None] + (gamma - beta) * of_marginals
    by_log_q = by_log_q + alpha * np.eye(batch)[..., None]
    difference = z[:, None] - mu
    scaled, pull = scaled_twice(difference, logvar)
    none = (by_log_q == 0) & np.isfinite(difference)  # whatever the precision
    of_mu, of_logvar = (
        np.where(none, 0.0, by_log_q * slope) for slope in (pull, scaled * scaled - 1)
    )
    dz = gamma * z - of_mu.sum(axis=1)
    dmu, dlogvar = of_mu.sum(axis=0), 0.5 * of_logvar.sum(axis=0)
    return tuple(reduce_rows(part, reduction) for part in parts), (dz, dmu, dlogvar)


def beta_tcvae_elbo(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    dataset_size,
    likelihood=None,
    alpha=1.0,
    beta=6.0,
    gamma=1.0,
    method="mws",
    normalize=True,
    mss="paper",
    mask=None,
    reduction="mean",
):
    """(elbo, reconstruction, mutual information, total correlation, dimension-wise KL).

    elbo = reconstruction - alpha MI - beta TC - gamma KL_dims.

    Examples
    --------
    >>> z = mu = logvar = [[0.0], [0.0]]
    >>> beta_tcvae_elbo([[1.0], [1.0]], z, mu, logvar, [[0.0], [0.0]], dataset_size=1)[1]
    -1.0
    """
    return beta_tcvae_elbo_and_grad(
        x,
        z,
        mu,
        logvar,
        x_recon,
        dataset_size=dataset_size,
        likelihood=likelihood,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        method=method,
        normalize=normalize,
        mss=mss,
        mask=mask,
        reduction=reduction,
    )[0]


@quiet
def beta_tcvae_elbo_and_grad(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    dataset_size,
    likelihood=None,
    alpha=1.0,
    beta=6.0,
    gamma=1.0,
    method="mws",
    normalize=True,
    mss="paper",
    mask=None,
    reduction="mean",
):
    """(what :func:`beta_tcvae_elbo` returns, (z, mu, logvar, x_recon)).

    Examples
    --------
    >>> z = mu = logvar = [[0.0], [0.0]]
    >>> x, x_recon = [[1.0], [1.0]], [[0.0], [0.0]]
    >>> beta_tcvae_elbo_and_grad(x, z, mu, logvar, x_recon, dataset_size=2)[1][3]
    array([[1.],
           [1.]])
    """
    several = isinstance(x_recon, tuple)
    outputs = x_recon if several else (x_recon,)
    reconstruction, by_outputs = (likelihood or SquaredError()).log_prob_and_grad(
        x, *outputs, mask=mask, reduction=reduction
    )
    parts, gradients = total_correlation_and_grad(
        z,
        mu,
        logvar,
        dataset_size=dataset_size,
        weights=(-alpha, -beta, -gamma),
        method=method,
        normalize=normalize,
        mss=mss,
        reduction=reduction,
    )
    elbo = reconstruction - (alpha * parts[0] + beta * parts[1] + gamma * parts[2])
    by_outputs = by_outputs if several else by_outputs[0]
    return (elbo, reconstruction, *parts), (*gradients, by_outputs)


@quiet
def aggregate_posterior_log_density(z, mu, logvar, *, progress=None):
    """(log q(z), (S,), log q(z_l), (S, L)), q the mean of q(z|x_n) over all N data points.

    Examples
    --------
    >>> aggregate_posterior_log_density([[0.0]], [[-1.0], [1.0]], [[0.0], [0.0]])[0].round(6)
    array([-1.418939])
    """
    z, mu, logvar = as_float64(z, mu, logvar)
    log_q = log_normals(z, mu, logvar)
    if progress is not None:
        progress(len(mu), len(mu))
    return tuple(log_sum(a) - np.log(len(mu)) for a in (log_q.sum(axis=2), log_q))
