import fastelbo

from . import common


class NormalizedWeights(common._Suite):
    baseline = "normalized_weights"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.normalized_weights(log_w, num_threads=num_threads)
