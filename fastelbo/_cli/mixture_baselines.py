"""Mixtures, the MMD and experts as users write them, and the arrays that `bench` gives them.

In PyTorch the pairwise distances come in two forms: as differences (B, K, L), and as the matrix
products of expanded squares, the fastest form there is and the less exact one.
"""

import math

import numpy as np

EXPERTS = 3
_LOG_2PI = math.log(2 * math.pi)

#: Names of the arrays of each case. All have gradients, so they are no `x` and parameters.
ARRAYS = {
    "mixture_log_prob": ("points", "log_weights", "components", "log_variances"),
    "mmd": ("points", "others"),
}


def mixture_array(name, size, dtype):
    """One of the arrays above: `batch` points, `event` components or others, in `latent` dims."""
    batch, event, latent = size
    rng = np.random.default_rng([2026, *name.encode()])
    if name == "log_weights":
        weights = rng.random(event)
        return np.log(weights / weights.sum()).astype(dtype)
    array = rng.standard_normal((batch if name == "points" else event, latent))
    return (array * {"log_variances": 0.5, "others": 1.1}.get(name, 1.0)).astype(dtype)


class NumPyMixtures:
    """What NumPy users write: differences, one temporary an operator."""

    def _joint(self, z, log_weights, mu, logvar):
        d = z[:, None] - mu
        precision = np.exp(-logvar)
        joint = log_weights - 0.5 * np.sum(d**2 * precision + logvar + _LOG_2PI, axis=2)
        top = joint.max(axis=1)
        value = top + np.log(np.sum(np.exp(joint - top[:, None]), axis=1))
        return value, joint, d, precision

    def mixture_log_prob(self, z, log_weights, mu, logvar):
        return (np.mean(self._joint(z, log_weights, mu, logvar)[0]),)

    def mixture_log_prob_and_grad(self, z, log_weights, mu, logvar):
        value, joint, d, precision = self._joint(z, log_weights, mu, logvar)
        share = np.exp(joint - value[:, None]) / len(z)
        pull = share[..., None] * d * precision
        by_logvar = 0.5 * np.sum(pull * d - share[..., None], axis=0)
        return np.mean(value), -pull.sum(axis=1), share.sum(axis=0), pull.sum(axis=0), by_logvar

    def standard_normal(self, z):
        return (-0.5 * np.sum(z**2 + _LOG_2PI, axis=1),)

    def standard_normal_and_grad(self, z):
        return *self.standard_normal(z), -z

    def mixture_of_gaussians(self, z, logits, mu, logvar):
        log_weights = logits - np.log(np.sum(np.exp(logits)))
        return (self._joint(z, log_weights, mu, logvar)[0],)

    def mixture_of_gaussians_and_grad(self, z, logits, mu, logvar):
        log_weights = logits - np.log(np.sum(np.exp(logits)))
        value, joint, d, precision = self._joint(z, log_weights, mu, logvar)
        share = np.exp(joint - value[:, None])
        return value, -np.sum(share[..., None] * d * precision, axis=1)

    def vamp_prior(self, z, mu, logvar):
        return self.mixture_of_gaussians(z, np.zeros_like(mu[:, 0]), mu, logvar)

    def vamp_prior_and_grad(self, z, mu, logvar):
        return self.mixture_of_gaussians_and_grad(z, np.zeros_like(mu[:, 0]), mu, logvar)

    def mmd(self, z, y):
        return self.mmd_and_grad(z, y)[:1]

    def mmd_and_grad(self, z, y):
        n, m = len(z), len(y)

        def pairs(a, b):
            d = b - a[:, None]
            k = np.exp(-np.sum(d**2, axis=2) / (2 * a.shape[1]))
            return k, k[..., None] * d / a.shape[1]

        (kz, dz), (ky, dy), (k, d) = pairs(z, z), pairs(y, y), pairs(z, y)
        within = (kz.sum() - n) / (n * (n - 1)) + (ky.sum() - m) / (m * (m - 1))
        by_z = 2 * dz.sum(axis=1) / (n * (n - 1)) - 2 * d.sum(axis=1) / (n * m)
        by_y = 2 * dy.sum(axis=1) / (m * (m - 1)) + 2 * d.sum(axis=0) / (n * m)
        return within - 2 * k.mean(), by_z, by_y

    def product_of_experts(self, mu, logvar):
        precision = np.exp(-logvar)
        total = precision.sum(axis=0) + 1
        return np.sum(mu * precision, axis=0) / total, -np.log(total)

    def product_of_experts_backward(self, grad_mu, grad_logvar, mu, logvar):
        precision = np.exp(-logvar)
        share = precision / (precision.sum(axis=0) + 1)
        mean = np.sum(mu * share, axis=0)
        return share * grad_mu, share * (grad_logvar - grad_mu * (mu - mean))

    def _subsets(self, experts):
        return [[m for m in range(experts) if s >> m & 1] for s in range(1, 2**experts)]

    def mopoe(self, mu, logvar):
        parts = [self.product_of_experts(mu[s], logvar[s]) for s in self._subsets(len(mu))]
        return tuple(np.array(part) for part in zip(*parts, strict=True))

    def mopoe_backward(self, grad_mu, grad_logvar, mu, logvar):
        by_mu, by_logvar = np.zeros_like(mu), np.zeros_like(mu)
        for s, g, h in zip(self._subsets(len(mu)), grad_mu, grad_logvar, strict=True):
            of_mu, of_logvar = self.product_of_experts_backward(g, h, mu[s], logvar[s])
            by_mu[s] += of_mu
            by_logvar[s] += of_logvar
        return by_mu, by_logvar

    def mixture_of_experts(self, z, mu, logvar):
        return self.mixture_of_experts_and_grad(z, mu, logvar)[:1]

    def mixture_of_experts_and_grad(self, z, mu, logvar):
        d = z - mu
        precision = np.exp(-logvar)
        log_p = -0.5 * np.sum(d**2 * precision + logvar + _LOG_2PI, axis=2)
        top = log_p.max(axis=0)
        value = top + np.log(np.mean(np.exp(log_p - top), axis=0))
        share = (np.exp(log_p - value) / (len(mu) * len(z)))[..., None]
        pull = share * d * precision
        return np.mean(value), -pull.sum(axis=0), pull, 0.5 * (pull * d - share)


