"""Log-densities made of gamma functions, in PyTorch operations: right in float32, too.

A float32 lgamma(1e6) is wrong by one, so differences of them are nonsense. What Stirling's formula
says of a gamma function is taken out in advance: there remain deviances, each known from a
difference that does not cancel, and the error of the formula, which is small (Loader 2000, as in
`fastelbo.reference.counts`). Derivatives are given in closed form: those of autograd would cancel.
"""

import math

import torch
from torch.nn import functional

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

#: From where on the series are taken, by dtype.
_FAR = {torch.float32: 3.0, torch.float64: 10.0}


class Elementwise(torch.autograd.Function):
    """A function of tensors that broadcast to each other, whose derivatives are another one.

    ``slopes`` gives for each tensor a function without arguments, so that what no gradient is
    wanted of costs nothing.
    """

    @staticmethod
    def forward(ctx, value, slopes, *tensors):
        ctx.slopes = slopes
        ctx.save_for_backward(*tensors)
        return value(*tensors)

    @staticmethod
    def backward(ctx, upstream):
        tensors = ctx.saved_tensors
        slopes = ctx.slopes(*tensors)
        flows = [None, None]
        for i, tensor in enumerate(tensors):
            wanted = ctx.needs_input_grad[2 + i]
            flows.append((upstream * slopes[i]()).sum_to_size(tensor.shape) if wanted else None)
        return tuple(flows)


# The pieces -------------------------------------------------------------------------------------


def _log_minus(u, log_ratio):
    """log(1 + u) - u without cancellation, given log(1 + u) for where u is not near zero."""
    s = u / (2 + u)  # log(1 + u) = 2 (s + s^3/3 + s^5/5 + ...), and 2 s - u = -s u
    squared = s * s
    series = torch.zeros_like(s)
    for k in range(25, 1, -2):
        series = (series + 2 / k) * squared
    return torch.where(u.abs() < 0.3, s * (series - u), log_ratio - u)


def _log1p_minus(u):
    return _log_minus(u, torch.log1p(u))


def _deviance(a, b, difference, log_b=None):
    """a log(a / b) - (a - b), given a - b, and log b where b may under- or overflow."""
    u = -difference / a
    ratio = b / a
    log_ratio = ratio.log()
    if log_b is not None:
        limits = torch.finfo(ratio.dtype)
        ordinary = (ratio > limits.tiny) & (ratio < limits.max)
        log_ratio = torch.where(ordinary, log_ratio, log_b - a.log())
    return torch.where(a == 0, b, -a * _log_minus(u, log_ratio))


def _series(w, *coefficients):
    """Of w^2, the first coefficient being that of its highest power."""
    squared, total = w * w, coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * squared + coefficient
    return total


