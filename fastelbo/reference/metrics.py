"""What the latents of a trained model are worth."""

import numpy as np

from fastelbo.reference._common import as_float64


def active_units(mu, *, threshold=0.01):
    """Which columns of posterior means have a variance over the data above the threshold.

    Examples
    --------
    >>> active_units([[1.0, 0.0], [-1.0, 0.0]])
    array([ True, False])
    """
    mu = as_float64(mu)
    return np.mean((mu - mu.mean(axis=0)) ** 2, axis=0) > threshold
