"""What `parity` checks of aggregate posteriors, and of Gaussians of full covariance."""

from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.parity_checks import Check, Inputs, both, covers, in_torch

DATASET_SIZE = 50_000
WEIGHTS = (1.0, 6.0, 0.5)
#: The reference makes (B, B, L) arrays.
MOST = 257


def shares_of(log_q):
    """Of each point in the density at each sample, over axis 1, and that density's logarithm."""
    with np.errstate(all="ignore"):
        log_density = reference.log_sum(log_q)
        return np.exp(log_q - log_density[:, None]), log_density


def terms_of(z, mu, logvar):
    """The sum of the absolute values of what makes up log N(z_i; mu_j, e^logvar_j), (S, N, L)."""
    z, mu, logvar = (np.asarray(a, np.float64) for a in (z, mu, logvar))
    difference = z[:, None] - mu
    return 0.5 * (reference.LOG_2PI + np.abs(logvar) + difference**2 * np.exp(-logvar))


def magnitudes(
    z,
    mu,
    logvar,
    *,
    weights=(0.0, 1.0, 0.0),
    reduction="mean",
    dataset_size=DATASET_SIZE,
    method="mws",
    normalize=True,
    mss="paper",
):
    """The sizes of the terms of the three parts, and of the three gradients.

    Shares of the points inherit the rounding of their log-densities.
    """
    z, mu, logvar = (np.asarray(a, np.float64) for a in (z, mu, logvar))
    batch, dims = z.shape
    log_q, terms = reference.log_normals(z, mu, logvar), terms_of(z, mu, logvar)
    log_w = reference.importance_weights(batch, dataset_size, method, normalize, mss)
    constant = np.abs(log_w).max(initial=1.0)
    joint, _ = shares_of(log_q.sum(axis=2) + log_w)
    marginal, _ = shares_of(log_q + log_w[..., None])
    of_own = terms[np.arange(batch), np.arange(batch)].sum(axis=1)
    of_joint = constant + (joint * terms.sum(axis=2)).sum(axis=1)
    of_marginal = dims * constant + (marginal * terms).sum(axis=(1, 2))
    of_prior = 0.5 * (reference.LOG_2PI + z**2).sum(axis=1)
    parts = of_own + of_joint, of_joint + of_marginal, of_marginal + of_prior

    alpha, beta, gamma = (reference.row_weight(batch, reduction) * w for w in weights)
    by_log_q = abs(beta - alpha) * (joint * (1 + terms.sum(axis=2)))[..., None]
    by_log_q = by_log_q + abs(gamma - beta) * marginal * (1 + terms)
    by_log_q[np.arange(batch), np.arange(batch)] += abs(alpha)
    pull = np.abs(z[:, None] - mu) * np.exp(-logvar)
    spread = np.abs(z[:, None] - mu) * pull + 1
    gradients = (
        (by_log_q * pull).sum(axis=1) + np.abs(gamma * z),
        (by_log_q * pull).sum(axis=0),
        0.5 * (by_log_q * spread).sum(axis=0),
    )
    return tuple(reference.reduce_rows(part, reduction) for part in parts), gradients


def largest(tree):
    if isinstance(tree, tuple):
        return tuple(largest(branch) for branch in tree)
    return float(np.max(tree, initial=0.0))


def torch_parts(torch, z, mu, logvar, weights=None, dataset_size=DATASET_SIZE):
    """The parts as a PyTorch user computes them, or the mean of their weighted sum."""
    normal = torch.distributions.Normal
    log_q = normal(mu, torch.exp(0.5 * logvar)).log_prob(z[:, None])
    constant = np.log(len(z) * dataset_size)
    joint = torch.logsumexp(log_q.sum(2), 1) - constant
    product = (torch.logsumexp(log_q, 1) - constant).sum(1)
    own = normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(1)
    parts = own - joint, joint - product, product - normal(0.0, 1.0).log_prob(z).sum(1)
    return (
        sum(w * part.mean() for w, part in zip(weights, parts, strict=True)) if weights else parts
    )


def _minibatch(size, dtype):
    """(inputs, (z, mu, logvar))."""
    inputs = Inputs((min(size[0], MOST), *size[1:]), dtype)
    mu, logvar = inputs.latents()
    return inputs, (
        (mu + np.exp(0.5 * logvar) * inputs.normal(*mu.shape)).astype(dtype),
        mu,
        logvar,
    )


def _variants(batch):
    yield {}
    yield {"normalize": False, "reduction": "none"}
    yield {"reduction": "sum"}
    if batch > 1:
        yield {"method": "mss"}
        yield {"method": "mss", "mss": "reference", "reduction": "none"}


@covers("total_correlation")
def _total_correlation(size, dtype):
    inputs, arrays = _minibatch(size, dtype)
    for options in _variants(inputs.batch):
        options = {"dataset_size": DATASET_SIZE, **options}
        yield Check(
            partial(fastelbo.total_correlation, *arrays, **options),
            partial(reference.total_correlation, *arrays, **options),
            lambda options=options: largest(magnitudes(*arrays, **options)[0]),
            {} if len(options) > 1 else {"PyTorch": partial(_in_torch, arrays)},
        )


