"""The same functions in PyTorch operations: for tensors that kernels do not serve."""

import math

import numpy as np
import torch

import fastelbo
from fastelbo.discrepancies import BANDWIDTHS
from fastelbo.divergences import as_free_bits
from fastelbo.torch import _checks, densities
from fastelbo.torch._elementwise import elementwise, exp_minus_one_minus, product, scaled
from fastelbo.torch._tensors import generator_of, is_mapped, key_of, reduce
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
    _checks.factors(tril_q=tril_q, tril_p=tril_p)
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


def log_softmax(logits):
    """Over the last axis; infinite logits share everything."""
    top = logits.amax(-1, keepdim=True)
    infinite = torch.where(logits == torch.inf, 0.0, -torch.inf).to(logits.dtype)
    return torch.where(top == torch.inf, infinite, logits).log_softmax(-1)


def kl_categorical(logits, prior_logits, reduction):
    log_p, log_prior = log_softmax(logits), log_softmax(prior_logits)
    p = log_p.exp()
    some = p > 0
    surprise = torch.where(some, log_p, 0.0) - torch.where(some, log_prior, 0.0)
    kl = (p * surprise).sum(-1)
    return reduce(kl.reshape(len(kl), -1).sum(1), reduction)


def kl_bernoulli(logits, prior_logits, reduction):
    def value(logits, prior):
        a, b = logits.abs(), torch.where(logits < 0, -prior, prior)
        rest = product((-a).exp() * torch.sigmoid(a), b - a)
        small = torch.log1p((-b.abs()).exp()) - torch.log1p((-a).exp())
        kl = (small - b.clamp(max=0) + rest).clamp(min=0)
        return torch.where(b == -torch.inf, torch.inf, kl)

    def slopes(logits, prior):
        def push():
            q, prior_q = torch.sigmoid(-logits), torch.sigmoid(-prior)
            smaller = torch.sigmoid(prior) - torch.sigmoid(logits)
            return torch.where(prior > -logits, q - prior_q, smaller)

        spread = torch.sigmoid(logits) * torch.sigmoid(-logits)
        return lambda: product(spread, logits - prior), push

    kl = elementwise(value, slopes, logits, prior_logits)
    return reduce(kl.reshape(len(kl), -1).sum(1), reduction)


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
    generator = generator_of(rng, mu.device)
    return torch.randn(shape, dtype=mu.dtype, device=mu.device, generator=generator)


def posterior_log_prob(z, mu, logvar, reduction):
    return reduce(densities.normal(z, mu, 0.5 * logvar).sum(-1), reduction)


def _without_largest(log_w):
    """e^(log_w - m) and the largest m of each column, a finite number where it is infinite."""
    largest = torch.finfo(log_w.dtype).max
    m = log_w.detach().amax(0).clamp(-largest, largest)
    return torch.exp(log_w - m), m


def importance_bound(log_w, alpha, reduction):
    if alpha == 1:
        return reduce(log_w.mean(0), reduction)
    w, m = _without_largest((1 - alpha) * log_w)
    return reduce((m + torch.log(w.mean(0))) / (1 - alpha), reduction)


def _others(log_w):
    """(k, j, column): of each sample k all j, and whether j is k."""
    alone = torch.eye(len(log_w), dtype=torch.bool, device=log_w.device)[:, :, None]
    return log_w.expand(len(log_w), *log_w.shape), alone


def _mean_of_others(log_w):
    others, alone = _others(log_w)
    return torch.where(alone, 0.0, others).sum(1) / (len(log_w) - 1)


def vimco(log_w, log_q, reduction):
    """By (K, K, B) tensors. A signal is log1p((w_k - g) / (rest + g)), with g the geometric mean of
    the others, and weights relative to the largest of them."""
    others, alone = _others(log_w.detach())
    others = torch.where(alone, -torch.inf, others)
    largest = torch.finfo(log_w.dtype).max
    m = others.amax(1).clamp(-largest, largest)
    rest = torch.exp(others - m[:, None]).sum(1)
    above = log_w.detach() - m
    w, g = torch.exp(above), torch.exp(_mean_of_others(log_w.detach()) - m)
    signals = torch.log1p((w - g) / (rest + g))
    far = w == torch.inf
    signals = torch.where(far, above - torch.log(rest + g), signals)
    rows = importance_bound(log_w, 0.0, "none")
    return reduce(rows + _score(log_q, signals), reduction)


def reinforce(log_w, log_q, baseline, reduction):
    signals = log_w.detach()
    if baseline != "none":
        signals = signals - _mean_of_others(signals)
    rows = log_w.mean(0) + _score(log_q, signals / len(log_w))
    return reduce(rows, reduction)


def _score(log_q, signals):
    """Zeros (B,), whose derivatives by log_q are the signals."""

    def slopes(log_q, signals):
        return lambda: signals, lambda: torch.zeros_like(signals)

    return elementwise(lambda log_q, signals: torch.zeros_like(log_q), slopes, log_q, signals).sum(
        0
    )


def effective_sample_size(log_w):
    w, _ = _without_largest(log_w)
    return w.sum(0) ** 2 / (w * w).sum(0)


def normalized_weights(log_w):
    w, _ = _without_largest(log_w)
    return w / w.sum(0)


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
    joint = densities.logsumexp(pairs + log_w, 1)
    marginal = densities.logsumexp(log_q + log_w[..., None], 1).sum(1)
    prior = -0.5 * (z * z + LOG_2PI).sum(1)
    parts = own - joint, joint - marginal, marginal - prior
    return tuple([reduce(part, reduction) for part in parts])


def mixture_log_prob(z, mu, logvar, log_weights, reduction):
    log_p = log_weights + densities.normal(z[..., None, :], mu, 0.5 * logvar).sum(-1)
    return reduce(densities.logsumexp(log_p, -1), reduction)


def mmd(z, y, kernel, bandwidth, estimator):
    bandwidths = bandwidth or [s * max(z.shape[1], 1) ** 0.5 for s in BANDWIDTHS[kernel]]
    most = torch.finfo(z.dtype).max / 2  # of which 0 is no NaN

    def mean(a, b, without_self=False):
        squares = ((a[:, None] - b) ** 2).sum(2)
        scaled = [squares * min(0.5 / s / s, most) for s in bandwidths]
        terms = [torch.exp(-d) if kernel == "rbf" else 1 / (1 + d) for d in scaled]
        total = sum(terms).sum()
        if without_self:  # each of them is one
            return (total - len(a) * len(bandwidths)) / (len(a) * (len(a) - 1))
        return total / (len(a) * len(b))

    unbiased = estimator == "unbiased"
    return mean(z, z, unbiased) + mean(y, y, unbiased) - 2 * mean(z, y)
