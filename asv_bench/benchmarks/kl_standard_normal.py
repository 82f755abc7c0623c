import fastelbo

from . import common


class KlStandardNormal(common._Suite):
    baseline = "kl_standard_normal"
    arrays = staticmethod(common.latents)

    def call(self, *arrays, num_threads):
        return fastelbo.kl_standard_normal(*arrays, num_threads=num_threads)


class KlStandardNormalAndGrad(common._Suite):
    baseline = "kl_standard_normal_and_grad"
    arrays = staticmethod(common.latents)

    def call(self, *arrays, num_threads):
        return fastelbo.kl_standard_normal_and_grad(*arrays, num_threads=num_threads)
