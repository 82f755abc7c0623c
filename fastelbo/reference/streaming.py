"""Log weights that come in chunks."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet, row_weight
from fastelbo.reference.bounds import effective_sample_size, importance_bound, without_largest


class StreamingBound:
    """Keeps all log weights: what the public one, which does not, has to give.

    Examples
    --------
    >>> StreamingBound().update([[1.0]]).update([[3.0], [2.0]]).bound(alpha=1)
    2.0
    """

    def __init__(self):
        self.chunks = []

    @property
    def log_w(self):
        return np.concatenate(self.chunks)

    def update(self, log_w):
        self.chunks.append(as_float64(log_w))
        return self

    def merge(self, other):
        self.chunks += other.chunks
        return self

    def bound(self, *, alpha=0.0, reduction="mean"):
        return importance_bound(self.log_w, alpha=alpha, reduction=reduction)

    def effective_sample_size(self):
        return effective_sample_size(self.log_w)

    @quiet
    def standard_error(self, *, reduction="mean"):
        """sd(w) / (mean(w) sqrt(K)) of each x; those of several x are independent."""
        samples = len(self.log_w)
        w, m = without_largest(self.log_w)
        excess = np.expm1(self.log_w - m)  # w - 1, which keeps small differences
        squares = ((excess - excess.mean(axis=0)) ** 2).sum(axis=0)
        rows = np.sqrt(squares / (samples - 1) / samples) / w.mean(axis=0)
        if reduction == "none":
            return rows
        return row_weight(len(rows), reduction) * float(np.sqrt((rows**2).sum()))
