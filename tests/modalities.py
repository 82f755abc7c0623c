"""What the tests of multimodal functions share."""

import numpy as np

METHODS = ("poe", "moe", "mopoe")
#: Of five samples: each has something.
PRESENT = {
    "image": np.array([True, True, False, True, False]),
    "text": np.array([True, False, True, True, True]),
}


def draw(batch=5, latent=3, names=("image", "text", "sound")):
    """Experts by name."""
    rng = np.random.default_rng(0)
    return {name: tuple(rng.normal(size=(2, batch, latent))) for name in names}
