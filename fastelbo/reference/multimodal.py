"""Several modalities with one latent code; dicts by name, as in the public functions."""

import numpy as np

from fastelbo.reference._common import as_float64, reduce_rows, row_weight, weighed
from fastelbo.reference.divergences import kl_standard_normal_and_grad


def multimodal_elbo(
    modalities,
    mu,
    logvar,
    mask=None,
    *,
    present=None,
    weights=None,
    beta=1.0,
    reduction="mean",
):
    """(elbo, {name: reconstruction}, kl).

    Examples
    --------
    >>> from fastelbo.reference import SquaredError
    >>> multimodal_elbo({"a": ([[1.0]], SquaredError(), [[0.5]])}, [[1.0]], [[0.0]])
    (-0.75, {'a': -0.25}, 0.5)
    """
    return multimodal_elbo_and_grad(
        modalities,
        mu,
        logvar,
        mask,
        present=present,
        weights=weights,
        beta=beta,
        reduction=reduction,
    )[0]


def multimodal_elbo_and_grad(
    modalities,
    mu,
    logvar,
    mask=None,
    *,
    present=None,
    weights=None,
    beta=1.0,
    reduction="mean",
):
    """(what :func:`multimodal_elbo` returns, (mu, logvar, {name: x_recon})).

    Examples
    --------
    >>> from fastelbo.reference import SquaredError
    >>> modalities = {"a": ([[1.0]], SquaredError(), [[0.5]])}
    >>> multimodal_elbo_and_grad(modalities, [[1.0]], [[0.0]])[1]
    (array([[-1.]]), array([[-0.]]), {'a': array([[1.]])})
    """
    mu, logvar = as_float64(mu, logvar)
    batch = mu.shape[-2]
    counts = np.ones((len(mu) if mu.ndim == 3 else 1, batch), bool)
    counts = counts if mask is None else np.asarray(mask)
    shares = (counts / counts.sum(axis=0))[..., None]
    bound, values, gradients = 0.0, {}, {}
    for name, (x, likelihood, *outputs) in modalities.items():
        seen, weight = (present or {}).get(name), (weights or {}).get(name, 1.0)
        if np.shape(seen) == (batch,):
            seen = np.reshape(seen, (batch,) + (1,) * (np.ndim(x) - 1))
        values[name], slopes = likelihood.log_prob_and_grad(
            x, *outputs, mask=seen, reduction=reduction
        )
        slopes = tuple(weight * slope for slope in slopes)
        gradients[name] = slopes if len(slopes) > 1 else slopes[0]
        bound = bound + weight * values[name]
    by_component = [a.reshape(*counts.shape, -1) for a in (mu, logvar)]
    by_component = [np.where(counts[..., None], a, 0.0) for a in by_component]
    rows = np.zeros(batch)
    slopes = np.zeros((2, *by_component[0].shape))
    for s, (m, v) in enumerate(zip(*by_component, strict=True)):
        kl, (d_mu, d_logvar) = kl_standard_normal_and_grad(m, v, reduction="none")
        rows = rows + shares[s, :, 0] * kl
        slopes[:, s] = shares[s] * d_mu, shares[s] * d_logvar
    kl = reduce_rows(rows, reduction)
    d_mu, d_logvar = weighed(-beta * row_weight(batch, reduction), slopes.reshape(2, *mu.shape))
    return (bound - weighed(beta, kl), values, kl), (d_mu, d_logvar, gradients)
