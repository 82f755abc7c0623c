"""Rows of several modalities with one latent code."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.elbo import WITHOUT_A_KL
from fastelbo._catalogue.experts import (
    EXPERTS,
    _product_backward_sizes,
    _product_magnitudes,
    _subset_backward_magnitudes,
    _subset_magnitudes,
    seen,
)
from fastelbo._catalogue.posterior import LATENTS
from fastelbo._catalogue.sizes import STANDARD

#: By method: the axes of its components, where they have one of their own.
COMPONENTS = {"poe": "BL", "moe": "EBL", "mopoe": "SBL"}


def _by_name(arrays):
    return {f"modality {m}": a for m, a in enumerate(arrays)}


def _posterior(module, method, mu, logvar, mask, noise, **options):
    """(experts, the options, the posterior that draws the first component, which all have)."""
    experts = _by_name(zip(mu, logvar, strict=True))
    present = dict(zip(experts, mask, strict=True))
    options = {"method": method, "present": present, **options}
    posterior = module.joint_posterior(
        experts, component=np.zeros(len(noise), int), noise=noise, **options
    )
    return experts, options, posterior


def _call_posterior(method):
    def call(module, mu, logvar, mask, noise, **options):
        return tuple(_posterior(module, method, mu, logvar, mask, noise, **options)[2])

    return call


def _call_backward(method):
    def call(module, grad_z, grad_mu, grad_logvar, mu, logvar, mask, noise, **options):
        experts, options, posterior = _posterior(module, method, mu, logvar, mask, noise, **options)
        grads = (np.asarray(g) for g in (grad_mu, grad_logvar))
        grads = (g[None] if method == "poe" else g for g in grads)
        found = module.joint_posterior_backward(grad_z, *grads, experts, posterior, **options)
        return tuple(tuple(pair) for pair in found.values())

    return call


# What cancels -----------------------------------------------------------------------------------


def _component_sizes(method, mu, logvar, mask):
    if method == "poe":
        return tuple(a[None] for a in _product_magnitudes(mu, logvar, mask))
    if method == "mopoe":
        return _subset_magnitudes(mu, logvar, mask)[:2]
    return np.abs(mu), np.abs(logvar)


def _posterior_magnitudes(method):
    def of(mu, logvar, mask, noise):
        mask = mask.astype(bool)
        size, of_logvar = _component_sizes(method, mu, logvar, mask)
        *_, posterior = _posterior(reference, method, mu, logvar, mask, noise)
        sigma = np.exp(0.5 * posterior[1][0])
        spread = sigma * np.abs(noise) * (1 + of_logvar[0])
        return size, of_logvar, 0.0, 0.0, size[0] + spread

    return of


def _backward_magnitudes(method):
    def of(grad_z, grad_mu, grad_logvar, mu, logvar, mask, noise):
        mask = mask.astype(bool)
        *_, posterior = _posterior(reference, method, mu, logvar, mask, noise)
        size, _ = _component_sizes(method, mu, logvar, mask)
        through_z = np.abs(grad_z), np.abs(grad_z) * (size[0] + np.abs(posterior[4]))
        grads = [np.abs(g) for g in (grad_mu, grad_logvar)]
        if method == "poe":
            grads = [g + more for g, more in zip(grads, through_z, strict=True)]
            flows = _product_backward_sizes(*grads, mu, logvar, mask, True)
        else:
            for grad, more in zip(grads, through_z, strict=True):
                grad[0] += more
            flows = grads
            if method == "mopoe":
                flows = _subset_backward_magnitudes(*grads, mu, logvar, mask)
        return tuple(zip(*flows, strict=True))

    return of


def _elbo_magnitudes(x, y, mu, logvar, mask, x_recon, y_recon, y_scale, reduction="mean", beta=1.0):
    square = (np.abs(x) + np.abs(x_recon)) ** 2
    distance = (np.abs(y) + np.abs(y_recon)) * np.exp(-y_scale)
    density = 0.5 * distance**2 + np.abs(y_scale) + 1.0

    def total(a):
        return reference.reduce_rows(a.reshape(len(a), -1).sum(axis=1), reduction)

    mask = mask.astype(bool)
    neutral = [np.where(mask[..., None], a, 0.0) for a in (mu, logvar)]
    kl = reference.reduce_rows(
        (0.5 * (neutral[0] ** 2 + np.exp(neutral[1]) + np.abs(neutral[1]) + 1)).sum(axis=(0, 2)),
        reduction,
    )
    share = reference.row_weight(len(x), reduction)
    return (
        (total(square) + total(density) + beta * kl, total(square), total(density), kl),
        (
            0.0,
            beta * share * np.exp(neutral[1]) * mask[..., None],
            2 * share * (np.abs(x) + np.abs(x_recon)),
            share * distance * np.exp(-y_scale),
            share * (distance**2 + 1),
        ),
    )


def _elbo(module, suffix):
    """multimodal_elbo of two modalities, the second of two outputs, over components."""

    def run(x, y, mu, logvar, mask, x_recon, y_recon, y_scale, out=None, **options):
        modalities = {
            "plain": (x, module.SquaredError(), x_recon),
            "density": (y, module.Gaussian("learned"), y_recon, y_scale),
        }
        if out is not None:
            plain, *density = out[2]
            options["out"] = (*out[:2], {"plain": plain, "density": tuple(density)})
        got = getattr(module, f"multimodal_elbo{suffix}")(modalities, mu, logvar, mask, **options)
        (elbo, reconstruction, kl), grad = got if suffix else (got, None)
        values = elbo, *reconstruction.values(), kl
        if not suffix:
            return values
        d_mu, d_logvar, by_name = grad
        return values, (d_mu, d_logvar, by_name["plain"], *by_name["density"])

    return run


# The code that users write ----------------------------------------------------------------------


def numpy_elbo(x, y, mu, logvar, mask, x_recon, y_recon, y_scale):
    squares = np.sum((x - x_recon) ** 2, axis=1)
    errors = ((y - y_recon) / np.exp(y_scale)) ** 2
    density = np.sum(0.5 * errors + y_scale + 0.5 * np.log(2 * np.pi), axis=1)
    kl = -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=2)
    kl = np.sum(mask * kl, axis=0) / np.sum(mask, axis=0)
    return np.mean(-squares - density - kl)


# The rows ---------------------------------------------------------------------------------------


def _several(method):
    return "" if method == "poe" else f"[{method}]"


ROWS = (
    Row(
        "joint_posterior",
        tuple(
            Case(
                f"joint_posterior{_several(method)}",
                _call_posterior(method),
                {**EXPERTS, "mask": "EB", "noise": "BL"},
                _posterior_magnitudes(method),
                draws={"mask": seen},
                has_reduction=False,
                batched=False,
                twinned=False,  # a mask and components have no gradient
                largest=components,
            )
            for method, components in COMPONENTS.items()
        ),
        (Bench("joint_posterior", "joint posterior", {**STANDARD, "E": 4}),),
        not_in_jax="it chooses among what is there: product_of_experts, mixture_of_experts, mopoe",
    ),
    Row(
        "joint_posterior_backward",
        tuple(
            Case(
                f"joint_posterior_backward{_several(method)}",
                _call_backward(method),
                {
                    "grad_z": "BL",
                    "grad_mu": components,
                    "grad_logvar": components,
                    **EXPERTS,
                    "mask": "EB",
                    "noise": "BL",
                },
                _backward_magnitudes(method),
                draws={"mask": seen},
                has_reduction=False,
                batched=False,
            )
            for method, components in COMPONENTS.items()
        ),
        (Bench("joint_posterior_backward", "joint posterior's gradient", {**STANDARD, "E": 4}),),
        untwinned="autograd goes back",
    ),
    Row(
        "multimodal_elbo",
        with_and_grad(
            "multimodal_elbo",
            _elbo,
            {
                "x": "BD",
                "y": "BD",
                **{name: axes.replace("B", "EB") for name, axes in LATENTS.items()},
                "mask": "EB",
                "x_recon": "BD",
                "y_recon": "BD",
                "y_scale": "BD",
            },
            _elbo_magnitudes,
            ("mu", "logvar", "x_recon", "y_recon", "y_scale"),
            draws={"mask": seen},
            constants=("x", "y", "mask"),
            batched=False,
            options=({"beta": 0.0},),
            limits=WITHOUT_A_KL,
            peers={"numpy": numpy_elbo},
        ),
        (
            Bench("multimodal_elbo", "multimodal ELBO", {**STANDARD, "E": 3}),
            Bench("multimodal_elbo_and_grad", "multimodal ELBO and gradient", STANDARD),
        ),
        not_in_jax="a sum, which XLA compiles as it is written: log_prob of each, less the KL",
    ),
)
