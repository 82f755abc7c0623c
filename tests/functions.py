"""Every public function in one table: how to call it, its reference, what cancels in it."""

from collections.abc import Callable
from dataclasses import dataclass

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

import fastelbo
from fastelbo import reference
from tests.conftest import assert_close

BATCH_LATENT = ("mu", "logvar", "mu_q", "logvar_q", "mu_p", "logvar_p", "noise", "z", "grad_z")
#: Batches and dimensions around the sizes of lanes, tiles and units.
SHAPES = [(1, 1), (2, 31), (31, 2), (33, 33), (1, 4095), (2, 4097), (4097, 1), (9, 513), (300, 20)]
REDUCTIONS = ("mean", "sum", "none")

#: The standard deviation of each of seven features, for the likelihoods that take one.
SCALES = np.array([0.5, 1.5, 0.25, 2.0, 1.0, 0.75, 3.0])


def flatten(result):
    """The arrays and numbers in nested tuples, without the None among them."""
    if isinstance(result, tuple):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [result]


def any_array(data, dtype, shape, limit):
    """An array drawn by Hypothesis: no number beyond limit, none so small that products vanish."""
    elements = st.floats(-limit, limit, width=32)
    a = data.draw(hnp.arrays(dtype, shape, elements=elements))
    return np.where(np.abs(a) > 1e-9, a, 0).astype(dtype)


def reduced(rows, reduction):
    return reference.reduce_rows(np.asarray(rows), reduction)


def over_event(a):
    return a.sum(axis=tuple(range(1, a.ndim)))


@dataclass(frozen=True)
class Function:
    """A public function.

    ``public`` and ``reference`` take the arrays of ``inputs`` in order, then options.
    ``magnitudes``, called alike, gives for each item of the flattened result the sum of the
    absolute values of the terms that make it: what `assert_close` wants as its scale.
    ``outs`` names the arrays that ``out=`` takes: a tuple of them, or one where it is a string.
    """

    name: str
    public: Callable
    reference: Callable
    inputs: tuple
    magnitudes: Callable
    outs: tuple | str = ()
    has_reduction: bool = True

    def draw(self, rng, dtype=np.float64, batch=5, event=(7,), latent=3):
        """Arrays to call it with: a dict in the order of ``inputs``."""
        drawn = {}
        for name in self.inputs:
            shape = (batch, latent) if name in BATCH_LATENT else (batch, *event)
            a = rng.normal(size=shape)
            if name == "x" and "Bernoulli" in self.name:
                a = rng.uniform(size=shape)
            drawn[name] = a.astype(dtype)
        return drawn

    def scales(self, arrays, **options):
        with np.errstate(all="ignore"):
            arrays = [np.asarray(a, np.float64) for a in arrays]
            return flatten(self.magnitudes(*arrays, **options))

    def out_shapes(self, arrays):
        """Shapes of the arrays that ``out=`` takes, by name."""
        like = {"out": "noise", "x_recon": "x", "logits": "x", "log_scale": "x"}
        names = (self.outs,) if isinstance(self.outs, str) else self.outs
        return {name: np.shape(arrays[like.get(name, name)]) for name in names}

    def as_out(self, arrays):
        """Arrays in the order of ``outs`` as the argument ``out=``."""
        if isinstance(self.outs, str):
            return arrays[0]
        if "log_scale" in self.outs and "mu" in self.outs:
            return (*arrays[:2], tuple(arrays[2:]))
        return tuple(arrays)


# Magnitudes -------------------------------------------------------------------------------------


def z_magnitude(mu, logvar, noise, **options):
    return np.abs(mu) + np.exp(logvar / 2) * np.abs(noise)


def kl_magnitude(mu, logvar, reduction="mean", **options):
    return reference.kl_standard_normal(mu, logvar, reduction=reduction)


def backward_magnitudes(grad_z, mu, logvar, z, kl_weight=0.0):
    pull = 0.5 * np.abs(grad_z * (z - mu))
    samples = tuple(range(grad_z.ndim - 2))
    pull, push = (a.sum(axis=samples) for a in (pull, np.abs(grad_z)))
    spread = 0.5 * np.abs(np.expm1(logvar))
    return push + np.abs(kl_weight * mu), pull + np.abs(kl_weight) * spread


