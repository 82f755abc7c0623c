import fastelbo

from . import common


class EffectiveSampleSize(common._Suite):
    baseline = "effective_sample_size"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.effective_sample_size(log_w, num_threads=num_threads)
