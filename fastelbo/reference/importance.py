"""Importance weights of K samples, and their bound."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows, row_weight
from fastelbo.reference.bounds import importance_bound, importance_bound_and_grad
from fastelbo.reference.likelihoods import SquaredError, sum_to


def log_weights(x, z, mu, logvar, x_recon, *, likelihood=None, prior=None, mask=None):
    """log p(x|z) + log p(z) - log q(z|x), (K, B), of z (K, B, L) and x_recon (K, B, ...).

    ``prior`` has a method ``log_prob(z)`` giving (K, B); None is the standard normal.

    Examples
    --------
    >>> log_weights([[1.0]], [[[0.5]]], [[0.0]], [[0.0]], [[[0.0]]])
    array([[-1.]])
    """
    return _log_weights_and_grad(x, z, mu, logvar, x_recon, likelihood, prior, mask)[0]


@quiet
def _log_weights_and_grad(x, z, mu, logvar, x_recon, likelihood, prior, mask, with_gradient=False):
    """(log_w, its derivatives by z, mu, logvar (K, B, L) and each of the decoder's outputs)."""
    likelihood = SquaredError() if likelihood is None else likelihood
    parameters = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    x, z, mu, logvar = as_float64(x, z, mu, logvar)
    full = np.shape(parameters[0])  # the others may be broadcast, but not their gradients
    log_p, by_outputs = likelihood.log_prob_and_grad(
        x, *(np.broadcast_to(p, full) for p in parameters), mask=mask, reduction="none"
    )
    pull = (z - mu) * np.exp(-logvar)
    log_q = -0.5 * ((z - mu) * pull + logvar + LOG_2PI).sum(axis=2)
    if prior is None:
        log_prior, by_prior = -0.5 * (z * z + LOG_2PI).sum(axis=2), -z
    elif with_gradient:
        log_prior, by_prior = prior.log_prob_and_grad(z)
    else:
        log_prior, by_prior = prior.log_prob(z), 0.0
    by_logvar = 0.5 * (1.0 - (z - mu) * pull)
    return log_p + log_prior - log_q, (pull + by_prior, -pull, by_logvar, by_outputs)


def iwae(x, z, mu, logvar, x_recon, *, likelihood=None, prior=None, mask=None, reduction="mean"):
    """L_K = log (1/K) sum_k w_k (Burda et al. 2016).

    Examples
    --------
    >>> iwae([[1.0]], [[[0.5]], [[0.5]]], [[0.0]], [[0.0]], [[[0.0]], [[0.0]]])
    -1.0
    """
    log_w = log_weights(x, z, mu, logvar, x_recon, likelihood=likelihood, prior=prior, mask=mask)
    return importance_bound(log_w, reduction=reduction)


def iwae_and_grad(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    prior=None,
    mask=None,
    estimator="standard",
    reduction="mean",
):
    """(bound, (z, mu, logvar, x_recon, weights)), z, mu, logvar and x_recon being held apart.

    With w~ the normalised weights: "standard" is sum_k w~_k d log w_k. "stl" (Roeder et al. 2017)
    is that without what comes through the parameters of q. "dreg" (Tucker et al. 2019) is the
    latter with w~^2 for z, so for all that flows to the encoder: what comes back through the
    decoder, whose own parameters want w~, the caller multiplies by ``weights``.

    Examples
    --------
    >>> x, mu, logvar, z = [[1.0]], [[0.0]], [[0.0]], [[[0.5]], [[0.5]]]
    >>> iwae_and_grad(x, z, mu, logvar, [[[0.0]], [[0.0]]])[1][3].ravel()
    array([1., 1.])
    """
    log_w, (by_z, by_mu, by_logvar, by_outputs) = _log_weights_and_grad(
        x, z, mu, logvar, x_recon, likelihood, prior, mask, True
    )
    bound, (weights,) = importance_bound_and_grad(log_w, reduction="none")
    w = row_weight(log_w.shape[1], reduction) * weights
    with np.errstate(all="ignore"):
        dz = (w * (weights if estimator == "dreg" else 1.0))[:, :, None] * by_z
        dmu, dlogvar = (np.sum(w[:, :, None] * g, axis=0) for g in (by_mu, by_logvar))
        outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
        outputs = tuple(
            sum_to(w.reshape(w.shape + (1,) * (g.ndim - 2)) * g, np.shape(p))
            for g, p in zip(by_outputs, outputs, strict=True)
        )
    if estimator != "standard":
        dmu, dlogvar = np.zeros_like(dmu), np.zeros_like(dlogvar)
    x_recon = outputs if isinstance(x_recon, tuple) else outputs[0]
    return reduce_rows(bound, reduction), (dz, dmu, dlogvar, x_recon, weights)