def kl_normal_magnitudes(mu_q, logvar_q, mu_p, logvar_p, reduction="mean"):
    d = np.abs(mu_q - mu_p)
    spread = 0.5 * np.abs(np.expm1(logvar_q - logvar_p))
    pull = d * np.exp(-logvar_p)
    weight = reference.row_weight(len(mu_q), reduction)
    last = weight * (spread + 0.5 * d * pull)
    return 0.0, weight * pull, weight * spread, weight * pull, last


def squared_error_magnitudes(x, x_recon, reduction="mean", x_scale=1.0):
    d, x = x_scale * x - x_recon, np.abs(x * x_scale)
    weight = reference.row_weight(len(x), reduction)
    return reduced(over_event(d * d + 2 * np.abs(d) * x), reduction), 2 * weight * (np.abs(d) + x)


def gaussian_magnitudes(x, x_recon, log_scale, reduction="mean"):
    scaled = (x - x_recon) * np.exp(-log_scale)
    weight = reference.row_weight(len(x), reduction)
    rows = over_event(0.5 * scaled**2 + np.abs(log_scale) + 1.0)
    by_mean = weight * np.abs(scaled) * np.exp(-log_scale)
    return reduced(rows, reduction), by_mean, weight * (scaled**2 + 1.0)


def fixed_scale_magnitudes(scale):
    def magnitudes(x, x_recon, **options):
        log_scale = np.broadcast_to(np.log(scale), x.shape)
        return gaussian_magnitudes(x, x_recon, log_scale, **options)[:2]

    return magnitudes


def optimal_magnitudes(x, x_recon, **options):
    return fixed_scale_magnitudes(np.sqrt(np.mean((x - x_recon) ** 2)))(x, x_recon, **options)


def bernoulli_magnitudes(x, logits, reduction="mean"):
    small = np.exp(-np.abs(logits))
    weight = reference.row_weight(len(x), reduction)
    return 0.0, weight * (np.abs(x - (logits > 0)) + small)


def elbo_magnitudes(likelihood_magnitudes, outputs=1):
    def magnitudes(x, mu, logvar, *rest, reduction="mean", beta=1.0, free_bits=0.0):
        value, *grads = likelihood_magnitudes(x, *rest[:outputs], reduction=reduction)
        value = value + np.abs(0.0 if reduction != "none" else np.zeros(len(x)))
        kl = kl_magnitude(mu, logvar, reduction)
        floor = getattr(free_bits, "threshold", free_bits) * mu.shape[1]
        floor = floor * (len(x) if reduction == "sum" else 1)
        z = z_magnitude(mu, logvar, rest[-1])
        return value + abs(beta) * (kl + floor), value, 0.0, z, 0.0, 0.0, *grads

    return magnitudes


# The table --------------------------------------------------------------------------------------


def with_and_grad(name, public, ref, inputs, magnitudes, outs):
    """The rows of a function and of its ``_and_grad``."""

    def of_value(*arrays, **options):
        return tuple(flatten(magnitudes(*arrays, **options))[: -len(outs)])

    kinds = [("", of_value, ()), ("_and_grad", magnitudes, outs)]
    return [
        Function(name + suffix, public(suffix), ref(suffix), inputs, scale, out)
        for suffix, scale, out in kinds
    ]


def divergence(name, inputs, magnitudes):
    return with_and_grad(
        name,
        lambda suffix: getattr(fastelbo, name + suffix),
        lambda suffix: getattr(reference, name + suffix),
        inputs,
        magnitudes,
        inputs,
    )


def of_likelihood(label, kind, arguments, parameters, magnitudes):
    public, ref = getattr(fastelbo, kind)(*arguments), getattr(reference, kind)(*arguments)
    return with_and_grad(
        f"{label}.log_prob",
        lambda suffix: getattr(public, "log_prob" + suffix),
        lambda suffix: getattr(ref, "log_prob" + suffix),
        ("x", *parameters),
        magnitudes,
        parameters,
    )


