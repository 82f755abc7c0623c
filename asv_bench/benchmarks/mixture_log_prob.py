import numpy as np

import fastelbo

from . import common


class MixtureLogProb(common._Suite):
    baseline = "mixture_log_prob"

    @staticmethod
    def arrays(size, dtype):
        z, mu, logvar = common.points(size, dtype)
        return z, np.full(len(mu), -np.log(len(mu)), dtype), mu, logvar

    def call(self, *arrays, num_threads):
        return fastelbo.mixture_log_prob(*arrays, num_threads=num_threads)


class MixtureLogProbAndGrad(MixtureLogProb):
    baseline = "mixture_log_prob_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.mixture_log_prob_and_grad(*arrays, num_threads=num_threads)
