"""M2: the bound of samples of which some have labels, by what a model makes of every class."""

from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_number
from fastelbo._threads import threads_for
from fastelbo.bounds import reduce_rows
from fastelbo.likelihoods import check_reduction

_kernels = _builds.kernels("semi_supervised")

#: An element costs about this many of a squared error.
COST = 8


class M2Grad(NamedTuple):
    """Gradients of :func:`m2_elbo`, (B, C) each."""

    log_joint: np.ndarray
    logits: np.ndarray


def _as_labels(y, batch, classes):
    """Labels (B,) as int64: classes, and -1 where there is none."""
    y = _arrays.as_data(y, "y")
    if y.shape != (batch,):
        raise _arrays.shape_error("y", y.shape, f"({batch},), a label for each row of logits")
    wrong = ~((y >= -1) & (y < classes))  # NaN, too
    if y.dtype.kind == "f":
        wrong |= y != np.floor(y)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"y[{i}] = {y[i]:g} is no label: classes are whole numbers from 0 to {classes - 1}, "
            "and -1 stands for a sample without one"
        )
    return np.ascontiguousarray(y, np.int64)


def checked_classes(log_joint, logits, y):
    """The arrays, whose shapes fit; labels as whole numbers."""
    log_joint = _arrays.as_floats(log_joint, "log_joint")
    logits = _arrays.as_floats(logits, "logits")
    if logits.ndim != 2:
        raise _arrays.shape_error("logits", logits.shape, "(batch, classes)")
    if log_joint.shape != logits.shape:
        raise _arrays.shape_error("log_joint", log_joint.shape, f"{logits.shape} like logits")
    if logits.size == 0:
        axis = "batch" if len(logits) == 0 else "classes"
        raise _arrays.empty_error("logits", logits.shape, axis)
    return log_joint, logits, _as_labels(y, *logits.shape)


def _run(log_joint, logits, y, alpha, reduction, num_threads, out=None, with_gradient=False):
    check_reduction(reduction)
    alpha = as_number(alpha, "alpha", 0)
    given = log_joint, logits, y
    log_joint, logits, y = checked_classes(*given)
    single = _arrays.computes_in_float32((log_joint, logits))
    log_joint = _arrays.as_rows(log_joint, "log_joint", single)
    logits = _arrays.as_rows(logits, "logits", single)
    gradients = None, None
    if with_gradient:
        shapes = [logits.shape] * 2
        gradients = _arrays.checked_outs(out, shapes, single, given, M2Grad._fields)
    value = np.empty(len(logits))
    weight = 1.0 / len(logits) if reduction == "mean" else 1.0
    threads = threads_for(COST * logits.size, num_threads)
    _kernels.class_marginal(log_joint, logits, y, alpha, weight, value, *gradients, threads)
    value = reduce_rows(value, reduction)
    return (value, M2Grad(*gradients)) if with_gradient else value


def m2_elbo(log_joint, logits, y, *, alpha=1.0, reduction="mean", num_threads=None):
    """The objective of the semi-supervised model M2 [1]_, of labelled and other samples together.

    A sample with a label y has L(x, y) + alpha log q(y|x), and one without sum_y q(y|x) L(x, y)
    plus the entropy of q(y|x), where L(x, y) = E log p(x|y, z) - KL(q(z|x, y) || p(z)) + log p(y).

    Parameters
    ----------
    log_joint : array_like, shape (B, C)
        L(x, y) of every class. A likelihood gives its first part as ``(C, B)`` by
        ``log_prob(x, x_recon, reduction="none")`` of decoder outputs ``(C, B, ...)``: transpose it.
        Of samples with a label only that class counts.
    logits : array_like, shape (B, C)
        Of q(y|x), normalised or not. Those of infinity leave the others nothing, and the classes of
        probability zero add nothing.
    y : array_like, shape (B,)
        Labels 0, 1, ..., C - 1, and -1 for a sample without one.
    alpha : float, optional
        Weight of the classification, not negative.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, a label is no class, or alpha is negative.

    See Also
    --------
    SemiSupervisedVAE : a classifier trained on it.
    importance_bound : of samples of a latent variable that is not summed over.

    References
    ----------
    .. [1] Kingma, Rezende, Mohamed, Welling. Semi-supervised learning with deep generative models.
       NeurIPS 2014.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import fastelbo
    >>> log_joint = np.log([[0.1, 0.3], [0.1, 0.3]])
    >>> logits = np.log([[0.25, 0.75], [0.25, 0.75]])
    >>> values = fastelbo.m2_elbo(log_joint, logits, [-1, 1], reduction="none")
    >>> np.exp(values).round(6)        # log p(x) as q is exact, and 0.3 * 0.75
    array([0.4  , 0.225])

    With a likelihood of decoder outputs (C, B, D), of which a mask leaves out a pixel, and a KL:

    >>> x, mask = [[1.0, 0.0], [1.0, 1.0]], [[True, False], [True, True]]
    >>> outputs = np.array([[[0.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]])
    >>> log_p = fastelbo.Bernoulli().log_prob(x, outputs, mask=mask, reduction="none")
    >>> mu = np.zeros((2, 2, 3))       # of q(z|x, y), (C, B, L)
    >>> kl = [fastelbo.kl_standard_normal(m, m, reduction="none") for m in mu]
    >>> log_joint = (log_p - kl).T - math.log(2)     # classes are equally likely
    >>> log_joint.round(4)
    array([[-1.3863, -0.8201],
           [-2.0794, -0.947 ]])
    >>> fastelbo.m2_elbo(log_joint, [[0.0, 0.0], [0.0, 0.0]], [1, -1], reduction="none").round(4)
    array([-1.5132, -0.8201])
    """
    return _run(log_joint, logits, y, alpha, reduction, num_threads)


def m2_elbo_and_grad(
    log_joint, logits, y, *, alpha=1.0, reduction="mean", out=None, num_threads=None
):
    """:func:`m2_elbo` and its gradients by log_joint and logits, in the same pass.

    Parameters
    ----------
    log_joint, logits, y, alpha, reduction, num_threads
        As in :func:`m2_elbo`.
    out : tuple (log_joint, logits), optional
        Where to write the gradients, (B, C) each, or None for a new one.

    Returns
    -------
    value : float or ndarray of shape (B,)
    gradient : M2Grad
        ``log_joint`` (q(y|x), or one at the label) and ``logits``; with ``reduction="none"``, of
        the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`m2_elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.m2_elbo_and_grad([[-1.0, -3.0]], [[0.0, 0.0]], [-1])
    >>> grad.log_joint, grad.logits
    (array([[0.5, 0.5]]), array([[ 0.5, -0.5]]))
    """
    return _run(log_joint, logits, y, alpha, reduction, num_threads, out, True)
