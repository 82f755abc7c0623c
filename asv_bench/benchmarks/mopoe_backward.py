import numpy as np

import fastelbo

from . import common


class MopoeBackward(common._Suite):
    baseline = "mopoe_backward"

    @staticmethod
    def arrays(size, dtype):
        mu, logvar = common.experts(size, dtype)
        ones = np.ones((2**common.EXPERTS - 1, *mu.shape[1:]), dtype)
        return ones, ones.copy(), mu, logvar

    def call(self, *arrays, num_threads):
        return fastelbo.mopoe_backward(*arrays, num_threads=num_threads)
