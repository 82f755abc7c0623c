"""The best posterior of each x by itself, and what an encoder's lacks.

A decoder is a function of z (N, L) that returns its outputs and their way back,
``pullback(*gradients) -> gradient of z``.
"""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows
from fastelbo.reference.divergences import kl_standard_normal_and_grad
from fastelbo.reference.likelihoods import SquaredError

#: What a step must gain of what its slope promises, and what it must promise of the ELBO.
ENOUGH, ROUNDING = 0.25, 1e-15
#: As far as a mean, and a log variance, may go at once.
MOST = (np.inf, 2.0)


def balanced(latent_dim):
    """Noise (2 L, 1, L) of mean 0 and covariance I: of what is quadratic in z the mean is exact."""
    half = np.sqrt(latent_dim) * np.eye(latent_dim)
    return np.concatenate([half, -half])[:, None]


def elbo_on_draws(decoder, x, mu, logvar, noise, likelihood, prior, beta, mask):
    """(the ELBO of each x, its gradients by mu and logvar), on noise (K, B or 1, L)."""
    spread = np.exp(0.5 * logvar) * noise
    z = mu + spread
    outputs, pullback = decoder(z.reshape(-1, z.shape[-1]))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs = tuple(as_float64(a).reshape(*z.shape[:2], *a.shape[1:]) for a in outputs)
    log_p, by_outputs = likelihood.log_prob_and_grad(x, *outputs, mask=mask, reduction="none")
    by_z = pullback(*(g.reshape(-1, *g.shape[2:]) for g in by_outputs)).reshape(z.shape)
    if prior is None:
        kl, (by_mu, by_logvar) = kl_standard_normal_and_grad(mu, logvar, reduction="none")
    else:
        log_prior, of_prior = prior.log_prob_and_grad(z)
        kl = -0.5 * (logvar + 1 + LOG_2PI).sum(axis=1) - log_prior.mean(axis=0)
        by_z, by_mu, by_logvar = by_z + beta * of_prior, np.zeros_like(mu), -0.5
    by_mu = by_z.mean(axis=0) - beta * by_mu
    by_logvar = 0.5 * (by_z * spread).mean(axis=0) - beta * by_logvar
    return log_p.mean(axis=0) - beta * kl, (by_mu, by_logvar)


@quiet
def refine_posterior(
    decoder,
    x,
    mu=None,
    logvar=None,
    *,
    likelihood=None,
    prior=None,
    beta=1.0,
    mask=None,
    steps=50,
    learning_rate=1.0,
    tolerance=1e-13,
    samples=None,
    rng=None,
    noise=None,
):
    """(mu, logvar, elbo, steps, converged) of the q(z|x) of highest ELBO on fixed noise.

    By gradient ascent of each row for itself: a step that gains too little is halved, and the next
    of one that does not is twice as long. It goes on until none promises anything, unless `steps`
    is 0: how the search is to be made (`learning_rate`, `tolerance`) changes nothing of what is
    searched for. Draws that are not given are balanced, whatever `samples` and `rng`.

    Examples
    --------
    x = 2 z + noise of variance 1: the posterior is N(2, 1/5), and the ELBO log N(5; 0, 5).

    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> from fastelbo.reference import Gaussian
    >>> found = refine_posterior(decoder, [[5.0]], [[0.0]], [[0.0]], likelihood=Gaussian(1.0))
    >>> found[0].round(6), np.exp(found[1]).round(6), found[2].round(6)
    (array([[2.]]), array([[0.2]]), array([-4.223657]))
    """
    x, mu, logvar = as_float64(x, mu, logvar)
    noise = balanced(mu.shape[1]) if noise is None else as_float64(noise)
    problem = (noise, SquaredError() if likelihood is None else likelihood, prior, beta, mask)
    elbo, slopes = elbo_on_draws(decoder, x, mu, logvar, *problem)
    length, taken = np.ones((len(mu), 1)), np.zeros(len(mu), int)
    climbing = np.full(len(mu), steps > 0)
    bends = beta if beta > ROUNDING else 1.0  # a KL that rounding hides bends nothing
    while climbing.any():
        metric = np.exp(logvar), 2.0  # the inverse of q's Fisher information
        moves = tuple(
            np.clip(length * scale * slope / bends, -most, most)
            for scale, slope, most in zip(metric, slopes, MOST, strict=True)
        )
        promised = sum(
            (slope * move).sum(axis=1) for slope, move in zip(slopes, moves, strict=True)
        )
        climbing = climbing & (promised > ROUNDING * np.abs(elbo))
        trial = mu + moves[0], logvar + moves[1]
        value, new = elbo_on_draws(decoder, x, *trial, *problem)
        up = climbing & (value - elbo >= ENOUGH * promised)
        mu, logvar, *slopes = (
            np.where(up[:, None], *pair)
            for pair in zip((*trial, *new), (mu, logvar, *slopes), strict=True)
        )
        elbo, taken = np.where(up, value, elbo), taken + climbing
        length = np.where(up[:, None], 2 * length, 0.5 * length)
    return mu, logvar, elbo, taken, np.full(len(mu), steps > 0)


def amortization_gap(
    decoder,
    x,
    mu=None,
    logvar=None,
    *,
    likelihood=None,
    prior=None,
    beta=1.0,
    mask=None,
    steps=50,
    learning_rate=1.0,
    tolerance=1e-13,
    samples=None,
    rng=None,
    reduction="mean",
):
    """The ELBO of the best q(z|x) less that of (mu, logvar), on balanced draws.

    Examples
    --------
    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> from fastelbo.reference import Gaussian
    >>> round(amortization_gap(decoder, [[5.0]], [[2.0]], [[0.0]], likelihood=Gaussian(1.0)), 6)
    1.195281
    """
    options = {"likelihood": likelihood, "prior": prior, "beta": beta, "mask": mask}
    best, start = (
        refine_posterior(decoder, x, mu, logvar, steps=most, **options)[2] for most in (steps, 0)
    )
    return reduce_rows(best - start, reduction)


def generalization_gap(
    decoder,
    train,
    test,
    *,
    likelihood=None,
    prior=None,
    beta=1.0,
    steps=50,
    learning_rate=1.0,
    tolerance=1e-13,
    samples=None,
    rng=None,
):
    """(train, test, test - train): mean amortization gaps of two sets of (x, mu, logvar).

    Examples
    --------
    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> from fastelbo.reference import Gaussian
    >>> posterior = ([[5.0]], [[2.0]], np.log([[0.2]])), ([[0.0]], [[1.0]], np.log([[0.2]]))
    >>> generalization_gap(decoder, *posterior, likelihood=Gaussian(1.0))
    (0.0, 2.5, 2.5)
    """
    options = {"likelihood": likelihood, "prior": prior, "beta": beta, "steps": steps}
    train, test = (amortization_gap(decoder, *data, **options) for data in (train, test))
    return train, test, test - train
