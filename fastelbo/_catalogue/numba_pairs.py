"""What somebody who knows Numba would write of what compares every sample with every other.

Like `numba_peers`. What all rows add to is added up by thread, and over threads afterwards: Numba
takes no sum that goes through loops and branches for a reduction.
"""

import math

import numpy as np

from fastelbo.reference import LOG_2PI


def mmd(njit, prange):
    """Of pairs i < j of all points, each thread every so many rows, which are of all lengths."""
    from numba import get_num_threads

    @njit
    def mmd(z, y):
        n, m = len(z), len(y)
        points = np.concatenate((z, y))
        zero, scale = z.dtype.type(0.0), z.dtype.type(-0.5 / z.shape[1])
        of_z, of_y, of_both = 2.0 / (n * (n - 1)), 2.0 / (m * (m - 1)), -2.0 / (n * m)
        chunks = get_num_threads()
        total = np.zeros(chunks)
        for chunk in prange(chunks):
            added = 0.0
            for i in range(chunk, n + m, chunks):
                for side in range(2 if i > n else 1):
                    weight = of_y if side else of_z if i < n else of_both
                    near = zero
                    for j in range(n * side, i if side else min(i, n)):
                        square = zero
                        for k in range(z.shape[1]):
                            d = points[i, k] - points[j, k]
                            square += d * d
                        near += np.exp(scale * square)
                    added += weight * near
            total[chunk] = added
        return total.sum()

    return mmd


def mmd_and_grad(njit, prange):
    from numba import get_num_threads

    @njit
    def mmd_and_grad(z, y):
        n, m = len(z), len(y)
        latent = z.shape[1]
        points = np.concatenate((z, y))
        zero, scale = z.dtype.type(0.0), z.dtype.type(-0.5 / latent)
        of_z, of_y, of_both = 2.0 / (n * (n - 1)), 2.0 / (m * (m - 1)), -2.0 / (n * m)
        chunks = get_num_threads()
        gradient = np.zeros((chunks, n + m, latent), z.dtype)
        total = np.zeros(chunks)
        for chunk in prange(chunks):
            mine, added = gradient[chunk], 0.0
            for i in range(chunk, n + m, chunks):
                for side in range(2 if i > n else 1):
                    weight = of_y if side else of_z if i < n else of_both
                    steep, near = z.dtype.type(weight / latent), zero
                    for j in range(n * side, i if side else min(i, n)):
                        square = zero
                        for k in range(latent):
                            d = points[i, k] - points[j, k]
                            square += d * d
                        e = np.exp(scale * square)
                        near += e
                        pull = steep * e
                        for k in range(latent):
                            d = pull * (points[i, k] - points[j, k])
                            mine[i, k] -= d
                            mine[j, k] += d
                    added += weight * near
            total[chunk] = added
        summed = gradient.sum(axis=0)
        return total.sum(), summed[:n], summed[n:]

    return mmd_and_grad


def mixture_log_prob(njit, prange):
    @njit
    def log_prob(z, mu, logvar, log_weights):
        zero = z.dtype.type(0.0)
        half = z.dtype.type(0.5)
        precision, constant = np.exp(-logvar), np.empty_like(log_weights)
        for k in range(len(mu)):
            constant[k] = log_weights[k] - 0.5 * (z.shape[1] * LOG_2PI + logvar[k].sum())
        total = 0.0
        for i in prange(z.shape[0]):
            joint = np.empty_like(constant)
            for k in range(len(mu)):
                square = zero
                for j in range(z.shape[1]):
                    d = z[i, j] - mu[k, j]
                    square += d * d * precision[k, j]
                joint[k] = constant[k] - half * square
            top = joint.max()
            mass = zero
            for k in range(len(mu)):
                mass += np.exp(joint[k] - top)
            total += top + np.log(mass)
        return total / z.shape[0]

    return log_prob


