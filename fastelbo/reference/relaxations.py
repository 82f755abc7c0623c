"""The Gumbel-softmax relaxation of categorical samples."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet
from fastelbo.reference.discrete_divergences import log_softmax
from fastelbo.reference.noise import standard_normal


def gumbel(key, shape, dtype=np.float64):
    """-log E, E exponential: half the sum of the squares of normals 2 i and 2 i + 1 of the key."""
    normals = standard_normal(key, 2 * int(np.prod(shape)), dtype).reshape(*shape, 2)
    return -np.log(0.5 * (normals**2).sum(axis=-1))


def _relaxed(logits, tau, rng, noise, shape):
    """softmax((logits + noise) / tau); of noise that is not given, in the dtype of the logits."""
    if noise is None:
        dtype = np.asarray(logits).dtype
        single = dtype.kind == "f" and dtype.itemsize <= 4
        noise = gumbel(rng, shape, np.float32 if single else np.float64)
    logits, noise = as_float64(logits, noise)
    sure = np.isinf(logits) & np.isinf(noise)  # of what is certain no noise decides
    perturbed = np.where(sure, logits, logits + noise)
    top = perturbed.max(axis=-1, keepdims=True)
    return np.exp(log_softmax(np.where(top == np.inf, perturbed, (perturbed - top) / tau)))


@quiet
def gumbel_softmax(logits, *, tau=1.0, hard=False, rng=None, noise=None, samples=None):
    """softmax((logits + Gumbel noise) / tau), or the one-hot vector of its largest element.

    Examples
    --------
    >>> gumbel_softmax([[0.0, 0.0]], noise=[[1.0, 0.0]]).round(4)
    array([[0.7311, 0.2689]])
    """
    shape = np.shape(logits) if samples is None else (samples, *np.shape(logits))
    y = _relaxed(logits, tau, rng, noise, shape)
    if not hard:
        return y
    sure = np.eye(y.shape[-1])[y.argmax(axis=-1)]
    return np.where(np.isnan(y).any(axis=-1, keepdims=True), np.nan, sure)


@quiet
def gumbel_softmax_backward(grad_y, logits, y, *, tau=1.0, rng=None, noise=None):
    """y (grad_y - sum_c grad_y y) / tau, summed over samples.

    Examples
    --------
    >>> gumbel_softmax_backward([[1.0, 0.0]], [[0.0, 0.0]], [[0.5, 0.5]])
    array([[ 0.25, -0.25]])
    """
    if noise is not None or rng is not None:
        y = _relaxed(logits, tau, rng, noise, np.shape(grad_y))
    grad_y, y = as_float64(grad_y, y)
    push = y * (grad_y - (grad_y * y).sum(axis=-1, keepdims=True)) / tau
    return push.sum(axis=tuple(range(push.ndim - np.ndim(logits))))
