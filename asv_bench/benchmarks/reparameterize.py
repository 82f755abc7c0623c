import fastelbo

from . import common


class Reparameterize(common._Suite):
    baseline = "reparameterize"
    arrays = staticmethod(common.latents)

    def call(self, *arrays, num_threads):
        return fastelbo.reparameterize(*arrays, rng=0, num_threads=num_threads)
