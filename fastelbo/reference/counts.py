"""Likelihoods over overdispersed counts."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64
from fastelbo.reference.discrete import log_sigmoid
from fastelbo.reference.likelihoods import Likelihood, is_no_count


def log1p_minus(u):
    """log(1 + u) - u without cancellation.

    Examples
    --------
    >>> f"{log1p_minus(1e-9):.12g}"
    '-4.99999999667e-19'
    """
    u = as_float64(u)
    near = np.abs(u) < 0.3
    t = np.where(near, u, 0.0)
    s = t / (2.0 + t)  # log(1 + t) = 2 (s + s^3/3 + s^5/5 + ...), and 2 s - t = -s t
    series = sum(2.0 / k * s ** (k - 1) for k in range(3, 27, 2))
    return np.where(near, s * (series - t), np.log1p(u) - u)


def stirling_error(y):
    """lgamma(y + 1) - (y + 1/2) log y + y - log(2 pi)/2 for y > 0, by its series from 16 on.

    Examples
    --------
    >>> round(float(stirling_error(1.0)), 12)  # 1 - log(2 pi)/2
    0.081061466795
    """
    y, below = as_float64(y), 0.0
    for _ in range(16):
        small = y < 16.0
        below = below + np.where(small, (y + 0.5) * np.log1p(1.0 / y) - 1.0, 0.0)
        y = np.where(small, y + 1.0, y)
    w = 1.0 / (y * y)
    series = 1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * (691 / 360360)))
    return (1 / 12 - w * (1 / 360 - w * series)) / y + below


def log_minus_digamma(y):
    """log y - digamma(y) for y > 0, likewise.

    Examples
    --------
    >>> round(float(log_minus_digamma(1.0)), 12)  # Euler's constant
    0.577215664902
    """
    y, below = as_float64(y), 0.0
    for _ in range(16):
        small = y < 16.0
        below = below + np.where(small, -log1p_minus(1.0 / y), 0.0)
        y = np.where(small, y + 1.0, y)
    w = 1.0 / (y * y)
    series = 1 / 252 - w * (1 / 240 - w * (1 / 132 - w * (691 / 32760)))
    return 0.5 / y + w * (1 / 12 - w * (1 / 120 - w * series)) + below


def divergence(a, b, difference):
    """a log(a / b) - (a - b), given a - b; never negative."""
    u = difference / b
    near = np.abs(u) < 0.5
    return np.where(near, a * log1p_minus(u) + u * difference, a * np.log(a / b) - difference)


class NegativeBinomial(Likelihood):
    """The negative binomial of a mean and an inverse dispersion theta, parameter or fixed.

    lgamma(x + theta) - lgamma(theta) - lgamma(x + 1) + theta log(theta / (theta + mean))
    + x log(mean / (theta + mean)), in the saddle-point form of Loader (2000).

    Examples
    --------
    >>> round(NegativeBinomial(1.0).log_prob([[2]], [[1.0]]), 12)  # log(1/8)
    -2.07944154168
    """

    def __init__(self, theta=None, *, validate=True, missing=None):
        self.theta = theta
        self.validate = validate
        self.missing = missing

    def outside(self, x, mean, *rest):
        theta = rest[0] if self.theta is None else as_float64(self.theta)
        return is_no_count(x) | np.isposinf(x) | (mean < 0) | ~(theta > 0)

    def elements(self, x, mean, *rest):
        theta, rest = (rest[0], rest[1:]) if self.theta is None else (self.theta, rest)
        x, mean = np.where(x < 0, np.nan, x), np.where(mean < 0, np.nan, mean) + 0.0  # no -0.0
        theta = np.where(as_float64(theta) > 0, np.minimum(theta, 2.0**100), np.nan)  # Poisson
        values, (by_mean, by_theta, *by_rest) = self.inflated(
            x, *self.of_counts(x, mean, theta), *rest
        )
        return values, (by_mean, *((by_theta,) if self.theta is None else ()), *by_rest)

    def of_counts(self, x, mean, theta):
        n, total = x + theta, mean + theta
        # x = 0
        ratio = mean / theta
        at_zero = -theta * np.log1p(ratio)
        zero_by_theta = -(log1p_minus(ratio) + ratio * mean / total)
        # x > 0
        excess = (x - mean) / total
        values = (
            stirling_error(n)
            - stirling_error(x)
            - stirling_error(theta)
            + 0.5 * (np.log(theta / (n * x)) - LOG_2PI)
            - divergence(x, n * (mean / total), theta * excess)
            - divergence(theta, n * (theta / total), -theta * excess)
        )
        by_theta = log1p_minus(excess) + (log_minus_digamma(theta) - log_minus_digamma(n))
        zero = x == 0
        by_mean = np.where(zero, -theta / total, theta * excess / mean)
        return (
            np.where(zero, at_zero, values),
            (by_mean, np.where(zero, zero_by_theta, by_theta)),
        )

    def inflated(self, x, values, grads):
        return values, grads


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """The negative binomial, of weight 1 - pi, and a point mass at 0 of weight pi.

    pi = sigmoid(``zero_logits``), the last parameter.

    Examples
    --------
    >>> round(ZeroInflatedNegativeBinomial(1.0).log_prob([[0]], [[1.0]], [[0.0]]), 12)  # log(3/4)
    -0.287682072452
    """

    def outside(self, x, mean, *rest):
        return super().outside(x, mean, *rest[:-1])

    def inflated(self, x, values, grads, zero_logits):
        log_pi, log_rest = log_sigmoid(zero_logits), log_sigmoid(-zero_logits)
        zero = x == 0
        few = np.log1p(np.exp(log_rest) * np.expm1(values))
        of_zero = np.where(values > -1.0, few, np.logaddexp(log_pi, log_rest + values))
        share = np.where(zero, np.exp(log_rest + values - of_zero), 1.0)
        by_logits = np.where(
            zero,
            -np.exp(log_pi + log_rest - of_zero) * np.expm1(values),
            -np.exp(log_pi),
        )
        grads = tuple(np.where(share == 0, 0.0, share * g) for g in grads)
        return np.where(zero, of_zero, log_rest + values), (*grads, by_logits)
