"""Likelihoods over counts, pixels and classes."""

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference._gamma import digamma_rise, divergence, log_factorial_rest, stirling_error
from fastelbo.reference.likelihoods import Likelihood, is_no_count, is_word, root_precision


class Poisson(Likelihood):
    """x log rate - rate - log x!, by ``log_rate``, or ``rate`` if not ``log_input``.

    Taken as what remains of log x! and the divergence of x from the rate (Loader 2000).

    Examples
    --------
    >>> value, gradients = Poisson().log_prob_and_grad([[1]], [[0.0]])
    >>> round(value, 12), gradients
    (-1.0, (array([[0.]]),))
    """

    def __init__(self, *, log_input=True, validate=True, missing=None):
        self.log_input = log_input
        self.validate = validate
        self.missing = missing

    def outside(self, x, rate):
        return is_no_count(x) | (not self.log_input and rate < 0)

    def elements(self, x, parameter):
        rate = np.exp(parameter) if self.log_input else parameter
        log_rate = parameter if self.log_input else np.log(parameter)
        values = -(divergence(x, rate, x - rate, log_rate) + log_factorial_rest(x))
        values = np.where(rate == np.inf, -np.inf, values)
        if self.log_input:
            return values, (x - rate,)
        finite = np.minimum(rate, np.finfo(np.float64).max)
        return values, (np.where(x == 0, -1.0, (x - finite) / finite),)


class Binomial(Likelihood):
    """log C(n, x) + x log p + (n - x) log(1 - p) with p = sigmoid(logits), n = ``total_count``.

    Examples
    --------
    >>> round(Binomial(2).log_prob([[1]], [[0.0]]), 12)  # -log 2
    -0.69314718056
    """

    def __init__(self, total_count, *, validate=True, missing=None):
        self.total_count = total_count
        self.validate = validate
        self.missing = missing

    def outside(self, x, *parameters):
        return is_no_count(x) | (x > self.total_count)

    def elements(self, x, logits):
        n = as_float64(self.total_count)
        small = np.exp(-np.abs(logits))
        p, q = (np.where(b > 0, 1.0, small) / (1.0 + small) for b in (logits, -logits))
        y, log_n = n - x, np.log(n)
        values = log_factorial_rest(n) - log_factorial_rest(x) - log_factorial_rest(y)
        values = values - divergence(x, n * p, x - n * p, log_n + log_sigmoid(logits))
        values = values - divergence(y, n * q, y - n * q, log_n + log_sigmoid(-logits))
        missed = np.where(logits > 0, y, x)
        tail = n * small / (1.0 + small)
        return values, (np.where(logits > 0, tail - missed, missed - tail),)


class BetaBinomial(Likelihood):
    """log C(n, x) + log B(x + alpha, n - x + beta) - log B(alpha, beta), n = ``total_count``.

    Examples
    --------
    >>> round(BetaBinomial(4).log_prob([[1]], [[1.0]], [[1.0]]), 12)  # -log 5
    -1.609437912434
    """

    def __init__(self, total_count, *, validate=True, missing=None):
        self.total_count = total_count
        self.validate = validate
        self.missing = missing

    def outside(self, x, alpha, beta):
        return is_no_count(x) | (x > self.total_count) | (alpha <= 0) | (beta <= 0)

    def elements(self, x, alpha, beta):
        n = as_float64(self.total_count)
        factor = np.where(alpha + beta == np.inf, 0.25, 1.0)  # n is nothing beside either
        a, b = alpha * factor, beta * factor
        y, s, xa = n - x, a + b, x + a
        yb, ns = y + b, n + s
        product = cross(x, b, a, y)  # (n + s) (x - n (x + a) / (n + s)), and of the others likewise
        share = np.where(np.isfinite(product), product / ns, x * (b / ns) - y * (a / ns))
        values = (
            log_factorial_rest(n)
            - (log_factorial_rest(x) + log_factorial_rest(y))
            + (rise(a, x, xa) + rise(b, y, yb) - rise(s, n, ns))
        )
        log_n, log_s, log_ns = np.log(n), np.log(s), np.log(ns)
        values = values - (
            divergence(x, xa * (n / ns), share, np.log(xa) + (log_n - log_ns))
            + divergence(y, yb * (n / ns), -share, np.log(yb) + (log_n - log_ns))
            + divergence(a, xa * (s / ns), -share, np.log(xa) + (log_s - log_ns))
            + divergence(b, yb * (s / ns), share, np.log(yb) + (log_s - log_ns))
        )

        def slope(a, x, b, y, product):
            """log((1 + x / a) / (1 + n / s)), of one number where it is near zero, and the rest."""
            apart = np.where(x == 0, 0.0, x / ns * (b / a)) - y / ns
            u = np.where(np.isfinite(product), product / a / ns, apart)
            near = np.abs(u) < 0.5
            logs = log_one_plus(x, a) - log_one_plus(n, s)
            logs = np.where(near, np.log1p(np.where(near, u, 0.0)), logs)
            rest = digamma_rise(a, x)  # infinite where 1 / a is, whatever is taken off it
            rest = np.where(rest == np.inf, rest, rest - digamma_rise(s, n))
            return (logs + rest) * factor

        return values, (slope(a, x, b, y, product), slope(b, y, a, x, -product))


