"""KL divergences between distributions of discrete latents: categorical and Bernoulli, by logits.

Classes are on the last axis for whoever calls, and on the first of what is computed with: NumPy is
several times as fast there, for they are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from fastelbo import _arrays
from fastelbo.bounds import reduce_rows
from fastelbo.likelihoods import broadcasts, check_reduction

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced


#: Elements that are computed with at once: temporary arrays of them stay in the cache.
BLOCK = 8192


class KlDiscreteGrad(NamedTuple):
    """Gradients for logits, each in the shape of the argument; None for a prior not given."""

    logits: FloatArray
    prior_logits: FloatArray | None


def as_logits(logits, with_classes=True):
    """(B, ...), or (B, ..., C) with classes, as a float array."""
    logits = _arrays.as_floats(logits, "logits")
    if logits.ndim < 1 + with_classes:
        wanted = "(batch, ..., classes)" if with_classes else "(batch, ...)"
        raise _arrays.shape_error("logits", logits.shape, wanted)
    if len(logits) == 0:
        raise _arrays.empty_error("logits", logits.shape, "batch")
    if with_classes and logits.shape[-1] == 0:
        raise _arrays.empty_error("logits", logits.shape, "classes")
    return logits


def checked_pair(logits, prior_logits, with_classes):
    """Logits and those of the prior, which broadcast to them; all equal where there is no prior."""
    logits = as_logits(logits, with_classes)
    own = logits.shape[-1:] if with_classes else ()
    if prior_logits is None:
        return logits, np.zeros(own, logits.dtype)
    if type(prior_logits) in (int, float):
        prior_logits = _arrays.as_scalar(prior_logits, logits.dtype, "prior_logits")
    prior = _arrays.as_floats(prior_logits, "prior_logits")
    if not broadcasts(prior.shape, logits.shape) or prior.shape[prior.ndim - len(own) :] != own:
        wanted = f"one that broadcasts to that of logits, {logits.shape}"
        wanted += ", with every class" if with_classes else ""
        raise _arrays.shape_error("prior_logits", prior.shape, wanted)
    return logits, prior


def classes_first(logits):
    """(C, ...) of (..., C), contiguous."""
    return np.ascontiguousarray(np.moveaxis(logits, -1, 0))


def log_softmax(logits):
    """log p and p over the first axis; infinite logits share everything."""
    top = logits.max(axis=0)
    if (top == np.inf).any():
        infinite = np.where(logits == np.inf, 0.0, -np.inf)
        logits = np.where(top == np.inf, infinite, logits).astype(logits.dtype)
        top = logits.max(axis=0)
    log_p = logits - top
    p = np.exp(log_p)
    total = p.sum(axis=0)
    p /= total
    log_p -= np.log(total)
    return log_p, p


def _over_the_prior(gradient, prior):
    """The sum over what the prior was broadcast to."""
    extra = gradient.ndim - prior.ndim
    ones = [extra + i for i, n in enumerate(prior.shape) if n == 1]
    axes = (*range(extra), *ones)
    return gradient.sum(axis=axes, dtype=np.float64).reshape(prior.shape) if axes else gradient


def _of_classes(logits, prior, with_gradient):
    """(KL of each position, gradients by logits and prior logits), those of one position."""
    shape = logits.shape
    prior = classes_first(prior)
    prior = prior.reshape(len(prior), *(1,) * (len(shape) - prior.ndim), *prior.shape[1:])
    (log_p, p), (log_prior, prior) = log_softmax(classes_first(logits)), log_softmax(prior)
    surprise = np.subtract(log_p, log_prior, out=log_p)
    empty = p == 0
    if empty.any():
        surprise[empty] = 0
    # p log(p / p0) - p + p0: no term is negative, but for rounding.
    terms = p * surprise
    terms -= p
    terms += prior
    kl = np.maximum(terms, 0, out=terms).sum(axis=0, dtype=np.float64)
    if not with_gradient:
        return kl, None
    pull = np.subtract(surprise, kl, out=terms)
    pull *= p
    pull[empty] = 0
    infinite = kl == np.inf
    if infinite.any():
        hit = surprise == np.inf
        rest = ~(hit | empty)
        limit = np.where(hit, np.where(rest.any(axis=0), np.inf, 0), np.where(rest, -np.inf, 0))
        np.copyto(pull, limit, where=infinite, casting="same_kind")
    p -= prior
    return kl, (np.moveaxis(pull, 0, -1), np.moveaxis(p, 0, -1))


def _of_bits(logits, prior, with_gradient):
    """The same of Bernoulli distributions.

    Of the more likely outcome, whose probability p is at least a half: log(p / p0) and the rest.
    """
    a, b = np.abs(logits), np.where(logits < 0, -prior, prior)
    small, prior_small = np.exp(-a), np.exp(-np.abs(b))
    p, prior_large = 1 / (1 + small), 1 / (1 + prior_small)
    q = small * p
    kl = np.log1p(prior_small)
    kl -= np.log1p(small)
    kl -= np.minimum(b, 0)
    rest = b - a
    rest *= q
    rest[q == 0] = 0
    kl += rest
    np.maximum(kl, 0, out=kl)
    kl[b == -np.inf] = np.inf
    if not with_gradient:
        return kl, None
    rest *= p
    prior_small *= prior_large
    # p - p0 by the two that are small, which keep their digits.
    prior_q = np.where(b > 0, prior_small, prior_large)
    push = np.where(b > -a, prior_q - q, p - prior_small)
    negative = logits < 0
    return kl, (np.where(negative, rest, -rest), np.where(negative, -push, push))


@np.errstate(all="ignore")
def _divergence(given, prior_given, reduction, with_classes, with_gradient=False, out=None):
    check_reduction(reduction)
    logits, prior = checked_pair(given, prior_given, with_classes)
    single = _arrays.computes_in_float32((logits, prior))
    logits, prior = (_arrays.in_dtype(a, single) for a in (logits, prior))
    batch, has_prior = len(logits), prior_given is not None
    outs = ()
    if with_gradient:
        names, shapes = KlDiscreteGrad._fields, (logits.shape, prior.shape)
        outs = _arrays.checked_outs(
            out,
            shapes[: 1 + has_prior],
            single,
            (given, prior_given),
            names[: 1 + has_prior],
        )
    compute = _of_classes if with_classes else _of_bits
    rows = np.empty(batch)
    weight = 1.0 / batch if reduction == "mean" else 1.0
    shared = prior.ndim < logits.ndim or prior.shape[0] != batch
    by_prior = np.zeros(prior.shape if has_prior and with_gradient else ())
    step = max(1, BLOCK // max(1, logits[0].size))
    for block in (slice(first, first + step) for first in range(0, batch, step)):
        own = prior if shared else prior[block]
        kl, gradients = compute(logits[block], own, with_gradient)
        rows[block] = kl.reshape(len(kl), -1).sum(axis=1, dtype=np.float64)
        if with_gradient:
            pull, push = gradients
            np.multiply(pull, weight, out=outs[0][block], casting="same_kind")
            if has_prior:
                by_prior[... if shared else block] += _over_the_prior(push, own)
    value = reduce_rows(rows, reduction)
    if not with_gradient:
        return value
    if has_prior:
        np.multiply(by_prior, -weight, out=outs[1], casting="same_kind")
    return value, KlDiscreteGrad(outs[0], outs[1] if has_prior else None)


@overload
def kl_categorical(
    logits: ArrayLike, prior_logits: ArrayLike | None = ..., *, reduction: Reduced = ...
) -> float: ...
@overload
def kl_categorical(
    logits: ArrayLike, prior_logits: ArrayLike | None = ..., *, reduction: ByRow
) -> Float64Array: ...
def kl_categorical(logits, prior_logits=None, *, reduction="mean"):
    """KL between categorical distributions [1]_, sum_c p_c (log p_c - log p0_c), by logits.

    Added up over all latents of a sample. A class of a logit of -inf has no probability and costs
    nothing; classes of +inf share all of it.

    Parameters
    ----------
    logits : array_like, shape (B, ..., C)
        Of q(z|x): p = softmax(logits) over the last axis.
    prior_logits : array_like, optional
        Of p(z), in a shape that broadcasts to that of logits and has all classes: (C,), say. By
        default all classes are equally likely.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    float, or ndarray of shape (B,) for ``reduction="none"``
        In nats; never negative, and infinite where the prior leaves out a class that p has.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, the batch is empty or an option is unknown.

    See Also
    --------
    gumbel_softmax : samples of the same latents, with gradients.

    References
    ----------
    .. [1] Cover, Thomas. Elements of information theory, 2nd edition, 2006, chapter 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> round(fastelbo.kl_categorical([[0.0, -np.inf]]), 6)  # log 2: the class is known
    0.693147
    """
    return _divergence(logits, prior_logits, reduction, True)


@overload
def kl_categorical_and_grad(
    logits: ArrayLike,
    prior_logits: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, ...] | None = ...,
) -> tuple[float, KlDiscreteGrad]: ...
@overload
def kl_categorical_and_grad(
    logits: ArrayLike,
    prior_logits: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    out: tuple[Out, ...] | None = ...,
) -> tuple[Float64Array, KlDiscreteGrad]: ...
def kl_categorical_and_grad(logits, prior_logits=None, *, reduction="mean", out=None):
    """:func:`kl_categorical` and its gradients, p (log p - log p0 - KL) and p0 - p.

    Parameters
    ----------
    logits, prior_logits, reduction
        As in :func:`kl_categorical`.
    out : tuple of ndarray, optional
        Where to write the gradients: one array, or two if there is a prior.

    Returns
    -------
    value : float or ndarray of shape (B,)
    gradients : KlDiscreteGrad
        In the shapes of the arguments; that of a prior shared by latents or samples is summed over
        them.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_categorical`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.kl_categorical_and_grad([[1.0, 1.0]], [2.0, 2.0])
    >>> value, grad.logits, grad.prior_logits
    (0.0, array([[0., 0.]]), array([-0., -0.]))
    """
    return _divergence(logits, prior_logits, reduction, True, True, out)


@overload
def kl_bernoulli(
    logits: ArrayLike, prior_logits: ArrayLike | None = ..., *, reduction: Reduced = ...
) -> float: ...
@overload
def kl_bernoulli(
    logits: ArrayLike, prior_logits: ArrayLike | None = ..., *, reduction: ByRow
) -> Float64Array: ...
def kl_bernoulli(logits, prior_logits=None, *, reduction="mean"):
    """KL between Bernoulli distributions, p log(p / p0) + (1 - p) log((1 - p) / (1 - p0)) [1]_.

    By logits, added up over all latents of a sample. Infinite logits are latents that are certain.

    Parameters
    ----------
    logits : array_like, shape (B, ...)
        Of q(z|x): p = 1 / (1 + e^-logits).
    prior_logits : float or array_like, optional
        Of p(z), log p0 - log(1 - p0), in a shape that broadcasts to that of logits. By default 0, a
        fair coin.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    float, or ndarray of shape (B,) for ``reduction="none"``
        In nats; never negative, and infinite where the prior is certain and p is not.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, the batch is empty or an option is unknown.

    See Also
    --------
    kl_categorical : of more than two classes.

    References
    ----------
    .. [1] Cover, Thomas. Elements of information theory, 2nd edition, 2006, chapter 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> round(fastelbo.kl_bernoulli([[np.inf, 0.0]]), 6)  # log 2: one of two bits is known
    0.693147
    """
    return _divergence(logits, prior_logits, reduction, False)


@overload
def kl_bernoulli_and_grad(
    logits: ArrayLike,
    prior_logits: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, ...] | None = ...,
) -> tuple[float, KlDiscreteGrad]: ...
@overload
def kl_bernoulli_and_grad(
    logits: ArrayLike,
    prior_logits: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    out: tuple[Out, ...] | None = ...,
) -> tuple[Float64Array, KlDiscreteGrad]: ...
def kl_bernoulli_and_grad(logits, prior_logits=None, *, reduction="mean", out=None):
    """:func:`kl_bernoulli` and its gradients, p (1 - p) (logits - prior_logits) and p0 - p.

    Parameters
    ----------
    logits, prior_logits, reduction
        As in :func:`kl_bernoulli`.
    out : tuple of ndarray, optional
        Where to write the gradients: one array, or two if there is a prior.

    Returns
    -------
    value : float or ndarray of shape (B,)
    gradients : KlDiscreteGrad
        In the shapes of the arguments; that of a prior shared by latents or samples is summed over
        them.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_bernoulli`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.kl_bernoulli_and_grad([[2.0]])
    >>> round(value, 6), grad.logits.round(6), grad.prior_logits
    (0.327813, array([[0.209987]]), None)
    """
    return _divergence(logits, prior_logits, reduction, False, True, out)
