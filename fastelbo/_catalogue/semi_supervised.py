"""The row of M2."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Row, with_and_grad


def some_labels(rng, shape):
    """Labels of any class or, as often, of none."""
    return np.where(rng.random(shape) < 0.5, -1, rng.integers(0, 4, shape))


def _shares(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _magnitudes(log_joint, logits, y, alpha=1.0, reduction="mean"):
    """Of a sample without a label the terms of the sum, and of its gradients those and the sum."""
    q = _shares(logits)
    log_q = np.abs(np.log(q)) + 1
    terms = q * (np.abs(log_joint) + log_q)
    label = np.arange(q.shape[1]) == y[:, None]
    known = np.where(label, np.abs(log_joint) + alpha * log_q, 0).sum(axis=1)
    unlabelled = y[:, None] < 0
    value = np.where(y < 0, terms.sum(axis=1), known)
    weight = reference.row_weight(len(q), reduction)
    by_logits = np.where(
        unlabelled, terms + q * terms.sum(axis=1, keepdims=True), alpha * np.where(label, 1, q)
    )
    by_joint = np.where(unlabelled, q, label)
    return reference.reduce_rows(value, reduction), weight * by_joint, weight * by_logits


def _numpy(log_joint, logits, y):
    return _numpy_and_grad(log_joint, logits, y)[0]


def _numpy_and_grad(log_joint, logits, y):
    q, y = _shares(logits), y.astype(int)
    log_q = np.log(q)
    unlabelled = y[:, None] < 0
    label = np.arange(q.shape[1]) == y[:, None]
    value = np.sum(q * (log_joint - log_q), axis=1, keepdims=True)
    rows = np.where(unlabelled[:, 0], value[:, 0], np.sum(label * (log_joint + log_q), axis=1))
    by_joint = np.where(unlabelled, q, label) / len(q)
    by_logits = np.where(unlabelled, q * (log_joint - log_q - value), label - q) / len(q)
    return np.mean(rows), by_joint, by_logits


ROWS = (
    Row(
        "m2_elbo",
        with_and_grad(
            "m2_elbo",
            lambda module, suffix: getattr(module, f"m2_elbo{suffix}"),
            {"log_joint": "BC", "logits": "BC", "y": "B"},
            _magnitudes,
            ("log_joint", "logits"),
            draws={"y": some_labels},
            constants=("y",),
            options=({"alpha": 0.0}, {"alpha": 10.0}),
            fixed={"C": 4},
            peers={"numpy": _numpy, "numpy_and_grad": _numpy_and_grad},
        ),
        (Bench("m2_elbo_and_grad", "M2, half of the samples labelled", {"B": 4096}),),
    ),
)
