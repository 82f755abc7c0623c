"""KL divergences between discrete distributions, categorical and Bernoulli, by logits."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from fastelbo import _arrays
from fastelbo._dense import discrete_divergence
from fastelbo.likelihoods import broadcasts, check_reduction

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced


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


def _over_the_prior(gradient, shape):
    """The sum over what a prior of this shape was broadcast to."""
    own = shape[max(0, len(shape) - gradient.ndim) :]
    extra = gradient.ndim - len(own)
    axes = (*range(extra), *[extra + i for i, n in enumerate(own) if n == 1])
    return gradient.sum(axis=axes, dtype=np.float64).reshape(shape)


def _divergence(given, prior_given, reduction, with_classes, with_gradient=False, out=None):
    options = with_classes, reduction
    short = discrete_divergence(given, prior_given, *options, out, KlDiscreteGrad, with_gradient)
    if short is not None:
        return short
    return _ordinary(given, prior_given, *options, with_gradient, out)


@np.errstate(all="ignore")
def _ordinary(given, prior_given, with_classes, reduction, with_gradient, out):
    """By arrays as the short way takes them."""
    check_reduction(reduction)
    options = with_classes, reduction
    logits, prior = checked_pair(given, prior_given, with_classes)
    single = _arrays.computes_in_float32((logits, prior))
    whole, gradients = np.ascontiguousarray(_arrays.in_dtype(logits, single)), ()
    names = KlDiscreteGrad._fields[: 1 if prior_given is None else 2]
    if with_gradient:
        shapes, inputs = (logits.shape, prior.shape), (given, prior_given)
        gradients = _arrays.checked_outs(out, shapes[: len(names)], single, inputs, names)
    if prior_given is not None:
        # One for all latents, all samples or each; for what is shared otherwise, a temporary.
        shape = logits.shape
        if prior.ndim < logits.ndim or len(prior) < len(logits):
            shape = shape[-1:] if with_classes else ()
            shape = shape if prior.size == prod(shape) else logits.shape[1:]
        own = prior.reshape(prior.shape[max(0, prior.ndim - len(shape)) :])
        prior_given = np.broadcast_to(_arrays.in_dtype(own, single), shape).copy()
    result = discrete_divergence(whole, prior_given, *options, None, KlDiscreteGrad, with_gradient)
    if not with_gradient:
        return result
    value, found = result
    gradients[0][...] = found.logits
    if prior_given is not None:
        gradients[1][...] = _over_the_prior(found.prior_logits, prior.shape)
    return value, KlDiscreteGrad(gradients[0], *gradients[1:] or (None,))


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
        them. With ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_categorical`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.kl_categorical_and_grad([[1.0, 1.0]], [2.0, 2.0])
    >>> value, grad.logits, grad.prior_logits
    (0.0, array([[0., 0.]]), array([0., 0.]))
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
        them. With ``reduction="none"``, of the sum over the batch.

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
