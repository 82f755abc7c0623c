"""Codes and factors that tests measure."""

import numpy as np


def known(points):
    """Three independent factors of four values each."""
    return np.random.default_rng(1).integers(0, 4, (points, 3))


def noise(points):
    """Three codes that know nothing."""
    return np.random.default_rng(2).normal(size=(points, 3))