def _in_torch(arrays):
    import torch

    tensors = (torch.from_numpy(np.asarray(a, np.float64)) for a in arrays)
    return tuple(float(part.mean()) for part in torch_parts(torch, *tensors))


@covers("total_correlation_and_grad")
def _total_correlation_and_grad(size, dtype):
    inputs, arrays = _minibatch(size, dtype)
    for options in _variants(inputs.batch):
        options = {"dataset_size": DATASET_SIZE, "weights": WEIGHTS, **options}
        torch = {}
        if len(options) == 2:
            torch = {"PyTorch": partial(_gradients_in_torch, arrays)}
        yield Check(
            partial(fastelbo.total_correlation_and_grad, *arrays, **options),
            partial(reference.total_correlation_and_grad, *arrays, **options),
            lambda options=options: largest(magnitudes(*arrays, **options)),
            torch,
        )


def _gradients_in_torch(arrays):
    weighted = partial(torch_parts, weights=WEIGHTS)
    return (None, None, None), in_torch(weighted, arrays, (0, 1, 2))()[1]


def _tcvae(name, size, dtype):
    inputs, latent = _minibatch(size, dtype)
    x, x_recon = inputs.data()
    for reduction in ("mean", "none"):
        for weights in ({}, {"alpha": 0.5, "beta": 2.0, "gamma": 3.0}):
            options = {"dataset_size": DATASET_SIZE, "reduction": reduction, **weights}
            yield Check(
                partial(getattr(fastelbo, name), x, *latent, x_recon, **options),
                partial(getattr(reference, name), x, *latent, x_recon, **options),
                partial(_tcvae_scale, name, x, latent, x_recon, reduction, weights),
            )


def _tcvae_scale(name, x, latent, x_recon, reduction, weights):
    weights = tuple({"alpha": 1.0, "beta": 6.0, "gamma": 1.0, **weights}.values())
    parts, gradients = magnitudes(*latent, weights=weights, reduction=reduction)
    parts = largest(parts)
    terms = ((np.asarray(x, np.float64) - x_recon) ** 2).sum(axis=1)
    reconstruction = float(np.max(reference.reduce_rows(terms, reduction)))
    cost = sum(w * part for w, part in zip(weights, parts, strict=True))
    values = (reconstruction + cost, reconstruction, *parts)
    return (values, (*largest(gradients), 0.0)) if name.endswith("grad") else values


for _name in ("beta_tcvae_elbo", "beta_tcvae_elbo_and_grad"):
    covers(_name)(partial(_tcvae, _name))


def density_magnitudes(z, mu, logvar):
    """Of the joint density, (S,), and the marginal ones, (S, L)."""
    z, mu, logvar = (np.asarray(a, np.float64) for a in (z, mu, logvar))
    log_q, terms = reference.log_normals(z, mu, logvar), terms_of(z, mu, logvar)
    joint, _ = shares_of(log_q.sum(axis=2))
    marginal, _ = shares_of(log_q)
    constant = np.log(len(mu)) + 1
    of_joint = (joint * terms.sum(axis=2)).sum(axis=1)
    return constant + of_joint, constant + (marginal * terms).sum(axis=1)


@covers("aggregate_posterior_log_density")
def _aggregate_posterior_log_density(size, dtype):
    _, (z, mu, logvar) = _minibatch(size, dtype)
    for samples in (z, z[:1], (3 * z).astype(dtype)):
        yield Check(
            partial(fastelbo.aggregate_posterior_log_density, samples, mu, logvar),
            partial(reference.aggregate_posterior_log_density, samples, mu, logvar),
            lambda samples=samples: largest(density_magnitudes(samples, mu, logvar)),
        )


# Gaussians of full covariance -------------------------------------------------------------------


def _torch_full(torch, mu_q, tril_q, mu_p, tril_p):
    normal = torch.distributions.MultivariateNormal
    q, p = (normal(m, scale_tril=torch.tril(t)) for m, t in ((mu_q, tril_q), (mu_p, tril_p)))
    return torch.distributions.kl_divergence(q, p).mean()


def factors(inputs, *shape):
    """Cholesky factors, far from singular."""
    dims = shape[-1]
    noise = np.tril(inputs.normal(*shape, dims, scale=0.3 / np.sqrt(dims)), -1)
    diagonal = np.exp(0.2 * inputs.normal(*shape))
    return (noise + diagonal[..., None] * np.eye(dims)).astype(inputs.dtype)


def _full(name, size, dtype):
    inputs = Inputs((min(size[0], MOST), size[1], min(size[2], 33)), dtype)
    shape = inputs.batch, inputs.latent
    mu_q, mu_p = inputs.normal(*shape), inputs.normal(*shape)
    ours, theirs = getattr(fastelbo, name), getattr(reference, name)
    gradients = (0, 1, 2, 3) if name.endswith("grad") else None
    for of_q, of_p in ((shape, shape), (shape, shape[1:]), (shape[1:], shape)):
        arrays = mu_q, factors(inputs, *of_q), mu_p, factors(inputs, *of_p)
        torch = {"PyTorch": in_torch(_torch_full, arrays, gradients)}
        yield both(ours, theirs, *arrays, others=torch)
        yield both(ours, theirs, *arrays, reduction="none")


for _name in ("kl_full_normal", "kl_full_normal_and_grad"):
    covers(_name)(partial(_full, _name))
