"""The parity checks of the negative binomials."""

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.count_baselines import torch_counts
from fastelbo._cli.parity_checks import Inputs, covers
from fastelbo._cli.parity_likelihoods import _likelihood, _scipy


def _arrays(size, dtype):
    """x, mean, and theta one a gene."""
    inputs = Inputs(size, dtype)
    mean = np.exp(inputs.normal(inputs.batch, inputs.event))
    theta = np.exp(inputs.normal(inputs.event))
    x = inputs.rng.poisson(mean * inputs.rng.gamma(theta) / theta)
    return inputs, x, mean, theta


def _sizes(batch, mean, theta, *rest):
    """Derivatives by theta are sums over the batch of terms that cancel."""
    return 0.0, batch * (1.0 + float(np.max(1.0 / theta))), *rest


def _in_pytorch(name):
    def value(torch, *arrays):
        return torch_counts(torch)[name](*arrays)[0]

    return value


@covers("NegativeBinomial")
def _negative_binomial(size, dtype):
    _, x, mean, theta = _arrays(size, dtype)
    ours, theirs = fastelbo.NegativeBinomial, reference.NegativeBinomial

    def density(stats, x, mean, theta):
        return stats.nbinom.logpmf(x, theta, theta / (theta + mean))

    yield from _likelihood(
        ours(),
        theirs(),
        x,
        mean,
        theta,
        others=_scipy(density, x, mean, theta),
        sizes=_sizes(len(x), mean, theta),
    )
    full = np.broadcast_to(theta, mean.shape).copy()
    yield from _likelihood(
        ours(), theirs(), x.astype(np.uint16), mean, full, sizes=_sizes(1, mean, theta)
    )
    for fixed in (theta, np.inf, 1e6):  # one a gene; Poisson; where float32 lgamma fails
        yield from _likelihood(ours(fixed), theirs(fixed), x, mean)


@covers("ZeroInflatedNegativeBinomial")
def _zero_inflated_negative_binomial(size, dtype):
    inputs, x, mean, theta = _arrays(size, dtype)
    logits = inputs.normal(*mean.shape, scale=2.0)
    x = np.where(inputs.uniform(*mean.shape) < 0.7, 0, x)
    ours, theirs = fastelbo.ZeroInflatedNegativeBinomial, reference.ZeroInflatedNegativeBinomial

    def density(stats, x, mean, theta, logits):
        excess = 1 / (1 + np.exp(-logits))
        mass = stats.nbinom.pmf(x, theta, theta / (theta + mean))
        return np.log(np.where(x == 0, excess, 0) + (1 - excess) * mass)

    yield from _likelihood(
        ours(),
        theirs(),
        x,
        mean,
        theta,
        logits,
        others=_scipy(density, x, mean, theta, logits),
        sizes=_sizes(len(x), mean, theta, 0.0),
    )
    for fixed in (theta, 1e6):
        yield from _likelihood(ours(fixed), theirs(fixed), x, mean, logits, sizes=(0.0, 0.0))
