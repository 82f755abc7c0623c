"""Scores of rows by a fitted network, each a function of its row alone, and what rows lack.

All rows have the same noise, and to be scored each goes through the networks by itself, in
products of one shape: not even the last bit of a score depends on the rows around it.
"""

import numpy as np

from fastelbo import _threads
from fastelbo._draws import balanced_noise
from fastelbo._network import CHUNK
from fastelbo._trained import chunks
from fastelbo.divergences import kl_standard_normal
from fastelbo.importance import log_weights
from fastelbo.posterior import (
    noise_key,
    posterior_log_prob,
    reparameterize,
    reparameterize_kl,
)
from fastelbo.streaming import StreamingBound

#: Draws of z that an ELBO is averaged over.
DRAWS = 64
#: Rows whose missing values are filled in at once.
IMPUTED_AT_ONCE = 256


def elbo_parts(network, likelihood, X, key, refined, num_threads):
    """E_q[log p(x|z)] and KL of each row, in nats."""
    reconstruction, kl = np.empty((2, len(X)))
    noise = balanced_noise(key, DRAWS, network.latent_dim, X.dtype)
    prior = network.prior(num_threads)
    for i, (x, mu, logvar) in enumerate(_rows(network, X, refined, key, num_threads)):
        z = reparameterize(mu, logvar, noise=noise, samples=DRAWS, num_threads=num_threads)
        outputs = _decoded(network, z, x, num_threads)
        x = network.scored(x)
        reconstruction[i] = likelihood.log_prob(x, *outputs, num_threads=num_threads)
        if prior is None:
            kl[i] = kl_standard_normal(mu, logvar, num_threads=num_threads)
        else:
            log_q = posterior_log_prob(z, mu, logvar, num_threads=num_threads)
            kl[i] = log_q - prior.log_prob(z, num_threads=num_threads).mean()
    return reconstruction, kl


def held_out_parts(network, likelihood, X, key, free_bits, refined, num_threads):
    """The means over rows of E_q[log p(x|z)] and KL, each by one z that is always the same."""
    found, noise = np.zeros(2), np.random.default_rng(key)
    prior = network.prior(num_threads)
    for rows in chunks(len(X)):
        x, key = X[rows], noise_key(noise)
        mu, logvar = refined(x, *network.encode(x, num_threads), key)
        z, kl = reparameterize_kl(mu, logvar, rng=key, free_bits=free_bits, num_threads=num_threads)
        if prior is not None:
            kl = posterior_log_prob(z, mu, logvar, num_threads=num_threads)
            kl -= prior.log_prob(z, num_threads=num_threads).mean()
        outputs = network.decode(z, num_threads, x)
        value = likelihood.log_prob(network.scored(x), *outputs, num_threads=num_threads)
        found += np.array([value, kl]) * (len(x) / len(X))
    return found.tolist()


def importance_bounds(network, likelihood, X, samples, rng, refined, num_threads):
    """The importance-weighted bound of each row, its draws being weighed CHUNK at a time."""
    bounds = np.empty(len(X))
    sizes = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    keys = [noise_key(rng) for _ in sizes]
    prior = network.prior(num_threads)
    for i, (x, mu, logvar) in enumerate(_rows(network, X, refined, keys[0], num_threads)):
        stream = StreamingBound(num_threads=num_threads)
        for key, size in zip(keys, sizes, strict=True):
            z = reparameterize(mu, logvar, rng=key, samples=size, num_threads=num_threads)
            outputs = _decoded(network, z, x, num_threads)
            with _threads.num_threads(num_threads):
                log_w = log_weights(
                    network.scored(x),
                    z,
                    mu,
                    logvar,
                    outputs if len(outputs) > 1 else outputs[0],
                    likelihood=likelihood,
                    prior=prior,
                )
            stream.update(log_w)
        bounds[i] = stream.bound()
    return bounds


def imputed(network, likelihood, X, samples, key, refined, num_threads):
    """The mean of x by draws of each row's posterior, (N, D); many rows at once, the same noise."""
    means = np.empty(X.shape, X.dtype)
    noise = balanced_noise(key, samples, network.latent_dim, X.dtype)
    for start in range(0, len(X), IMPUTED_AT_ONCE):
        x = X[start : start + IMPUTED_AT_ONCE]
        mu, logvar = refined(x, *network.encode(x, num_threads), key)
        own = np.ascontiguousarray(np.broadcast_to(noise, (samples, *mu.shape)))
        z = reparameterize(mu, logvar, noise=own, samples=samples, num_threads=num_threads)
        outputs = network.decode(z.reshape(-1, z.shape[-1]), num_threads)
        with _threads.num_threads(num_threads):
            found = likelihood._predicted([a.reshape(*z.shape[:2], -1) for a in outputs])
        means[start : start + IMPUTED_AT_ONCE] = found
    return means


def _rows(network, X, refined, key, num_threads):
    """(x, mu, logvar) of each row, as matrices of one row; `refined` has the last word on them."""
    for rows in chunks(len(X)):
        several = X[rows]
        for i in range(len(several)):
            x = several[i : i + 1]
            yield x, *refined(x, *network.encode(x, num_threads), key)


def _decoded(network, z, x, num_threads):
    """The likelihood's parameters (K, 1, D), or (D,), for draws z (K, 1, L) of one row x."""
    outputs = network.decode(z[:, 0], num_threads, x)
    return tuple(a[:, None] if a.ndim > 1 else a for a in outputs)
