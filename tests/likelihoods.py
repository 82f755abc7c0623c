"""Rows of the table in ``functions``: likelihoods, how their arrays are drawn, what cancels."""

from dataclasses import dataclass, field

import numpy as np

from fastelbo import reference
from fastelbo.reference.likelihoods import sum_to

TRIALS = 12
CLASSES = 4
COMPONENTS = 3


@dataclass(frozen=True)
class Row:
    """A likelihood: what makes it, its decoder outputs, what cancels, what arrays are drawn how."""

    label: str
    kind: str
    arguments: tuple
    options: dict
    parameters: tuple
    magnitudes: object
    draws: dict = field(default_factory=dict)

    def make(self, module):
        return getattr(module, self.kind)(*self.arguments, **self.options)


def over_event(a):
    return a.sum(axis=tuple(range(1, a.ndim)))


def magnitudes_of(likelihood, extra, *sizes):
    """The sizes of terms: of an element's value beyond its own, and of its derivatives.

    All are functions of (x, *parameters).
    """

    def magnitudes(x, *parameters, reduction="mean"):
        values, _ = likelihood.elements(x, *parameters)
        rows = over_event(np.abs(values) + extra(x, *parameters))
        weight = reference.row_weight(len(x), reduction)
        size = reference.reduce_rows(rows, reduction)
        of_gradients = [weight * s(x, *parameters) for s in sizes]
        full = parameters[0].shape
        return np.nan_to_num(size, nan=0.0, posinf=np.inf), *(
            np.nan_to_num(sum_to(np.broadcast_to(s, full), p.shape), nan=0.0, posinf=np.inf)
            for s, p in zip(of_gradients, parameters, strict=True)
        )

    return magnitudes


def uniform(rng, shape):
    return rng.uniform(size=shape)


def counts(rng, shape):
    return rng.integers(0, TRIALS + 1, shape)


def labels(rng, shape):
    return rng.integers(0, CLASSES, shape)


def pixels(rng, shape):
    return rng.integers(0, 256, shape)


#: Inputs that must be positive.
POSITIVE = ("alpha", "beta", "rate", "mean", "theta")


def positive(rng, shape):
    return np.exp(rng.normal(size=shape))


def with_classes(rng, shape):
    return rng.normal(size=(*shape, CLASSES))


def with_components(rng, shape):
    return rng.normal(size=(shape[0], COMPONENTS, *shape[1:]))


def one(x, *parameters):
    return 1.0


def row(label, kind, arguments, parameters, extra, sizes, draws=None, **options):
    likelihood = getattr(reference, kind)(*arguments, **options)
    magnitudes = magnitudes_of(likelihood, extra, *sizes)
    return Row(label, kind, arguments, options, parameters, magnitudes, draws or {})


def distance(scale):
    """Of a location family: |x - x_recon| / scale, and what moving x by a rounding does to it."""

    def size(x, x_recon, log_scale=0.0, *rest):
        s = scale if scale is not None else np.exp(log_scale)
        return (np.abs(x) + np.abs(x_recon) + 1.0) / s + np.abs(np.log(s)) + 1.0

    return size


def steep(x, x_recon, log_scale):
    return (np.abs(x_recon) + 1.0) * np.exp(-log_scale) + 1.0


def mixture_steep(x, logits, means, log_scales):
    return np.max(steep(x[:, None], means, log_scales) + np.abs(logits), axis=1)


def mixture_slope(x, logits, means, log_scales):
    a = steep(x[:, None], means, log_scales) + np.abs(logits)
    return a * a * (np.exp(-log_scales) + 1.0)


def student_size(x, x_recon, log_scale=0.0, log_df=0.0):
    size = distance(None)(x, x_recon, log_scale)
    return size * size * (1.0 + np.exp(-log_df)) + np.exp(log_df)


def logits_size(x, logits):
    return np.abs(logits) + 1.0


def theta_size(x, mean, theta, *rest):
    """What a relative rounding of theta does is no more than one of log p."""
    values, _ = reference.NegativeBinomial().elements(x, mean, theta)
    return (np.abs(values) + 1.0) / theta


