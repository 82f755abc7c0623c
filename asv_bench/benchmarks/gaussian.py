import fastelbo

from . import common


def with_log_scale(size, dtype):
    x, x_recon = common.data(size, dtype)
    return x, x_recon, 0.1 * x_recon


class Gaussian(common._Suite):
    baseline = "gaussian"
    arrays = staticmethod(with_log_scale)
    likelihood = fastelbo.Gaussian("learned")

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob(*arrays, num_threads=num_threads)


class GaussianAndGrad(Gaussian):
    baseline = "gaussian_and_grad"

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob_and_grad(*arrays, num_threads=num_threads)
