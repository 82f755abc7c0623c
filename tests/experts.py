"""What the tests of experts share."""

import numpy as np


def draw(dtype, experts=3, batch=5, cols=4):
    """(mu, logvar)."""
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(2, experts, batch, cols)).astype(dtype))
