"""What the gamma function leaves when its large parts are taken out, without cancellation."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64


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
    series = 2.0 * s**2 * odd_series(s**2, 12)
    far = np.log1p(np.where(u < np.inf, u, 0.0)) - u
    return np.where(near, s * (series - t), far)


def odd_series(w, terms):
    """1/3 + w/5 + w^2/7 + ..., so many terms, by Horner's rule."""
    total = 0.0
    for k in range(2 * terms + 1, 1, -2):
        total = total * w + 1.0 / k
    return total


def climb(a, *steps):
    """`a` raised by ones to 16 at least, where series are short, and of each of `steps`, functions
    of it, the sum over the numbers that it passes."""
    sums = [0.0 * a for _ in steps]
    for _ in range(16):
        if not np.any(small := a < 16.0):
            break
        sums = [s + np.where(small, step(a), 0.0) for s, step in zip(sums, steps, strict=True)]
        a = np.where(small, a + 1.0, a)
    return a, *sums


def stirling_error(y):
    """lgamma(y + 1) - (y + 1/2) log y + y - log(2 pi)/2 for y > 0, by its series from 16 on.

    Examples
    --------
    >>> round(float(stirling_error(1.0)), 12)  # 1 - log(2 pi)/2
    0.081061466795
    """

    def step(y):  # (y + 1/2) log(1 + 1/y) - 1
        s = np.where(y < 1.0, 0.0, 1.0 / (2.0 * y + 1.0)) ** 2
        direct = (y + 0.5) * (np.log1p(y) - np.log(y)) - 1.0
        return np.where(y < 1.0, direct, s * odd_series(s, 17))

    y, below = climb(as_float64(y), step)
    w = 1.0 / y**2
    series = 1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * (691 / 360360)))
    return (1 / 12 - w * (1 / 360 - w * series)) / y + below


def log_minus_digamma(y):
    """log y - digamma(y) for y > 0, likewise.

    Examples
    --------
    >>> round(float(log_minus_digamma(1.0)), 12)  # Euler's constant
    0.577215664902
    """
    y, below = climb(as_float64(y), lambda y: -log1p_minus(1.0 / y))
    w = 1.0 / y**2
    series = 1 / 252 - w * (1 / 240 - w * (1 / 132 - w * (691 / 32760)))
    return 0.5 / y + w * (1 / 12 - w * (1 / 120 - w * series)) + below


def digamma_rise(a, x):
    """digamma(a + x) - digamma(a) - log(1 + x / a), for a > 0 and x >= 0.

    Divided differences of the series: where x is small beside a, nothing is left of differences.

    Examples
    --------
    >>> round(float(digamma_rise(1.0, 2.0)), 12)  # 1 + 1/2 - log 3
    0.401387711332
    >>> f"{digamma_rise(1e12, 1.0):.6g}"  # 1 / (2 a (a + 1)), near enough
    '5e-25'
    """
    a, x = np.broadcast_arrays(*as_float64(a, x))

    def step(a):  # 1/a + log(a / (a + 1)) less that at b
        b = a + x
        ratio = np.where(
            a < 0.5,
            np.log(a) - np.log1p(a) + np.log1p(b) - np.log(b),
            np.log1p(-x / ((a + 1.0) * b)),
        )
        return np.where(x > 0, x / b / a + ratio, 0.0)

    a, below = climb(a, step)
    v, w = 1.0 / a, 1.0 / (a + x)
    first = x * v * w  # v - w
    second = first * (v + w)  # v^2 - w^2
    p, q = v * v, w * w
    powers = [second]  # v^2k - w^2k
    for k in range(2, 7):
        powers.append(powers[-1] * p + q ** (k - 1) * second)
    weights = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)
    return 0.5 * first + sum(c * d for c, d in zip(weights, powers, strict=True)) + below


def half_rise(a):
    """lgamma(a + 1/2) - lgamma(a) - log(a) / 2 for a > 0, and a times its derivative.

    Examples
    --------
    >>> value, slope = half_rise(0.5)
    >>> round(float(value), 12)  # (log 2 - log pi) / 2
    -0.225791352645
    """
    start = as_float64(a)

    def of_value(a):  # log(a (a + 1) / (a + 1/2)^2) / 2
        middle = a + 0.5
        direct = np.log(a) + np.log1p(a) - 2.0 * np.log(middle)
        return 0.5 * np.where(a < 0.5, direct, np.log1p(-0.25 / middle**2))

    def of_slope(a):
        return 0.25 * (start / a) / ((a + 0.5) * (a + 1.0))

    a, value, slope = climb(start, of_value, of_slope)
    w = 1.0 / a
    values = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224)
    slopes = (1 / 8, -1 / 64, 1 / 128, -17 / 2048, 31 / 2048, -691 / 16384)
    for i, (c, d) in enumerate(zip(values, slopes, strict=True)):
        value = value + c * w ** (2 * i + 1)
        slope = slope + d * (start * w) * w ** (2 * i + 1)
    return value, slope


def divergence(a, b, difference, log_b=None):
    """a log(a / b) - (a - b), given a - b; never negative.

    log b stands in, where it is given, for a b that has under- or overflown.
    """
    u = difference / b
    near = np.abs(u) < 0.5
    with np.errstate(all="ignore"):
        ratio = a / b
        least = 1e18 * np.finfo(np.float64).tiny
        direct = (ratio > least) & (ratio < 1.0 / least) & (b > least)
        far = np.where(direct, np.log(ratio), np.log(a) - (np.log(b) if log_b is None else log_b))
        value = np.where(near, a * log1p_minus(u) + u * difference, a * far - difference)
    return np.where(a == 0, b, value)


def log_factorial_rest(x):
    """lgamma(x + 1) - (x log x - x) for x >= 0; 0 at 0."""
    inside = np.where(x > 0, x, 1.0)
    return np.where(x > 0, stirling_error(inside) + 0.5 * (np.log(inside) + LOG_2PI), 0.0 * x)
