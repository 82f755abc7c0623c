"""Log-densities of elements in PyTorch operations, right in value and gradient up to their limits.

Where a limit exists it is what comes back: no 0 times infinity, no difference of infinities. What
is made of gamma functions is in ``stirling.py``.
"""

import math

import torch

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


def logsumexp(logs, dim):
    """torch.logsumexp, whose gradient, exp(logs - value), keeps its digits where both are large."""
    top = logs.detach().amax(dim, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    return torch.logsumexp(logs - top, dim) + top.squeeze(dim)
