"""Extents at which things are timed, by the letters of `AXES`."""

STANDARD = {"B": 128, "D": 784, "L": 20}
IN_RAM = {"B": 4096, "D": 784, "L": 64}
GENES = {"B": 128, "D": 5000, "L": 20}
#: Of minibatches whose samples meet each other.
PAIRS = {"B": 1024, "D": 64, "L": 32}
