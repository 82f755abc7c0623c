from functools import partial

import numpy as np

import fastelbo
from fastelbo._cli.aggregate_baselines import DATASET_SIZE, WEIGHTS

from . import common


def minibatch(size, dtype):
    """(z, mu, logvar), up to (1024, 32): NumPy squares the batch."""
    mu, logvar = (a[:1024, :32] for a in common.latents(size, dtype))
    noise = np.random.default_rng(4).standard_normal(mu.shape)
    return (mu + np.exp(0.5 * logvar) * noise).astype(dtype), mu, logvar


class TotalCorrelation(common._Suite):
    baseline = "total_correlation"
    arrays = staticmethod(minibatch)
    function = staticmethod(partial(fastelbo.total_correlation, dataset_size=DATASET_SIZE))

    def call(self, *arrays, num_threads):
        return self.function(*arrays, num_threads=num_threads)


class TotalCorrelationAndGrad(TotalCorrelation):
    baseline = "total_correlation_and_grad"
    function = staticmethod(
        partial(fastelbo.total_correlation_and_grad, dataset_size=DATASET_SIZE, weights=WEIGHTS)
    )
