"""Rows of the evidence lower bound."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import likelihoods, numba_peers
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.divergences import KL_STANDARD_NORMAL, with_free_bits
from fastelbo._catalogue.jax_peers import by_jax
from fastelbo._catalogue.posterior import KEY, LATENTS, drawn_magnitude, numpy_draw, z_magnitude
from fastelbo._catalogue.sizes import IN_RAM, STANDARD

#: Whose ELBO is a case: every way in which decoder outputs reach a pass.
IN_ELBO = (
    "SquaredError",
    "Gaussian-features",
    "Gaussian-learned",
    "Gaussian-optimal",
    "Bernoulli",
    "StudentT-learned",
    "Poisson",
    "Poisson-sparse",
    "NegativeBinomial-sparse",
    "Categorical",
    "ColumnLikelihood",
)


#: Latents whose KL is infinite, and its gradients, which with beta = 0 count nothing.
WITHOUT_A_KL = {"mu": (0.5, np.inf), "logvar": (0.0, 800.0)}


def _call(variant, noisy, **fixed):
    """elbo with this likelihood; `noisy`: noise comes last among the arrays."""

    def of(module, suffix):
        function = getattr(module, f"elbo{suffix}")

        def run(x, mu, logvar, *rest, **options):
            options = with_free_bits(module, {**fixed, **options})
            if noisy:
                *rest, options["noise"] = rest
            x_recon = tuple(rest) if len(variant.parameters) > 1 else rest[0]
            options = {"likelihood": variant.make(module), **options}
            return function(variant.given(x), mu, logvar, x_recon, **options)

        return run

    return of


def _magnitudes(variant, noisy, drawn=False):
    def of(x, mu, logvar, *rest, reduction="mean", beta=1.0, free_bits=0.0):
        value, *gradients = variant.magnitudes(
            x, *rest[: len(variant.parameters)], reduction=reduction
        )
        value = value + np.abs(0.0 if reduction != "none" else np.zeros(len(x)))
        kl = reference.kl_standard_normal(mu, logvar, reduction=reduction)
        floor = getattr(free_bits, "threshold", free_bits)
        floor = (floor["threshold"] if isinstance(floor, dict) else floor) * mu.shape[1]
        floor = floor * (len(x) if reduction == "sum" else 1)
        values = (value + abs(beta) * (kl + floor), value, 0.0)
        if noisy:
            values += (z_magnitude(mu, logvar, rest[-1]),)
        elif drawn:
            values += (drawn_magnitude(mu, logvar),)
        return *values, 0.0, 0.0, *gradients

    return of


def elbo_cases(variant, name=None, *, noisy=True, drawn=False, **others):
    """The cases of elbo and elbo_and_grad with a likelihood."""
    fixed = {"rng": KEY} if drawn else {}
    return with_and_grad(
        name or f"elbo[{variant.label}]",
        _call(variant, noisy, **fixed),
        {"x": "BD", **LATENTS, **variant.parameters, **({"noise": "BL"} if noisy else {})},
        _magnitudes(variant, noisy, drawn),
        ("mu", "logvar", *variant.parameters),
        draws=variant.draws,
        constants=("x", "noise"),
        fixed=variant.fixed,
        batched=not variant.sparse,
        twinned=not variant.sparse,
        sparse=variant.sparse,
        halves=not variant.sparse,
        options=(
            {"beta": 4.0},
            {"beta": 0.0},
            {"free_bits": 0.4},
            {"beta": 0.5, "free_bits": {"threshold": 0.5, "granularity": "total"}},
        ),
        **others,
    )


# The code that users write ----------------------------------------------------------------------


def numpy_elbo(x, mu, logvar, x_recon):
    reconstruction = -np.mean(np.sum((x - x_recon) ** 2, axis=1))
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
    return reconstruction - kl


def numpy_elbo_and_grad(x, mu, logvar, x_recon):
    batch = len(x)
    error = x - x_recon
    sigma2 = np.exp(logvar)
    reconstruction = -np.mean(np.sum(error**2, axis=1))
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - sigma2, axis=1))
    return reconstruction - kl, -mu / batch, -0.5 * (sigma2 - 1) / batch, 2 * error / batch


def numpy_drawn(x, mu, logvar, x_recon):
    return numpy_elbo(x, mu, logvar, x_recon), numpy_draw(mu, logvar)


def numpy_drawn_and_grad(x, mu, logvar, x_recon):
    z = numpy_draw(mu, logvar)
    value, *gradients = numpy_elbo_and_grad(x, mu, logvar, x_recon)
    return value, z, *gradients


def torch_elbo(torch, x, mu, logvar, x_recon):
    reconstruction = -((x - x_recon) ** 2).sum(1).mean()
    kl = -0.5 * (1 + logvar - mu**2 - torch.exp(logvar)).sum(1).mean()
    return reconstruction - kl


def torch_drawn(torch, x, mu, logvar, x_recon):
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return torch_elbo(torch, x, mu, logvar, x_recon), z


def numpy_bernoulli(x, mu, logvar, logits):
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
    return np.mean(np.sum(x * logits - np.logaddexp(0, logits), axis=1)) - kl


def numpy_bernoulli_and_grad(x, mu, logvar, logits):
    batch = len(x)
    gradients = (
        -mu / batch,
        -0.5 * (np.exp(logvar) - 1) / batch,
        (x - 1 / (1 + np.exp(-logits))) / batch,
    )
    return numpy_bernoulli(x, mu, logvar, logits), *gradients


def torch_bernoulli(torch, x, mu, logvar, logits):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    kl = -0.5 * (1 + logvar - mu**2 - torch.exp(logvar)).sum(1).mean()
    return -loss(logits, x, reduction="none").sum(1).mean() - kl


def numpy_buffers(x, mu, logvar, x_recon):
    """From buffers that NumPy can read without a copy."""
    arrays = (np.frombuffer(a.data, a.dtype).reshape(a.shape) for a in (x, mu, logvar, x_recon))
    return numpy_elbo(*arrays)


# The rows ---------------------------------------------------------------------------------------

PLAIN = likelihoods.SQUARED_ERROR


def _buffers(module, x, mu, logvar, x_recon, **options):
    if x.ndim < 1 or mu.ndim != 2:
        raise ValueError(f"x {x.shape} and mu {mu.shape} do not say the sizes of buffers")
    flat = [a.reshape(-1).data for a in (x, mu, logvar, x_recon)]
    sizes = x.shape[0], int(np.prod(x.shape[1:])), mu.shape[1]
    return module.elbo_from_buffers(*flat, *sizes, dtype=x.dtype, **options)


def _buffer_magnitudes(x, mu, logvar, x_recon, **options):
    """Buffers have no shape: theirs is that of x and mu."""
    arrays = x, mu, logvar.reshape(mu.shape), x_recon.reshape(x.shape)
    return _magnitudes(PLAIN, False)(*arrays, **options)[:3]


def rows(variants):
    """The rows, of likelihoods by label."""
    cases = (
        *elbo_cases(
            PLAIN,
            "elbo",
            noisy=False,
            extremes={**PLAIN.extremes, **KL_STANDARD_NORMAL.cases[0].extremes},
            limits=WITHOUT_A_KL,
            peers={
                "numpy": numpy_elbo,
                "numpy_and_grad": numpy_elbo_and_grad,
                "torch": torch_elbo,
                "numba": numba_peers.elbo,
                "numba_and_grad": numba_peers.elbo_and_grad,
                "jax": by_jax(torch_elbo),
            },
        ),
        *elbo_cases(
            PLAIN,
            "elbo[drawn]",
            noisy=False,
            drawn=True,
            draws_noise=True,
            peers={
                "numpy": numpy_drawn,
                "numpy_and_grad": numpy_drawn_and_grad,
                "torch": torch_drawn,
                "numba": numba_peers.drawn_elbo,
                "numba_and_grad": numba_peers.drawn_elbo_and_grad,
                "jax": by_jax(torch_drawn),
            },
        ),
        *elbo_cases(
            variants["Bernoulli"],
            "elbo-Bernoulli",
            noisy=False,
            peers={
                "numpy": numpy_bernoulli,
                "numpy_and_grad": numpy_bernoulli_and_grad,
                "torch": torch_bernoulli,
                "numba": numba_peers.bernoulli_elbo,
                "numba_and_grad": numba_peers.bernoulli_elbo_and_grad,
                "jax": by_jax(torch_bernoulli),
            },
        ),
        *(case for label in IN_ELBO for case in elbo_cases(variants[label])),
    )
    titles = {
        "elbo[drawn]": "value, noise and z",
        "elbo": "value",
        "elbo[drawn]_and_grad": "value, gradient, noise and z",
        "elbo_and_grad": "value and gradient",
    }
    return (
        Row(
            "elbo",
            cases,
            (
                *(Bench(name, title, STANDARD) for name, title in titles.items()),
                Bench("elbo", "value", IN_RAM),
                Bench("elbo_and_grad", "value and gradient", IN_RAM),
                Bench("elbo-Bernoulli", "Bernoulli ELBO", STANDARD),
                Bench("elbo-Bernoulli_and_grad", "Bernoulli ELBO and gradient", STANDARD),
            ),
            native=True,
        ),
        Row(
            "elbo_from_buffers",
            (
                Case(
                    "elbo_from_buffers",
                    _buffers,
                    {"x": "BD", **LATENTS, "x_recon": "BD"},
                    _buffer_magnitudes,
                    draws=PLAIN.draws,
                    batched=False,
                    options=({"beta": 4.0}, {"free_bits": 0.4}),
                    peers={"numpy": numpy_buffers},
                ),
            ),
            (Bench("elbo_from_buffers", "value from buffers", STANDARD),),
            untwinned="tensors are no buffers",
        ),
    )
