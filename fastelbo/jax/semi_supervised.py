"""M2: samples of which some have labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastelbo._arguments import as_number
from fastelbo.jax._bridge import evaluate
from fastelbo.jax._inputs import Function, as_arrays, check, narrowed
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction


def m2_elbo(
    log_joint: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    *,
    alpha: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    """The objective of the semi-supervised model M2; see :func:`fastelbo.m2_elbo`.

    Parameters
    ----------
    log_joint : array_like, shape (B, C)
        E log p(x|y, z) - KL(q(z|x, y) || p(z)) + log p(y) of every class.
    logits : array_like, shape (B, C)
        Of q(y|x), normalised or not.
    y : array_like, shape (B,)
        Labels 0, 1, ..., C - 1, and -1 for a sample without one.
    alpha : float, optional
        Weight of the classification, not negative.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Array, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape or option does not fit.
    jax.errors.JaxRuntimeError
        If, on the CPU, something in y is no label.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import m2_elbo
    >>> log_joint, y = jnp.array([[-1.0, -3.0], [-1.0, -3.0]]), jnp.array([-1, 0])
    >>> jax.grad(m2_elbo, argnums=1)(log_joint, jnp.zeros((2, 2)), y, reduction="sum")
    Array([[ 0.5, -0.5],
           [ 0.5, -0.5]], dtype=float32)
    """
    check_reduction(reduction)
    options = (("alpha", as_number(alpha, "alpha", 0)), ("reduction", reduction))
    half, arrays = as_arrays(read_as_is=("y",), log_joint=log_joint, logits=logits, y=y)
    check("m2_elbo", *arrays)
    return narrowed(evaluate(M2("m2_elbo", options), *arrays)[0], half)


@dataclass(frozen=True)
class M2(Function):
    """Of arrays (log_joint, logits, y), of which the last has no gradient."""

    def slots(self, arrays):
        return super().slots(arrays[:2])
