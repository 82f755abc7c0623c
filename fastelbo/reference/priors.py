"""Priors: the standard normal and mixtures of Gaussians."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64
from fastelbo.reference.mixtures import (
    mixture_log_prob,
    mixture_log_prob_and_grad,
    weighted_gradients,
)


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
    >>> prior = MixtureOfGaussians([[-1.0], [1.0]], [[0.0], [0.0]], [3.0, 3.0])
    >>> prior.log_prob([[0.0]]).round(6)
    array([-1.418939])
    """

    def __init__(self, mu, logvar, logits=None):
        self.mu, self.logvar = as_float64(mu, logvar)
        self.logits = np.zeros(len(self.mu)) if logits is None else as_float64(logits)
        self.is_fixed = logits is None
        self.log_weights = self.logits - np.log(np.exp(self.logits).sum())

    def log_prob(self, z):
        return mixture_log_prob(z, self.mu, self.logvar, self.log_weights, reduction="none")

    def log_prob_and_grad(self, z):
        value, gradients = mixture_log_prob_and_grad(
            z, self.mu, self.logvar, self.log_weights, reduction="none"
        )
        return value, gradients[0]

    def backward(self, z, weights=1.0):
        """Gradients (z, mu, logvar, logits) of sum(weights * log_prob(z)), point by point."""
        z = as_float64(z)
        weights = np.broadcast_to(weights, z.shape[:-1])
        points = z.reshape(weights.size, z.shape[-1])
        _, (dz, *totals) = weighted_gradients(
            points, self.mu, self.logvar, self.log_weights, weights.ravel()
        )
        totals[2] -= np.exp(self.log_weights) * totals[2].sum()
        return dz.reshape(z.shape), *totals[:2], None if self.is_fixed else totals[2]


class VampPrior(MixtureOfGaussians):
    """A mixture of posteriors q(z|u_k) with means mu and log variances logvar."""
