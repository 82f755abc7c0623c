"""Log-densities made of gamma functions, in PyTorch operations: right in float32, too.

A float32 lgamma(1e6) is wrong by one, so differences of them are nonsense. What Stirling's formula
says of a gamma function is taken out in advance: there remain deviances, each known from a
difference that does not cancel, and the error of the formula, which is small (Loader 2000, as in
`fastelbo.reference.counts`). Derivatives are given in closed form: those of autograd would cancel.
"""

import math

import torch
from torch.nn import functional

from fastelbo.torch._elementwise import elementwise, scaled
from fastelbo.torch.densities import LOG_2PI

HALF_LOG_2PI = 0.5 * LOG_2PI

#: From where on the series are taken, by dtype.
_FAR = {torch.float32: 3.0, torch.float64: 10.0}
#: From where on a Student t is a Gaussian, however far x is: as the kernels have it.
_GAUSSIAN_FROM = {torch.float32: 1e30, torch.float64: 1e200}


# The pieces -------------------------------------------------------------------------------------


def _log_minus(u, log_ratio):
    """log(1 + u) - u without cancellation, given log(1 + u) for where u is not near zero."""
    s = u / (2 + u)  # log(1 + u) = 2 (s + s^3/3 + s^5/5 + ...), and 2 s - u = -s u
    squared = s * s
    series = torch.zeros_like(s)
    for k in range(25, 1, -2):
        series = (series + 2 / k) * squared
    far = torch.where(u == torch.inf, -u, log_ratio - u)
    return torch.where(u.abs() < 0.3, s * (series - u), far)


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

    return elementwise(value, slopes, x, log_rate)


def poisson_of_rate(x, rate):
    """The same by the rate itself, which may be zero."""

    def slopes(x, rate):
        return lambda: rate.log() - torch.digamma(x + 1), lambda: _poisson_slope(x, rate)

    return elementwise(_poisson_value, slopes, x, rate)


def _poisson_value(x, rate):
    return -_deviance(x, rate, x - rate, rate.log()) - _log_factorial_rest(x)


def _poisson_slope(x, rate):
    return torch.where((x == 0) | (rate == torch.inf), -1.0, (x - rate) / rate)


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

    return elementwise(value, slopes, x, logits, n)


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
        y, s = n - x, alpha + beta
        both, pull = _stirling_fall(s, n), (x * beta - y * alpha) / (s + n)

        def log_rise(a, x, pull):
            """log((a + x) / a) - log((s + n) / s)."""
            near = pull.abs() < 0.5 * a
            close = torch.log1p(torch.where(near, pull / a, 0.0))
            return torch.where(near, close, torch.log1p(x / a) - torch.log1p(n / s))

        return (
            lambda: (
                torch.digamma(y + 1)
                - torch.digamma(x + 1)
                + torch.digamma(x + alpha)
                - torch.digamma(y + beta)
            ),
            lambda: log_rise(alpha, x, pull) + (_stirling_fall(alpha, x) - both),
            lambda: log_rise(beta, y, -pull) + (_stirling_fall(beta, y) - both),
        )

    return elementwise(value, slopes, x, alpha, beta, n)


def negative_binomial(x, mean, theta):
    """log p(x) in Loader's form; infinite theta is Poisson."""

    def finite(x, mean, theta):
        """theta, or one from which on there is only rounding between it and Poisson."""
        limits = torch.finfo(theta.dtype)
        most = (1 + x + mean) * limits.eps**-2
        return torch.minimum(theta, most.clamp(max=limits.max / 16))

    def log_ratio_of(mean, theta):
        """log(1 + mean / theta)."""
        ratio = mean / theta
        return torch.where(ratio < torch.inf, torch.log1p(ratio), mean.log() - theta.log())

    def value(x, mean, theta):
        poisson = theta == torch.inf
        theta = finite(x, mean, theta)
        n, total = x + theta, mean + theta
        difference = theta * ((x - mean) / total)
        some = (
            (_stirling_error(n) - _stirling_error(x) - _stirling_error(theta))
            + (0.5 * torch.log(theta / (n * x)) - HALF_LOG_2PI)
            - _deviance(x, n * (mean / total), difference, mean.log() + torch.log(n / total))
            - _deviance(theta, n * (theta / total), -difference)
        )
        density = torch.where(x == 0, -theta * log_ratio_of(mean, theta), some)
        density = torch.where(mean == torch.inf, -mean, density)
        return torch.where(poisson, _poisson_value(x, mean), density)

    def slopes(x, mean, theta):
        far, poisson = mean == torch.inf, theta == torch.inf
        theta = finite(x, mean, theta)
        n, total = x + theta, mean + theta
        excess = (x - mean) / total  # n / total - 1

        def by_theta():
            ratio, share, log_ratio = mean / theta, mean / total, log_ratio_of(mean, theta)
            near_zero = -(_log_minus(ratio, log_ratio) + ratio * share)
            of_zero = torch.where(ratio < 0.3, near_zero, share - log_ratio)
            some = _log_minus(excess, torch.log(n / total)) + _stirling_fall(theta, x)
            some = torch.where(x == 1, of_zero + ratio / total, some)
            slope = torch.where(far, -torch.inf, torch.where(x == 0, of_zero, some))
            return torch.where(poisson, 0.0, slope)

        def by_mean():
            slope = torch.where(x == 0, -theta / total, theta * (excess / mean))
            return torch.where(poisson, _poisson_slope(x, mean), torch.where(far, 0.0, slope))

        return (
            lambda: torch.digamma(n) - torch.digamma(x + 1) + torch.log(mean / total),
            by_mean,
            by_theta,
        )

    return elementwise(value, slopes, x, mean, theta)


