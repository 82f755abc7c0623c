"""Log-densities of elements in PyTorch operations, right in value and gradient up to their limits.

Where a limit exists it is what comes back: no 0 times infinity, no difference of infinities. What
is made of gamma functions is in ``stirling.py``.
"""

import math

import torch
from torch.nn import functional

from fastelbo.torch._elementwise import elementwise, product, scaled

LOG_2PI = math.log(2 * math.pi)
_LOG_2 = math.log(2)
#: The float32 next to 1e-12: the least denominator of PyTorch's binary_cross_entropy.
_LEAST = 9.999999960041972e-13


def normal(x, mean, log_scale):
    def value(x, mean, log_scale):
        z = scaled(x - mean, log_scale)
        square = 0.5 * z * z
        return torch.where(square == torch.inf, -square, -square - log_scale - 0.5 * LOG_2PI)

    def slopes(x, mean, log_scale):
        def pull():
            return scaled(scaled(x - mean, log_scale), log_scale)

        return (
            lambda: -pull(),
            pull,
            lambda: scaled(x - mean, log_scale) ** 2 - 1,
        )

    return elementwise(value, slopes, x, mean, log_scale)


def laplace(x, median, log_scale):
    def distance(x, median, log_scale):
        return scaled((x - median).abs(), log_scale)

    def value(x, median, log_scale):
        z = distance(x, median, log_scale)
        return torch.where(z == torch.inf, -z, -z - log_scale - _LOG_2)

    def slopes(x, median, log_scale):
        def pull():
            return scaled(torch.sign(x - median), log_scale)

        return lambda: -pull(), pull, lambda: distance(x, median, log_scale) - 1

    return elementwise(value, slopes, x, median, log_scale)


def bernoulli(x, logits):
    """x l - softplus(l), with the large parts of both removed."""

    def value(x, logits):
        odds = _odds(logits)
        rest = torch.where(odds < torch.finfo(odds.dtype).eps / 4, odds, torch.log1p(odds))
        return product(_missed(x, logits), logits) - rest

    def slopes(x, logits):
        def by_logits():
            odds = _odds(logits)
            rest = odds / (1 + odds)
            return _missed(x, logits) + torch.where(logits > 0, rest, -rest)

        return lambda: logits, by_logits

    return elementwise(value, slopes, x, logits)


def bernoulli_of_probs(x, probs):
    """x log p + (1 - x) log(1 - p), where 0 log 0 is 0."""

    def value(x, probs):
        x = torch.where((x > 1) & (x < 1.0000003), 1.0, x)  # its scaling may have rounded up
        return product(x, torch.log(probs)) + product(1 - x, torch.log1p(-probs))

    def slopes(x, probs):
        def by_probs():
            whole = torch.where((x > 1) & (x < 1.0000003), 1.0, x)
            between = (whole - probs) / (probs * (1 - probs))
            at_one = torch.where(whole == 1, 1 / probs, between)
            return torch.where(whole == 0, -1 / (1 - probs), at_one)

        return lambda: torch.log(probs) - torch.log1p(-probs), by_probs

    return elementwise(value, slopes, x, probs)


def clamped_bernoulli(x, probs):
    """The same as torch.nn.functional.binary_cross_entropy has it, on every device."""

    def logs(probs):
        return torch.log(probs).clamp(min=-100), torch.log1p(-probs).clamp(min=-100)

    def value(x, probs):
        log_p, log_rest = logs(probs)
        return x * log_p + (1 - x) * log_rest

    def slopes(x, probs):
        def by_x():
            log_p, log_rest = logs(probs)
            return log_p - log_rest

        return by_x, lambda: (x - probs) / (probs * (1 - probs)).clamp(min=_LEAST)

    return elementwise(value, slopes, x, probs)


def _odds(logits):
    """e^-|l|, in halves: PyTorch's functions are off by more where their results are denormal."""
    half = torch.exp(-0.5 * logits.abs())
    return half * half


def continuous_bernoulli(x, logits):
    """x l - log((e^l - 1) / l), in the same manner."""

    def value(x, logits):
        t = logits.abs()
        near = t < 0.05
        inside = torch.where(near, 1.0, t)
        log_ratio = torch.where(
            near,
            -t / 2 + t**2 / 24 - t**4 / 2880 + t**6 / 181440,
            torch.log(-torch.expm1(-inside)) - torch.log(inside),
        )
        linear = product(_missed(x, logits), logits)
        return torch.where(linear == -torch.inf, linear, linear - log_ratio)

    def slopes(x, logits):
        def by_logits():
            t = logits.abs()
            near = t < _SERIES_UP_TO[t.dtype]
            inside = torch.where(near, 1.0, t)
            square = t * t
            series = square * (1 / 720 - square * (1 / 30240 - square / 1209600))
            rest = torch.where(
                near, 0.5 - t * (1 / 12 - series), 1 / inside - 1 / torch.expm1(inside)
            )
            return _missed(x, logits) + torch.where(logits > 0, rest, -rest)

        return lambda: logits, by_logits

    return elementwise(value, slopes, x, logits)