def torch_mixtures(torch):
    """By differences."""

    def mixture_log_prob(z, log_weights, mu, logvar):
        d = z[:, None] - mu
        square = (d * d * torch.exp(-logvar) + logvar).sum(2)
        joint = log_weights - 0.5 * (square + mu.shape[1] * _LOG_2PI)
        return (torch.logsumexp(joint, 1).mean(),)

    def mmd(z, y):
        return (_mmd(torch, z, y, lambda a, b: ((a[:, None] - b) ** 2).sum(2)),)

    return {"mixture_log_prob": mixture_log_prob, "mmd": mmd}


def torch_products(torch):
    """By matrix products of expanded squares."""

    def mixture_log_prob(z, log_weights, mu, logvar):
        precision = torch.exp(-logvar)
        square = (z * z) @ precision.T - 2 * z @ (mu * precision).T
        of_component = (mu * mu * precision + logvar).sum(1) + mu.shape[1] * _LOG_2PI
        return (torch.logsumexp(log_weights - 0.5 * (square + of_component), 1).mean(),)

    def mmd(z, y):
        def square(a, b):
            return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T

        return (_mmd(torch, z, y, square),)

    return {"mixture_log_prob": mixture_log_prob, "mmd": mmd}


def _mmd(torch, z, y, square):
    n, m = len(z), len(y)
    kz, ky, k = (torch.exp(-square(*ab) / (2 * z.shape[1])) for ab in ((z, z), (y, y), (z, y)))
    within = (kz.sum() - kz.diagonal().sum()) / (n * (n - 1))
    within = within + (ky.sum() - ky.diagonal().sum()) / (m * (m - 1))
    return within - 2 * k.mean()
