"""How results are compared with those of the reference: the errors of elements."""

import numpy as np

from fastelbo._catalogue._row import flatten

#: Units in the last place of a denormal that are forgiven: what is rounded among denormals is off
#: by an absolute amount, which the chain rule multiplies, by 29 for a bound of order 30.
DENORMAL_UNITS = 64


def errors(actual, desired, dtype, scale=0.0):
    """Errors of elements relative to max(|desired|, scale); infinite where nothing may differ.

    NaN and infinities must be where they are expected. DENORMAL_UNITS of `dtype` are forgiven.
    """
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    if actual.shape != desired.shape:
        return np.array(np.inf)
    finite = np.isfinite(desired)
    found = np.zeros(desired.shape)
    same = (actual == desired) | (np.isnan(actual) & np.isnan(desired))
    found[~finite & ~same] = np.inf
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(desired), 0.0 if scale is None else scale)
        forgiven = DENORMAL_UNITS * float(np.finfo(dtype).smallest_subnormal)
        error = np.abs(actual - desired) - forgiven
        relative = np.where(error <= 0, 0.0, error / size)
    found[finite] = np.where(np.isnan(relative), np.inf, relative)[finite]
    return found


def infinite_from(most, array):
    """Numbers near the largest of a dtype may be that, or infinite."""
    array = np.asarray(array, np.float64)
    return np.where(np.abs(array) > most, np.copysign(np.inf, array), array)


def errors_at_limits(actual, desired, dtype, scale):
    """Likewise where terms overflow: what is no number of the dtype is infinite, scales are not."""
    most = np.finfo(dtype).max / 16
    actual, desired = infinite_from(most, actual), infinite_from(most, desired)
    scale = np.broadcast_to(scale, desired.shape)
    scale = np.where(np.isfinite(scale), np.minimum(scale, 1e3 * np.abs(desired) + 1), 0.0)
    return errors(actual, desired, dtype, scale)


def worst_errors(actual, desired, dtype, scales=(), errors=errors):
    """The worst error of each leaf of two results; `scales` are a flat list."""
    actual, desired = flatten(actual), flatten(desired)
    if len(actual) != len(desired):
        return [np.inf]
    scales = scales or [0.0] * len(desired)
    found = (errors(*item, dtype, s) for *item, s in zip(actual, desired, scales, strict=True))
    return [float(np.max(e, initial=0.0)) for e in found]


def worst_error(actual, desired, dtype, scales=()):
    """The worst of the errors of all leaves of two results."""
    return max(worst_errors(actual, desired, dtype, scales), default=0.0)
