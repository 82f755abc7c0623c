"""Priors: the standard normal and mixtures of Gaussians."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64
from fastelbo.reference.mixtures import mixture_log_prob, mixture_log_prob_and_grad


class StandardNormal:
    """N(0, I)."""

    def log_prob(self, z):
        z = as_float64(z)
        return -0.5 * (z * z + LOG_2PI).sum(axis=-1)

    def log_prob_and_grad(self, z):
        return self.log_prob(z), -as_float64(z)


class MixtureOfGaussians:
    """sum_k softmax(logits)_k N(mu_k, e^logvar_k).

    Examples
    --------
    >>> prior = MixtureOfGaussians([3.0, 3.0], [[-1.0], [1.0]], [[0.0], [0.0]])
    >>> prior.log_prob([[0.0]]).round(6)
    array([-1.418939])
    """

    def __init__(self, logits, mu, logvar):
        self.mu, self.logvar = as_float64(mu, logvar)
        self.logits = np.zeros(len(self.mu)) if logits is None else as_float64(logits)
        self.is_fixed = logits is None
        self.log_weights = self.logits - np.log(np.exp(self.logits).sum())

    def log_prob(self, z):
        return mixture_log_prob(z, self.log_weights, self.mu, self.logvar, reduction="none")

    def log_prob_and_grad(self, z):
        value, gradients = mixture_log_prob_and_grad(
            z, self.log_weights, self.mu, self.logvar, reduction="none"
        )
        return value, gradients[0]

    def backward(self, z, weights=1.0):
        """Gradients (z, logits, mu, logvar) of sum(weights * log_prob(z)), point by point."""
        z = as_float64(z)
        weights = np.broadcast_to(weights, z.shape[:-1])
        dz, *totals = np.zeros_like(z), *map(np.zeros_like, (self.logits, self.mu, self.logvar))
        for i in np.ndindex(weights.shape):
            _, (by_z, *others) = mixture_log_prob_and_grad(
                z[i], self.log_weights, self.mu, self.logvar, reduction="sum"
            )
            dz[i] = weights[i] * by_z
            for total, other in zip(totals, others, strict=True):
                total += weights[i] * other
        totals[0] -= np.exp(self.log_weights) * totals[0].sum()
        return dz, None if self.is_fixed else totals[0], *totals[1:]


class VampPrior(MixtureOfGaussians):
    """A mixture of posteriors q(z|u_k) with means mu and log variances logvar."""

    def __init__(self, mu, logvar, logits=None):
        super().__init__(logits, mu, logvar)
