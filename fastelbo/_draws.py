"""Draws of the standard normal that are balanced: few stand for many."""

import numpy as np

from fastelbo.posterior import reparameterize


def balanced_noise(key, samples, latent_dim, dtype):
    """Noise (samples, 1, L) whose mean, covariance and third moments are those of the normal.

    Of a smooth function the average is then far closer than that of as many independent draws:
    the pairs +e and -e cancel what is odd, and what is quadratic comes out exactly, as the
    nearest matrix with orthonormal columns takes the place of the draws. Where there are more
    dimensions than pairs, it is the rows that are orthogonal. `samples` is even.
    """
    zeros = np.zeros((1, latent_dim))
    half = reparameterize(zeros, zeros, rng=key, samples=samples // 2)[:, 0]
    left, _, right = np.linalg.svd(half, full_matrices=False)
    half = np.sqrt(max(half.shape)) * (left @ right)
    return np.concatenate([half, -half])[:, None].astype(dtype)
