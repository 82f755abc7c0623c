"""What the tests of experts share."""

import numpy as np

SIZES = [(1, 1, 1), (2, 5, 3), (3, 31, 130), (4, 300, 20), (2, 3, 0)]
#: Names of the masks that `draw` makes.
MASKS = ("all", "some", "none")
#: Masks, with a prior among the experts or without: where some sample has none, there must be one.
MASKS_AND_PRIORS = [(m, prior) for m in MASKS for prior in (True, False) if prior or m != "none"]


def draw(dtype, experts=3, batch=5, cols=4, mask="all", seed=0):
    """(mu, logvar, mask): what is masked is NaN. With "some", a sample has its first expert."""
    rng = np.random.default_rng(seed)
    mu, logvar = rng.normal(size=(2, experts, batch, cols)).astype(dtype)
    if mask == "all":
        return mu, logvar, None
    seen = rng.random((experts, batch)) < 0.5
    seen[0] |= mask == "some"
    seen[:, 0] &= mask == "some"
    mu[~seen] = np.nan
    logvar[~seen] = np.nan
    return mu, logvar, seen
