"""Every public function in one table: how to call it, its reference, what cancels in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

import fastelbo
from fastelbo import reference
from fastelbo._cli import parity_aggregate, parity_importance
from fastelbo.reference.likelihoods import sum_to
from tests.conftest import assert_close
from tests.likelihoods import LIKELIHOODS as MORE_LIKELIHOODS
from tests.likelihoods import Row, over_event, uniform

BATCH_LATENT = ("mu", "logvar", "mu_q", "logvar_q", "mu_p", "logvar_p", "noise", "z", "grad_z")
#: Batches and dimensions around the sizes of lanes, tiles and units.
SHAPES = [(1, 1), (2, 31), (31, 2), (33, 33), (1, 4095), (2, 4097), (4097, 1), (9, 513), (300, 20)]
REDUCTIONS = ("mean", "sum", "none")
SAMPLES = 2

#: The standard deviation of each of seven features, for the likelihoods that take one.
SCALES = np.array([0.5, 1.5, 0.25, 2.0, 1.0, 0.75, 3.0])


def flatten(result):
    """The arrays and numbers in nested tuples, without the None among them."""
    if isinstance(result, tuple):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [result]


def normal(rng, shape):
    return rng.normal(size=shape)


def any_array(data, dtype, shape, limit):
    """An array drawn by Hypothesis: no number beyond limit, none so small that products vanish."""
    elements = st.floats(-limit, limit, width=32)
    a = data.draw(hnp.arrays(dtype, shape, elements=elements))
    return np.where(np.abs(a) > 1e-9, a, 0).astype(dtype)


def reduced(rows, reduction):
    return reference.reduce_rows(np.asarray(rows), reduction)


@dataclass(frozen=True)
class Function:
    """A public function.

    ``public`` and ``reference`` take the arrays of ``inputs`` in order, then options.
    ``magnitudes``, called alike, gives for each item of the flattened result the sum of the
    absolute values of the terms that make it: what `assert_close` wants as its scale.
    ``outs`` names the arrays that ``out=`` takes: a tuple of them, or one where it is a string.
    ``samples`` names the inputs that have an axis of SAMPLES in front.
    """

    name: str
    public: Callable
    reference: Callable
    inputs: tuple
    magnitudes: Callable
    outs: tuple | str = ()
    has_reduction: bool = True
    draws: dict = field(default_factory=dict)  # functions of (rng, shape) for some of the inputs
    samples: tuple = ()

    def draw(self, rng, dtype=np.float64, batch=5, event=(7,), latent=3):
        """Arrays to call it with: a dict in the order of ``inputs``."""
        drawn = {}
        for name in self.inputs:
            shape = (batch, latent) if name in BATCH_LATENT else (batch, *event)
            make = self.draws.get(name, normal)
            if name in self.samples:
                a = np.stack([make(rng, shape) for _ in range(SAMPLES)])
            else:
                a = make(rng, shape)
            drawn[name] = a.astype(dtype)
        return drawn

    def scales(self, arrays, **options):
        with np.errstate(all="ignore"):
            arrays = [np.asarray(a, np.float64) for a in arrays]
            return flatten(self.magnitudes(*arrays, **options))

    def out_shapes(self, arrays):
        """Shapes of the arrays that ``out=`` takes, by name."""
        names = (self.outs,) if isinstance(self.outs, str) else self.outs
        return {name: np.shape(arrays["noise" if name == "out" else name]) for name in names}

    def as_out(self, arrays):
        """Arrays in the order of ``outs`` as the argument ``out=``."""
        if isinstance(self.outs, str):
            return arrays[0]
        if "mu" in self.outs and len(self.outs) - self.outs.index("logvar") > 2:
            first = self.outs.index("logvar") + 1
            return (*arrays[:first], tuple(arrays[first:]))
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
    by_scale = sum_to(weight * (scaled**2 + 1.0), np.shape(log_scale))
    return reduced(rows, reduction), by_mean, by_scale


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


def with_and_grad(name, public, ref, inputs, magnitudes, outs, draws=None):
    """The rows of a function and of its ``_and_grad``."""

    def of_value(*arrays, **options):
        return tuple(flatten(magnitudes(*arrays, **options))[: -len(outs)])

    kinds = [("", of_value, ()), ("_and_grad", magnitudes, outs)]
    return [
        Function(name + suffix, public(suffix), ref(suffix), inputs, scale, out, draws=draws or {})
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


def of_likelihood(row):
    public, ref = row.make(fastelbo), row.make(reference)
    return with_and_grad(
        f"{row.label}.log_prob",
        lambda suffix: getattr(public, "log_prob" + suffix),
        lambda suffix: getattr(ref, "log_prob" + suffix),
        ("x", *row.parameters),
        row.magnitudes,
        row.parameters,
        row.draws,
    )


def of_elbo(row):
    """elbo with this likelihood and given noise, which comes last among the inputs."""
    several = len(row.parameters) > 1

    def call(module, suffix):
        function = getattr(module, "elbo" + suffix)
        likelihood = row.make(module)

        def run(x, mu, logvar, *rest, **options):
            x_recon = rest[:-1] if several else rest[0]
            options = {"likelihood": likelihood, "noise": rest[-1], **options}
            return function(x, mu, logvar, x_recon, **options)

        return run

    return with_and_grad(
        f"elbo[{row.label}]",
        lambda suffix: call(fastelbo, suffix),
        lambda suffix: call(reference, suffix),
        ("x", "mu", "logvar", *row.parameters, "noise"),
        elbo_magnitudes(row.magnitudes, len(row.parameters)),
        ("mu", "logvar", *row.parameters),
        row.draws,
    )


def of_samples(likelihood):
    """iwae and iwae_and_grad (the weights aside) with this likelihood."""
    ours, theirs = likelihood.make(fastelbo), likelihood.make(reference)
    parameters = likelihood.parameters
    inputs = ("x", "z", "mu", "logvar", *parameters)

    def call(module, name, likelihood):
        def run(x, z, mu, logvar, *x_recon, **options):
            x_recon = x_recon if len(x_recon) > 1 else x_recon[0]
            function = getattr(module, name)
            result = function(x, z, mu, logvar, x_recon, likelihood=likelihood, **options)
            return (result[0], tuple(result[1][:4])) if "grad" in name else result

        return run

    def terms(x, z, mu, logvar, *x_recon):
        """The sizes of what makes up a log weight, (K, B)."""
        full = x_recon[0].shape
        rows = []
        for one in zip(*(np.broadcast_to(a, full) for a in x_recon), strict=True):
            cancelling = likelihood.magnitudes(x, *one, reduction="none")[0]
            rows.append(cancelling + np.abs(theirs.log_prob(x, *one, reduction="none")))
        return np.array(rows) + parity_importance.latent_terms(z, mu, logvar)

    def of_bound(*arrays, reduction="mean"):
        return reduced(terms(*arrays).max(axis=0), reduction)

    def of_gradients(*arrays, reduction="mean"):
        """Weights inherit the rounding of log weights."""
        inherited = 2 * terms(*arrays).max(initial=1.0)
        _, gradients = call(reference, "iwae_and_grad", theirs)(*arrays, reduction=reduction)
        largest = (inherited * np.abs(g).max(initial=0.0) for g in flatten(gradients))
        return of_bound(*arrays, reduction=reduction), *largest

    def row(name, magnitudes, outs=()):
        title = name.replace("iwae", f"iwae[{likelihood.label}]")
        public, ref = call(fastelbo, name, ours), call(reference, name, theirs)
        samples = ("z", *parameters)
        return Function(
            title,
            public,
            ref,
            inputs,
            magnitudes,
            outs,
            draws=likelihood.draws,
            samples=samples,
        )

    return [row("iwae", of_bound), row("iwae_and_grad", of_gradients, inputs[1:])]


DATASET_SIZE = 1000


def total_correlation_magnitudes(*arrays, **options):
    options = {"dataset_size": DATASET_SIZE, **options}
    return parity_aggregate.magnitudes(*arrays, **options)


def beta_tcvae_magnitudes(x, z, mu, logvar, x_recon, reduction="mean", beta=6.0):
    weights = 1.0, float(beta), 1.0
    reconstruction, by_x_recon = squared_error_magnitudes(x, x_recon, reduction)
    parts, gradients = total_correlation_magnitudes(
        z, mu, logvar, weights=weights, reduction=reduction
    )
    cost = sum(w * part for w, part in zip(weights, parts, strict=True))
    return reconstruction + cost, reconstruction, parts, gradients, by_x_recon


def of_minibatch(name, inputs, magnitudes, outs):
    """The rows of a function that takes a dataset_size."""

    def call(module):
        return lambda suffix: partial(getattr(module, name + suffix), dataset_size=DATASET_SIZE)

    return with_and_grad(name, call(fastelbo), call(reference), inputs, magnitudes, outs)


def kl_magnitudes(mu, logvar, **options):
    return 0.0, 0.0, 0.0


LIKELIHOODS = [
    Row("SquaredError", "SquaredError", (), {}, ("x_recon",), squared_error_magnitudes),
    Row("Gaussian", "Gaussian", (0.6,), {}, ("x_recon",), fixed_scale_magnitudes(0.6)),
    Row(
        "Gaussian-features", "Gaussian", (SCALES,), {}, ("x_recon",), fixed_scale_magnitudes(SCALES)
    ),
    Row(
        "Gaussian-learned",
        "Gaussian",
        ("learned",),
        {},
        ("x_recon", "log_scale"),
        gaussian_magnitudes,
    ),
    Row("Gaussian-optimal", "Gaussian", ("optimal",), {}, ("x_recon",), optimal_magnitudes),
    Row("Bernoulli", "Bernoulli", (), {}, ("logits",), bernoulli_magnitudes, {"x": uniform}),
    *MORE_LIKELIHOODS,
]

#: Whose ELBO all contracts are checked for: every way in which decoder outputs reach a pass.
IN_ELBO = (
    "SquaredError",
    "Gaussian-features",
    "Gaussian-learned",
    "Gaussian-optimal",
    "Bernoulli",
    "StudentT-learned",
    "Poisson",
    "Categorical",
)

#: The same for importance weights.
IN_IWAE = (
    "SquaredError",
    "Gaussian-features",
    "Gaussian-learned",
    "Bernoulli",
    "Categorical",
    "NegativeBinomial",
)

FUNCTIONS = [
    *of_minibatch(
        "total_correlation",
        ("z", "mu", "logvar"),
        total_correlation_magnitudes,
        ("z", "mu", "logvar"),
    ),
    *of_minibatch(
        "beta_tcvae_elbo",
        ("x", "z", "mu", "logvar", "x_recon"),
        beta_tcvae_magnitudes,
        ("z", "mu", "logvar", "x_recon"),
    ),
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
    *(function for row in LIKELIHOODS for function in of_likelihood(row)),
    *(function for row in LIKELIHOODS if row.label in IN_ELBO for function in of_elbo(row)),
    *(function for row in LIKELIHOODS if row.label in IN_IWAE for function in of_samples(row)),
]
BY_NAME = {f.name: f for f in FUNCTIONS}
#: The others are for test_elbo and test_iwae alone.
BY_NAME |= {
    f.name: f
    for row in LIKELIHOODS
    for f in (*of_elbo(row), *(of_samples(row) if "optimal" not in row.label else ()))
    if f.name not in BY_NAME
}


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
