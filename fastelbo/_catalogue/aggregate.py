"""Rows of aggregate posteriors: every sample of a batch meets the posteriors of all others."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import numba_pairs
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.jax_peers import by_jax
from fastelbo._catalogue.likelihoods import SQUARED_ERROR
from fastelbo._catalogue.posterior import LATENTS
from fastelbo._catalogue.sizes import PAIRS

DATASET_SIZE = 60_000
#: Of mutual information, total correlation and dimension-wise KL.
WEIGHTS = (1.0, 6.0, 1.0)
POINTS = {"z": "BL", **LATENTS}
#: Whose beta-TCVAE is a case, besides that of the squared error: one output of a decoder, and two.
IN_TCVAE = ("Bernoulli", "Gaussian-learned")


# What cancels -----------------------------------------------------------------------------------


def shares_of(log_q):
    """Of each point in the density at each sample, over axis 1, and that density's logarithm."""
    with np.errstate(all="ignore"):
        log_density = reference.log_sum(log_q)
        return np.exp(log_q - log_density[:, None]), log_density


def terms_of(z, mu, logvar):
    """The sum of the absolute values of what makes up log N(z_i; mu_j, e^logvar_j), (S, N, L)."""
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


def density_magnitudes(z, mu, logvar):
    """Of the joint density, (S,), and the marginal ones, (S, L)."""
    log_q, terms = reference.log_normals(z, mu, logvar), terms_of(z, mu, logvar)
    joint, _ = shares_of(log_q.sum(axis=2))
    marginal, _ = shares_of(log_q)
    constant = np.log(len(mu)) + 1
    of_joint = (joint * terms.sum(axis=2)).sum(axis=1)
    return constant + of_joint, constant + (marginal * terms).sum(axis=1)


def _tcvae_magnitudes(variant):
    def of(x, z, mu, logvar, *outputs, alpha=1.0, beta=6.0, gamma=1.0, **options):
        weights = float(alpha), float(beta), float(gamma)
        reduction = options.get("reduction", "mean")
        reconstruction, *by_outputs = variant.magnitudes(x, *outputs, reduction=reduction)
        parts, gradients = magnitudes(z, mu, logvar, weights=weights, **options)
        cost = sum(w * part for w, part in zip(weights, parts, strict=True))
        return reconstruction + cost, reconstruction, parts, gradients, *by_outputs

    return of


# The code that users write ----------------------------------------------------------------------


def _log_sum(a):
    largest = a.max(axis=1, keepdims=True)
    return largest[:, 0] + np.log(np.exp(a - largest).sum(axis=1))


def _numpy_parts(z, mu, logvar):
    difference = z[:, None] - mu
    pull = difference * np.exp(-logvar)
    log_q = -0.5 * (reference.LOG_2PI + logvar + difference * pull)
    constant = math.log(len(z) * DATASET_SIZE)
    joint, marginal = _log_sum(log_q.sum(axis=2)), _log_sum(log_q)
    own = np.einsum("iil->i", log_q)
    product = (marginal - constant).sum(axis=1)
    prior = -0.5 * (reference.LOG_2PI + z**2).sum(axis=1)
    mutual = np.mean(own - joint) + constant
    total = np.mean(joint - product) - constant
    parts = mutual, total, np.mean(product - prior)
    return parts, (difference, pull, log_q, joint, marginal)


def _numpy_parts_and_grad(z, mu, logvar, weights=(0.0, 1.0, 0.0)):
    parts, (difference, pull, log_q, joint, marginal) = _numpy_parts(z, mu, logvar)
    alpha, beta, gamma = (w / len(z) for w in weights)
    shares = (beta - alpha) * np.exp(log_q.sum(axis=2) - joint[:, None])[..., None]
    shares = shares + (gamma - beta) * np.exp(log_q - marginal[:, None])
    shares[np.arange(len(z)), np.arange(len(z))] += alpha
    by_logvar = 0.5 * (shares * (difference * pull - 1)).sum(axis=0)
    shares = shares * pull
    return *parts, gamma * z - shares.sum(axis=1), shares.sum(axis=0), by_logvar


