import fastelbo

from . import common


class ElboFromBuffers(common._Suite):
    baseline = "elbo_from_buffers"

    @staticmethod
    def arrays(size, dtype):
        buffers = (memoryview(a.tobytes()) for a in common.problem(size, dtype))
        return (*buffers, *common.SIZES[size])

    def call(self, *arguments, num_threads):
        return fastelbo.elbo_from_buffers(*arguments, dtype=self.dtype, num_threads=num_threads)