def _stirling_error(y):
    """lgamma(y + 1) - (y + 1/2) log y + y - log(2 pi)/2 for y > 0."""
    w = 1 / y
    far = w * _series(w, 1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
    near = torch.lgamma(y + 1) - (y + 0.5) * y.log() + y - HALF_LOG_2PI
    return torch.where(y > _FAR[y.dtype], far, near)


def _digamma_tail(y):
    """log y - digamma(y) - 1 / (2 y) for y > 0."""
    w = 1 / y
    far = w * w * _series(w, 1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)
    return torch.where(y > _FAR[y.dtype], far, y.log() - torch.digamma(y) - 0.5 * w)


def _stirling_fall(a, x):
    """log a - digamma(a) less the same of a + x: the difference of what is small."""
    return 0.5 * (x / a) / (a + x) + (_digamma_tail(a) - _digamma_tail(a + x))


def _digamma_rise(a, x):
    """digamma(a + x) - digamma(a)."""
    return torch.log1p(x / a) + _stirling_fall(a, x)


def _log_gamma_rise(a, x):
    """lgamma(a + x) - lgamma(a) without the part that deviances hold."""
    return _stirling_error(a + x) - _stirling_error(a) - 0.5 * torch.log1p(x / a)


def _log_factorial_rest(x):
    """log x! - (x log x - x)."""
    return torch.where(x == 0, 0.0, _stirling_error(x) + 0.5 * x.log() + HALF_LOG_2PI)


# Densities --------------------------------------------------------------------------------------


def poisson(x, log_rate):
    """x log rate - rate - log x!."""

    def value(x, log_rate):
        rate = log_rate.exp()
        return -_deviance(x, rate, x - rate, log_rate) - _log_factorial_rest(x)

    def slopes(x, log_rate):
        return (
            lambda: log_rate - torch.digamma(x + 1),
            lambda: x - log_rate.exp(),
        )

    return Elementwise.apply(value, slopes, x, log_rate)


def poisson_of_rate(x, rate):
    """The same by the rate itself, which may be zero."""

    def value(x, rate):
        return -_deviance(x, rate, x - rate) - _log_factorial_rest(x)

    def slopes(x, rate):
        return (
            lambda: rate.log() - torch.digamma(x + 1),
            lambda: torch.where(x == 0, -1.0, (x - rate) / rate),
        )

    return Elementwise.apply(value, slopes, x, rate)


def binomial(x, logits, n):
    """log C(n, x) + x log p + (n - x) log(1 - p), p = sigmoid(logits)."""

    def value(x, logits, n):
        y, hit, miss = n - x, n * torch.sigmoid(logits), n * torch.sigmoid(-logits)
        difference = torch.where(logits < 0, x - hit, miss - y)
        return (
            (_log_factorial_rest(n) - _log_factorial_rest(x) - _log_factorial_rest(y))
            - _deviance(x, hit, difference, n.log() + functional.logsigmoid(logits))
            - _deviance(y, miss, -difference, n.log() + functional.logsigmoid(-logits))
        )

    def slopes(x, logits, n):
        y = n - x
        return (
            lambda: logits + torch.digamma(y + 1) - torch.digamma(x + 1),
            lambda: torch.where(
                logits < 0, x - n * torch.sigmoid(logits), n * torch.sigmoid(-logits) - y
            ),
        )

    return Elementwise.apply(value, slopes, x, logits, n)


def beta_binomial(x, alpha, beta, n):
    """log C(n, x) + log B(x + alpha, n - x + beta) - log B(alpha, beta).

    What Stirling's formula leaves of the gamma functions are deviances of x and alpha from the
    shares n / (n + s) and s / (n + s) of their sum, s = alpha + beta, and likewise for n - x and
    beta.
    """

    def value(x, alpha, beta, n):
        y, s = n - x, alpha + beta
        p, q = n / (n + s), s / (n + s)
        xa, yb, difference = x + alpha, y + beta, (x * beta - y * alpha) / (n + s)
        return (
            (_log_factorial_rest(n) - _log_factorial_rest(x) - _log_factorial_rest(y))
            + (_log_gamma_rise(alpha, x) + _log_gamma_rise(beta, y) - _log_gamma_rise(s, n))
            - (_deviance(x, xa * p, difference) + _deviance(y, yb * p, -difference))
            - (_deviance(alpha, xa * q, -difference) + _deviance(beta, yb * q, difference))
        )

    def slopes(x, alpha, beta, n):
        y, both = n - x, _digamma_rise(alpha + beta, n)
        return (
            lambda: (
                torch.digamma(y + 1)
                - torch.digamma(x + 1)
                + torch.digamma(x + alpha)
                - torch.digamma(y + beta)
            ),
            lambda: _digamma_rise(alpha, x) - both,
            lambda: _digamma_rise(beta, y) - both,
        )

    return Elementwise.apply(value, slopes, x, alpha, beta, n)


def negative_binomial(x, mean, theta):
    """log p(x) in Loader's form; infinite theta is Poisson."""

    def value(x, mean, theta):
        n, total = x + theta, mean + theta
        difference = theta * ((x - mean) / total)
        some = (
            (_stirling_error(n) - _stirling_error(x) - _stirling_error(theta))
            + (0.5 * torch.log(theta / (n * x)) - HALF_LOG_2PI)
            - _deviance(x, n * (mean / total), difference)
            - _deviance(theta, n * (theta / total), -difference)
        )
        return torch.where(x == 0, -theta * torch.log1p(mean / theta), some)

    def slopes(x, mean, theta):
        n, total = x + theta, mean + theta
        excess = (x - mean) / total  # n / total - 1

        def by_theta():
            ratio, share = mean / theta, mean / total
            log_ratio = torch.log1p(ratio)
            near_zero = -(_log_minus(ratio, log_ratio) + ratio * share)
            of_zero = torch.where(ratio < 0.3, near_zero, share - log_ratio)
            some = _log_minus(excess, torch.log(n / total)) + _stirling_fall(theta, x)
            return torch.where(x == 0, of_zero, some)

        return (
            lambda: torch.digamma(n) - torch.digamma(x + 1) + torch.log(mean / total),
            lambda: torch.where(x == 0, -theta / total, theta * (excess / mean)),
            by_theta,
        )

    poisson_from = torch.finfo(theta.dtype).eps ** -2
    return Elementwise.apply(value, slopes, x, mean, theta.clamp(max=poisson_from))


def student_t(scaled, df):
    """Student's t density of (x - x_recon) / scale."""

    def value(scaled, df):
        a = 0.5 * df
        norm = _stirling_error(a + 0.5) - _stirling_error(a) + a * _log1p_minus(0.5 / a)
        return norm - HALF_LOG_2PI - 0.5 * (df + 1) * torch.log1p(scaled**2 / df)

    def slopes(scaled, df):
        a, squared = 0.5 * df, scaled**2
        u = squared / df

        def by_df():
            by_norm = 0.5 * (_stirling_fall(a, 0.5) + _log1p_minus(0.5 / a))
            near = u / (1 + u) * (1 - squared) / df - _log1p_minus(u)
            far = (1 + 1 / df) * u / (1 + u) - torch.log1p(u)
            return by_norm + 0.5 * torch.where(u < 0.3, near, far)

        return lambda: -(df + 1) * (scaled / df / (1 + u)), by_df

    return Elementwise.apply(value, slopes, scaled, df)
