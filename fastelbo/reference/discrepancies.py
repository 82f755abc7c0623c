"""Maximum mean discrepancy."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet


def mmd(z, y, *, kernel="rbf", bandwidth=None, estimator="unbiased"):
    """MMD^2 = E k(z, z') + E k(y, y') - 2 E k(z, y) (Gretton et al. 2012).

    Examples
    --------
    >>> round(mmd([[0.0], [1.0]], [[0.0], [3.0]], bandwidth=1.0), 6)
    -0.258848
    """
    return mmd_and_grad(z, y, kernel=kernel, bandwidth=bandwidth, estimator=estimator)[0]


@quiet
def mmd_and_grad(z, y, *, kernel="rbf", bandwidth=None, estimator="unbiased"):
    """(value, (z, y)).

    Examples
    --------
    >>> mmd_and_grad([[0.0]], [[0.0]], estimator="biased")
    (0.0, (array([[0.]]), array([[0.]])))
    """
    z, y = as_float64(z, y)
    if bandwidth is None:
        scales = {"rbf": [1.0], "imq": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]}[kernel]
        bandwidth = np.sqrt(np.array(scales) * z.shape[1])
    bandwidth = np.atleast_1d(as_float64(bandwidth))
    near = 0.5 / bandwidth / bandwidth
    near = np.minimum(near, np.finfo(near.dtype).max / 2)  # of which 0 is no NaN

    def pairs(a, b):
        """(k, its derivative by d^2 times two, (N, M, L) differences)."""
        difference = a[:, None] - b
        d2 = (difference**2).sum(axis=2)[..., None]
        if kernel == "rbf":
            k = np.exp(-d2 * near)
            slope = -k * near
        else:
            k = 1 / (1 + d2 * near)
            slope = -k * k * near
        return k.sum(axis=2), 2.0 * slope.sum(axis=2)[..., None], difference

    def within(a):
        k, slope, difference = pairs(a, a)
        n = len(a)
        if estimator == "unbiased":
            others = ~np.eye(n, dtype=bool)
            pull = 2.0 * np.where(others[..., None], slope * difference, 0.0).sum(axis=1)
            return np.where(others, k, 0.0).sum() / (n * (n - 1)), pull / (n * (n - 1))
        return k.sum() / n**2, 2.0 * (slope * difference).sum(axis=1) / n**2

    (of_z, dz), (of_y, dy) = within(z), within(y)
    k, slope, difference = pairs(z, y)
    both = len(z) * len(y)
    pull = 2.0 * slope * difference / both
    value = float(of_z + of_y - 2.0 * k.sum() / both)
    return value, (dz - pull.sum(axis=1), dy + pull.sum(axis=0))
