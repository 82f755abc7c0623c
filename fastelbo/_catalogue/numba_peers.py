"""What somebody who knows Numba would write: one pass, one prange over rows, no temporaries.

Each is ``f(njit, prange)`` and gives the compiled function of arrays, as `Case.peers` has them.
Constants are of the arrays' dtype, since a bare literal would make all float64; so are sums of what
vectorises. What calls exp or log does not: sums of that are float64.
"""

import math

import numpy as np

# Elements of likelihoods, `one` a 1 of their dtype ----------------------------------------------


def _squared(x, output, one):
    error = x - output
    return -error * error


def _squared_and_grad(x, output, one):
    error = x - output
    return -error * error, error + error


def _bernoulli(x, output, one):
    return np.float64(x * output - max(output, one - one) - np.log1p(np.exp(-abs(output))))


def _bernoulli_and_grad(x, output, one):
    e = np.exp(-abs(output))
    value = np.float64(x * output - max(output, one - one) - np.log1p(e))
    return value, x - (one if output >= 0 else e) / (one + e)


def _of(make, element):
    """The peer that `make` gives of an element."""

    def peer(njit, prange):
        from numba.extending import register_jitable

        return make(njit, prange, register_jitable(element))

    return peer


# The ELBO ---------------------------------------------------------------------------------------


def _elbo(njit, prange, element):
    @njit
    def elbo(x, mu, logvar, output):
        one = output.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        total = 0.0
        for i in prange(x.shape[0]):
            row, kl = zero, zero
            for j in range(x.shape[1]):
                row += element(x[i, j], output[i, j], one)
            for j in range(mu.shape[1]):
                m, v = mu[i, j], logvar[i, j]
                kl += m * m + np.exp(v) - v - one
            total += row - half * kl
        return total / x.shape[0]

    return elbo


def _elbo_and_grad(njit, prange, element):
    @njit
    def elbo_and_grad(x, mu, logvar, output):
        d_mu, d_logvar = np.empty_like(mu), np.empty_like(logvar)
        d_output = np.empty_like(output)
        one = output.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        weight = output.dtype.type(1.0 / x.shape[0])
        total = 0.0
        for i in prange(x.shape[0]):
            row, kl = zero, zero
            for j in range(x.shape[1]):
                value, slope = element(x[i, j], output[i, j], one)
                row += value
                d_output[i, j] = slope * weight
            for j in range(mu.shape[1]):
                m, v = mu[i, j], logvar[i, j]
                variance = np.exp(v)
                kl += m * m + variance - v - one
                d_mu[i, j] = -m * weight
                d_logvar[i, j] = half * (one - variance) * weight
            total += row - half * kl
        return total / x.shape[0], d_mu, d_logvar, d_output

    return elbo_and_grad


elbo, elbo_and_grad = _of(_elbo, _squared), _of(_elbo_and_grad, _squared_and_grad)
bernoulli_elbo = _of(_elbo, _bernoulli)
bernoulli_elbo_and_grad = _of(_elbo_and_grad, _bernoulli_and_grad)


def drawn_elbo(njit, prange):
    @njit
    def elbo(x, mu, logvar, x_recon):
        z = np.empty_like(mu)
        one = x.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        total = 0.0
        for i in prange(x.shape[0]):
            row, kl = zero, zero
            for j in range(x.shape[1]):
                error = x[i, j] - x_recon[i, j]
                row -= error * error
            for j in range(mu.shape[1]):
                m, v = mu[i, j], logvar[i, j]
                sigma = np.exp(half * v)
                z[i, j] = m + sigma * np.random.standard_normal()  # noqa: NPY002
                kl += m * m + sigma * sigma - v - one
            total += row - half * kl
        return total / x.shape[0], z

    return elbo


def drawn_elbo_and_grad(njit, prange):
    @njit
    def elbo_and_grad(x, mu, logvar, x_recon):
        z, d_mu, d_logvar = np.empty_like(mu), np.empty_like(mu), np.empty_like(logvar)
        d_recon = np.empty_like(x_recon)
        one = x.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        weight = x.dtype.type(1.0 / x.shape[0])
        total = 0.0
        for i in prange(x.shape[0]):
            row, kl = zero, zero
            for j in range(x.shape[1]):
                error = x[i, j] - x_recon[i, j]
                row -= error * error
                d_recon[i, j] = (error + error) * weight
            for j in range(mu.shape[1]):
                m, v = mu[i, j], logvar[i, j]
                sigma = np.exp(half * v)
                z[i, j] = m + sigma * np.random.standard_normal()  # noqa: NPY002
                variance = sigma * sigma
                kl += m * m + variance - v - one
                d_mu[i, j] = -m * weight
                d_logvar[i, j] = half * (one - variance) * weight
            total += row - half * kl
        return total / x.shape[0], z, d_mu, d_logvar, d_recon

    return elbo_and_grad


# IWAE -------------------------------------------------------------------------------------------


