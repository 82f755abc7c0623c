import numpy as np

import fastelbo

from . import common


class ReparameterizeBackward(common._Suite):
    baseline = "reparameterize_backward"

    @staticmethod
    def arrays(size, dtype):
        mu, logvar = common.latents(size, dtype)
        z = fastelbo.reparameterize(mu, logvar, rng=0)
        return np.flip(z).copy(), mu, logvar, z

    def call(self, *arrays, num_threads):
        return fastelbo.reparameterize_backward(*arrays, num_threads=num_threads)
