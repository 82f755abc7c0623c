import fastelbo

from . import common


class Mopoe(common._Suite):
    baseline = "mopoe"
    arrays = staticmethod(common.experts)

    def call(self, *arrays, num_threads):
        return fastelbo.mopoe(*arrays, num_threads=num_threads)
