"""What users write for JAX, of formulas that stand once: as they are written for PyTorch."""


class _AsTorch:
    """JAX, as these formulas ask for torch."""

    def __init__(self, jax):
        self._numpy = jax.numpy
        self.logsumexp = jax.nn.logsumexp
        self.lgamma = jax.scipy.special.gammaln

    def __getattr__(self, name):
        return getattr(self._numpy, name)


def by_jax(formula):
    """The peer ``f(jax, *arrays)`` of ``f(torch, *tensors)``."""
    return lambda jax, *arrays: formula(_AsTorch(jax), *arrays)
