"""Rows of likelihoods: the machinery, and those of real numbers.

A likelihood is a VARIANT or several: what its constructor is given, how its arrays are drawn, what
cancels in it. Its peers are densities of single elements, summed and averaged here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Row, with_and_grad
from fastelbo._catalogue.sizes import GENES, STANDARD
from fastelbo._catalogue.sparse import as_csr
from fastelbo.reference.likelihoods import sum_to

# How arrays are drawn ---------------------------------------------------------------------------


def uniform(rng, shape):
    return rng.uniform(size=shape)


def positive(rng, shape):
    return np.exp(rng.normal(size=shape))


def log_scales(rng, shape):
    return rng.normal(-1.0, 0.3, shape)


# The machinery ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One form of a likelihood.

    ``parameters`` are the decoder's outputs and their axes. ``extra`` and ``sizes``, functions of
    (x, *parameters), are the sizes of terms that cancel: of an element's value beyond its own, and
    of its derivatives. ``peers`` are densities of elements. ``sparse``: x comes in CSR format.
    """

    label: str
    kind: str
    arguments: tuple
    parameters: Mapping[str, str]
    extra: Callable
    sizes: tuple
    draws: Mapping[str, Callable] = field(default_factory=dict)
    extremes: Mapping[str, tuple] = field(default_factory=dict)
    limits: Mapping[str, tuple] = field(default_factory=dict)
    peers: Mapping[str, Callable] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    sparse: bool = False

    @property
    def inputs(self):
        return {"x": "BD", **self.parameters}

    def make(self, module):
        """The likelihood of a module."""
        return getattr(module, self.kind)(*self.arguments, **self.options)

    def given(self, x):
        """x as it is handed over."""
        return as_csr(x) if self.sparse else x

    @np.errstate(all="ignore")
    def magnitudes(self, x, *parameters, reduction="mean", mask=None):
        """The sizes of the terms of value and gradients; what is missing or masked has none."""
        x = x * self.options.get("x_scale", 1.0)
        x = x if mask is None else np.where(mask, x, np.nan)

        def known(size):
            return np.nan_to_num(size, nan=0.0, posinf=np.inf)

        values, _ = self.make(reference).elements(x, *parameters)
        rows = known(np.abs(values) + self.extra(x, *parameters))
        if reduction != "elementwise":
            rows = rows.sum(axis=tuple(range(1, rows.ndim)))
        weight = reference.row_weight(len(x), reduction)
        full = parameters[0].shape
        return reference.reduce_rows(rows, reduction), *(
            sum_to(known(np.broadcast_to(weight * s(x, *parameters), full)), p.shape)
            for s, p in zip(self.sizes, parameters, strict=True)
        )


def cases_of(variant):
    """The cases of log_prob and log_prob_and_grad."""

    def call(module, suffix):
        function = getattr(variant.make(module), f"log_prob{suffix}")
        return lambda x, *rest, **options: function(variant.given(x), *rest, **options)

    cases = with_and_grad(
        variant.label,
        call,
        variant.inputs,
        variant.magnitudes,
        tuple(variant.parameters),
        draws=variant.draws,
        extremes=variant.extremes,
        limits=variant.limits,
        constants=("x",),
        peers={kind: _whole(kind, density) for kind, density in variant.peers.items()},
        fixed=variant.fixed,
        batched="D" not in variant.parameters.values() and not variant.sparse,
        twinned=not variant.sparse,
        sparse=variant.sparse,
        halves=not variant.sparse,
    )
    return tuple(replace(case, likelihood=variant) for case in cases)


def _whole(kind, density):
    """A peer of whole batches, made of the density of an element; gradients are whole already."""
    if kind in ("numpy_and_grad", "numba", "numba_and_grad"):
        return density
    if kind == "numpy":
        return lambda x, *given: np.mean(np.sum(_rows(density(x, *given), len(x)), axis=1))
    return lambda module, x, *given: _rows(density(module, x, *given), len(x)).sum(1).mean()


def _rows(values, batch):
    return values.reshape(batch, -1)


def row_of(title, *variants, bench=None, extents=STANDARD, error=0.0, native=True):
    """The row of a likelihood; the variant that is timed is the one named, or the first."""
    timed = bench or variants[0].label
    return Row(
        variants[0].kind,
        tuple(case for variant in variants for case in cases_of(variant)),
        (
            Bench(timed, f"{title} log-likelihood", extents, error=error),
            Bench(
                f"{timed}_and_grad",
                f"{title} log-likelihood and gradient",
                extents,
                error=error,
            ),
            *(
                Bench(f"{v.label}{suffix}", f"{title} log-likelihood{words}", GENES, error=error)
                for v in variants
                if v.sparse
                for suffix, words in (("", ", sparse x"), ("_and_grad", " and gradient, sparse x"))
            ),
        ),
        native=native,
    )


