"""Rows of what is done against posterior collapse."""

import functools

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.sizes import STANDARD

LATENTS = {"mu": "BL", "logvar": "BL"}
DELTA, TARGET = 0.3, 1.5
roots = functools.cache(reference.delta_roots)


# delta-VAE --------------------------------------------------------------------------------------


def _call(name):
    return lambda module, *arrays, delta=DELTA, **options: getattr(module, name)(
        *arrays, delta=delta, **options
    )


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def _parts(mu, logvar, delta):
    """(terms of the mean's square, of the log variance, and those themselves)."""
    low, high = roots(delta)
    terms = -low * _sigmoid(-logvar) + high * _sigmoid(logvar)
    mean, between = reference.delta_posterior(mu, logvar, delta=delta)
    spread = reference.exp_minus_one_minus(between)
    square = 2 * delta + spread + np.maximum(mu, 0) + np.abs(np.expm1(between)) * terms
    return square, terms, mean, between


def _magnitudes(mu, logvar, delta=DELTA):
    square, terms, mean, _ = _parts(mu, logvar, delta)
    return square / mean, terms


def _backward_magnitudes(grad_mu, grad_logvar, mu, logvar, delta=DELTA):
    square, terms, mean, between = _parts(mu, logvar, delta)
    low, high = roots(delta)
    slope = (high - low) * _sigmoid(logvar) * _sigmoid(-logvar)
    pull = np.abs(grad_mu) / (2 * mean) * (1 + square / mean**2)
    return pull, slope * (np.abs(grad_logvar) + (1 + terms) * (1 + np.exp(between)) * pull)


def _numpy_delta(mu, logvar):
    low, high = roots(DELTA)
    between = low + (high - low) / (1 + np.exp(-logvar))
    square = 2 * DELTA + 1 + between - np.exp(between) + np.maximum(0, mu)
    return np.sqrt(square), between


def _numpy_delta_backward(grad_mu, grad_logvar, mu, logvar):
    low, high = roots(DELTA)
    share = 1 / (1 + np.exp(-logvar))
    between = low + (high - low) * share
    square = 2 * DELTA + 1 + between - np.exp(between) + np.maximum(0, mu)
    pull = grad_mu / (2 * np.sqrt(square))
    slope = (high - low) * share * (1 - share)
    return pull * (mu > 0), slope * (grad_logvar + (1 - np.exp(between)) * pull)


def _torch_delta(torch, mu, logvar):
    low, high = roots(DELTA)
    between = low + (high - low) * torch.sigmoid(logvar)
    return torch.sqrt(2 * DELTA + 1 + between - between.exp() + torch.relu(mu)), between


DELTAS = {
    "options": ({"delta": 0.01}, {"delta": 4.0}),
    "has_reduction": False,
    "batched": False,
    "sizes": ({"B": 1, "L": 1}, {"B": 40, "L": 130}, {"B": 3, "L": 0}),
}

DELTA_POSTERIOR = Row(
    "delta_posterior",
    (
        Case(
            "delta_posterior",
            _call("delta_posterior"),
            LATENTS,
            _magnitudes,
            outs=("mu", "logvar"),
            peers={"numpy": _numpy_delta, "torch": _torch_delta},
            **DELTAS,
        ),
    ),
    (Bench("delta_posterior", "posterior of a delta-VAE", STANDARD),),
)

DELTA_POSTERIOR_BACKWARD = Row(
    "delta_posterior_backward",
    (
        Case(
            "delta_posterior_backward",
            _call("delta_posterior_backward"),
            {"grad_mu": "BL", "grad_logvar": "BL", **LATENTS},
            _backward_magnitudes,
            outs=("mu", "logvar"),
            peers={"numpy": _numpy_delta_backward},
            **DELTAS,
        ),
    ),
    (Bench("delta_posterior_backward", "posterior of a delta-VAE, backward", STANDARD),),
    "it is what autograd does",
)


# Capacity ---------------------------------------------------------------------------------------


def _call_capacity(module, suffix):
    def run(mu, logvar, target=TARGET, **options):
        return getattr(module, f"capacity{suffix}")(mu, logvar, target, **options)

    return run


def _capacity_magnitudes(mu, logvar, target=TARGET, gamma=1000.0, of="mean"):
    kl = reference.kl_standard_normal(mu, logvar)
    _, gradients = reference.capacity_and_grad(mu, logvar, target, gamma=gamma, of=of)
    return gamma * (kl + target), *map(np.abs, gradients)


def _numpy_capacity(mu, logvar):
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
    return 1000 * abs(kl - TARGET)


def _numpy_capacity_and_grad(mu, logvar):
    sigma2 = np.exp(logvar)
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - sigma2, axis=1))
    weight = 1000 * np.sign(kl - TARGET) / len(mu)
    return 1000 * abs(kl - TARGET), weight * mu, weight * 0.5 * (sigma2 - 1)


def _torch_capacity(torch, mu, logvar):
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
    return 1000 * (kl - TARGET).abs()


CAPACITY = Row(
    "capacity",
    with_and_grad(
        "capacity",
        _call_capacity,
        LATENTS,
        _capacity_magnitudes,
        ("mu", "logvar"),
        options=({"of": "sample"}, {"gamma": 2.5, "target": 0.5}),
        has_reduction=False,
        peers={
            "numpy": _numpy_capacity,
            "numpy_and_grad": _numpy_capacity_and_grad,
            "torch": _torch_capacity,
        },
    ),
    (
        Bench("capacity", "capacity of the KL", STANDARD),
        Bench("capacity_and_grad", "capacity of the KL and its gradient", STANDARD),
    ),
    native=True,
)

ROWS = (DELTA_POSTERIOR, DELTA_POSTERIOR_BACKWARD, CAPACITY)
