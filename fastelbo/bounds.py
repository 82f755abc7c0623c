"""Bounds of the evidence from log importance weights (K, B), with gradients and diagnostics.

One pass reads the log weights and keeps sums of each column, a state. All that is computed here
comes from it; ``streaming.py`` keeps one from call to call.
"""

import math
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_number, check_choice
from fastelbo._threads import threads_for
from fastelbo.likelihoods import check_reduction

_kernels = _builds.kernels("bounds")

#: Rows of a state, as in ``_kernels/bounds.pyx``; a sum is two rows, what it lost being one.
SHIFT, W, W2, LOG_W, NEGATIVE, POSITIVE, STATE = 0, 1, 3, 5, 7, 8, 9
BASELINES = ("leave-one-out", "none")
#: A log weight costs about this many elements of a squared error.
COST = 8


class BoundGrad(NamedTuple):
    """Gradient of a bound by its log weights, (K, B)."""

    log_w: np.ndarray


class ScoreGrad(NamedTuple):
    """What multiplies d log w_k and the score d log q(z_k|x) in an estimated gradient, (K, B)."""

    log_w: np.ndarray
    log_q: np.ndarray


def reduce_rows(rows, reduction):
    """One value a row to what the caller asked for."""
    if reduction == "none":
        return rows
    with np.errstate(all="ignore"):  # rows of both infinities are NaN
        return float(rows.mean() if reduction == "mean" else rows.sum())


def as_log_weights(log_w):
    """A (K, B) array of floats that passes can read."""
    log_w = _arrays.as_floats(log_w, "log_w")
    if log_w.ndim != 2:
        raise _arrays.shape_error("log_w", log_w.shape, "(samples, batch)")
    if 0 in log_w.shape:
        raise ValueError(f"log_w is empty: shape {log_w.shape}")
    if log_w.strides[1] == 0:  # one number for a whole row
        log_w = np.ascontiguousarray(log_w)
    return log_w


def _fresh_state(batch, power):
    """A state that has seen nothing."""
    state = np.zeros((STATE, batch))
    state[SHIFT] = -math.copysign(np.finfo(np.float64).max, power)
    return state


def add_columns(log_w, power, num_threads, what="", out=None, weight=1.0, state=None):
    """The state with these log weights, raised to a power, added; `what` is written to `out`."""
    if state is None:
        state = _fresh_state(log_w.shape[1], power)
    threads = threads_for(COST * log_w.size, num_threads)
    _kernels.columns(log_w, power, state, what, out, weight, threads)
    return state


def sum_of(state, row):
    return state[row] + state[row + 1]


def _mean(state, samples):
    """Mean log w of each column."""
    mean = sum_of(state, LOG_W) / samples
    return (
        mean + np.where(state[NEGATIVE] > 0, -np.inf, 0) + np.where(state[POSITIVE] > 0, np.inf, 0)
    )


def bound_of(state, samples, alpha):
    """L_alpha of each column, from a state of power 1 - alpha (of any for alpha = 1)."""
    with np.errstate(all="ignore"):
        if alpha == 1:
            return _mean(state, samples)
        return state[SHIFT] + np.log(sum_of(state, W) / samples) / (1 - alpha)


def _weight(log_w, reduction):
    return 1.0 / log_w.shape[1] if reduction == "mean" else 1.0


def _as_order(value, name):
    number = as_number(value, name)
    if not -math.inf < number < math.inf:  # isfinite, which torch.compile cannot trace
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _renyi(log_w, alpha, reduction, num_threads, out=None, with_gradient=False):
    check_reduction(reduction)
    given = log_w
    log_w = as_log_weights(log_w)
    power = 1 - alpha if alpha != 1 else 1.0
    gradient = None
    if with_gradient:
        single = log_w.dtype.itemsize == 4
        (gradient,) = _arrays.checked_outs(out, [log_w.shape], single, (given,), ("log_w",))
    weight = _weight(log_w, reduction)
    by_pass = with_gradient and alpha != 1
    state = add_columns(log_w, power, num_threads, "weights" if by_pass else "", gradient, weight)
    bound = reduce_rows(bound_of(state, len(log_w), alpha), reduction)
    if not with_gradient:
        return bound
    if alpha == 1:
        gradient.fill(weight / len(log_w))
    return bound, BoundGrad(gradient)


