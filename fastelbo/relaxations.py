"""Samples of categorical latents that gradients pass through: the Gumbel-softmax relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_flag, positive_number
from fastelbo.discrete_divergences import as_logits, classes_first, log_softmax
from fastelbo.posterior import noise_source, reparameterize, shape_of_samples

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import FloatArray, Number, Out, Rng


def gumbel_noise(key, shape, dtype):
    """-log E, E exponential: half the sum of the squares of normals 2 i and 2 i + 1 of the key."""
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, dtype)
    zeros = np.broadcast_to(np.zeros(2, dtype), (count, 2))
    normals = reparameterize(zeros, zeros, rng=key)
    normals *= normals
    exponential = normals[:, 0]
    exponential += normals[:, 1]
    exponential *= 0.5
    with np.errstate(divide="ignore"):
        return -np.log(exponential).reshape(shape)


def noise_of(rng, noise, shape, dtype):
    """What the caller drew, or Gumbel noise of the key that rng stands for."""
    drawn, key = noise_source(rng, noise, shape, dtype.itemsize == 4)
    return gumbel_noise(key, shape, dtype) if drawn is None else drawn


def _at_least_tiny(tau, dtype):
    """tau as a number that a dtype has: not zero."""
    return max(tau, float(np.finfo(dtype).tiny))


def _relaxed(logits, noise, tau):
    """The soft sample, its classes first."""
    tau = _at_least_tiny(tau, noise.dtype)
    with np.errstate(all="ignore"):
        perturbed = logits + noise
        unknown = np.isnan(perturbed)
        if unknown.any():  # of what is certain no noise decides
            np.copyto(perturbed, logits, where=unknown & np.isinf(logits) & np.isinf(noise))
        perturbed = classes_first(perturbed)
        top = perturbed.max(axis=0)
        finite = top != np.inf
        np.subtract(perturbed, top, out=perturbed, where=finite)
        np.divide(perturbed, tau, out=perturbed, where=finite)
        return log_softmax(perturbed)[1]


def gumbel_softmax(
    logits: ArrayLike,
    *,
    tau: Number = 1.0,
    hard: bool = False,
    rng: Rng = None,
    noise: ArrayLike | None = None,
    samples: SupportsIndex | None = None,
    out: Out = None,
) -> FloatArray:
    """Samples y = softmax((logits + Gumbel noise) / tau) [1]_ [2]_.

    A differentiable stand-in for one-hot samples of a categorical distribution: the largest element
    of y is its sample, and y comes near a one-hot vector as tau falls.

    Parameters
    ----------
    logits : array_like, shape (B, ..., C)
        Classes are on the last axis; a class of a logit of -inf is never drawn, whatever its noise.
    tau : float, optional
        The temperature, positive.
    hard : bool, optional
        Return the one-hot vector of the largest element itself. With the gradient of the soft
        sample (:func:`gumbel_softmax_backward`) that is the straight-through estimator.
    rng : int, numpy.random.Generator or None, optional
        Where the noise comes from, as in :func:`reparameterize`: a pure function of a key and the
        index of an element.
    noise : array_like, optional
        The Gumbel noise itself, in the shape of y.
    samples : int, optional
        K: draw K samples, y being (K, B, ..., C).
    out : ndarray, optional
        Where to write y.

    Returns
    -------
    ndarray, shape (B, ..., C) or (K, B, ..., C)

    Raises
    ------
    ValueError, TypeError
        If a shape or option does not fit, tau is not positive, or both rng and noise are given.

    See Also
    --------
    kl_categorical : the KL divergence of such latents.
    vimco, reinforce : gradients through latents that stay discrete.

    References
    ----------
    .. [1] Jang, Gu, Poole. Categorical reparameterization with Gumbel-softmax. ICLR 2017.
    .. [2] Maddison, Mnih, Teh. The concrete distribution: a continuous relaxation of discrete
       random variables. ICLR 2017.

    Examples
    --------
    >>> import fastelbo
    >>> logits, noise = [[0.0, 0.0]], [[1.0, 0.0]]
    >>> fastelbo.gumbel_softmax(logits, tau=0.5, noise=noise).round(4)
    array([[0.8808, 0.1192]])
    >>> fastelbo.gumbel_softmax(logits, hard=True, noise=noise)
    array([[1., 0.]])
    """
    tau, hard = positive_number(tau, "tau"), as_flag(hard, "hard")
    given, logits = logits, as_logits(logits)
    shape = shape_of_samples(logits, samples)
    drawn = noise_of(rng, noise, shape, logits.dtype)
    single = logits.dtype.itemsize == 4
    out = _arrays.checked_out(out, shape, single, (given, noise), "out")
    y = _relaxed(logits, drawn, tau)
    if hard:
        unknown = np.isnan(y).any(axis=0)
        chosen = y.argmax(axis=0)
        y = np.zeros_like(y)
        np.put_along_axis(y, chosen[None], 1, axis=0)
        y[:, unknown] = np.nan
    out[...] = np.moveaxis(y, 0, -1)
    return out


def gumbel_softmax_backward(
    grad_y: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike | None,
    *,
    tau: Number = 1.0,
    rng: SupportsIndex | None = None,
    noise: ArrayLike | None = None,
    out: Out = None,
) -> FloatArray:
    """The gradient of the logits from that of y: y (grad_y - sum_c grad_y y) / tau.

    The way back of :func:`gumbel_softmax`. After ``hard=True`` give `rng` or `noise` instead of y,
    which draws the soft sample again.

    Parameters
    ----------
    grad_y : array_like, shape (B, ..., C) or (K, B, ..., C)
    logits : array_like, shape (B, ..., C)
    y : array_like, in the shape of grad_y, or None
        The soft sample. May be None with `noise` or `rng`.
    tau : float, optional
        The temperature that y was drawn with.
    rng : int, optional
        The key that y was drawn with.
    noise : array_like, optional
        The Gumbel noise that y was made of, in its shape.
    out : ndarray, optional
        Where to write the gradient.

    Returns
    -------
    ndarray, shape (B, ..., C)
        Added up over the K samples.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, tau is not positive, or there is neither y nor its noise.

    Examples
    --------
    >>> import fastelbo
    >>> logits, noise = [[0.0, 0.0]], [[1.0, 0.0]]
    >>> y = fastelbo.gumbel_softmax(logits, noise=noise)
    >>> fastelbo.gumbel_softmax_backward([[1.0, 0.0]], logits, y).round(4)
    array([[ 0.1966, -0.1966]])
    """
    tau = positive_number(tau, "tau")
    given = (grad_y, logits, y, noise)
    logits = as_logits(logits)
    single = logits.dtype.itemsize == 4
    grad_y = _arrays.as_rows(grad_y, "grad_y", single)
    several = grad_y.ndim == logits.ndim + 1
    if grad_y.shape[several:] != logits.shape or len(grad_y) == 0:
        expected = f"{logits.shape}, or that after an axis of samples"
        raise _arrays.shape_error("grad_y", grad_y.shape, expected)
    if noise is not None or rng is not None:
        if isinstance(rng, np.random.Generator):
            raise TypeError("rng must be the int that y was drawn with: a Generator has moved on")
        y = _relaxed(logits, noise_of(rng, noise, grad_y.shape, logits.dtype), tau)
    elif y is None:
        raise TypeError("y is None, which needs noise or rng")
    else:
        y = _arrays.as_rows(y, "y", single)
        if y.shape != grad_y.shape:
            raise _arrays.shape_error("y", y.shape, f"that of grad_y, {grad_y.shape}")
        y = classes_first(y)
    out = _arrays.checked_out(out, logits.shape, single, given, "out")
    with np.errstate(all="ignore"):
        push = classes_first(grad_y)
        push = y * (push - (push * y).sum(axis=0))
        push = push.sum(axis=1, dtype=np.float64) if several else push
        tau = _at_least_tiny(tau, out.dtype)
        np.divide(np.moveaxis(push, 0, -1), tau, out=out, casting="same_kind")
    return out
