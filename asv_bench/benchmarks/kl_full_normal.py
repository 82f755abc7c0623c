import numpy as np

import fastelbo

from . import common


def four(size, dtype):
    """(mu_q, tril_q, mu_p, tril_p), up to 256 samples."""
    mu, logvar = (a[:256] for a in common.latents(size, dtype))
    tril = np.tril(0.1 * np.random.default_rng(5).standard_normal((*mu.shape, mu.shape[1])), -1)
    tril = (tril + np.exp(0.5 * logvar)[..., None] * np.eye(mu.shape[1])).astype(dtype)
    return mu, tril, mu[::-1].copy(), tril[::-1].copy()


class KlFullNormal(common._Suite):
    baseline = "kl_full_normal"
    arrays = staticmethod(four)

    def call(self, *arrays, num_threads):
        return fastelbo.kl_full_normal(*arrays)  # LAPACK's threads are its own


class KlFullNormalAndGrad(KlFullNormal):
    baseline = "kl_full_normal_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.kl_full_normal_and_grad(*arrays)
