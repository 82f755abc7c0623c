"""The sizes of `bench`: (batch, event, latent), or what the comment says."""

STANDARD = (128, 784, 20)
IN_RAM = (4096, 784, 64)
GENES = (128, 5000, 20)
#: Points, components or other points, latent dimensions.
VAMP = (512, 500, 40)
TWO_SETS = (512, 512, 32)
MANY_PAIRS = (1024, 64, 32)
#: Batch, samples of each x; the last is not used.
LOG_WEIGHTS = (128, 64, 20)