def _numpy_tcvae(x, z, mu, logvar, x_recon):
    parts, _ = _numpy_parts(z, mu, logvar)
    cost = sum(w * part for w, part in zip(WEIGHTS, parts, strict=True))
    return -np.mean(np.sum((x - x_recon) ** 2, axis=1)) - cost


def _numpy_tcvae_and_grad(x, z, mu, logvar, x_recon):
    *_, dz, dmu, dlogvar = _numpy_parts_and_grad(z, mu, logvar, WEIGHTS)
    return _numpy_tcvae(x, z, mu, logvar, x_recon), -dz, -dmu, -dlogvar, 2 * (x - x_recon) / len(x)


def _torch_log_density(torch, z, mu, logvar):
    return -0.5 * (reference.LOG_2PI + logvar + (z - mu) ** 2 * torch.exp(-logvar))


def _torch_parts(torch, z, mu, logvar):
    constant = math.log(len(z) * DATASET_SIZE)
    log_q = _torch_log_density(torch, z[:, None], mu[None], logvar[None])
    joint = torch.logsumexp(log_q.sum(2), 1) - constant
    product = (torch.logsumexp(log_q, 1) - constant).sum(1)
    own = _torch_log_density(torch, z, mu, logvar).sum(1)
    prior = -0.5 * (reference.LOG_2PI + z**2).sum(1)
    return (own - joint).mean(), (joint - product).mean(), (product - prior).mean()


def _torch_tcvae(torch, x, z, mu, logvar, x_recon):
    mutual, total, dimension_wise = _torch_parts(torch, z, mu, logvar)
    cost = WEIGHTS[0] * mutual + WEIGHTS[1] * total + WEIGHTS[2] * dimension_wise
    return -((x - x_recon) ** 2).sum(1).mean() - cost


def _numpy_aggregate(z, mu, logvar):
    log_q = -0.5 * (reference.LOG_2PI + logvar + (z[:, None] - mu) ** 2 * np.exp(-logvar))
    constant = math.log(len(mu))
    return _log_sum(log_q.sum(axis=2)) - constant, _log_sum(log_q) - constant


def _torch_aggregate(torch, z, mu, logvar):
    log_q = _torch_log_density(torch, z[:, None], mu, logvar)
    constant = math.log(len(mu))
    return torch.logsumexp(log_q.sum(2), 1) - constant, torch.logsumexp(log_q, 1) - constant


# The rows ---------------------------------------------------------------------------------------


#: Stratified sampling, which needs two samples; weighted sampling, the default, does with one.
STRATIFIED = {"method": "mss"}
OF_STRATIFIED = {
    "least": {"B": 2},
    "batched": False,
    "options": ({"mss": "reference"},),
}


def _total_correlation(**fixed):
    def call(module, suffix):
        function = getattr(module, f"total_correlation{suffix}")
        return lambda *arrays, **options: function(
            *arrays, **{"dataset_size": DATASET_SIZE, **fixed, **options}
        )

    return call


def _total_correlation_cases(label="", fixed=None, **others):
    fixed = fixed or {}
    return with_and_grad(
        f"total_correlation{label}",
        _total_correlation(**fixed),
        POINTS,
        lambda *arrays, **options: magnitudes(*arrays, **{**fixed, **options}),
        ("z", "mu", "logvar"),
        largest="BBL",
        sizes=tuple({"B": b, "L": n} for b, n in ((8, 4), (9, 5), (63, 1), (65, 70), (300, 5))),
        objective=(0.0, 1.0, 0.0),
        **others,
    )


def _plain_total_correlation():
    value, gradient = _total_correlation_cases(
        options=({"normalize": False},),
        peers={
            "numpy": lambda *arrays: _numpy_parts(*arrays)[0],
            "numpy_and_grad": _numpy_parts_and_grad,
            "torch": _torch_parts,
            "jax": by_jax(_torch_parts),
            "numba": partial(numba_pairs.parts, dataset_size=DATASET_SIZE),
            "numba_and_grad": numba_pairs.weighted(DATASET_SIZE, (0.0, 1.0, 0.0)),
        },
    )
    return value, replace(gradient, options=(*gradient.options, {"weights": (1.0, 6.0, 0.5)}))


