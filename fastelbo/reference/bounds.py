"""Bounds that need log weights alone."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet, reduce_rows, row_weight


def without_largest(a):
    """exp(a - m) and the largest entry m of each column, a finite number where it is infinite."""
    largest = np.finfo(np.float64).max
    m = np.clip(np.max(a, axis=0), -largest, largest)
    return np.exp(a - m), m


def log_mean_exp(a):
    """log of the mean of e^a over the first axis."""
    e, m = without_largest(a)
    return m + np.log(e.mean(axis=0))


def importance_bound(log_w, *, alpha=0.0, reduction="mean"):
    """L_alpha = 1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha) (Li & Turner 2016).

    alpha = 0 is IWAE, and at alpha = 1 stands the limit, the ELBO: the mean of log w.

    Examples
    --------
    >>> importance_bound([[1.0], [1.0]])
    1.0
    >>> importance_bound([[1.0], [3.0]], alpha=1)
    2.0
    """
    return importance_bound_and_grad(log_w, alpha=alpha, reduction=reduction)[0]


@quiet
def importance_bound_and_grad(log_w, *, alpha=0.0, reduction="mean"):
    """(bound, (log_w,)).

    Examples
    --------
    >>> importance_bound_and_grad([[1.0], [1.0]])
    (1.0, (array([[0.5],
           [0.5]]),))
    """
    log_w = as_float64(log_w)
    samples, batch = log_w.shape
    if alpha == 1:
        rows, weights = log_w.mean(axis=0), np.full(log_w.shape, 1.0 / samples)
    else:
        power = 1.0 - alpha
        rows = log_mean_exp(power * log_w) / power
        w, _ = without_largest(power * log_w)
        weights = w / w.sum(axis=0)
    return reduce_rows(rows, reduction), (row_weight(batch, reduction) * weights,)


def cubo(log_w, *, n=2, reduction="mean"):
    """CUBO_n = (1/n) log (1/K) sum_k w_k^n (Dieng et al. 2017).

    Examples
    --------
    >>> cubo([[1.0], [1.0]])
    1.0
    """
    return importance_bound(log_w, alpha=1.0 - n, reduction=reduction)


def cubo_and_grad(log_w, *, n=2, reduction="mean"):
    """(cubo, (log_w,)).

    Examples
    --------
    >>> cubo_and_grad([[1.0], [1.0]])[1][0].ravel()
    array([0.5, 0.5])
    """
    return importance_bound_and_grad(log_w, alpha=1.0 - n, reduction=reduction)


def vimco(log_w, *, reduction="mean"):
    """L_K, which :func:`fastelbo.vimco_and_grad` differentiates.

    Examples
    --------
    >>> vimco([[1.0], [1.0]])
    1.0
    """
    return importance_bound(log_w, reduction=reduction)


@quiet
def vimco_and_grad(log_w, *, reduction="mean"):
    """(L_K, (log_w, log_q)): what multiplies d log w_k and d log q(z_k|x) (Mnih & Rezende 2016).

    The latter is L_K less the same with the geometric mean of the others in the place of w_k.

    Examples
    --------
    >>> vimco_and_grad([[1.0], [1.0]])[1][1].ravel()
    array([0., 0.])
    """
    log_w = as_float64(log_w)
    bound, (weights,) = importance_bound_and_grad(log_w, reduction="none")
    others = [np.delete(log_w, k, axis=0) for k in range(len(log_w))]
    replaced = [np.vstack([several, several.mean(axis=0)]) for several in others]
    signals = np.array([bound - log_mean_exp(several) for several in replaced])
    weight = row_weight(log_w.shape[1], reduction)
    return reduce_rows(bound, reduction), (weight * weights, weight * signals)


def reinforce(log_w, *, baseline="leave-one-out", reduction="mean"):
    """The ELBO, mean log w, which :func:`fastelbo.reinforce_and_grad` differentiates.

    Examples
    --------
    >>> reinforce([[1.0], [3.0]])
    2.0
    """
    return importance_bound(log_w, alpha=1, reduction=reduction)


@quiet
def reinforce_and_grad(log_w, *, baseline="leave-one-out", reduction="mean"):
    """(ELBO, (log_w, log_q)): what multiplies d log w_k and d log q(z_k|x) (Williams 1992).

    The latter is log w_k / K, less the mean of the others' (Kool et al. 2019) unless the baseline
    is "none".

    Examples
    --------
    >>> reinforce_and_grad([[1.0], [3.0]])[1][1].ravel()
    array([-1.,  1.])
    """
    log_w = as_float64(log_w)
    samples, batch = log_w.shape
    signals = log_w
    if baseline != "none":
        others = [np.delete(log_w, k, axis=0).mean(axis=0) for k in range(samples)]
        signals = log_w - np.array(others)
    weight = row_weight(batch, reduction) / samples
    return importance_bound(log_w, alpha=1, reduction=reduction), (
        np.full(log_w.shape, weight),
        weight * signals,
    )


@quiet
def effective_sample_size(log_w):
    """(sum_k w_k)^2 / sum_k w_k^2, (B,) (Kong et al. 1994).

    Examples
    --------
    >>> effective_sample_size([[0.0, 0.0], [0.0, -1000.0]])
    array([2., 1.])
    """
    weights = normalized_weights(log_w)
    return 1.0 / np.sum(weights * weights, axis=0)


def normalized_weights(log_w):
    """w_k / sum_j w_j, (K, B).

    Examples
    --------
    >>> normalized_weights([[0.0], [0.0]])
    array([[0.5],
           [0.5]])
    """
    return importance_bound_and_grad(log_w, reduction="none")[1][0]
