"""Rows of compositions over time: flow matching, and latent ODEs."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import likelihoods
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.posterior import LATENTS
from fastelbo._catalogue.sizes import STANDARD

PLAIN = likelihoods.SQUARED_ERROR
#: Of endpoints and of series: whose decoder outputs are one, several, and of other axes.
LIKELIHOODS = ("Gaussian-learned", "Categorical")


def moments(rng, shape):
    """Times of a flow, of which the last weighs a hundred times as much as the first."""
    return rng.uniform(0, 0.9, shape)


def increasing(rng, shape):
    """Times of observations."""
    return np.sort(rng.uniform(size=shape), axis=-1)


def _remaining(t, array):
    return 1 - t.reshape(t.shape + (1,) * (array.ndim - 1))


# Flow matching ----------------------------------------------------------------------------------


def _velocity_magnitudes(mu, x_t, t):
    return ((np.abs(mu) + np.abs(x_t)) / _remaining(t, mu),)


def _plain_magnitudes(x, t, x_recon, reduction="mean"):
    rows, gradient = PLAIN.magnitudes(x, x_recon, reduction="none")
    weight = reference.row_weight(len(x), reduction)
    return (
        reference.reduce_rows(rows / (1 - t) ** 2, reduction),
        weight * gradient / _remaining(t, gradient) ** 2,
    )


def _matching(variant):
    """flow_matching with this likelihood, or without one."""

    def call(module, suffix):
        function = getattr(module, f"flow_matching{suffix}")

        def run(x, t, *outputs, **options):
            if variant is not None:
                options = {"likelihood": variant.make(module), **options}
            return function(x, t, outputs if len(outputs) > 1 else outputs[0], **options)

        return run

    return call


def _matching_cases(variant):
    return with_and_grad(
        f"flow_matching[{variant.label}]",
        _matching(variant),
        {"x": "BD", "t": "B", **variant.parameters},
        lambda x, t, *outputs, **options: variant.magnitudes(x, *outputs, **options),
        tuple(variant.parameters),
        draws={**variant.draws, "t": moments},
        constants=("x", "t"),
        batched=False,
    )


def _flow_elbo(variant):
    def call(module, suffix):
        function = getattr(module, f"flow_elbo{suffix}")

        def run(x, x_t, t, velocity, mu, logvar, *outputs, **options):
            x_recon = outputs if len(outputs) > 1 else outputs[0]
            options = {"likelihood": variant.make(module), **options}
            return function(x, x_t, t, velocity, mu, logvar, x_recon, **options)

        return run

    return call


def _flow_elbo_magnitudes(variant):
    def of(x, x_t, t, velocity, mu, logvar, *outputs, reduction="mean", weight=1.0, beta=1.0):
        value, *gradients = variant.magnitudes(x, *outputs, reduction=reduction)
        kl = reference.kl_standard_normal(mu, logvar, reduction=reduction)
        speed = (np.abs(mu) + np.abs(x_t)) / _remaining(t, mu) + np.abs(velocity)
        error = reference.reduce_rows((speed**2).sum(axis=1), reduction)
        share = reference.row_weight(len(mu), reduction)
        by_velocity = 2 * weight * share * speed
        by_mu = by_velocity / _remaining(t, mu) + beta * share * np.abs(mu)
        return (
            (value + beta * kl + weight * error, value, 0.0, error),
            (by_velocity, by_mu, 0.0, *gradients),
        )

    return of


def _flow_elbo_cases(variant, name=None, **others):
    return with_and_grad(
        name or f"flow_elbo[{variant.label}]",
        _flow_elbo(variant),
        {"x": "BD", "x_t": "BL", "t": "B", "velocity": "BL", **LATENTS, **variant.parameters},
        _flow_elbo_magnitudes(variant),
        ("velocity", "mu", "logvar", *variant.parameters),
        draws={**variant.draws, "t": moments},
        constants=("x", "x_t", "t"),
        options=({"weight": 0.0}, {"weight": 3.0, "beta": 0.5}),
        batched=False,
        **others,
    )


# Latent ODEs ------------------------------------------------------------------------------------


def _latent_ode(variant):
    def call(module, suffix):
        function = getattr(module, f"latent_ode_elbo{suffix}")

        def run(x, times, mu, logvar, *outputs, **options):
            x_recon = outputs if len(outputs) > 1 else outputs[0]
            options = {"likelihood": variant.make(module), **options}
            return function(x, times, mu, logvar, x_recon, **options)

        return run

    return call


def _latent_ode_magnitudes(variant):
    def of(x, times, mu, logvar, *outputs, reduction="mean", beta=1.0):
        value, *gradients = variant.magnitudes(x, *outputs, reduction=reduction)
        kl = reference.kl_standard_normal(mu, logvar, reduction=reduction)
        return (value + beta * kl, value, 0.0), (0.0, 0.0, *gradients)

    return of


def _latent_ode_cases(variant, name=None, times="N", **others):
    series = {which: axes.replace("B", "BN") for which, axes in variant.parameters.items()}
    return with_and_grad(
        name or f"latent_ode_elbo[{variant.label}]",
        _latent_ode(variant),
        {"x": "BND", "times": times, **LATENTS, **series},
        _latent_ode_magnitudes(variant),
        ("mu", "logvar", *variant.parameters),
        draws={**variant.draws, "times": increasing},
        constants=("x", "times"),
        options=({"beta": 4.0},),
        batched=False,
        **others,
    )


# The code that users write ----------------------------------------------------------------------


def numpy_velocity(mu, x_t, t):
    return (mu - x_t) / (1 - t[:, None])


def numpy_matching(x, t, x_recon):
    return -np.mean(np.sum(((x - x_recon) / (1 - t[:, None])) ** 2, axis=1))


def torch_matching(torch, x, t, x_recon):
    return -(((x - x_recon) / (1 - t[:, None])) ** 2).sum(1).mean()


def numpy_flow_elbo(x, x_t, t, velocity, mu, logvar, x_recon):
    target = (mu - x_t) / (1 - t[:, None])
    kl = -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)
    error = np.sum((target - velocity) ** 2, axis=1)
    return np.mean(-np.sum((x - x_recon) ** 2, axis=1) - kl - error)


def numpy_latent_ode(x, times, mu, logvar, x_recon):
    kl = -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)
    return np.mean(-np.sum((x - x_recon) ** 2, axis=(1, 2)) - kl)


def numpy_grid(times):
    return np.unique(times, return_inverse=True)


# The rows ---------------------------------------------------------------------------------------


def rows(variants):
    """The rows, of likelihoods by label."""
    several = [variants[label] for label in LIKELIHOODS]
    matching = with_and_grad(
        "flow_matching",
        _matching(None),
        {"x": "BD", "t": "B", "x_recon": "BD"},
        _plain_magnitudes,
        ("x_recon",),
        draws={"t": moments},
        constants=("x", "t"),
        batched=False,
        peers={"numpy": numpy_matching, "torch": torch_matching},
    )
    return (
        Row(
            "endpoint_velocity",
            (
                Case(
                    "endpoint_velocity",
                    lambda module, *arrays, **options: module.endpoint_velocity(*arrays, **options),
                    {"mu": "BD", "x_t": "BD", "t": "B"},
                    _velocity_magnitudes,
                    draws={"t": moments},
                    outs="out",
                    constants=("t",),
                    has_reduction=False,
                    batched=False,
                    peers={"numpy": numpy_velocity},
                ),
            ),
            (Bench("endpoint_velocity", "velocity to an endpoint", STANDARD),),
        ),
        Row(
            "flow_matching",
            (*matching, *(c for v in several for c in _matching_cases(v))),
            (
                Bench("flow_matching", "flow matching", STANDARD),
                Bench("flow_matching_and_grad", "flow matching and gradient", STANDARD),
            ),
            native=True,
        ),
        Row(
            "flow_elbo",
            (
                *_flow_elbo_cases(PLAIN, "flow_elbo", peers={"numpy": numpy_flow_elbo}),
                *(case for variant in several for case in _flow_elbo_cases(variant)),
            ),
            (
                Bench("flow_elbo", "ELBO and flow", STANDARD),
                Bench("flow_elbo_and_grad", "ELBO, flow and gradient", STANDARD),
            ),
            native=True,
        ),
        Row(
            "union_of_times",
            (
                Case(
                    "union_of_times",
                    lambda module, *arrays, **options: tuple(
                        module.union_of_times(*arrays, **options)
                    ),
                    {"times": "BN"},
                    lambda times: (0.0, 0.0),
                    draws={"times": increasing},
                    has_reduction=False,
                    batched=False,
                    peers={"numpy": numpy_grid},
                ),
            ),
            (Bench("union_of_times", "grid of times", {"B": 128, "N": 50}),),
            untwinned="whole numbers and times have no gradient: it takes tensors as they are",
        ),
        Row(
            "latent_ode_elbo",
            (
                *_latent_ode_cases(PLAIN, "latent_ode_elbo", peers={"numpy": numpy_latent_ode}),
                *_latent_ode_cases(PLAIN, "latent_ode_elbo[own times]", "BN"),
                *(case for variant in several for case in _latent_ode_cases(variant)),
            ),
            (
                Bench("latent_ode_elbo", "latent ODE", {**STANDARD, "D": 20, "N": 40}),
                Bench(
                    "latent_ode_elbo_and_grad",
                    "latent ODE and gradient",
                    {**STANDARD, "D": 20, "N": 40},
                ),
            ),
            native=True,
        ),
    )