# What cancels -----------------------------------------------------------------------------------


def one(x, *parameters):
    return 1.0


def distance(scale=None):
    """Of a location family: |x - x_recon| / scale, and what moving x by a rounding does to it."""

    def size(x, x_recon, log_scale=0.0, *rest):
        s = scale if scale is not None else np.exp(log_scale)
        return (np.abs(x) + np.abs(x_recon) + 1.0) / s + np.abs(np.log(s)) + 1.0

    return size


def scaled_square(scale=None):
    """Half of ((x - x_recon) / scale)^2, with the logarithm of the scale."""

    def size(x, x_recon, log_scale=0.0):
        log_scale = np.log(scale) if scale is not None else log_scale
        return 0.5 * ((x - x_recon) * np.exp(-log_scale)) ** 2 + np.abs(log_scale) + 1.0

    return size


# Around a location ------------------------------------------------------------------------------

#: The standard deviation of each of seven features, for what takes one.
SCALES = np.array([0.5, 1.5, 0.25, 2.0, 1.0, 0.75, 3.0])
RECON = {"x_recon": "BD"}
LEARNED = {"x_recon": "BD", "log_scale": "BD"}
FAR = (-1e4, -3.0, 0.0, 1e-6, 1.0, 300.0)
FAR_FROM = {"x": FAR, "x_recon": FAR}
FAR_SCALED = {**FAR_FROM, "log_scale": (-20.0, -1.0, 0.0, 0.3, 15.0)}
NEAR_LIMITS = (0.0, 1.0, -1e30, "smallest_normal")
AT_LIMITS = {"x": NEAR_LIMITS, "x_recon": NEAR_LIMITS}
STEEP = (-1e4, -700.0, -89.0, -3.0, 0.0, 80.0, 1e4)
SCALED_LIMITS = {
    "x": NEAR_LIMITS[:3],
    "x_recon": (*NEAR_LIMITS[:2], 1e-6),
    "log_scale": (*STEEP, np.inf),
}
LOG_DFS = (-3.0, 0.0, 1.0, 4.0, 9.0)
#: The error over the scale is a number of float32.
STUDENT_LIMITS = {
    "x": (0.0, 1.0, 1e18),
    "x_recon": (0.0, 1.0),
    "log_scale": (-30.0, -3.0, 0.0, 80.0),
}
LOG_DF_LIMITS = (-1e4, -10.0, -4.0, 0.0, 27.6, 60.0)


def near_x(rng, shape):
    return 0.4 + 0.4 * rng.normal(size=shape)


def _squared_error_and_grad(x, x_recon):
    error = x - x_recon
    return -np.mean(np.sum(error**2, axis=1)), 2 * error / len(x)


SQUARED_ERROR = Variant(
    "SquaredError",
    "SquaredError",
    (),
    RECON,
    lambda x, m: 2 * np.abs(x - m) * np.abs(x),
    (lambda x, m: 2 * (np.abs(x - m) + np.abs(x)),),
    draws={"x": uniform, "x_recon": near_x},
    extremes=FAR_FROM,
    limits=AT_LIMITS,
    peers={
        "numpy": lambda x, x_recon: -((x - x_recon) ** 2),
        "numpy_and_grad": _squared_error_and_grad,
        "torch": lambda torch, x, x_recon: -((x - x_recon) ** 2),
    },
)


def gaussian(label, scale):
    size = scaled_square(scale)
    return Variant(
        label,
        "Gaussian",
        # numbers, since torch.compile can trace no array that is made into others
        (tuple(scale.tolist()) if np.ndim(scale) else scale,),
        RECON,
        size,
        (lambda x, m: (np.abs(x - m) + np.abs(x) * 1e-2) / scale / scale,),
        extremes={} if np.ndim(scale) else FAR_FROM,
        limits={} if np.ndim(scale) else AT_LIMITS,
        fixed={"D": (7,)} if np.ndim(scale) else {},
        peers={"scipy": lambda stats, x, m: stats.norm.logpdf(x, m, scale)},
    )


def _optimal_size(x, x_recon):
    return scaled_square(np.sqrt(np.mean((x - x_recon) ** 2)))(x, x_recon)


def _numpy_gaussian(x, x_recon, log_scale):
    scaled = (x - x_recon) / np.exp(log_scale)
    return -0.5 * scaled**2 - log_scale - 0.5 * np.log(2 * np.pi)


def _numpy_gaussian_and_grad(x, x_recon, log_scale):
    sigma = np.exp(log_scale)
    scaled = (x - x_recon) / sigma
    value = np.mean(np.sum(-0.5 * scaled**2 - log_scale - 0.5 * np.log(2 * np.pi), axis=1))
    return value, scaled / sigma / len(x), (scaled**2 - 1) / len(x)