def mixture_log_prob_and_grad(njit, prange):
    from numba import get_num_threads

    @njit
    def log_prob_and_grad(z, mu, logvar, log_weights):
        batch, latent = z.shape
        components = len(mu)
        zero, half = z.dtype.type(0.0), z.dtype.type(0.5)
        precision, constant = np.exp(-logvar), np.empty_like(log_weights)
        for k in range(components):
            constant[k] = log_weights[k] - 0.5 * (latent * LOG_2PI + logvar[k].sum())
        chunks = get_num_threads()
        d_z, d_mu = np.zeros_like(z), np.zeros((chunks, components, latent), z.dtype)
        d_logvar, d_weights = np.zeros_like(d_mu), np.zeros((chunks, components), z.dtype)
        total = np.zeros(chunks)
        for chunk in prange(chunks):
            joint, added = np.empty_like(constant), 0.0
            for i in range(chunk, batch, chunks):
                for k in range(components):
                    square = zero
                    for j in range(latent):
                        d = z[i, j] - mu[k, j]
                        square += d * d * precision[k, j]
                    joint[k] = constant[k] - half * square
                top = joint.max()
                mass = zero
                for k in range(components):
                    joint[k] = np.exp(joint[k] - top)
                    mass += joint[k]
                added += top + np.log(mass)
                scale = z.dtype.type(1.0 / (mass * batch))
                for k in range(components):
                    share = joint[k] * scale
                    d_weights[chunk, k] += share
                    for j in range(latent):
                        d = z[i, j] - mu[k, j]
                        pull = share * d * precision[k, j]
                        d_z[i, j] -= pull
                        d_mu[chunk, k, j] += pull
                        d_logvar[chunk, k, j] += half * (pull * d - share)
            total[chunk] = added
        return (
            total.sum() / batch,
            d_z,
            d_mu.sum(axis=0),
            d_logvar.sum(axis=0),
            d_weights.sum(axis=0),
        )

    return log_prob_and_grad


def parts(njit, prange, dataset_size):
    """Mutual information, total correlation and dimension-wise KL, by minibatch weights."""

    @njit
    def parts(z, mu, logvar):
        n, latent = z.shape
        zero, half = z.dtype.type(0.0), z.dtype.type(0.5)
        means, precision = mu.T.copy(), np.exp(-logvar.T.copy())
        constant = z.dtype.type(-0.5) * (z.dtype.type(LOG_2PI) + logvar.T.copy())
        log_all = math.log(n * dataset_size)
        mutual, total, dimension_wise = 0.0, 0.0, 0.0
        for i in prange(n):
            joint, one = np.zeros(n, z.dtype), np.empty(n, z.dtype)
            product, prior = zero, zero
            for d in range(latent):
                at, top = z[i, d], -z.dtype.type(np.inf)
                prior -= half * at * at
                for j in range(n):
                    e = at - means[d, j]
                    one[j] = constant[d, j] - half * e * e * precision[d, j]
                    joint[j] += one[j]
                    top = max(top, one[j])
                mass = zero
                for j in range(n):
                    mass += np.exp(one[j] - top)
                product += top + np.log(mass)
            top = joint.max()
            mass = zero
            for j in range(n):
                mass += np.exp(joint[j] - top)
            log_joint = top + np.log(mass)
            mutual += joint[i] - log_joint
            total += log_joint - product
            dimension_wise += product - prior
        return (
            mutual / n + log_all,
            total / n + (latent - 1) * log_all,
            dimension_wise / n - latent * (log_all - 0.5 * LOG_2PI),
        )

    return parts