NB = "NegativeBinomial"
ZINB = "ZeroInflatedNegativeBinomial"
COUNTS = {"x": counts, "mean": positive, "theta": positive}
T = "StudentT"
LIKELIHOODS = [
    row("Laplace", "Laplace", (0.6,), ("x_recon",), distance(0.6), (one,)),
    row(
        "Laplace-learned",
        "Laplace",
        ("learned",),
        ("x_recon", "log_scale"),
        distance(None),
        (lambda x, m, s: np.exp(-s), distance(None)),
    ),
    row(T, T, (2.5, 0.6), ("x_recon",), distance(0.6), (distance(0.36),)),
    row(
        f"{T}-scale",
        T,
        (2.5, "learned"),
        ("x_recon", "log_scale"),
        distance(None),
        (lambda x, m, s: distance(None)(x, m, s) * np.exp(-s), distance(None)),
    ),
    row(
        f"{T}-df",
        T,
        ("learned", 0.6),
        ("x_recon", "log_df"),
        lambda x, m, v: student_size(x, m, np.log(0.6), v),
        (distance(0.36), lambda x, m, v: student_size(x, m, np.log(0.6), v)),
    ),
    row(
        f"{T}-learned",
        T,
        ("learned", "learned"),
        ("x_recon", "log_scale", "log_df"),
        student_size,
        (lambda *a: student_size(*a) * np.exp(-a[2]), student_size, student_size),
    ),
    row(
        "ContinuousBernoulli",
        "ContinuousBernoulli",
        (),
        ("logits",),
        logits_size,
        (one,),
        {"x": uniform},
    ),
    row(
        "Poisson",
        "Poisson",
        (),
        ("log_rate",),
        lambda x, a: x + np.exp(a) + x * np.abs(a) + 1.0,
        (lambda x, a: (x + np.exp(a)) * (1.0 + np.abs(a)),),
        {"x": counts},
    ),
    row(
        "Poisson-rate",
        "Poisson",
        (),
        ("rate",),
        lambda x, a: x + a + x * np.abs(np.log(a)) + 1.0,
        (lambda x, a: x / a + 1.0,),
        {"x": counts, "rate": positive},
        log_input=False,
    ),
    row(
        "Binomial",
        "Binomial",
        (TRIALS,),
        ("logits",),
        lambda x, a: TRIALS * logits_size(x, a),
        (lambda x, a: TRIALS,),
        {"x": counts},
    ),
    row(
        "BetaBinomial",
        "BetaBinomial",
        (TRIALS,),
        ("alpha", "beta"),
        lambda x, a, b: TRIALS * (1.0 + np.abs(np.log(a)) + np.abs(np.log(b))),
        (lambda x, a, b: 1 / a + 4.0, lambda x, a, b: 1 / b + 4.0),
        {"x": counts, "alpha": positive, "beta": positive},
    ),
    row(NB, NB, (), ("mean", "theta"), one, (one, theta_size), COUNTS),
    row(f"{NB}-fixed", NB, (0.7,), ("mean",), one, (one,), COUNTS),
    row(ZINB, ZINB, (), ("mean", "theta", "zero_logits"), one, (one, theta_size, one), COUNTS),
    row(f"{ZINB}-fixed", ZINB, (1e6,), ("mean", "zero_logits"), one, (one, one), COUNTS),
    row(
        "DiscretizedLogistic",
        "DiscretizedLogistic",
        (),
        ("x_recon", "log_scale"),
        steep,
        (lambda *a: steep(*a) * np.exp(-a[2]), lambda *a: steep(*a) ** 2),
        {"x": pixels},
    ),
    row(
        "DiscretizedLogistic-fixed",
        "DiscretizedLogistic",
        (0.3,),
        ("x_recon",),
        lambda x, m: steep(x, m, np.log(0.3)),
        (lambda x, m: steep(x, m, np.log(0.3)) / 0.3,),
        {"x": pixels},
    ),
    row(
        "DiscretizedLogisticMixture",
        "DiscretizedLogisticMixture",
        (),
        ("logits", "means", "log_scales"),
        mixture_steep,
        (mixture_slope,) * 3,
        {
            "x": pixels,
            "logits": with_components,
            "means": with_components,
            "log_scales": with_components,
        },
    ),
    row(
        "Categorical",
        "Categorical",
        (),
        ("logits",),
        lambda x, a: np.abs(a).max(axis=-1) + 1.0,
        (lambda x, a: np.abs(a).max(axis=-1, keepdims=True) + 1.0,),
        {"x": labels, "logits": with_classes},
    ),
]
