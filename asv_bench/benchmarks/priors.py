"""Log densities of points, and their derivative by the points."""

import numpy as np

import fastelbo

from . import common


class StandardNormal(common._Suite):
    baseline = "standard_normal"

    @staticmethod
    def arrays(size, dtype):
        return common.points(size, dtype)[:1]

    def call(self, z, num_threads):
        return fastelbo.StandardNormal().log_prob(z)  # NumPy's, on one thread


class StandardNormalAndGrad(StandardNormal):
    baseline = "standard_normal_and_grad"

    def call(self, z, num_threads):
        return fastelbo.StandardNormal().log_prob_and_grad(z)


class VampPrior(common._Suite):
    baseline = "vamp_prior"
    arrays = staticmethod(common.points)
    prior = fastelbo.VampPrior

    def call(self, z, *parameters, num_threads):
        return self.prior(*parameters).log_prob(z, num_threads=num_threads)


class VampPriorAndGrad(VampPrior):
    baseline = "vamp_prior_and_grad"

    def call(self, z, *parameters, num_threads):
        return self.prior(*parameters).log_prob_and_grad(z, num_threads=num_threads)


def weighted(size, dtype):
    """(z, logits, mu, logvar)."""
    z, mu, logvar = common.points(size, dtype)
    return z, np.linspace(-1, 1, len(mu), dtype=dtype), mu, logvar


class MixtureOfGaussians(VampPrior):
    baseline = "mixture_of_gaussians"
    arrays = staticmethod(weighted)
    prior = fastelbo.MixtureOfGaussians


class MixtureOfGaussiansAndGrad(VampPriorAndGrad):
    baseline = "mixture_of_gaussians_and_grad"
    arrays = staticmethod(weighted)
    prior = fastelbo.MixtureOfGaussians
