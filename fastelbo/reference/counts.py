"""Likelihoods over overdispersed counts."""

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference._gamma import (
    digamma_rise,
    divergence,
    log1p_minus,
    log_factorial_rest,
    stirling_error,
)
from fastelbo.reference.discrete import Poisson, log_one_plus, log_sigmoid
from fastelbo.reference.likelihoods import Likelihood, is_no_count


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
        theta = np.where(as_float64(theta) > 0, theta, np.nan)
        values, (by_mean, by_theta, *by_rest) = self.inflated(
            x, *self.of_counts(x, mean, theta), *rest
        )
        return values, (by_mean, *((by_theta,) if self.theta is None else ()), *by_rest)

    def of_counts(self, x, mean, theta):
        zero, some = x == 0, np.where(x == 0, 1.0, x)
        poisson, (poisson_by_mean,) = Poisson(log_input=False).elements(x, mean)
        limit, theta = theta == np.inf, np.where(theta == np.inf, 1.0, theta)
        # A common factor, gone from ratios, where the sum would overflow.
        factor = np.where(mean + theta == np.inf, 0.25, 1.0)
        c, m, t = x * factor, mean * factor, theta * factor
        total, n = m + t, c + t
        log_both, log_n = np.log(total), np.log(n) - np.log(factor)
        p, q, share = m / total, t / total, (c - m) / total
        pull, n_p = q * (x - mean), np.where(total > 1, n / total * mean, n / factor * p)
        whole = log_one_plus(m, t)  # log(total / theta)
        # x = 0
        ratio = m / t
        at_zero = np.where(ratio < 1e-16, -mean, -theta * whole)
        zero_by_theta = np.where(ratio < 0.5, -(log1p_minus(ratio) + ratio * p), p - whole)
        # x > 0
        values = (
            stirling_error(n / factor)
            - stirling_error(theta)
            - log_factorial_rest(some)
            + 0.5 * (np.log(theta) - log_n)
            - divergence(some, n_p, pull, log_n + np.log(m) - log_both)
            - divergence(theta, n / factor * q, -pull, log_n + np.log(t) - log_both)
        )
        # digamma(n) - digamma(theta) - log(n / theta), and log(n / total) - share
        logs = log_one_plus(c, t) - whole - share
        logs = np.where(np.abs(share) < 0.5, log1p_minus(share), logs)
        rest = digamma_rise(theta, some)
        by_theta = np.where(rest == np.inf, (1.0 - pull) / theta, rest + logs)
        by_theta = np.where(x == 1, p / theta + zero_by_theta, by_theta)  # the first is 1 / theta
        by_mean = np.where(mean < 1, q / mean * (x - mean), q * ((x - mean) / mean))
        # The limits in theta, then in mean
        values, by_mean, by_theta = (
            np.where(zero, *of)
            for of in ((at_zero, values), (-q, by_mean), (zero_by_theta, by_theta))
        )
        far = mean == np.inf
        values = np.where(far | (~zero & (mean == 0)), -np.inf, values)
        by_mean, by_theta = np.where(far, 0.0, by_mean), np.where(far, -np.inf, by_theta)
        return np.where(limit, poisson, values), (
            np.where(limit, poisson_by_mean, by_mean),
            np.where(limit, 0.0, by_theta),
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

    def elements(self, x, mean, last, *rest):
        return super().elements(x, mean, last, *rest)

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
        never = zero & (of_zero == -np.inf)  # neither can be, and the excess can more easily
        share, by_logits = np.where(never, 1.0, share), np.where(never, 1.0, by_logits)
        grads = tuple(np.where(share == 0, 0.0, share * g) for g in grads)
        return np.where(zero, of_zero, log_rest + values), (*grads, by_logits)
