"""Likelihoods over counts, pixels and classes."""

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference.likelihoods import (
    Likelihood,
    digamma,
    is_no_count,
    is_word,
    log_factorial,
    log_gamma,
)


class Poisson(Likelihood):
    """x log rate - rate - log x!, by ``log_rate``, or ``rate`` if not ``log_input``.

    Examples
    --------
    >>> Poisson().log_prob_and_grad([[1]], [[0.0]])
    (-1.0, (array([[0.]]),))
    """

    def __init__(self, *, log_input=True, validate=True, missing=None):
        self.log_input = log_input
        self.validate = validate
        self.missing = missing

    def outside(self, x, rate):
        return is_no_count(x) | (not self.log_input and rate < 0)

    def elements(self, x, parameter):
        if self.log_input:
            rate = np.exp(parameter)
            return x * parameter - rate - log_factorial(x), (x - rate,)
        log_term = np.where(x == 0, 0.0, x * np.log(parameter))
        slope = np.where(x == 0, -1.0, x / parameter - 1.0)
        return log_term - parameter - log_factorial(x), (slope,)


def log_choose(n, x):
    return log_factorial(n) - log_factorial(x) - log_factorial(n - x)


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
        missed = np.where(logits > 0, n - x, x)
        values = log_choose(n, x) - np.log1p(small) * n
        values = values + np.where(logits > 0, -missed, missed) * logits
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
        y = n - x

        def rise(f, a, x):
            return f(a + x) - f(a)

        values = log_choose(n, x) + rise(log_gamma, alpha, x) + rise(log_gamma, beta, y)
        values = values - rise(log_gamma, alpha + beta, n)
        both = rise(digamma, alpha + beta, n)
        return values, (rise(digamma, alpha, x) - both, rise(digamma, beta, y) - both)


def log_sigmoid(a):
    return -np.logaddexp(0.0, -a)


def sigmoid(a):
    return np.exp(log_sigmoid(a))


def discretized_logistic(x, mean, log_scale, bins):
    """log of a logistic's mass in bin x of [-1, 1], and its derivatives by mean and log_scale.

    sigmoid(hi) - sigmoid(lo) = sigmoid(hi) sigmoid(-lo) (1 - e^(lo - hi)); the first bin has no
    lower edge, the last no upper one.
    """
    inverse = np.exp(-log_scale)
    centre = (2.0 * x - (bins - 1)) / (bins - 1) - mean
    hi = (centre + 1.0 / (bins - 1)) * inverse
    lo = (centre - 1.0 / (bins - 1)) * inverse
    width = 2.0 / (bins - 1) * inverse
    first, last = x == 0, x == bins - 1
    values = (
        np.where(last, 0.0, log_sigmoid(hi))
        + np.where(first, 0.0, log_sigmoid(-lo))
        + np.where(first | last, 0.0, np.log(-np.expm1(-width)))
    )
    by_hi = np.where(last, 0.0, sigmoid(-hi))
    by_lo = np.where(first, 0.0, -sigmoid(lo))
    by_width = np.where(first | last, 0.0, width / np.expm1(width))
    return values, (-(by_hi + by_lo) * inverse, -(hi * by_hi + lo * by_lo) - by_width)


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
        values = log_sum_exp(logits + masses, at) - log_sum_exp(logits, at)
        share = np.exp(logits + masses - np.expand_dims(log_sum_exp(logits + masses, at), at))
        prior = np.exp(logits - np.expand_dims(log_sum_exp(logits, at), at))
        return values, (share - prior, share * by_mean, share * by_scale)


def log_sum_exp(a, axis):
    m = np.max(a, axis=axis, keepdims=True)
    return np.squeeze(m, axis) + np.log(np.exp(a - m).sum(axis=axis))


class Categorical(Likelihood):
    """logits[x] - log sum exp(logits), over a last axis of classes.

    Examples
    --------
    >>> round(Categorical().log_prob([1], [[0.0, 0.0]]), 12)  # -log 2
    -0.69314718056
    """

    def __init__(self, *, validate=True, missing=None):
        self.validate = validate
        self.missing = missing

    def outside(self, x, logits):
        return is_no_count(x) | (x >= logits.shape[-1])

    def like_gradient(self, keep):
        return keep[..., None]

    def elements(self, x, logits):
        classes = np.arange(logits.shape[-1])
        hit = np.where(np.isin(x, classes)[..., None], x[..., None] == classes, np.nan)
        normalised = logits - log_sum_exp(logits, -1)[..., None]
        values = np.where(hit == 0, 0.0, hit * normalised).sum(axis=-1)
        return values, (hit - np.exp(normalised),)
