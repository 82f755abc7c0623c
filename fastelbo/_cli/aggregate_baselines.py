"""Aggregate posteriors as users write them in NumPy and in PyTorch: part of `baselines`."""

import math

import numpy as np

DATASET_SIZE = 60_000
#: Of mutual information, total correlation and dimension-wise KL.
WEIGHTS = (1.0, 6.0, 1.0)
LOG_2PI = math.log(2 * math.pi)


def _log_sum(a):
    largest = a.max(axis=1, keepdims=True)
    return largest[:, 0] + np.log(np.exp(a - largest).sum(axis=1))


class NumPyAggregates:
    """Methods of the contender NumPy: (B, B, L) arrays, and gradients by hand."""

    def total_correlation(self, z, mu, logvar):
        return self._parts(z, mu, logvar)[0]

    def _parts(self, z, mu, logvar):
        difference = z[:, None] - mu
        pull = difference * np.exp(-logvar)
        log_q = -0.5 * (LOG_2PI + logvar + difference * pull)
        constant = math.log(len(z) * DATASET_SIZE)
        joint, marginal = _log_sum(log_q.sum(axis=2)), _log_sum(log_q)
        own = np.einsum("iil->i", log_q)
        product = (marginal - constant).sum(axis=1)
        prior = -0.5 * (LOG_2PI + z**2).sum(axis=1)
        mutual = np.mean(own - joint) + constant
        total = np.mean(joint - product) - constant
        parts = mutual, total, np.mean(product - prior)
        return parts, (difference, pull, log_q, joint, marginal)

    def total_correlation_and_grad(self, z, mu, logvar):
        parts, (difference, pull, log_q, joint, marginal) = self._parts(z, mu, logvar)
        alpha, beta, gamma = (w / len(z) for w in WEIGHTS)
        shares = (beta - alpha) * np.exp(log_q.sum(axis=2) - joint[:, None])[..., None]
        shares = shares + (gamma - beta) * np.exp(log_q - marginal[:, None])
        shares[np.arange(len(z)), np.arange(len(z))] += alpha
        by_logvar = 0.5 * (shares * (difference * pull - 1)).sum(axis=0)
        shares = shares * pull
        return *parts, gamma * z - shares.sum(axis=1), shares.sum(axis=0), by_logvar

    def beta_tcvae_elbo(self, x, z, mu, logvar, x_recon):
        parts = self.total_correlation(z, mu, logvar)
        cost = sum(w * part for w, part in zip(WEIGHTS, parts, strict=True))
        return (-np.mean(np.sum((x - x_recon) ** 2, axis=1)) - cost,)

    def beta_tcvae_elbo_and_grad(self, x, z, mu, logvar, x_recon):
        *parts, dz, dmu, dlogvar = self.total_correlation_and_grad(z, mu, logvar)
        cost = sum(w * part for w, part in zip(WEIGHTS, parts, strict=True))
        error = x - x_recon
        value = -np.mean(np.sum(error**2, axis=1)) - cost
        return value, -dz, -dmu, -dlogvar, 2 * error / len(x)

    def aggregate_posterior_log_density(self, z, mu, logvar):
        log_q = -0.5 * (LOG_2PI + logvar + (z[:, None] - mu) ** 2 * np.exp(-logvar))
        constant = math.log(len(mu))
        return _log_sum(log_q.sum(axis=2)) - constant, _log_sum(log_q) - constant

    def kl_full_normal(self, mu_q, tril_q, mu_p, tril_p):
        return (np.mean(self._full(mu_q, tril_q, mu_p, tril_p)[0]),)

    def _full(self, mu_q, tril_q, mu_p, tril_p):
        inverse = np.linalg.inv(tril_p)
        ratio = inverse @ tril_q
        scaled = inverse @ (mu_q - mu_p)[..., None]
        diagonals = [np.diagonal(a, axis1=1, axis2=2) for a in (tril_q, tril_p)]
        log_det = 2 * np.sum(np.log(diagonals[1]) - np.log(diagonals[0]), axis=1)
        squares = np.sum(ratio**2, axis=(1, 2)) + np.sum(scaled**2, axis=(1, 2))
        return 0.5 * (squares - mu_q.shape[1] + log_det), inverse, ratio, scaled

    def kl_full_normal_and_grad(self, mu_q, tril_q, mu_p, tril_p):
        values, inverse, ratio, scaled = self._full(mu_q, tril_q, mu_p, tril_p)
        batch, eye = len(mu_q), np.eye(mu_q.shape[1], dtype=mu_q.dtype)
        transposed = inverse.swapaxes(1, 2)
        pull = (transposed @ scaled)[..., 0] / batch
        spread = ratio @ ratio.swapaxes(1, 2) + scaled @ scaled.swapaxes(1, 2)
        ones = [eye / np.diagonal(a, axis1=1, axis2=2)[..., None] for a in (tril_q, tril_p)]
        by_q = (np.tril(transposed @ ratio) - ones[0]) / batch
        by_p = (ones[1] - np.tril(transposed @ spread)) / batch
        return np.mean(values), pull, by_q, -pull, by_p


def torch_aggregates(torch):
    """What a PyTorch user writes, each (*arrays) -> (what is differentiated, ...)."""

    def log_density(z, mu, logvar):
        return -0.5 * (LOG_2PI + logvar + (z - mu) ** 2 * torch.exp(-logvar))

    def beta_tcvae_elbo(x, z, mu, logvar, x_recon):
        constant = math.log(len(z) * DATASET_SIZE)
        log_q = log_density(z[:, None], mu[None], logvar[None])
        joint = torch.logsumexp(log_q.sum(2), 1) - constant
        product = (torch.logsumexp(log_q, 1) - constant).sum(1)
        own = log_density(z, mu, logvar).sum(1)
        prior = -0.5 * (LOG_2PI + z**2).sum(1)
        parts = own - joint, joint - product, product - prior
        cost = sum(w * part.mean() for w, part in zip(WEIGHTS, parts))  # noqa: B905
        return (-((x - x_recon) ** 2).sum(1).mean() - cost,)

    return {"beta_tcvae_elbo": beta_tcvae_elbo}
