import fastelbo

from . import common


class LogWeights(common._Suite):
    baseline = "log_weights"
    arrays = staticmethod(common.samples)

    def call(self, *arrays, num_threads):
        return fastelbo.log_weights(*arrays, num_threads=num_threads)
