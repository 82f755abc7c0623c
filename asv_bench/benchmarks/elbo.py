import fastelbo

from . import common


class Elbo(common._Suite):
    baseline = "elbo"

    def call(self, *arrays, num_threads):
        return fastelbo.elbo(*arrays, num_threads=num_threads)


class ElboWithNoise(common._Suite):
    baseline = "elbo_with_noise"

    def call(self, *arrays, num_threads):
        return fastelbo.elbo(*arrays, rng=0, num_threads=num_threads)


class ElboAndGrad(common._Suite):
    baseline = "elbo_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.elbo_and_grad(*arrays, num_threads=num_threads)