def _tcvae(variant, fixed):
    def call(module, suffix):
        function = getattr(module, f"beta_tcvae_elbo{suffix}")
        given = {"dataset_size": DATASET_SIZE, "likelihood": variant.make(module), **fixed}

        def run(x, z, mu, logvar, *outputs, **options):
            x_recon = outputs if len(outputs) > 1 else outputs[0]
            return function(x, z, mu, logvar, x_recon, **{**given, **options})

        return run

    return call


def _tcvae_cases(variant, label, fixed=None, **others):
    fixed = fixed or {}
    of = _tcvae_magnitudes(variant)
    options = ({"alpha": 0.5, "beta": 2.0, "gamma": 3.0}, {"normalize": False})
    return with_and_grad(
        f"beta_tcvae_elbo{label}",
        _tcvae(variant, fixed),
        {"x": "BD", **POINTS, **variant.parameters},
        lambda *arrays, **options: of(*arrays, **{**fixed, **options}),
        ("z", "mu", "logvar", *variant.parameters),
        draws=variant.draws,
        constants=("x",),
        fixed=variant.fixed,
        largest="BBL",
        **{"options": options, **others},
    )


def rows(variants):
    """The rows, of likelihoods by label."""
    return (
        Row(
            "total_correlation",
            (
                *_plain_total_correlation(),
                *_total_correlation_cases("[mss]", STRATIFIED, **OF_STRATIFIED),
            ),
            (
                Bench("total_correlation", "total correlation", PAIRS),
                Bench("total_correlation_and_grad", "total correlation and gradient", PAIRS),
            ),
            native=True,
        ),
        Row(
            "beta_tcvae_elbo",
            (
                *_tcvae_cases(
                    SQUARED_ERROR,
                    "",
                    peers={
                        "numpy": _numpy_tcvae,
                        "numpy_and_grad": _numpy_tcvae_and_grad,
                        "torch": _torch_tcvae,
                        "jax": by_jax(_torch_tcvae),
                        "numba": numba_pairs.tcvae(DATASET_SIZE, WEIGHTS),
                        "numba_and_grad": numba_pairs.tcvae_and_grad(DATASET_SIZE, WEIGHTS),
                    },
                ),
                *_tcvae_cases(SQUARED_ERROR, "[mss]", STRATIFIED, **OF_STRATIFIED),
                *(
                    case
                    for label in IN_TCVAE
                    for case in _tcvae_cases(variants[label], f"[{label}]")
                ),
            ),
            (
                Bench("beta_tcvae_elbo", "beta-TCVAE", PAIRS),
                Bench("beta_tcvae_elbo_and_grad", "beta-TCVAE and gradient", PAIRS),
            ),
            native=True,
        ),
        Row(
            "aggregate_posterior_log_density",
            (
                Case(
                    "aggregate_posterior_log_density",
                    lambda module, *arrays, **o: module.aggregate_posterior_log_density(
                        *arrays, **o
                    ),
                    {"z": "BL", "mu": "NL", "logvar": "NL"},
                    lambda *arrays, **options: density_magnitudes(*arrays),
                    has_reduction=False,
                    batched=False,
                    largest="BNL",
                    sizes=(
                        {"B": 7, "N": 63, "L": 3},
                        {"B": 8, "N": 64, "L": 4},
                        {"B": 9, "N": 65, "L": 5},
                        {"B": 1, "N": 130, "L": 65},
                    ),
                    peers={
                        "numpy": _numpy_aggregate,
                        "torch": _torch_aggregate,
                        "jax": by_jax(_torch_aggregate),
                    },
                ),
            ),
            (
                Bench(
                    "aggregate_posterior_log_density",
                    "aggregate posterior",
                    {**PAIRS, "N": PAIRS["B"]},
                ),
            ),
            untwinned="a metric of the whole data set, without gradients",
        ),
    )