def parts_and_grad(njit, prange, dataset_size):
    """The same, and the gradients of their sum with weights."""
    from numba import get_num_threads

    @njit
    def parts_and_grad(z, mu, logvar, alpha, beta, gamma):
        n, latent = z.shape
        zero, half = z.dtype.type(0.0), z.dtype.type(0.5)
        means, precision = mu.T.copy(), np.exp(-logvar.T.copy())
        constant = z.dtype.type(-0.5) * (z.dtype.type(LOG_2PI) + logvar.T.copy())
        log_all = math.log(n * dataset_size)
        own, by_joint = z.dtype.type(alpha / n), z.dtype.type((beta - alpha) / n)
        by_marginal, by_prior = z.dtype.type((gamma - beta) / n), z.dtype.type(gamma / n)
        chunks = get_num_threads()
        d_z = np.empty_like(z)
        d_mu = np.zeros((chunks, latent, n), z.dtype)
        d_logvar = np.zeros_like(d_mu)
        sums = np.zeros((3, chunks))
        for chunk in prange(chunks):
            joint, share = np.empty(n, z.dtype), np.empty((latent, n), z.dtype)
            of_own, of_joint, of_product, of_prior = 0.0, 0.0, 0.0, 0.0
            for i in range(chunk, n, chunks):
                joint[:] = zero
                product, prior = zero, zero
                for d in range(latent):
                    at, top = z[i, d], -z.dtype.type(np.inf)
                    prior -= half * at * at
                    for j in range(n):
                        e = at - means[d, j]
                        share[d, j] = constant[d, j] - half * e * e * precision[d, j]
                        joint[j] += share[d, j]
                        top = max(top, share[d, j])
                    mass = zero
                    for j in range(n):
                        share[d, j] = np.exp(share[d, j] - top)
                        mass += share[d, j]
                    product += top + np.log(mass)
                    scale = by_marginal / mass
                    for j in range(n):
                        share[d, j] *= scale
                top, this = joint.max(), joint[i]
                mass = zero
                for j in range(n):
                    joint[j] = np.exp(joint[j] - top)
                    mass += joint[j]
                log_joint = top + np.log(mass)
                of_own += this
                of_joint += log_joint
                of_product += product
                of_prior += prior
                scale = by_joint / mass
                for j in range(n):
                    joint[j] *= scale
                joint[i] += own
                for d in range(latent):
                    at, pulled = z[i, d], zero
                    for j in range(n):
                        weight = joint[j] + share[d, j]
                        e = at - means[d, j]
                        pull = weight * e * precision[d, j]
                        pulled += pull
                        d_mu[chunk, d, j] += pull
                        d_logvar[chunk, d, j] += half * (pull * e - weight)
                    d_z[i, d] = by_prior * at - pulled
            sums[0, chunk] = of_own - of_joint
            sums[1, chunk] = of_joint - of_product
            sums[2, chunk] = of_product - of_prior
        mutual, total, dimension_wise = sums.sum(axis=1)
        return (
            mutual / n + log_all,
            total / n + (latent - 1) * log_all,
            dimension_wise / n - latent * (log_all - 0.5 * LOG_2PI),
            d_z,
            d_mu.sum(axis=0).T.copy(),
            d_logvar.sum(axis=0).T.copy(),
        )

    return parts_and_grad


def weighted(dataset_size, weights):
    """The peer that gives the parts, and the gradients of their sum with weights."""

    def peer(njit, prange):
        compiled = parts_and_grad(njit, prange, dataset_size)
        return lambda *arrays: compiled(*arrays, *weights)

    return peer


def tcvae(dataset_size, weights):
    """The peer of minus the squared error, less the parts with weights."""

    def peer(njit, prange):
        of_latents = parts(njit, prange, dataset_size)

        @njit
        def squared_error(x, x_recon):
            total = 0.0
            for i in prange(len(x)):
                row = x.dtype.type(0.0)
                for j in range(x.shape[1]):
                    error = x[i, j] - x_recon[i, j]
                    row -= error * error
                total += row
            return total / len(x)

        def value(x, z, mu, logvar, x_recon):
            cost = np.dot(weights, of_latents(z, mu, logvar))
            return squared_error(x, x_recon) - cost

        return value

    return peer


def tcvae_and_grad(dataset_size, weights):
    def peer(njit, prange):
        of_latents = parts_and_grad(njit, prange, dataset_size)

        @njit
        def squared_error(x, x_recon):
            slopes, weight = np.empty_like(x_recon), x.dtype.type(2.0 / len(x))
            total = 0.0
            for i in prange(len(x)):
                row = x.dtype.type(0.0)
                for j in range(x.shape[1]):
                    error = x[i, j] - x_recon[i, j]
                    row -= error * error
                    slopes[i, j] = weight * error
                total += row
            return total / len(x), slopes

        def value_and_grad(x, z, mu, logvar, x_recon):
            value, slopes = squared_error(x, x_recon)
            *found, d_z, d_mu, d_logvar = of_latents(z, mu, logvar, *(-w for w in weights))
            return value - np.dot(weights, found), d_z, d_mu, d_logvar, slopes

        return value_and_grad

    return peer