def cross(x, b, a, y):
    """x b - a y to all digits that rounding the result leaves (Dekker's products)."""

    def product(p, q):
        halves = [(v, v * 134217729.0) for v in (p, q)]
        (p, ph, pl), (q, qh, ql) = ((v, w - (w - v), v - (w - (w - v))) for v, w in halves)
        whole = p * q
        return whole, ((ph * qh - whole) + ph * ql + pl * qh) + pl * ql

    (first, lost), (second, lost_2) = product(x, b), product(a, y)
    return (first - second) + (lost - lost_2)


def log_one_plus(x, a):
    """log(1 + x / a) for a > 0, x / a of any size."""
    ratio = x / a
    return np.where(
        ratio < 1e-18 * np.finfo(np.float64).max, np.log1p(ratio), np.log(x) - np.log(a)
    )


def rise(a, x, b):
    """lgamma(b) - lgamma(a) - (b log b - b) + (a log a - a) for b = a + x."""
    return np.where(x > 0, stirling_error(b) - stirling_error(a) - 0.5 * log_one_plus(x, a), 0.0)


def log_sigmoid(a):
    return -np.logaddexp(0.0, -a)


def sigmoid(a):
    return np.exp(log_sigmoid(a))


def discretized_logistic(x, mean, log_scale, bins):
    """log of a logistic's mass in bin x of [-1, 1], and its derivatives by mean and log_scale.

    sigmoid(hi) - sigmoid(lo) = sigmoid(hi) sigmoid(-lo) (1 - e^(lo - hi)); the first bin has no
    lower edge, the last no upper one.
    """
    root = root_precision(None, log_scale)
    centre = (2.0 * x - (bins - 1)) / (bins - 1) - mean
    hi = (centre + 1.0 / (bins - 1)) * root * root
    lo = (centre - 1.0 / (bins - 1)) * root * root
    width = 2.0 / (bins - 1) * root * root
    first, last = x == 0, x == bins - 1
    log_width = np.log(2.0 / (bins - 1)) - log_scale  # also where the width is 0
    inside = np.where(width < 1e-9, log_width - 0.5 * width, np.log(-np.expm1(-width)))
    values = (
        np.where(last, 0.0, log_sigmoid(hi))
        + np.where(first, 0.0, log_sigmoid(-lo))
        + np.where(first | last, 0.0, inside)
    )
    by_hi = np.where(last, 0.0, sigmoid(-hi))
    by_lo = np.where(first, 0.0, -sigmoid(lo))
    by_width = np.where(width == 0, 1.0, np.where(width > 1e3, 0.0, width / np.expm1(width)))
    by_width = np.where(first | last, 0.0, by_width)
    hi, lo = np.where(by_hi == 0, 0.0, hi), np.where(by_lo == 0, 0.0, lo)  # they may be infinite
    return values, (-(by_hi + by_lo) * root * root, -(hi * by_hi + lo * by_lo) - by_width)


