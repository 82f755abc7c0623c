import fastelbo

from . import common


class MixtureOfExperts(common._Suite):
    baseline = "mixture_of_experts"

    @staticmethod
    def arrays(size, dtype):
        mu, logvar = common.experts(size, dtype)
        return mu.mean(axis=0), mu, logvar

    def call(self, *arrays, num_threads):
        return fastelbo.mixture_of_experts(*arrays, num_threads=num_threads)


class MixtureOfExpertsAndGrad(MixtureOfExperts):
    baseline = "mixture_of_experts_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.mixture_of_experts_and_grad(*arrays, num_threads=num_threads)
