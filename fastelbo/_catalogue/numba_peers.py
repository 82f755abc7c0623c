"""What somebody who knows Numba would write: one pass, one prange over rows, no temporaries.

Each is ``f(njit, prange)`` and gives the compiled function of arrays, as `Case.peers` has them.
"""

import math

import numpy as np


def bernoulli_elbo(njit, prange):
    @njit
    def elbo(x, mu, logvar, logits):
        zero = logits.dtype.type(0.0)
        total = 0.0
        for i in prange(x.shape[0]):
            row = 0.0
            for j in range(x.shape[1]):
                t = logits[i, j]
                row += x[i, j] * t - max(t, zero) - np.log1p(np.exp(-abs(t)))
            for j in range(mu.shape[1]):
                row += 0.5 * (1 + logvar[i, j] - mu[i, j] ** 2 - np.exp(logvar[i, j]))
            total += row
        return total / x.shape[0]

    return elbo


def bernoulli_elbo_and_grad(njit, prange):
    @njit
    def elbo_and_grad(x, mu, logvar, logits):
        d_mu, d_logvar = np.empty_like(mu), np.empty_like(logvar)
        d_logits = np.empty_like(logits)
        zero, one = x.dtype.type(0.0), x.dtype.type(1.0)
        weight = one / x.dtype.type(x.shape[0])
        total = 0.0
        for i in prange(x.shape[0]):
            row = 0.0
            for j in range(x.shape[1]):
                t = logits[i, j]
                e = np.exp(-abs(t))
                row += x[i, j] * t - max(t, zero) - np.log1p(e)
                d_logits[i, j] = (x[i, j] - (one if t >= 0 else e) / (one + e)) * weight
            for j in range(mu.shape[1]):
                variance = np.exp(logvar[i, j])
                row += 0.5 * (1 + logvar[i, j] - mu[i, j] ** 2 - variance)
                d_mu[i, j] = -mu[i, j] * weight
                d_logvar[i, j] = (one - variance) * weight / 2
            total += row
        return total / x.shape[0], d_mu, d_logvar, d_logits

    return elbo_and_grad


def negative_binomial(njit, prange):
    @njit
    def log_prob(x, mean, theta):
        total = 0.0
        for i in prange(x.shape[0]):
            row = 0.0
            for j in range(x.shape[1]):
                k, m, t = x[i, j], mean[i, j], theta[j]
                log_sum = np.log(t + m)
                row += t * (np.log(t) - log_sum)
                if k > 0:
                    row += k * (np.log(m) - log_sum) + math.lgamma(k + t)
                    row -= math.lgamma(t) + math.lgamma(k + 1)
            total += row
        return total / x.shape[0]

    return log_prob


def mmd(njit, prange):
    @njit
    def mmd(z, y):
        n, m = z.shape[0], y.shape[0]
        scale = z.dtype.type(-0.5 / z.shape[1])
        zero = z.dtype.type(0.0)
        within_z, within_y, across = 0.0, 0.0, 0.0
        for i in prange(n):
            for j in range(n):
                d = zero
                for k in range(z.shape[1]):
                    d += (z[i, k] - z[j, k]) ** 2
                if i != j:
                    within_z += np.exp(scale * d)
            for j in range(m):
                d = zero
                for k in range(z.shape[1]):
                    d += (z[i, k] - y[j, k]) ** 2
                across += np.exp(scale * d)
        for i in prange(m):
            for j in range(m):
                d = zero
                for k in range(z.shape[1]):
                    d += (y[i, k] - y[j, k]) ** 2
                if i != j:
                    within_y += np.exp(scale * d)
        return within_z / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)

    return mmd


def mixture_log_prob(njit, prange):
    @njit
    def log_prob(z, mu, logvar, log_weights):
        zero = z.dtype.type(0.0)
        latent = z.shape[1]
        precision, constant = np.exp(-logvar), np.empty_like(log_weights)
        for k in range(len(mu)):
            constant[k] = log_weights[k] - 0.5 * (latent * np.log(2 * np.pi) + logvar[k].sum())
        total = 0.0
        for i in prange(z.shape[0]):
            joint = np.empty_like(constant)
            for k in range(len(mu)):
                d = zero
                for j in range(latent):
                    d += (z[i, j] - mu[k, j]) ** 2 * precision[k, j]
                joint[k] = constant[k] - d / 2
            top = joint.max()
            mass = 0.0
            for k in range(len(mu)):
                mass += np.exp(joint[k] - top)
            total += top + np.log(mass)
        return total / z.shape[0]

    return log_prob
