"""M2: samples of which some have labels."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet, reduce_rows, row_weight


def m2_elbo(log_joint, logits, y, *, alpha=1.0, reduction="mean"):
    """L + alpha log q(y|x) of a label, sum_y q(y|x) (L - log q(y|x)) without (Kingma et al. 2014).

    Examples
    --------
    >>> m2_elbo([[-1.0, -3.0]], [[0.0, 0.0]], [0], alpha=0.0)
    -1.0
    """
    return m2_elbo_and_grad(log_joint, logits, y, alpha=alpha, reduction=reduction)[0]


@quiet
def m2_elbo_and_grad(log_joint, logits, y, *, alpha=1.0, reduction="mean"):
    """(m2_elbo, (log_joint, logits)).

    Examples
    --------
    >>> m2_elbo_and_grad([[-1.0, -3.0]], [[0.0, 0.0]], [-1])[1][1]
    array([[ 0.5, -0.5]])
    """
    log_joint, logits = as_float64(log_joint, logits)
    y = np.asarray(y).astype(int)
    labelled = (y >= 0)[:, None]
    label = np.arange(logits.shape[1]) == y[:, None]

    top = logits.max(axis=1, keepdims=True)
    level = np.where(logits == top, 0.0, logits - top)  # equal infinities are level
    e = np.exp(level)
    largest = np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, None]
    log_q = level - np.log1p(np.where(largest, 0.0, e).sum(axis=1, keepdims=True))
    q = np.exp(log_q)

    surplus = np.where(q == 0, 0.0, log_joint - log_q)
    without = np.sum(np.where(q == 0, 0.0, q * surplus), axis=1, keepdims=True)
    known = np.where(label, log_joint + (alpha * log_q if alpha else 0.0), 0.0).sum(axis=1)
    value = np.where(labelled[:, 0], known, without[:, 0])

    rest = np.where(label, 0.0, e).sum(axis=1, keepdims=True) / e.sum(axis=1, keepdims=True)
    by_joint = np.where(labelled, label, q)
    by_logits = np.where(
        labelled,
        alpha * np.where(label, rest, -q),
        np.where(q == 0, 0.0, q * (surplus - without)),
    )
    weight = row_weight(len(logits), reduction)
    return reduce_rows(value, reduction), (weight * by_joint, weight * by_logits)