def importance_bound(log_w, *, alpha=0.0, reduction="mean", num_threads=None):
    """Rényi bound L_alpha = 1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha) of log p(x) [1]_.

    alpha = 0 is the importance-weighted bound (IWAE [2]_), alpha = 1 the ELBO, mean log w, exactly.
    L_alpha falls with alpha; below 0 it estimates an upper bound.

    Parameters
    ----------
    log_w : array_like, shape (K, B)
        From :func:`~fastelbo.log_weights`. -inf is a weight of zero; NaN and inf go through.
    alpha : float, optional
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
        If log_w is not (K, B) or empty, or an option is unknown.

    References
    ----------
    .. [1] Li, Turner. Rényi divergence variational inference. NeurIPS 2016.
    .. [2] Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. ICLR 2016.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import fastelbo
    >>> log_w = np.log([[1.0], [3.0]])
    >>> round(math.exp(fastelbo.importance_bound(log_w)), 6)
    2.0
    >>> round(math.exp(fastelbo.importance_bound(log_w, alpha=1)) ** 2, 6)
    3.0
    """
    return _renyi(log_w, _as_order(alpha, "alpha"), reduction, num_threads)


def importance_bound_and_grad(log_w, *, alpha=0.0, reduction="mean", out=None, num_threads=None):
    """:func:`importance_bound` and its gradient by log_w: the normalised w^(1 - alpha).

    Parameters
    ----------
    log_w, alpha, reduction, num_threads
        As in :func:`importance_bound`.
    out : tuple of one ndarray (K, B), optional
        Where to write the gradient.

    Returns
    -------
    bound : float or ndarray of shape (B,)
    gradient : BoundGrad
        ``log_w``, (K, B) in its dtype; with ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> bound, grad = fastelbo.importance_bound_and_grad(np.log([[1.0], [3.0]]))
    >>> grad.log_w.ravel().round(6)
    array([0.25, 0.75])
    """
    return _renyi(log_w, _as_order(alpha, "alpha"), reduction, num_threads, out, True)


def _checked_n(n):
    n = _as_order(n, "n")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return n


def cubo(log_w, *, n=2, reduction="mean", num_threads=None):
    """CUBO_n = (1/n) log (1/K) sum_k w_k^n, for n > 1 an upper bound of log p(x) [1]_.

    The chi upper bound; it is L_alpha with alpha = 1 - n. Of K samples it is an estimate that lies
    below the bound in expectation: use many.

    Parameters
    ----------
    log_w, reduction, num_threads
        As in :func:`importance_bound`.
    n : float, optional
        At least 1.

    Returns
    -------
    float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    References
    ----------
    .. [1] Dieng, Tran, Ranganath, Paisley, Blei. Variational inference via chi upper bound
       minimization. NeurIPS 2017.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import fastelbo
    >>> round(math.exp(fastelbo.cubo(np.log([[1.0], [7.0]]))), 6)
    5.0
    """
    return _renyi(log_w, 1 - _checked_n(n), reduction, num_threads)


def cubo_and_grad(log_w, *, n=2, reduction="mean", out=None, num_threads=None):
    """:func:`cubo` and its gradient by log_w: the normalised w^n.

    Parameters
    ----------
    log_w, n, reduction, num_threads
        As in :func:`cubo`.
    out : tuple of one ndarray (K, B), optional
        Where to write the gradient.

    Returns
    -------
    bound : float or ndarray of shape (B,)
    gradient : BoundGrad
        ``log_w``, (K, B) in its dtype; with ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> bound, grad = fastelbo.cubo_and_grad(np.log([[1.0], [7.0]]))
    >>> grad.log_w.ravel().round(6)
    array([0.02, 0.98])
    """
    return _renyi(log_w, 1 - _checked_n(n), reduction, num_threads, out, True)


