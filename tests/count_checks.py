"""What the tests of the two negative binomials share: exact values and arrays."""

import mpmath
import numpy as np

#: The accuracy that is promised at any theta and mean.
BOUND = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-12}


def negative_binomial(x, mu, theta):
    """log p and its derivatives by the mean and theta, in mpmath."""
    value = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
    value -= theta * mpmath.log1p(mu / theta)
    if x:
        value += x * mpmath.log(mu / (theta + mu))
    slope = mpmath.digamma(x + theta) - mpmath.digamma(theta) - mpmath.log1p(mu / theta)
    total = theta + mu
    return value, theta * (x - mu) / (mu * total), slope + (mu - x) / total


def zero_inflated(x, mu, theta, logit):
    """The same with zeros of probability sigmoid(logit), and the derivative by the logit."""
    value, by_mu, by_theta = negative_binomial(x, mu, theta)
    excess = 1 / (1 + mpmath.exp(-logit))
    rest = 1 / (1 + mpmath.exp(logit))
    if x:
        return value + mpmath.log(rest), by_mu, by_theta, -excess
    p = mpmath.exp(value)
    total = excess + rest * p
    share = rest * p / total
    less = rest * mpmath.expm1(value)  # total - 1
    by_logit = -excess * less / total
    log_total = mpmath.log(total) if total < 0.5 else mpmath.log1p(less)
    return log_total, share * by_mu, share * by_theta, by_logit


def within_bounds(likelihood, exact, columns, dtype):
    """Values and gradients of single elements against mpmath.

    Errors are relative to the result or, where that is less, to log p: of a derivative by theta to
    log p / theta, since theta is rounded, too, and of one by the mean likewise where zeros are
    inflated: the probability that a zero is a count inherits the rounding of its logarithm.
    """
    columns = [np.asarray(c, dtype).reshape(-1, 1) for c in columns]
    values, gradients = likelihood.log_prob_and_grad(*columns, reduction="none")
    np.testing.assert_array_equal(values, likelihood.log_prob(*columns, reduction="none"))
    tiny = 2 * float(np.finfo(dtype).smallest_subnormal)
    with mpmath.workdps(60):
        for i in range(len(values)):
            given = [mpmath.mpf(float(c[i, 0])) for c in columns]
            wanted = exact(*given)
            got = [values[i], *(g[i, 0] for g in gradients)]
            by_mean = abs(wanted[0]) / given[1] if len(given) == 4 else 0
            sizes = [0, by_mean, abs(wanted[0]) / given[2], 0]
            for g, w, size in zip(got, wanted, sizes, strict=False):
                error = abs(mpmath.mpf(float(g)) - w)
                bound = BOUND[dtype] * max(abs(w), size) + tiny
                assert error <= bound, (*map(float, given), float(g), float(w))


def grid(dtype):
    """Columns x, mean and theta: every scale with every other, and means next to the count."""
    scales = 10.0 ** np.arange(-8, 13, 2)
    counts = np.array([0, 1, 2, 7, 100, 12_345, 10**6, 10**9])
    x, mu, theta = (a.ravel() for a in np.meshgrid(counts, scales, scales))
    near = np.array([0.5, 0.999, 1.0, 1.00001, 2.0])
    thetas = np.array([0.3, 0.9999, 1.0, 11.0, 1e7])
    x2, ratio, theta2 = (a.ravel() for a in np.meshgrid(counts[1:], near, thetas))
    return (
        np.concatenate([x, x2]).astype(dtype),
        np.concatenate([mu, x2 * ratio]).astype(dtype),
        np.concatenate([theta, theta2]).astype(dtype),
    )


def scattered(rng, dtype, size):
    """Columns x, mean and theta, random on all scales, half of the means near the count."""
    x = np.where(rng.random(size) < 0.3, rng.integers(0, 20, size), 10.0 ** rng.uniform(0, 9, size))
    x = np.floor(x).astype(dtype)
    mu, theta = 10.0 ** rng.uniform(-8, 12, (2, size))
    spread = 10.0 ** rng.uniform(-6, 0, size) * rng.normal(size=size)
    mu = np.where((rng.random(size) < 0.5) & (x > 0), x * np.exp(spread), mu)
    return x, np.clip(mu, 1e-8, 1e12).astype(dtype), theta.astype(dtype)


def draw(rng, dtype, batch=70, genes=1100, zeros=0.8):
    """x, mean, theta and zero_logits of single-cell size."""
    x = rng.negative_binomial(1.0, 0.2, (batch, genes)) + 1
    x[rng.random(x.shape) < zeros] = 0
    mu = rng.gamma(1.0, 2.0, x.shape).astype(dtype) + dtype.type(0.01)
    theta = np.exp(rng.normal(size=genes)).astype(dtype)
    return x, mu, theta, rng.normal(size=x.shape).astype(dtype)
