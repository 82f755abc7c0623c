"""The same functions in PyTorch operations: for tensors that kernels do not serve."""

import math

import numpy as np
import torch

import fastelbo
from fastelbo.discrepancies import BANDWIDTHS
from fastelbo.divergences import as_free_bits
from fastelbo.posterior import noise_key
from fastelbo.torch import densities
from fastelbo.torch._elementwise import elementwise, exp_minus_one_minus, scaled
from fastelbo.torch._tensors import is_mapped, key_of, reduce
from fastelbo.torch.densities import LOG_2PI


def kl_standard_normal(mu, logvar, free_bits, reduction):
    kl = 0.5 * (mu * mu + exp_minus_one_minus(logvar))
    floor = as_free_bits(free_bits)
    if floor is not None:
        threshold = kl.new_ones(()) * floor.threshold  # which is no constant of torch.compile
        below = threshold if floor.below == "floor" else 0.0
        if floor.granularity == "dimension":
            kl = torch.where(kl.mean(0) <= threshold, below, kl)
        elif floor.granularity == "sample":
            kl = torch.where(kl <= threshold, below, kl)
        else:
            rows = kl.sum(1)
            return reduce(torch.where(rows <= threshold, below, rows), reduction)
    return reduce(kl.sum(1), reduction)


def kl_normal(mu_q, logvar_q, mu_p, logvar_p, reduction):
    def distance(mu_q, mu_p, logvar_p):
        return scaled(mu_q - mu_p, 0.5 * logvar_p) ** 2

    def slopes(mu_q, mu_p, logvar_p):
        def pull():
            return 2 * scaled(mu_q - mu_p, logvar_p)

        return pull, lambda: -pull(), lambda: -distance(mu_q, mu_p, logvar_p)

    square = elementwise(distance, slopes, mu_q, mu_p, logvar_p)
    rows = 0.5 * (exp_minus_one_minus(logvar_q - logvar_p) + square).sum(1)
    return reduce(rows, reduction)


def kl_full_normal(mu_q, tril_q, mu_p, tril_p, reduction):
    tril_q, tril_p = tril_q.tril(), tril_p.tril()
    ratio = torch.linalg.solve_triangular(tril_p, tril_q, upper=False)
    distance = torch.linalg.solve_triangular(tril_p, (mu_q - mu_p).unsqueeze(-1), upper=False)
    diagonals = [tril.diagonal(dim1=-2, dim2=-1).log() for tril in (tril_q, tril_p)]
    spread = 2 * (diagonals[0] - diagonals[1])
    return reduce(
        0.5
        * (
            exp_minus_one_minus(spread).sum(-1)
            + (ratio.tril(-1) ** 2).sum((-1, -2))
            + (distance**2).sum((-1, -2))
        ),
        reduction,
    )


def reparameterize(mu, logvar, rng, noise, samples):
    if noise is not None:
        if rng is not None:
            raise ValueError("give rng or noise, not both")
        noise = noise.to(mu.dtype)
    else:
        noise = _drawn(mu, rng, samples)
    return mu + torch.exp(0.5 * logvar) * noise


def _drawn(mu, rng, samples):
    """Noise: on the CPU that of the kernels, unless torch.func.vmap draws another key a sample."""
    if mu.is_cpu and not torch.compiler.is_compiling():
        key = key_of(rng)
        if not is_mapped(key):
            zeros = np.zeros(mu.shape, str(mu.dtype).removeprefix("torch."))
            key = key.item() & (1 << 64) - 1
            return torch.from_numpy(fastelbo.reparameterize(zeros, zeros, rng=key, samples=samples))
    shape = mu.shape if samples is None else (samples, *mu.shape)
    generator = rng
    if rng is not None and not isinstance(rng, torch.Generator):
        generator = torch.Generator(mu.device).manual_seed(noise_key(rng))
    return torch.randn(shape, dtype=mu.dtype, device=mu.device, generator=generator)


def log_posterior(z, mu, logvar):
    return densities.normal(z, mu, 0.5 * logvar).sum(-1)


def log_prior(prior, z):
    """log p(z), in the leading shape of z; None is N(0, I)."""
    if prior is None:
        return -0.5 * (z * z + LOG_2PI).sum(-1)
    log_p = prior.log_prob(z)
    if log_p.shape != z.shape[:-1]:
        shapes = f"{tuple(log_p.shape)}, expected {tuple(z.shape[:-1])}"
        raise ValueError(f"prior.log_prob(z) has shape {shapes}")
    return log_p


def iwae(log_w, reduction):
    """The bound by log weights (K, B)."""
    return reduce(torch.logsumexp(log_w, 0) - math.log(len(log_w)), reduction)


def importance_weights(batch, dataset_size, method, normalize, mss, like):
    """log w_ij, what point j counts in the density at sample i: (1, 1) where all count the same."""
    if method == "mws":
        return like.new_full((1, 1), -math.log(batch * dataset_size) if normalize else 0.0)
    others = batch - 1
    w = like.new_full((batch, batch), 1 / others)
    special = (dataset_size - others) / (dataset_size * others)
    if mss == "paper":
        w.diagonal().fill_(1 / dataset_size)
        w.diagonal(1).fill_(special)
        w[-1, 0] = special
    else:  # strides of B where B + 1 is meant, as published
        w[:, 0] = 1 / dataset_size
        w[:, 1] = special
        w[batch - 2, 0] = special
    return w.log()


def total_correlation(z, mu, logvar, dataset_size, method, normalize, mss, reduction):
    """The three parts, by (B, B, L) tensors."""
    log_q = densities.normal(z[:, None], mu, 0.5 * logvar)
    pairs = log_q.sum(2)
    log_w = importance_weights(len(z), dataset_size, method, normalize, mss, z)
    own = torch.diagonal(pairs)
    joint = torch.logsumexp(pairs + log_w, 1)
    marginal = torch.logsumexp(log_q + log_w[..., None], 1).sum(1)
    prior = -0.5 * (z * z + LOG_2PI).sum(1)
    parts = own - joint, joint - marginal, marginal - prior
    return tuple([reduce(part, reduction) for part in parts])


def mixture_log_prob(z, log_weights, mu, logvar, reduction):
    log_p = log_weights + densities.normal(z[..., None, :], mu, 0.5 * logvar).sum(-1)
    return reduce(torch.logsumexp(log_p, -1), reduction)


def mmd(z, y, kernel, bandwidth, estimator):
    bandwidths = bandwidth or [s * max(z.shape[1], 1) ** 0.5 for s in BANDWIDTHS[kernel]]

    def mean(a, b, without_self=False):
        squares = ((a[:, None] - b) ** 2).sum(2)
        scaled = [squares * (0.5 / s**2) for s in bandwidths]
        terms = [torch.exp(-d) if kernel == "rbf" else 1 / (1 + d) for d in scaled]
        total = sum(terms).sum()
        if without_self:  # each of them is one
            return (total - len(a) * len(bandwidths)) / (len(a) * (len(a) - 1))
        return total / (len(a) * len(b))

    unbiased = estimator == "unbiased"
    return mean(z, z, unbiased) + mean(y, y, unbiased) - 2 * mean(z, y)
