"""What the tests of importance weights share: inputs, sizes, a model of known evidence."""

import tracemalloc

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import VARIANTS
from fastelbo._catalogue.importance import log_weight_terms


def likelihoods(name):
    """(fastelbo's, the reference's)."""
    return VARIANTS[name].make(fastelbo), VARIANTS[name].make(reference)


def outputs_of(name):
    """The number of decoder outputs."""
    return len(VARIANTS[name].parameters)


def magnitudes(x, z, mu, logvar, x_recon, name):
    """The sum of the absolute values of what makes up a log weight, (K, B)."""
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    arrays = (np.asarray(a, np.float64) for a in (x, z, mu, logvar, *outputs))
    return log_weight_terms(VARIANTS[name], *arrays)


def draw(dtype, samples=4, batch=5, event=(7,), latent=3, outputs=1, seed=0):
    """(x, z, mu, logvar, x_recon), x in [0, 1] and z drawn from q."""
    rng = np.random.default_rng(seed)
    mu, logvar = rng.normal(size=(2, batch, latent))
    z = mu + np.exp(0.5 * logvar) * rng.normal(size=(samples, batch, latent))
    x = rng.uniform(size=(batch, *event)).astype(dtype)
    recon = tuple(a.astype(dtype) for a in rng.normal(size=(outputs, samples, batch, *event)))
    arrays = (x, *(a.astype(dtype) for a in (z, mu, logvar)))
    return (*arrays, recon if outputs > 1 else recon[0])


class StandardNormal:
    """The default prior, as one that a caller brings along."""

    def log_prob(self, z):
        z = np.asarray(z, np.float64)
        return -0.5 * (z * z + reference.LOG_2PI).sum(axis=-1)

    def log_prob_and_grad(self, z):
        return self.log_prob(z), -np.asarray(z, np.float64)


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(z a + c, s^2) for each feature: posterior and evidence are known.

    Each of `features` depends on a latent of its own, so that the posterior is diagonal.
    """

    def __init__(self, batch=6, features=4, scale=0.7, seed=0):
        rng = np.random.default_rng(seed)
        self.slope, self.shift = rng.normal(size=(2, features))
        self.scale = scale
        self.x = rng.normal(size=(batch, features)) * 2
        variance = 1 / (1 + self.slope**2 / scale**2)
        self.mu = variance * self.slope * (self.x - self.shift) / scale**2
        self.logvar = np.broadcast_to(np.log(variance), self.mu.shape).copy()
        evidence = self.slope**2 + scale**2
        error = (self.x - self.shift) ** 2 / evidence
        self.log_evidence = -0.5 * (error + np.log(2 * np.pi * evidence)).sum(axis=1)
        self.likelihood = fastelbo.Gaussian(scale)

    def decode(self, z):
        return z * self.slope + self.shift

    def wrong(self, by=0.3):
        """(mu, logvar) of a posterior that is not the right one."""
        return self.mu + by, self.logvar + by

    def sample(self, mu, logvar, samples, seed):
        eps = np.random.default_rng(seed).normal(size=(samples, *mu.shape))
        return mu + np.exp(0.5 * logvar) * eps


def peak_of(f):
    """Bytes that NumPy and Python allocate at most during f()."""
    f()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = f()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    del result
    return peak