#: Up to where the mean of a continuous Bernoulli is taken of its series.
_SERIES_UP_TO = {torch.float32: 0.5, torch.float64: 0.1}


def _missed(x, logits):
    """How far x is from the end that the logit points to, with its sign."""
    return x - (logits > 0).to(x.dtype)


def weibull(x, scale, k, observed):
    """Of events at x; of the survival to x where `observed` is 0."""

    def parts(x, scale, k):
        near = torch.abs(x - scale) < 0.5 * scale
        ratio = torch.where(near, (x - scale) / scale, 0.0)
        log_ratio = torch.where(near, torch.log1p(ratio), torch.log(x) - torch.log(scale))
        return log_ratio, k * log_ratio

    def value(x, scale, k, observed):
        log_ratio, z = parts(x, scale, k)
        hazard = torch.exp(z)
        density = torch.log(k) - torch.log(scale) + product(k - 1, log_ratio) - hazard
        return torch.where(observed != 0, density, -hazard)

    def slopes(x, scale, k, observed):
        log_ratio, z = parts(x, scale, k)
        pull = torch.where(observed != 0, torch.expm1(z), torch.exp(z))
        return (
            lambda: -(observed + k * pull) / x,
            lambda: k / scale * pull,
            lambda: observed / k - product(pull, log_ratio),
            lambda: torch.zeros_like(pull),
        )

    return elementwise(value, slopes, x, scale, k, observed)


#: A log scale from which on a bin's mass is in proportion to 1 / scale, to the last digit.
_WIDE = 60


def logistic_bin(x, mean, log_scale, top):
    """log of sigmoid(hi) - sigmoid(lo) = sigmoid(hi) sigmoid(-lo) (1 - e^(lo - hi)): a logistic's
    mass in bin x of 0 .. top, which lie on [-1, 1], the outer two being open."""

    def edges(x, mean, log_scale):
        centre = (2 * x - top) / top - mean
        hi, lo = (scaled(centre + half, log_scale) for half in (1 / top, -1 / top))
        width = 2 / top * torch.exp(-log_scale.clamp(max=_WIDE))
        return hi, lo, width, x == 0, x == top

    def value(x, mean, log_scale):
        hi, lo, width, first, last = edges(x, mean, log_scale)
        log_width = torch.log(-torch.expm1(-width)) - (log_scale - _WIDE).clamp(min=0)
        log_width = torch.where(first | last, 0.0, log_width)
        upper = torch.where(last, 0.0, functional.logsigmoid(hi))
        return upper + torch.where(first, 0.0, functional.logsigmoid(-lo)) + log_width

    def slopes(x, mean, log_scale):
        hi, lo, width, first, last = edges(x, mean, log_scale)
        by_hi = torch.where(last, 0.0, torch.sigmoid(-hi))
        by_lo = torch.where(first, 0.0, -torch.sigmoid(lo))

        def by_centre():
            return scaled(by_hi + by_lo, log_scale)

        def by_log_scale():
            ratio = torch.where(width < 1e3, width / torch.expm1(width), 0.0)
            ratio = torch.where(width == 0, 1.0, ratio)
            of_width = torch.where(first | last, 0.0, ratio)
            return -(product(by_hi, hi) + product(by_lo, lo)) - of_width

        return lambda: 2 / top * by_centre(), lambda: -by_centre(), by_log_scale

    return elementwise(value, slopes, x, mean, log_scale)


def log_distance(x, mean, log_scale, top):
    """log of how many scales a bin lies from the mean."""
    return (((2 * x - top) / top - mean).abs() - 1 / top).log() - log_scale


def logsumexp(logs, dim):
    """torch.logsumexp, whose gradient, exp(logs - value), keeps its digits where both are large."""
    top = logs.detach().amax(dim, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    return torch.logsumexp(logs - top, dim) + top.squeeze(dim)


def logsumexp_or_nearest(logs, distance, logits, dim):
    """The same of components' masses. Where none is a number, the gradient is of the nearest among
    those that have a logit."""
    with torch.no_grad():
        distance = torch.where(logits == -torch.inf, torch.inf, distance)
        none = logs.amax(dim, keepdim=True) == -torch.inf
        nearest = ((distance == distance.amin(dim, keepdim=True)) & none).to(logs.dtype)
        shares = nearest / nearest.sum(dim, keepdim=True).clamp(min=1)
    of_all = logsumexp(torch.where(none, 0.0, logs), dim)
    return torch.where(none.squeeze(dim), product(shares, logs).sum(dim), of_all)