def _several(log_w):
    log_w = as_log_weights(log_w)
    if len(log_w) < 2:
        raise ValueError(f"log_w has shape {log_w.shape}: a baseline from the others needs K > 1")
    return log_w


def _score_outs(out, given, log_w):
    single = log_w.dtype.itemsize == 4
    return _arrays.checked_outs(out, [log_w.shape] * 2, single, (given,), ScoreGrad._fields)


def vimco(log_w, *, reduction="mean", num_threads=None):
    """The bound whose gradient :func:`vimco_and_grad` estimates: L_K, as of IWAE.

    Parameters
    ----------
    log_w, reduction, num_threads
        As in :func:`importance_bound`; K > 1.

    Returns
    -------
    float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import fastelbo
    >>> round(math.exp(fastelbo.vimco(np.log([[1.0], [3.0]]))), 6)
    2.0
    """
    return _renyi(_several(log_w), 0.0, reduction, num_threads)


def vimco_and_grad(log_w, *, reduction="mean", out=None, num_threads=None):
    """VIMCO [1]_: L_K and what its gradient is made of where z cannot be reparameterized.

    The estimate is sum_k (grad.log_w_k d log w_k + grad.log_q_k d log q(z_k|x)), the derivatives
    for given samples: log_w are the normalised weights, and log_q the learning signals
    L_K - L_K^(-k), where L_K^(-k) has in the place of w_k the geometric mean of the others.
    (Without a baseline, the signal of every sample would be L_K itself.)

    Parameters
    ----------
    log_w, reduction, num_threads
        As in :func:`vimco`.
    out : tuple (log_w, log_q), optional
        Where to write them, (K, B) each, or None for a new one.

    Returns
    -------
    bound : float or ndarray of shape (B,)
    gradient : ScoreGrad
        ``log_w`` and ``log_q``, (K, B), times the weight of a sample in the value (1/B for the
        mean, else 1).

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    References
    ----------
    .. [1] Mnih, Rezende. Variational inference for Monte Carlo objectives. ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> bound, grad = fastelbo.vimco_and_grad(np.log([[1.0], [3.0]]))
    >>> np.exp(grad.log_q).ravel().round(6)          # 2 / 3 and 2 / 1
    array([0.666667, 2.      ])
    """
    check_reduction(reduction)
    given, log_w = log_w, _several(log_w)
    weights, signals = _score_outs(out, given, log_w)
    weight = _weight(log_w, reduction)
    state = add_columns(log_w, 1.0, num_threads, "weights", weights, weight)
    add_columns(log_w, 1.0, num_threads, "vimco", signals, weight)
    bound = reduce_rows(bound_of(state, len(log_w), 0.0), reduction)
    return bound, ScoreGrad(weights, signals)


def reinforce(log_w, *, baseline="leave-one-out", reduction="mean", num_threads=None):
    """The bound whose gradient :func:`reinforce_and_grad` estimates: the ELBO, mean log w.

    Parameters
    ----------
    log_w, reduction, num_threads
        As in :func:`importance_bound`.
    baseline : {"leave-one-out", "none"}
        Changes the estimate of the gradient only.

    Returns
    -------
    float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.reinforce([[1.0], [3.0]])
    2.0
    """
    log_w = of_baseline(log_w, baseline)
    return _renyi(log_w, 1.0, reduction, num_threads)