class DiscretizedLogistic(Likelihood):
    """The mass of a logistic in the bins of pixels (Kingma et al. 2016); mean on [-1, 1].

    Examples
    --------
    >>> round(DiscretizedLogistic(1.0, bins=2).log_prob([[1]], [[0.0]]), 12)  # -log 2
    -0.69314718056
    """

    def __init__(self, scale="learned", *, bins=256, validate=True, missing=None):
        self.scale = scale
        self.bins = bins
        self.validate = validate
        self.missing = missing

    def outside(self, x, *parameters):
        return is_no_count(x) | (x > self.bins - 1)

    def elements(self, x, x_recon, log_scale=None):
        if is_word(self.scale):
            return discretized_logistic(x, x_recon, log_scale, self.bins)
        log_scale = np.log(self.scale)
        values, (by_mean, _) = discretized_logistic(x, x_recon, log_scale, self.bins)
        return values, (by_mean,)


class DiscretizedLogisticMixture(DiscretizedLogistic):
    """A mixture of discretized logistics for every element (Salimans et al. 2017).

    ``logits``, ``means`` and ``log_scales`` have an axis of components after the batch.

    Examples
    --------
    >>> same = np.zeros((1, 3, 1))
    >>> round(DiscretizedLogisticMixture(bins=2).log_prob([[1]], same, same, same), 12)
    -0.69314718056
    """

    def __init__(self, *, bins=256, validate=True, missing=None):
        super().__init__(bins=bins, validate=validate, missing=missing)

    def like_gradient(self, keep):
        return keep[:, None]

    def elements(self, x, logits, means, log_scales):
        at = -x.ndim  # the axis of components
        masses, (by_mean, by_scale) = discretized_logistic(x[:, None], means, log_scales, self.bins)
        joint = logits + masses
        values = log_sum_exp(joint, at) - log_sum_exp(logits, at)
        # Where no mass is a number, all belongs to the nearest component.
        distance = np.abs((2.0 * x[:, None] - (self.bins - 1)) / (self.bins - 1) - means)
        distance = np.log(distance - 1.0 / (self.bins - 1)) - log_scales
        distance = np.where(logits == -np.inf, np.inf, distance)
        nearest = np.where(distance == np.min(distance, axis=at, keepdims=True), 0.0, -np.inf)
        none = np.max(joint, axis=at, keepdims=True) == -np.inf
        share, prior = softmax(np.where(none, nearest, joint), at), softmax(logits, at)
        by_mean, by_scale = (np.where(share == 0, 0.0, share * g) for g in (by_mean, by_scale))
        return values, (share - prior, by_mean, by_scale)


def below_largest(a, axis):
    """a less its largest along an axis, and that: a finite number where it is infinite."""
    finite = np.finfo(np.float64).max
    m = np.clip(np.max(a, axis=axis, keepdims=True), -finite, finite)
    return a - m, m


def log_sum_exp(a, axis):
    shifted, m = below_largest(a, axis)
    return np.squeeze(m, axis) + np.log(np.exp(shifted).sum(axis=axis))


def softmax(a, axis):
    """Weights from the differences to the largest, not to the log of their sum, which rounds."""
    weights = np.exp(below_largest(a, axis)[0])
    return weights / weights.sum(axis=axis, keepdims=True)


class Categorical(Likelihood):
    """logits[x] - log sum exp(logits), over a last axis of classes.

    Examples
    --------
    >>> round(Categorical().log_prob([1], [[0.0, 0.0]]), 12)  # -log 2
    -0.69314718056
    """

    def __init__(self, classes=None, *, validate=True, missing=None):
        self.classes = classes
        self.validate = validate
        self.missing = missing

    def outside(self, x, logits):
        return is_no_count(x) | (x >= logits.shape[-1])

    def like_gradient(self, keep):
        return keep[..., None]

    def elements(self, x, logits):
        classes = np.arange(logits.shape[-1])
        hit = np.where(np.isin(x, classes)[..., None], x[..., None] == classes, np.nan)
        shifted, _ = below_largest(logits, -1)
        normalised = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        values = np.where(hit == 0, 0.0, hit * normalised).sum(axis=-1)
        return values, (hit - softmax(logits, -1),)
