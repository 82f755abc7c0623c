"""What the specification shares: conversion, reduction, functions without cancellation."""

import math

import numpy as np

LOG_2PI = math.log(2.0 * math.pi)

# Overflow and NaN pass through here as they do in the kernels, without a warning.
quiet = np.errstate(all="ignore")


def dense(a):
    """Sparse data as an array."""
    return a.toarray() if hasattr(a, "toarray") else a


def as_float64(*arrays):
    """The arrays, which may be sparse, as float64; of a single one, the array itself."""
    converted = [np.asarray(dense(a), dtype=np.float64) for a in arrays]
    return converted if len(converted) > 1 else converted[0]


def reduce_rows(rows, reduction):
    """One value a sample to what the caller asked for."""
    if reduction in ("none", "elementwise"):
        return rows
    return float({"mean": np.mean, "sum": np.sum}[reduction](rows))


def row_weight(rows, reduction):
    """The derivative of the reduced value by the value of one sample."""
    return 1.0 / rows if reduction == "mean" else 1.0


def weighed(weight, value):
    """weight * value, of which a weight of 0 leaves nothing, even of infinity.

    Examples
    --------
    >>> [float(weighed(0.0, value)) for value in (3.0, np.inf, np.nan)]
    [0.0, 0.0, nan]
    """
    if weight == 0:
        value = np.where(np.isinf(value), 0.0, value)[()]
    return weight * value


def scaled_twice(difference, logvar):
    """difference / sigma and difference / sigma^2, which are 0 where the difference is."""
    root = np.exp(-0.5 * logvar)
    none = difference == 0
    scaled = np.where(none, 0.0, difference * root)
    return scaled, np.where(none, 0.0, scaled * root)


@quiet
def exp_minus_one_minus(x):
    """exp(x) - 1 - x without cancellation: 5e-19 at x = 1e-9.

    Examples
    --------
    >>> float(exp_minus_one_minus(1e-9))
    5.000000001666667e-19
    """
    x = as_float64(x)
    near = np.abs(x) < 0.5
    t = np.where(near, x, 0.0)
    tail = np.ones_like(t)
    for k in range(18, 2, -1):  # x^2/2 (1 + x/3 (1 + x/4 (1 + ...)))
        tail = 1.0 + tail * t / k
    far = np.where(x == np.inf, x, np.expm1(x) - x)
    return np.where(near, 0.5 * t * t * tail, far)
