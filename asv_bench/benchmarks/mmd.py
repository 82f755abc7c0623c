import numpy as np

import fastelbo

from . import common


class Mmd(common._Suite):
    baseline = "mmd"

    @staticmethod
    def arrays(size, dtype):
        """Two sets; "vae" is 512 points of 32 dimensions each."""
        n, _, latent = common.PAIRS[size] if size != "vae" else (512, 512, 32)
        z, y = np.random.default_rng(4).standard_normal((2, n, latent)).astype(dtype)
        return z, y + z.dtype.type(0.1)

    def call(self, *arrays, num_threads):
        return fastelbo.mmd(*arrays, num_threads=num_threads)


class MmdAndGrad(Mmd):
    baseline = "mmd_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.mmd_and_grad(*arrays, num_threads=num_threads)