GAUSSIAN_LEARNED = Variant(
    "Gaussian-learned",
    "Gaussian",
    ("learned",),
    LEARNED,
    scaled_square(),
    (lambda x, m, s: np.abs(x - m) * np.exp(-2 * s), lambda x, m, s: 2 * scaled_square()(x, m, s)),
    draws={"x": uniform, "x_recon": near_x, "log_scale": log_scales},
    extremes=FAR_SCALED,
    limits=SCALED_LIMITS,
    peers={
        "numpy": _numpy_gaussian,
        "numpy_and_grad": _numpy_gaussian_and_grad,
        "torch": lambda torch, x, m, s: torch.distributions.Normal(m, s.exp()).log_prob(x),
    },
)
GAUSSIANS = (
    gaussian("Gaussian", 0.6),
    gaussian("Gaussian-features", SCALES),
    GAUSSIAN_LEARNED,
    Variant(
        "Gaussian-optimal",
        "Gaussian",
        ("optimal",),
        RECON,
        _optimal_size,
        (lambda x, m: np.abs(x - m) / np.mean((x - m) ** 2),),
    ),
)


def _numpy_laplace_and_grad(x, x_recon, log_scale):
    scale = np.exp(log_scale)
    scaled = np.abs(x - x_recon) / scale
    value = -np.mean(np.sum(scaled + log_scale + np.log(2), axis=1))
    return value, np.sign(x - x_recon) / scale / len(x), (scaled - 1) / len(x)


LAPLACES = (
    Variant(
        "Laplace",
        "Laplace",
        (0.6,),
        RECON,
        distance(0.6),
        (one,),
        extremes=FAR_FROM,
        limits=AT_LIMITS,
        peers={"scipy": lambda stats, x, m: stats.laplace.logpdf(x, m, 0.6)},
    ),
    Variant(
        "Laplace-learned",
        "Laplace",
        ("learned",),
        LEARNED,
        distance(),
        (lambda x, m, s: np.exp(-s), distance()),
        draws={"log_scale": log_scales},
        extremes=FAR_SCALED,
        limits=SCALED_LIMITS,
        peers={
            "numpy": lambda x, m, s: -np.abs(x - m) / np.exp(s) - s - np.log(2),
            "numpy_and_grad": _numpy_laplace_and_grad,
            "torch": lambda torch, x, m, s: torch.distributions.Laplace(m, s.exp()).log_prob(x),
        },
    ),
)


def student_size(x, x_recon, log_scale=0.0, log_df=0.0):
    size = distance()(x, x_recon, log_scale)
    return size * size * (1.0 + np.exp(-log_df)) + np.exp(log_df)


def _student_fixed_scale(x, x_recon, log_df):
    return student_size(x, x_recon, np.log(0.6), log_df)


def _scipy_student_t(stats, x, m, s, v):
    return stats.t.logpdf(x, np.exp(v), m, np.exp(s))


def _torch_student_t(torch, x, m, s, v):
    return torch.distributions.StudentT(v.exp(), m, s.exp()).log_prob(x)


def log_dfs(rng, shape):
    return rng.normal(1.0, 0.5, shape)


STUDENTS = (
    Variant(
        "StudentT",
        "StudentT",
        (2.5, 0.6),
        RECON,
        distance(0.6),
        (distance(0.36),),
        extremes=FAR_FROM,
        limits=AT_LIMITS,
        peers={"scipy": lambda stats, x, m: stats.t.logpdf(x, 2.5, m, 0.6)},
    ),
    Variant(
        "StudentT-scale",
        "StudentT",
        (2.5, "learned"),
        LEARNED,
        distance(),
        (lambda x, m, s: distance()(x, m, s) * np.exp(-s), distance()),
        extremes=FAR_SCALED,
        limits=STUDENT_LIMITS,
    ),
    Variant(
        "StudentT-df",
        "StudentT",
        ("learned", 0.6),
        {**RECON, "log_df": "BD"},
        _student_fixed_scale,
        (distance(0.36), _student_fixed_scale),
        extremes={**FAR_FROM, "log_df": LOG_DFS},
        limits={**AT_LIMITS, "log_df": LOG_DF_LIMITS},
    ),
    Variant(
        "StudentT-learned",
        "StudentT",
        ("learned", "learned"),
        {**LEARNED, "log_df": "BD"},
        student_size,
        (lambda *a: student_size(*a) * np.exp(-a[2]), student_size, student_size),
        draws={"x": uniform, "x_recon": near_x, "log_scale": log_scales, "log_df": log_dfs},
        extremes={**FAR_SCALED, "log_df": LOG_DFS},
        limits={**STUDENT_LIMITS, "log_df": LOG_DF_LIMITS},
        peers={"scipy": _scipy_student_t, "torch": _torch_student_t},
    ),
)