def of_elbo(label, kind, arguments, parameters, magnitudes):
    """elbo with this likelihood and given noise, which comes last among the inputs."""
    several = len(parameters) > 1

    def call(module, suffix):
        function = getattr(module, "elbo" + suffix)
        likelihood = getattr(module, kind)(*arguments)

        def run(x, mu, logvar, *rest, **options):
            x_recon = rest[:-1] if several else rest[0]
            options = {"likelihood": likelihood, "noise": rest[-1], **options}
            return function(x, mu, logvar, x_recon, **options)

        return run

    return with_and_grad(
        f"elbo[{label}]",
        lambda suffix: call(fastelbo, suffix),
        lambda suffix: call(reference, suffix),
        ("x", "mu", "logvar", *parameters, "noise"),
        elbo_magnitudes(magnitudes, len(parameters)),
        ("mu", "logvar", *parameters),
    )


def kl_magnitudes(mu, logvar, **options):
    return 0.0, 0.0, 0.0


LIKELIHOODS = [
    ("SquaredError", "SquaredError", (), ("x_recon",), squared_error_magnitudes),
    ("Gaussian", "Gaussian", (0.6,), ("x_recon",), fixed_scale_magnitudes(0.6)),
    ("Gaussian-features", "Gaussian", (SCALES,), ("x_recon",), fixed_scale_magnitudes(SCALES)),
    ("Gaussian-learned", "Gaussian", ("learned",), ("x_recon", "log_scale"), gaussian_magnitudes),
    ("Gaussian-optimal", "Gaussian", ("optimal",), ("x_recon",), optimal_magnitudes),
    ("Bernoulli", "Bernoulli", (), ("logits",), bernoulli_magnitudes),
]

FUNCTIONS = [
    Function(
        "reparameterize",
        lambda mu, logvar, noise, **o: fastelbo.reparameterize(mu, logvar, noise=noise, **o),
        lambda mu, logvar, noise, **o: reference.reparameterize(mu, logvar, noise=noise, **o),
        ("mu", "logvar", "noise"),
        z_magnitude,
        "out",
        has_reduction=False,
    ),
    Function(
        "reparameterize_kl",
        lambda mu, logvar, noise, **o: fastelbo.reparameterize_kl(mu, logvar, noise=noise, **o),
        lambda mu, logvar, noise, **o: reference.reparameterize_kl(mu, logvar, noise=noise, **o),
        ("mu", "logvar", "noise"),
        lambda *arrays, **options: (z_magnitude(*arrays), 0.0),
        "out",
    ),
    Function(
        "reparameterize_backward",
        fastelbo.reparameterize_backward,
        reference.reparameterize_backward,
        ("grad_z", "mu", "logvar", "z"),
        backward_magnitudes,
        ("mu", "logvar"),
        has_reduction=False,
    ),
    *divergence("kl_standard_normal", ("mu", "logvar"), kl_magnitudes),
    *divergence("kl_normal", ("mu_q", "logvar_q", "mu_p", "logvar_p"), kl_normal_magnitudes),
    *(row for likelihood in LIKELIHOODS for row in of_likelihood(*likelihood)),
    *(row for likelihood in LIKELIHOODS for row in of_elbo(*likelihood)),
]
BY_NAME = {f.name: f for f in FUNCTIONS}


def check(name, arrays, dtype, **options):
    """A function against its reference: values and gradients, their kinds and shapes."""
    function = BY_NAME[name]
    arrays = list(arrays.values()) if isinstance(arrays, dict) else list(arrays)
    result = function.public(*arrays, **options)
    got, expected = flatten(result), flatten(function.reference(*arrays, **options))
    for mine, specified in zip(got, expected, strict=True):
        if isinstance(specified, float):
            assert type(mine) is float
        else:
            assert type(mine) is np.ndarray
    gradients = len(function.outs) if isinstance(function.outs, tuple) else 0
    for array in got[len(got) - gradients :]:
        assert array.dtype == dtype
        assert array.flags.c_contiguous
    scales = tuple(function.scales(arrays, **options))
    assert_close(tuple(got), tuple(expected), dtype, scales)
    return result