def _iwae(njit, prange, element):
    @njit
    def iwae(x, z, mu, logvar, output):
        samples, batch, latent = z.shape
        one = output.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        total = 0.0
        for i in prange(batch):
            log_w = np.empty(samples, output.dtype)
            precision = np.exp(-logvar[i])
            for k in range(samples):
                row, latents = zero, zero
                for j in range(x.shape[1]):
                    row += element(x[i, j], output[k, i, j], one)
                for j in range(latent):
                    t = z[k, i, j]
                    d = t - mu[i, j]
                    latents += d * d * precision[j] + logvar[i, j] - t * t
                log_w[k] = row + half * latents
            top = log_w.max()
            mass = 0.0
            for k in range(samples):
                mass += np.exp(log_w[k] - top)
            total += top + np.log(mass / samples)
        return total / batch

    return iwae


def _iwae_and_grad(njit, prange, element):
    """Gradients by outputs are written at once, and weighted while they are in the cache."""

    @njit
    def iwae_and_grad(x, z, mu, logvar, output):
        samples, batch, latent = z.shape
        d_z, d_output = np.empty_like(z), np.empty_like(output)
        d_mu, d_logvar = np.zeros_like(mu), np.zeros_like(logvar)
        one = output.dtype.type(1.0)
        half, zero = one / (one + one), one - one
        total = 0.0
        for i in prange(batch):
            log_w = np.empty(samples, output.dtype)
            precision = np.exp(-logvar[i])
            for k in range(samples):
                row, latents = zero, zero
                for j in range(x.shape[1]):
                    value, slope = element(x[i, j], output[k, i, j], one)
                    row += value
                    d_output[k, i, j] = slope
                for j in range(latent):
                    t = z[k, i, j]
                    d = t - mu[i, j]
                    latents += d * d * precision[j] + logvar[i, j] - t * t
                log_w[k] = row + half * latents
            top = log_w.max()
            mass = zero
            for k in range(samples):
                log_w[k] = np.exp(log_w[k] - top)
                mass += log_w[k]
            total += top + np.log(mass / samples)
            for k in range(samples):
                weight = log_w[k] / (mass * output.dtype.type(batch))
                for j in range(x.shape[1]):
                    d_output[k, i, j] *= weight
                for j in range(latent):
                    t = z[k, i, j]
                    d = t - mu[i, j]
                    pull = d * precision[j]
                    d_z[k, i, j] = weight * (pull - t)
                    d_mu[i, j] -= weight * pull
                    d_logvar[i, j] += half * weight * (one - d * pull)
        return total / batch, d_z, d_mu, d_logvar, d_output

    return iwae_and_grad


iwae, iwae_and_grad = _of(_iwae, _squared), _of(_iwae_and_grad, _squared_and_grad)
bernoulli_iwae = _of(_iwae, _bernoulli)
bernoulli_iwae_and_grad = _of(_iwae_and_grad, _bernoulli_and_grad)


# The negative binomial --------------------------------------------------------------------------

#: Counts below it are few factors, of which one logarithm is taken.
FEW = 20


def negative_binomial(njit, prange):
    @njit
    def log_prob(x, mean, theta):
        log_theta = np.log(theta)
        total = 0.0
        for i in prange(x.shape[0]):
            row = 0.0
            for j in range(x.shape[1]):
                k, m, t = x[i, j], mean[i, j], theta[j]
                log_sum = np.log(t + m)
                row += t * (log_theta[j] - log_sum)
                if k > 0:
                    row += k * (np.log(m) - log_sum)
                    if k < FEW and k == np.floor(k):
                        product = 1.0
                        for c in range(int(k)):
                            product *= (t + c) / (c + 1.0)
                        row += np.log(product)
                    else:
                        row += math.lgamma(k + t) - math.lgamma(t) - math.lgamma(k + 1.0)
            total += row
        return total / x.shape[0]

    return log_prob


def _digamma(t):
    value = 0.0
    while t < 6:
        value -= 1 / t
        t += 1
    s = 1 / (t * t)
    series = s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s / 132))))
    return value + np.log(t) - 0.5 / t - series


def negative_binomial_and_grad(njit, prange):
    from numba import get_num_threads
    from numba.extending import register_jitable

    digamma = register_jitable(_digamma)

    @njit
    def log_prob_and_grad(x, mean, theta):
        batch, genes = x.shape
        chunks = get_num_threads()
        log_theta = np.log(theta)
        weight = x.dtype.type(1.0 / batch)
        d_mean, d_theta = np.empty_like(mean), np.zeros((chunks, genes), theta.dtype)
        total = np.zeros(chunks)
        for chunk in prange(chunks):
            row = 0.0
            for i in range(chunk, batch, chunks):
                for j in range(genes):
                    k, m, t = x[i, j], mean[i, j], theta[j]
                    both = t + m
                    log_sum = np.log(both)
                    row += t * (log_theta[j] - log_sum)
                    slope = log_theta[j] - log_sum + (m - k) / both
                    if k > 0:
                        row += k * (np.log(m) - log_sum)
                        if k < FEW and k == np.floor(k):
                            product = 1.0
                            for c in range(int(k)):
                                product *= (t + c) / (c + 1.0)
                                slope += 1 / (t + c)
                            row += np.log(product)
                        else:
                            row += math.lgamma(k + t) - math.lgamma(t) - math.lgamma(k + 1.0)
                            slope += digamma(np.float64(k + t)) - digamma(np.float64(t))
                    d_mean[i, j] = t * (k - m) / (m * both) * weight
                    d_theta[chunk, j] += slope * weight
            total[chunk] = row
        return total.sum() / batch, d_mean, d_theta.sum(axis=0)

    return log_prob_and_grad
