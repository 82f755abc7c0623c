"""What users write for JAX, of formulas that stand once: as they are written for PyTorch."""

from types import SimpleNamespace


class _AsTorch:
    """JAX, as these formulas ask for torch."""

    def __init__(self, jax):
        self._jax = jax
        self.logsumexp = jax.nn.logsumexp
        self.lgamma = jax.scipy.special.gammaln
        self.nn = SimpleNamespace(
            functional=SimpleNamespace(
                softplus=jax.nn.softplus,
                binary_cross_entropy_with_logits=self._cross_entropy,
            )
        )

    def __getattr__(self, name):
        return getattr(self._jax.numpy, name)

    def _cross_entropy(self, logits, x, reduction):
        return self._jax.nn.softplus(logits) - x * logits

    def randn_like(self, a):
        return self._jax.random.normal(self._jax.random.key(0), a.shape, a.dtype)


def by_jax(formula):
    """The peer ``f(jax, *arrays)`` of ``f(torch, *tensors)``."""
    return lambda jax, *arrays: formula(_AsTorch(jax), *arrays)
