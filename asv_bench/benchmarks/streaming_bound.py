import fastelbo

from . import common


class StreamingBound(common._Suite):
    """In four chunks; NumPy's in one."""

    baseline = "streaming_bound"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        stream = fastelbo.StreamingBound(num_threads=num_threads)
        quarter = -(-len(log_w) // 4)
        for first in range(0, len(log_w), quarter):
            stream.update(log_w[first : first + quarter])
        return stream.bound()
