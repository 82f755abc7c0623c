"""Rows of samples of the posterior, and of its log density."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.divergences import function, with_free_bits
from fastelbo._catalogue.sizes import STANDARD

KEY = 0x0123456789ABCDEF
LATENTS = {"mu": "BL", "logvar": "BL"}


def z_magnitude(mu, logvar, noise, **options):
    return np.abs(mu) + np.exp(logvar / 2) * np.abs(noise)


def drawn_magnitude(mu, logvar, **options):
    """Without the noise: sigma |noise| is at most |z| + |mu|, and errors are relative to |z|, too.

    What is left is the noise next to zero, which is as exact as a normal of one.
    """
    return z_magnitude(mu, logvar, 1.0)


def _gradient_magnitudes(grad_z, mu, logvar, step, kl_weight):
    """`step` is sigma |noise|; a leading axis is that of samples."""
    samples = tuple(range(grad_z.ndim - 2))
    pull, push = (a.sum(axis=samples) for a in (0.5 * np.abs(grad_z) * step, np.abs(grad_z)))
    spread = 0.5 * np.abs(np.expm1(logvar))
    return push + np.abs(kl_weight * mu), pull + np.abs(kl_weight) * spread


def backward_magnitudes(grad_z, mu, logvar, z, kl_weight=0.0):
    return _gradient_magnitudes(grad_z, mu, logvar, np.abs(z - mu), kl_weight)


def _given_backward_magnitudes(grad_z, mu, logvar, noise, kl_weight=0.0):
    step = np.exp(logvar / 2) * np.abs(noise)
    return _gradient_magnitudes(grad_z, mu, logvar, step, kl_weight)


def _drawn_backward_magnitudes(grad_z, mu, logvar, kl_weight=0.0):
    return _given_backward_magnitudes(grad_z, mu, logvar, 1.0, kl_weight)


def _given(name, several=False):
    """The function with its noise as the last array, which has an axis of samples if `several`."""

    def call(module, mu, logvar, noise, **options):
        if several:
            options["samples"] = len(noise)
        options = with_free_bits(module, options)
        return getattr(module, name)(mu, logvar, noise=noise, **options)

    return call


def _drawn(name):
    return lambda module, *latents, **o: getattr(module, name)(*latents, **{"rng": KEY, **o})


def _backward(module, *arrays, **options):
    return module.reparameterize_backward(*arrays, **options)


def _backward_given(module, *arrays, **options):
    *arrays, noise = arrays
    return module.reparameterize_backward(*arrays, None, noise=noise, **options)


def _backward_drawn(module, *arrays, **options):
    return module.reparameterize_backward(*arrays, None, rng=KEY, **options)


def _backward_weighted(module, *arrays, **options):
    *arrays, weights = arrays
    return module.reparameterize_backward(*arrays, kl_weight=weights, **options)


def _backward_case(label, call, inputs, magnitudes, **others):
    return Case(
        f"reparameterize_backward{label}",
        call,
        {"grad_z": "BL", **LATENTS, **inputs},
        magnitudes,
        outs=("mu", "logvar"),
        has_reduction=False,
        **others,
    )


def _numpy_backward(grad_z, mu, logvar, z):
    return grad_z, 0.5 * grad_z * (z - mu)


def _torch_backward_given(torch, grad_z, mu, logvar, noise):
    """What autograd gives; with tensors that require no gradient it would give none."""
    with torch.enable_grad():
        mu, logvar = (a.detach().clone().requires_grad_() for a in (mu, logvar))
        z = mu + torch.exp(0.5 * logvar) * noise
        return torch.autograd.grad((grad_z * z).sum(), (mu, logvar))


def numpy_draw(mu, logvar):
    eps = np.random.default_rng(0).standard_normal(mu.shape, mu.dtype)
    return mu + np.exp(0.5 * logvar) * eps


def _numpy_draw_kl(mu, logvar):
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
    return numpy_draw(mu, logvar), kl


def _torch_draw(torch, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def _torch_draw_kl(torch, mu, logvar):
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
    return _torch_draw(torch, mu, logvar), kl


def _given_cases(name, magnitudes, **others):
    """With noise that is given: a sample a row, and several."""

    def of(label, noise, **more):
        return Case(
            name + label,
            _given(name, noise.startswith("K")),
            {**LATENTS, "noise": noise},
            magnitudes,
            outs="out",
            constants=("noise",),
            **others,
            **more,
        )

    return of("", "BL"), of("[samples]", "KBL", batched=False)


# Its log density --------------------------------------------------------------------------------


def _density_magnitudes(z, mu, logvar, reduction="mean"):
    """Squares and log variances cancel; of several samples, so do their pulls."""
    square = (z - mu) ** 2 * np.exp(-logvar)
    weight = reference.row_weight(np.prod(z.shape[:-1]), reduction)
    rows = 0.5 * (square + np.abs(logvar) + reference.LOG_2PI).sum(axis=-1)
    samples = tuple(range(z.ndim - 2))
    pull = np.abs(z - mu) * np.exp(-logvar)
    return (
        reference.reduce_rows(rows, reduction),
        0.0,
        weight * pull.sum(axis=samples),
        weight * 0.5 * (square + 1.0).sum(axis=samples),
    )


def _density_cases(label, axes, **others):
    return with_and_grad(
        f"posterior_log_prob{label}",
        function("posterior_log_prob"),
        {"z": axes, **LATENTS},
        _density_magnitudes,
        ("z", "mu", "logvar"),
        batched=False,
        **others,
    )


def _numpy_density(z, mu, logvar):
    square = (z - mu) ** 2 * np.exp(-logvar)
    return -0.5 * np.mean(np.sum(square + logvar + reference.LOG_2PI, axis=1))


def _numpy_density_and_grad(z, mu, logvar):
    pull = (z - mu) * np.exp(-logvar)
    square = (z - mu) * pull
    value = -0.5 * np.mean(np.sum(square + logvar + reference.LOG_2PI, axis=1))
    return value, -pull / len(z), pull / len(z), 0.5 * (square - 1) / len(z)


def _torch_density(torch, z, mu, logvar):
    return torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1).mean()


POINTS = (0.0, 1.0, -1e4, 300.0)
POSTERIOR_LOG_PROB = Row(
    "posterior_log_prob",
    (
        *_density_cases(
            "",
            "BL",
            extremes={"z": POINTS, "mu": POINTS, "logvar": (-40.0, -2.0, 0.0, 0.6, 30.0)},
            limits={
                "z": (0.0, 1.0, -1e30),
                "mu": (0.0, 1.0),
                "logvar": (-2e4, -1400.0, -178.0, -6.0, 0.0, 160.0, 2e4, np.inf),
            },
            peers={
                "numpy": _numpy_density,
                "numpy_and_grad": _numpy_density_and_grad,
                "torch": _torch_density,
            },
        ),
        *_density_cases("[samples]", "KBL"),
    ),
    (
        Bench("posterior_log_prob", "log density of the posterior", STANDARD),
        Bench("posterior_log_prob_and_grad", "the same and its gradient", STANDARD),
    ),
)

ROWS = (
    POSTERIOR_LOG_PROB,
    Row(
        "reparameterize",
        (
            *_given_cases("reparameterize", z_magnitude, has_reduction=False),
            Case(
                "reparameterize[drawn]",
                _drawn("reparameterize"),
                LATENTS,
                drawn_magnitude,
                has_reduction=False,
                draws_noise=True,
                options=({"samples": 3},),
                peers={"numpy": numpy_draw, "torch": _torch_draw},
            ),
        ),
        (Bench("reparameterize[drawn]", "noise and z", STANDARD),),
        native=True,
    ),
    Row(
        "reparameterize_kl",
        (
            *_given_cases(
                "reparameterize_kl",
                lambda *arrays, **options: (z_magnitude(*arrays), 0.0),
                options=(
                    {"free_bits": 0.3},
                    {"free_bits": {"threshold": 0.5, "granularity": "sample", "below": "zero"}},
                ),
            ),
            Case(
                "reparameterize_kl[drawn]",
                _drawn("reparameterize_kl"),
                LATENTS,
                lambda *arrays, **options: (drawn_magnitude(*arrays), 0.0),
                draws_noise=True,
                options=({"samples": 2},),
                peers={"numpy": _numpy_draw_kl, "torch": _torch_draw_kl},
            ),
        ),
        (Bench("reparameterize_kl[drawn]", "noise, z and KL", STANDARD),),
        native=True,
    ),
    Row(
        "reparameterize_backward",
        (
            _backward_case(
                "",
                _backward,
                {"z": "BL"},
                backward_magnitudes,
                options=({"kl_weight": 0.7},),
                peers={"numpy": _numpy_backward},
            ),
            _backward_case(
                "[samples]",
                _backward,
                {"grad_z": "KBL", "z": "KBL"},
                backward_magnitudes,
                batched=False,
                options=({"kl_weight": 0.7},),
            ),
            _backward_case(
                "[weights]",
                _backward_weighted,
                {"z": "BL", "weights": "L"},
                backward_magnitudes,
                batched=False,
            ),
            _backward_case(
                "[noise]",
                _backward_given,
                {"noise": "BL"},
                _given_backward_magnitudes,
                batched=False,
                options=({"kl_weight": 0.7},),
                peers={"torch": _torch_backward_given},
            ),
            _backward_case(
                "[drawn]",
                _backward_drawn,
                {},
                _drawn_backward_magnitudes,
                batched=False,
                draws_noise=True,
                options=({"kl_weight": 0.7},),
            ),
        ),
        (Bench("reparameterize_backward", "back through z", STANDARD),),
        untwinned="autograd goes back",
    ),
)