def reinforce_and_grad(
    log_w, *, baseline="leave-one-out", reduction="mean", out=None, num_threads=None
):
    """REINFORCE [1]_: the ELBO and what its gradient is made of where z has no reparameterization.

    The estimate is sum_k (grad.log_w_k d log w_k + grad.log_q_k d log q(z_k|x)), the derivatives
    for given samples: log_w is 1/K, and log_q the learning signal log w_k / K, less the mean of
    the other samples' log w in the place of a baseline [2]_.

    Parameters
    ----------
    log_w, baseline, reduction, num_threads
        As in :func:`reinforce`; K > 1 for a baseline from the others.
    out : tuple (log_w, log_q), optional
        Where to write them, (K, B) each, or None for a new one.

    Returns
    -------
    bound : float or ndarray of shape (B,)
    gradient : ScoreGrad
        ``log_w`` and ``log_q``, (K, B), times the weight of a sample in the value (1/B for the
        mean, else 1).

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`.

    References
    ----------
    .. [1] Williams. Simple statistical gradient-following algorithms for connectionist
       reinforcement learning. Machine Learning 8, 1992.
    .. [2] Kool, van Hoof, Welling. Buy 4 REINFORCE samples, get a baseline for free. ICLR 2019
       workshop.

    Examples
    --------
    >>> import fastelbo
    >>> bound, grad = fastelbo.reinforce_and_grad([[1.0], [3.0]])
    >>> grad.log_q.ravel()
    array([-1.,  1.])
    """
    check_reduction(reduction)
    given, log_w = log_w, of_baseline(log_w, baseline)
    constants, signals = _score_outs(out, given, log_w)
    weight = _weight(log_w, reduction) / len(log_w)
    constants.fill(weight)
    if baseline == "none":
        np.multiply(log_w, weight, out=signals)
        state = add_columns(log_w, 1.0, num_threads)
    else:
        state = add_columns(log_w, 1.0, num_threads, "reinforce", signals, weight)
    bound = reduce_rows(bound_of(state, len(log_w), 1.0), reduction)
    return bound, ScoreGrad(constants, signals)


def of_baseline(log_w, baseline):
    """log_w, checked, of so many samples as the baseline needs."""
    check_choice(baseline, "baseline", BASELINES)
    return _several(log_w) if baseline != "none" else as_log_weights(log_w)


def effective_sample_size(log_w, *, num_threads=None):
    """(sum_k w_k)^2 / sum_k w_k^2 of each column [1]_: from 1 to K, where all weights are equal.

    Parameters
    ----------
    log_w : array_like, shape (K, B)
    num_threads : int, optional

    Returns
    -------
    ndarray of shape (B,) and dtype float64
        NaN where no weight is positive, or one is infinite.

    Raises
    ------
    ValueError, TypeError
        If log_w is not (K, B) or empty.

    References
    ----------
    .. [1] Kong, Liu, Wong. Sequential imputations and Bayesian missing data problems. JASA 89,
       1994.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.effective_sample_size([[0.0, 0.0], [0.0, -1000.0]])
    array([2., 1.])
    """
    return effective_of(add_columns(as_log_weights(log_w), 1.0, num_threads))


def effective_of(state):
    with np.errstate(all="ignore"):
        return sum_of(state, W) ** 2 / sum_of(state, W2)


def normalized_weights(log_w, *, out=None, num_threads=None):
    """w_k / sum_j w_j: log weights to weights that add up to one in each column.

    Parameters
    ----------
    log_w : array_like, shape (K, B)
    out : ndarray of shape (K, B), optional
        In the dtype of log_w.
    num_threads : int, optional

    Returns
    -------
    ndarray of shape (K, B)
        In the dtype of log_w. NaN where no weight is positive, and for infinite weights; those
        beside an infinite one are zero.

    Raises
    ------
    ValueError, TypeError
        If log_w is not (K, B) or empty.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> fastelbo.normalized_weights(np.log([[1.0], [3.0]])).round(6)
    array([[0.25],
           [0.75]])
    """
    given, log_w = log_w, as_log_weights(log_w)
    out = _arrays.checked_out(out, log_w.shape, log_w.dtype.itemsize == 4, (given,), "out")
    add_columns(log_w, 1.0, num_threads, "weights", out)
    return out