def student_t(x, x_recon, log_scale, given, by_log=False):
    """Of Student's t by its df, or by the logarithm of df, which may be that of no number.

    From r = error / scale or from q = scale / error, whichever is at most 1. Where 1 / df is no
    number only the logarithm counts: of df + 1 the 1 alone remains.
    """
    least, gaussian_from = 16 * torch.finfo(given.dtype).tiny, _GAUSSIAN_FROM[given.dtype]

    def degrees(given):
        """df and its logarithm, no higher than where it is as good as infinite."""
        df = (given.exp() if by_log else given).clamp(max=gaussian_from)
        return df, given.clamp(max=math.log(gaussian_from)) if by_log else df.log()

    def parts(x, x_recon, log_scale, given):
        df, log_df = degrees(given)
        below = df < least
        error = x - x_recon
        r = scaled(error, log_scale)
        far = (r.abs() >= 1) & ~below
        log_u = 2 * (error.abs().log() - log_scale) - log_df
        log_u = torch.where(below, torch.where(error == 0, -math.inf, log_u), 0.0)
        error = torch.where(far | below & (error != 0), error, 1.0)
        q = scaled(log_scale.exp().expand_as(r), error.abs().log())
        r = torch.where(far | below, 0.0, r)
        return error, r, torch.where(far, q, 1.0), far, df.clamp(min=least), log_df, below, log_u

    def value(x, x_recon, log_scale, given):
        error, r, q, far, df, log_df, below, log_u = parts(x, x_recon, log_scale, given)
        a = 0.5 * df
        norm = _stirling_error(a + 0.5) - _stirling_error(a) + a * _log1p_minus(0.5 / a)
        norm = norm + torch.where(below, 0.5 * (log_df - math.log(least)), 0.0)
        v = df * q * q
        log_v = log_df + 2 * (log_scale - error.abs().log())
        log_far = torch.where(v > 1, torch.log1p(1 / v), torch.log1p(v) - log_v)
        log_ratio = torch.where(far, log_far, torch.log1p(r * r / df))
        log_ratio = torch.where(below, torch.logaddexp(log_u, torch.zeros_like(log_u)), log_ratio)
        density = norm - HALF_LOG_2PI - 0.5 * (df + 1) * log_ratio - log_scale
        nowhere = (log_scale == -math.inf) & ((x - x_recon).abs() > 0) | (log_df == -math.inf)
        return torch.where(nowhere, -math.inf, density)

    def slopes(x, x_recon, log_scale, given):
        error, r, q, far, df, log_df, below, log_u = parts(x, x_recon, log_scale, given)
        down, up = df * q * q + 1, df + r * r  # times r^2 and 1

        def pull():
            near = scaled((df + 1) * (r / up), log_scale)
            near = torch.where(below, torch.sigmoid(log_u) / error, near)
            return torch.where(far, (df + 1) / down / error, near)

        def by_log_scale():
            ratio = df * torch.where(far, (1 - q * q) / down, (r * r - 1) / up)
            return torch.where(below, -torch.sigmoid(-log_u), ratio)

        def by_log_df():
            a, squared = 0.5 * df, r * r
            by_norm = 0.5 * (_stirling_fall(a, 0.5) + _log1p_minus(0.5 / a))
            u = torch.where(far, 1 / (df * q * q), squared / df)
            share = torch.where(far, 1 / down, squared / up)  # u / (1 + u)
            log_v = log_df + 2 * (log_scale - error.abs().log())
            log_ratio = torch.where(u < torch.inf, torch.log1p(u), -log_v)
            excess = torch.where(far, (q * q - 1) / (df * q * q), (1 - squared) / df)
            small = share * excess - _log1p_minus(u)
            large = (1 + 1 / df) * share - log_ratio
            slope = df * (by_norm + 0.5 * torch.where(u < 0.3, small, large))
            return torch.where(below, 0.5 + 0.5 * torch.sigmoid(log_u), slope)

        def by_given():
            return by_log_df() if by_log else by_log_df() / given

        return lambda: -pull(), pull, by_log_scale, by_given

    return elementwise(value, slopes, x, x_recon, log_scale, given)