# Of [0, 1] --------------------------------------------------------------------------------------


def far_logits(rng, shape):
    noise = rng.normal(size=shape)
    return 2.0 * noise + np.sign(noise)  # PyTorch's gradient is wrong near 0


def _numpy_bernoulli_and_grad(x, logits):
    value = np.mean(np.sum(x * logits - np.logaddexp(0, logits), axis=1))
    return value, (x - 1 / (1 + np.exp(-logits))) / len(x)


def _torch_bernoulli(torch, x, logits):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return -loss(logits, x, reduction="none")


def _torch_bernoulli_of_probs(torch, x, p):
    return torch.distributions.Bernoulli(p, validate_args=False).log_prob(x)


def _torch_clamped_bernoulli(torch, x, p):
    return -torch.nn.functional.binary_cross_entropy(p, x, reduction="none")


UNIT = {"x": (0.0, 0.25, 0.5, 1.0), "logits": (-1e4, -40.0, -1e-3, 0.0, 1e-9, 17.0, 100.0)}
LOGIT_LIMITS = (-np.inf, -1e30, -17.0, 0.0, "smallest_normal", 90.0, np.inf)
UNIT_LIMITS = {"x": UNIT["x"], "logits": LOGIT_LIMITS}
BERNOULLI = Variant(
    "Bernoulli",
    "Bernoulli",
    (),
    {"logits": "BD"},
    lambda x, logits: 0.0,
    (lambda x, logits: np.abs(x - (logits > 0)) + np.exp(-np.abs(logits)),),
    draws={"x": uniform, "logits": lambda rng, shape: 2.0 * rng.normal(size=shape)},
    extremes=UNIT,
    limits=UNIT_LIMITS,
    peers={
        "numpy": lambda x, logits: x * logits - np.logaddexp(0, logits),
        "numpy_and_grad": _numpy_bernoulli_and_grad,
        "torch": _torch_bernoulli,
    },
)
PROBS = {"x": UNIT["x"], "probs": (1e-6, 0.25, 0.5, 0.999)}
PROB_LIMITS = {
    "x": UNIT["x"],
    "probs": (0.0, "smallest_normal", 0.25, 1 - 2.0**-24, 1.0),
}


BERNOULLI_PROBS = tuple(
    Variant(
        label,
        "Bernoulli",
        (),
        {"probs": "BD"},
        lambda x, p: 0.0,
        (lambda x, p: 0.0,),
        draws={"x": uniform, "probs": uniform},
        extremes=PROBS,
        limits=PROB_LIMITS,
        peers=peers,
        options=options,
    )
    for label, options, peers in (
        (
            "Bernoulli-probs",
            {"probs": True},
            {"torch": _torch_bernoulli_of_probs},
        ),
        (
            "Bernoulli-clamped",
            {"probs": True, "clamp": True},
            {"torch": _torch_clamped_bernoulli},
        ),
    )
)
BYTES = Variant(
    "Bernoulli-bytes",
    "Bernoulli",
    (),
    {"logits": "BD"},
    lambda x, logits: x * np.abs(logits),  # x is rounded when it is scaled
    (lambda x, logits: x + BERNOULLI.sizes[0](x, logits),),
    draws={"x": lambda rng, shape: rng.integers(0, 256, shape)},
    options={"x_scale": 1 / 255, "validate": False},  # 255 / 255 is a rounding above one in float32
)
CONTINUOUS_BERNOULLI = Variant(
    "ContinuousBernoulli",
    "ContinuousBernoulli",
    (),
    {"logits": "BD"},
    lambda x, logits: np.abs(logits) + 1.0,
    (one,),
    draws={"x": uniform, "logits": far_logits},
    extremes=UNIT,
    limits=UNIT_LIMITS,
    peers={
        "torch": lambda torch, x, logits: torch.distributions.ContinuousBernoulli(
            logits=logits
        ).log_prob(x)
    },
)

VARIANTS = (
    SQUARED_ERROR,
    *GAUSSIANS,
    *LAPLACES,
    *STUDENTS,
    BERNOULLI,
    *BERNOULLI_PROBS,
    BYTES,
    CONTINUOUS_BERNOULLI,
)
ROWS = (
    row_of("squared error", SQUARED_ERROR),
    row_of("Gaussian", *GAUSSIANS, bench="Gaussian-learned"),
    row_of("Laplace", *LAPLACES, bench="Laplace-learned"),
    row_of("Student t", *STUDENTS, bench="StudentT-learned"),
    row_of("Bernoulli", BERNOULLI, *BERNOULLI_PROBS, BYTES),
    row_of("continuous Bernoulli", CONTINUOUS_BERNOULLI),
)
