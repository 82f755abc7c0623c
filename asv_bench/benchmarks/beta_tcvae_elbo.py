from functools import partial

import fastelbo
from fastelbo._cli.aggregate_baselines import DATASET_SIZE

from . import common, total_correlation


def problem(size, dtype):
    """(x, z, mu, logvar, x_recon)."""
    latent = total_correlation.minibatch(size, dtype)
    x, x_recon = (a[: len(latent[0])] for a in common.data(size, dtype))
    return x, *latent, x_recon


class BetaTcvaeElbo(total_correlation.TotalCorrelation):
    baseline = "beta_tcvae_elbo"
    arrays = staticmethod(problem)
    function = staticmethod(partial(fastelbo.beta_tcvae_elbo, dataset_size=DATASET_SIZE))


class BetaTcvaeElboAndGrad(BetaTcvaeElbo):
    baseline = "beta_tcvae_elbo_and_grad"
    function = staticmethod(partial(fastelbo.beta_tcvae_elbo_and_grad, dataset_size=DATASET_SIZE))
