import numpy as np

import fastelbo

from . import common


class ProductOfExpertsBackward(common._Suite):
    baseline = "product_of_experts_backward"

    @staticmethod
    def arrays(size, dtype):
        mu, logvar = common.experts(size, dtype)
        ones = np.ones_like(mu[0])
        return ones, ones.copy(), mu, logvar

    def call(self, *arrays, num_threads):
        return fastelbo.product_of_experts_backward(*arrays, num_threads=num_threads)
