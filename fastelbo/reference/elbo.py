"""The evidence lower bound."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, dense, reduce_rows, row_weight, weighed
from fastelbo.reference.divergences import kl_standard_normal_and_grad
from fastelbo.reference.likelihoods import SquaredError
from fastelbo.reference.noise import noise_of
from fastelbo.reference.posterior import reparameterize


def elbo(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    prior=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    mask=None,
    reduction="mean",
):
    """(elbo, reconstruction, kl, z), with elbo = reconstruction - beta kl.

    ``likelihood`` is one of this module's, :class:`SquaredError` unless given. z is None unless
    ``rng`` or ``noise`` is given. Of a ``prior`` with ``log_prob_and_grad(z)`` the KL is
    log q(z|x) - log p(z) for that z, and its gradient goes through it. A likelihood of several
    parameters takes a tuple as ``x_recon``.

    Examples
    --------
    >>> elbo([[1.0]], [[1.0]], [[0.0]], [[0.5]], beta=2.0)
    (-1.25, -0.25, 0.5, None)
    """
    return elbo_and_grad(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        prior=prior,
        beta=beta,
        free_bits=free_bits,
        rng=rng,
        noise=noise,
        mask=mask,
        reduction=reduction,
    )[0]


def elbo_and_grad(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    prior=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    mask=None,
    reduction="mean",
):
    """(what :func:`elbo` returns, (mu, logvar, x_recon)).

    The gradients hold z and x_recon apart: none flows from x_recon through z to mu and logvar.

    Examples
    --------
    >>> elbo_and_grad([[1.0]], [[1.0]], [[0.0]], [[0.5]])[1]
    (array([[-1.]]), array([[-0.]]), array([[1.]]))
    """
    likelihood = SquaredError() if likelihood is None else likelihood
    x, several = dense(x), isinstance(x_recon, tuple)
    parameters = x_recon if several else (x_recon,)
    reconstruction, grads = likelihood.log_prob_and_grad(
        x, *parameters, mask=mask, reduction=reduction
    )
    kl, (dmu, dlogvar) = kl_standard_normal_and_grad(
        mu, logvar, free_bits=free_bits, reduction=reduction
    )
    z = None
    if rng is not None or noise is not None:
        floats = [mu, logvar, *parameters]
        if np.asarray(x).dtype.kind == "f":  # integer data is read as such and decides nothing
            floats.append(x)
        z = reparameterize(mu, logvar, noise=noise_of(noise, rng, np.shape(mu), *floats))
    if prior is not None:
        mu, logvar = as_float64(mu, logvar)
        log_prior, by_z = prior.log_prob_and_grad(z)
        log_q = -0.5 * ((z - mu) ** 2 * np.exp(-logvar) + logvar + LOG_2PI).sum(axis=1)
        kl = reduce_rows(log_q - log_prior, reduction)
        weight = row_weight(len(mu), reduction)
        dmu = -weight * by_z
        dlogvar = -weight * (by_z * 0.5 * (z - mu) + 0.5)
    result = (reconstruction - weighed(beta, kl), reconstruction, kl, z)
    of_kl = (weighed(-beta, gradient) for gradient in (dmu, dlogvar))
    return result, (*of_kl, grads if several else grads[0])


def elbo_from_buffers(
    x,
    mu,
    logvar,
    x_recon,
    batch_size,
    input_dim,
    latent_dim,
    *,
    dtype=None,
    x_dtype=None,
    **options,
):
    """:func:`elbo` of flat memory: bytes, array.array, mmap or memoryview.

    ``dtype`` (for x alone, ``x_dtype``) is what raw bytes hold; other buffers say so themselves.

    Examples
    --------
    >>> from array import array
    >>> one, half, zero = (array("d", [v]) for v in (1.0, 0.5, 0.0))
    >>> elbo_from_buffers(one, one, zero, half, 1, 1, 1)
    (-0.75, -0.25, 0.5, None)
    """

    def rows(buffer, size, dtype):
        view = memoryview(buffer)
        held = dtype if view.format in ("B", "b", "c") else view.format
        return np.frombuffer(view, held).reshape(batch_size, size)

    return elbo(
        rows(x, input_dim, x_dtype or dtype),
        rows(mu, latent_dim, dtype),
        rows(logvar, latent_dim, dtype),
        rows(x_recon, input_dim, dtype),
        **options,
    )
