import fastelbo

from . import common


class ReparameterizeKl(common._Suite):
    baseline = "reparameterize_kl"
    arrays = staticmethod(common.latents)

    def call(self, *arrays, num_threads):
        return fastelbo.reparameterize_kl(*arrays, rng=0, num_threads=num_threads)
