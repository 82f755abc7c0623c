import fastelbo

from . import common


def four(size, dtype):
    mu, logvar = common.latents(size, dtype)
    return mu, logvar, mu[::-1].copy(), logvar[::-1].copy()


class KlNormal(common._Suite):
    baseline = "kl_normal"
    arrays = staticmethod(four)

    def call(self, *arrays, num_threads):
        return fastelbo.kl_normal(*arrays, num_threads=num_threads)


class KlNormalAndGrad(common._Suite):
    baseline = "kl_normal_and_grad"
    arrays = staticmethod(four)

    def call(self, *arrays, num_threads):
        return fastelbo.kl_normal_and_grad(*arrays, num_threads=num_threads)
