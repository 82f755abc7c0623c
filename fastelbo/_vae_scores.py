"""Scores of rows by a fitted network, each a function of its row alone.

All rows have the same noise, and each goes through the networks by itself, in products of one
shape: not even the last bit of a score depends on the rows around it.
"""

import numpy as np

from fastelbo import _threads
from fastelbo._network import CHUNK
from fastelbo.divergences import kl_standard_normal
from fastelbo.importance import log_weights
from fastelbo.locations import Gaussian
from fastelbo.posterior import noise_key, reparameterize
from fastelbo.streaming import StreamingBound

_LOG_Q = Gaussian("learned").log_prob

#: Draws of z that an ELBO is averaged over.
DRAWS = 64


def balanced_noise(key, latent_dim, dtype):
    """Noise (DRAWS, 1, L) whose mean, covariance and third moments are those of the normal.

    Of a smooth function the average is then far closer than that of as many independent draws:
    the pairs +e and -e cancel what is odd, and what is quadratic comes out exactly, as the
    nearest matrix with orthonormal columns takes the place of the draws. Where there are more
    dimensions than pairs, it is the rows that are orthogonal.
    """
    zeros = np.zeros((1, latent_dim))
    half = reparameterize(zeros, zeros, rng=key, samples=DRAWS // 2)[:, 0]
    left, _, right = np.linalg.svd(half, full_matrices=False)
    half = np.sqrt(max(half.shape)) * (left @ right)
    return np.concatenate([half, -half])[:, None].astype(dtype)


def elbo_parts(network, likelihood, X, key, num_threads):
    """E_q[log p(x|z)] and KL of each row, in nats."""
    reconstruction, kl = np.empty((2, len(X)))
    noise = balanced_noise(key, network.latent_dim, X.dtype)
    prior = network.prior(num_threads)
    for i, (x, mu, logvar) in enumerate(_rows(network, X, num_threads)):
        z = reparameterize(mu, logvar, noise=noise, samples=DRAWS, num_threads=num_threads)
        outputs = _decoded(network, z, num_threads)
        reconstruction[i] = likelihood.log_prob(x, *outputs, num_threads=num_threads)
        if prior is None:
            kl[i] = kl_standard_normal(mu, logvar, num_threads=num_threads)
        else:
            z = z[:, 0]
            log_q = _LOG_Q(z, np.broadcast_to(mu, z.shape), 0.5 * logvar, num_threads=num_threads)
            kl[i] = log_q - prior.log_prob(z, num_threads=num_threads).mean()
    return reconstruction, kl


def importance_bounds(network, likelihood, X, samples, rng, num_threads):
    """The importance-weighted bound of each row, its draws being weighed CHUNK at a time."""
    bounds = np.empty(len(X))
    sizes = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    keys = [noise_key(rng) for _ in sizes]
    prior = network.prior(num_threads)
    for i, (x, mu, logvar) in enumerate(_rows(network, X, num_threads)):
        stream = StreamingBound(num_threads=num_threads)
        for key, size in zip(keys, sizes, strict=True):
            z = reparameterize(mu, logvar, rng=key, samples=size, num_threads=num_threads)
            outputs = _decoded(network, z, num_threads)
            with _threads.num_threads(num_threads):
                log_w = log_weights(
                    x,
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


def _rows(network, X, num_threads):
    """(x, mu, logvar) of each row, as matrices of one row."""
    for i in range(len(X)):
        x = X[i : i + 1]
        yield x, *network.encode(x, num_threads)


def _decoded(network, z, num_threads):
    """The likelihood's parameters (K, 1, D) for draws z (K, 1, L) of one row."""
    return tuple(a[:, None] for a in network.decode(z[:, 0], num_threads))
