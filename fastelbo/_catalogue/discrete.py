"""Rows of likelihoods of counts, pixels and classes."""

from dataclasses import replace

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import numba_peers
from fastelbo._catalogue.jax_peers import by_jax
from fastelbo._catalogue.likelihoods import (
    LEARNED,
    LOGIT_LIMITS,
    RECON,
    Variant,
    one,
    positive,
    row_of,
)
from fastelbo._catalogue.sizes import GENES, STANDARD
from fastelbo._catalogue.sparse import densified

TRIALS = 12


def up_to(most):
    """Draws whole numbers from 0 to `most`."""
    return lambda rng, shape: rng.integers(0, most + 1, shape)


counts = up_to(TRIALS)


# Counts -----------------------------------------------------------------------------------------


def _log_factorial(x):
    from scipy.special import gammaln

    return gammaln(x + 1)


def _log_choose(x):
    return _log_factorial(TRIALS) - _log_factorial(x) - _log_factorial(TRIALS - x)


def _numpy_poisson(x, log_rate):
    return x * log_rate - np.exp(log_rate) - _log_factorial(x)


def _numpy_poisson_and_grad(x, log_rate):
    value = np.mean(np.sum(_numpy_poisson(x, log_rate), axis=1))
    return value, (x - np.exp(log_rate)) / len(x)


#: From the smallest to the largest numbers that are positive.
WIDE = ("smallest_subnormal", "smallest_normal", 1.0, 1e30, "max")


POISSONS = (
    Variant(
        "Poisson",
        "Poisson",
        (),
        {"log_rate": "BD"},
        lambda x, a: x + np.exp(a) + x * np.abs(a) + 1.0,
        (lambda x, a: (x + np.exp(a)) * (1.0 + np.abs(a)),),
        draws={"x": counts, "log_rate": lambda rng, shape: rng.normal(1.5, 0.7, shape)},
        extremes={"x": (0, 1, 50, 10**6), "log_rate": (-80.0, -1.0, 0.0, 3.9, 13.8, 30.0)},
        limits={"x": (0, 1, 50, 1e6), "log_rate": (-np.inf, -1e4, 0.0, 90.0, 1e4, np.inf)},
        peers={
            "numpy": _numpy_poisson,
            "numpy_and_grad": _numpy_poisson_and_grad,
            "scipy": lambda stats, x, a: stats.poisson.logpmf(x, np.exp(a)),
            "torch": lambda torch, x, a: torch.distributions.Poisson(a.exp()).log_prob(x),
        },
    ),
    Variant(
        "Poisson-rate",
        "Poisson",
        (),
        {"rate": "BD"},
        lambda x, a: x + a + x * np.abs(np.log(a)) + 1.0,
        (lambda x, a: x / a + 1.0,),
        draws={"x": counts, "rate": positive},
        extremes={"x": (0, 1, 50, 10**6), "rate": (1e-20, 0.5, 1.0, 49.0, 1e6)},
        limits={"x": (0, 1, 50, 1e6), "rate": (0.0, *WIDE, np.inf)},
        options={"log_input": False},
    ),
)


def _binomial_size(x, a):
    return TRIALS * (np.abs(a) + 1.0)


BINOMIAL = Variant(
    "Binomial",
    "Binomial",
    (TRIALS,),
    {"logits": "BD"},
    _binomial_size,
    (lambda x, a: TRIALS,),
    draws={"x": counts},
    extremes={"x": (0, 1, 6, TRIALS), "logits": (-80.0, -3.0, 0.0, 1e-6, 40.0)},
    limits={"x": (0, 1, 6, TRIALS), "logits": LOGIT_LIMITS},
    peers={
        "numpy": lambda x, a: _log_choose(x) + x * a - TRIALS * np.logaddexp(0, a),
        "scipy": lambda stats, x, a: stats.binom.logpmf(x, TRIALS, 1 / (1 + np.exp(-a))),
        "torch": lambda torch, x, a: torch.distributions.Binomial(TRIALS, logits=a).log_prob(x),
    },
)


def _torch_beta_binomial(torch, x, a, b):
    def log_beta(p, q):
        return torch.lgamma(p) + torch.lgamma(q) - torch.lgamma(p + q)

    n = torch.tensor(float(TRIALS), dtype=a.dtype)
    choose = torch.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return choose + log_beta(x + a, n - x + b) - log_beta(a, b)


BETA_BINOMIAL = Variant(
    "BetaBinomial",
    "BetaBinomial",
    (TRIALS,),
    {"alpha": "BD", "beta": "BD"},
    lambda x, a, b: TRIALS * (1.0 + np.abs(np.log(a)) + np.abs(np.log(b))),
    (lambda x, a, b: 1 / a + 4.0, lambda x, a, b: 1 / b + 4.0),
    draws={"x": counts, "alpha": positive, "beta": positive},
    extremes={"x": (0, 1, TRIALS), "alpha": (1e-3, 1.0, 50.0), "beta": (1e-3, 1.0, 50.0)},
    limits={"x": (0, 1, TRIALS), "alpha": WIDE, "beta": WIDE},
    peers={
        "scipy": lambda stats, x, a, b: stats.betabinom.logpmf(x, TRIALS, a, b),
        "torch": _torch_beta_binomial,
    },
)

# Counts of single cells -------------------------------------------------------------------------

EPS = 1e-8  # of scvi-tools
#: What it costs them.
SCVI_ERROR = 1e-6


def gene_counts(rng, shape):
    """Mostly zeros."""
    x = rng.integers(1, 9, shape)
    x[rng.random(shape) < 0.8] = 0
    return x


def gene_means(rng, shape):
    return rng.uniform(0.1, 2.1, shape)


def gene_thetas(rng, shape):
    return rng.uniform(0.5, 1.5, shape)


def theta_size(x, mean, theta, *rest):
    """What a relative rounding of theta does is no more than one of log p."""
    values, _ = reference.NegativeBinomial().elements(x, mean, theta)
    return (np.abs(values) + 1.0) / theta


def _numpy_negative_binomial(x, mean, theta):
    from scipy.special import gammaln

    log_both = np.log(theta + mean + EPS)
    return (
        theta * (np.log(theta + EPS) - log_both)
        + x * (np.log(mean + EPS) - log_both)
        + gammaln(x + theta)
        - gammaln(theta)
        - gammaln(x + 1)
    )


def _numpy_negative_binomial_and_grad(x, mean, theta):
    from scipy.special import digamma

    total = theta + mean
    by_theta = digamma(x + theta) - digamma(theta) - np.log1p(mean / theta) + (mean - x) / total
    value = np.mean(np.sum(_numpy_negative_binomial(x, mean, theta), axis=1))
    by_mean = theta * (x - mean) / (mean * total)
    return value, by_mean / len(x), by_theta.sum(axis=0) / len(x)


def _torch_negative_binomial(torch, x, mean, theta):
    log_both = torch.log(theta + mean + EPS)
    return (
        theta * (torch.log(theta + EPS) - log_both)
        + x * (torch.log(mean + EPS) - log_both)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )


def _torch_zero_inflated(torch, x, mean, theta, logits):
    softplus = torch.nn.functional.softplus
    excess = softplus(-logits)
    log_theta, log_both = torch.log(theta + EPS), torch.log(theta + mean + EPS)
    no_count = -logits + theta * (log_theta - log_both)
    zero = softplus(no_count) - excess
    some = (
        -excess
        + no_count
        + x * (torch.log(mean + EPS) - log_both)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    return torch.where(x < EPS, zero, some)


def _scipy_negative_binomial(stats, x, mean, theta):
    return stats.nbinom.logpmf(x, theta, theta / (theta + mean))


def _scipy_zero_inflated(stats, x, mean, theta, logits):
    excess = 1 / (1 + np.exp(-logits))
    mass = stats.nbinom.pmf(x, theta, theta / (theta + mean))
    return np.log(np.where(x == 0, excess, 0) + (1 - excess) * mass)


NB = "NegativeBinomial"
ZINB = "ZeroInflatedNegativeBinomial"
OF_GENES = {"x": gene_counts, "mean": gene_means, "theta": gene_thetas}
OF_ELEMENTS = {"x": counts, "mean": positive, "theta": positive}
COUNT_EXTREMES = {
    "x": (0, 1, 2, 100),
    "mean": (1e-4, 0.5, 1.0, 99.0),
    "theta": (1e-2, 1.0, 10.0),
    "zero_logits": (-80.0, -3.0, 0.0, 1e-6, 40.0),
}
COUNT_LIMITS = {
    "x": (0, 1, 2, 100),
    "mean": (0.0, *WIDE, np.inf),
    "theta": (*WIDE, np.inf),
    "zero_logits": (-np.inf, 0.0, np.inf),
}
NEGATIVE_BINOMIALS = (
    Variant(
        NB,
        NB,
        (),
        {"mean": "BD", "theta": "D"},
        one,
        (one, theta_size),
        draws=OF_GENES,
        peers={
            "numpy": _numpy_negative_binomial,
            "numpy_and_grad": _numpy_negative_binomial_and_grad,
            "scipy": _scipy_negative_binomial,
            "torch": _torch_negative_binomial,
            "jax": by_jax(_torch_negative_binomial),
            "numba": numba_peers.negative_binomial,
            "numba_and_grad": numba_peers.negative_binomial_and_grad,
        },
    ),
    Variant(
        f"{NB}-elements",
        NB,
        (),
        {"mean": "BD", "theta": "BD"},
        one,
        (one, theta_size),
        draws=OF_ELEMENTS,
        extremes={name: COUNT_EXTREMES[name] for name in OF_ELEMENTS},
        limits={name: COUNT_LIMITS[name] for name in OF_ELEMENTS},
    ),
    *(
        Variant(
            f"{NB}-{form}",
            NB,
            (theta,),
            {"mean": "BD"},
            one,
            (one,),
            draws=OF_ELEMENTS,
            extremes={name: COUNT_EXTREMES[name] for name in ("x", "mean")},
            limits={name: COUNT_LIMITS[name] for name in ("x", "mean")},
        )
        for form, theta in (("fixed", 0.7), ("Poisson", np.inf))
    ),
)
ZERO_INFLATED = (
    Variant(
        ZINB,
        ZINB,
        (),
        {"mean": "BD", "theta": "D", "zero_logits": "BD"},
        one,
        (one, theta_size, one),
        draws=OF_GENES,
        peers={
            "scipy": _scipy_zero_inflated,
            "torch": _torch_zero_inflated,
            "jax": by_jax(_torch_zero_inflated),
        },
    ),
    Variant(
        f"{ZINB}-elements",
        ZINB,
        (),
        {"mean": "BD", "theta": "BD", "zero_logits": "BD"},
        one,
        (one, theta_size, one),
        draws=OF_ELEMENTS,
        extremes=COUNT_EXTREMES,
        limits=COUNT_LIMITS,
    ),
    Variant(
        f"{ZINB}-fixed",
        ZINB,
        (1e6,),
        {"mean": "BD", "zero_logits": "BD"},
        one,
        (one, one),
        draws=OF_ELEMENTS,
        extremes={name: COUNT_EXTREMES[name] for name in ("x", "mean", "zero_logits")},
    ),
)


def sparse(variant, of=None):
    """The variant of sparse x, mostly zeros; `of` has the extremes of elements to try."""
    of = of or variant
    by_element = {name for name, axes in variant.inputs.items() if axes == "BD"}
    kinds = ("numpy", "numpy_and_grad", "scipy")
    return replace(
        variant,
        label=f"{variant.label}-sparse",
        draws={**variant.draws, "x": gene_counts},
        extremes={name: of.extremes[name] for name in of.extremes if name in by_element},
        peers={kind: densified(variant.peers[kind]) for kind in kinds if kind in variant.peers},
        sparse=True,
    )


SPARSE_POISSON = sparse(POISSONS[0])
SPARSE_NEGATIVE_BINOMIAL = sparse(NEGATIVE_BINOMIALS[0], NEGATIVE_BINOMIALS[1])
SPARSE_ZERO_INFLATED = sparse(ZERO_INFLATED[0], ZERO_INFLATED[1])

# Pixels -----------------------------------------------------------------------------------------

BINS = 256


def pixels(rng, shape):
    return np.clip(rng.normal(BINS / 2, BINS / 16, shape), 0, BINS - 1).astype(np.uint8)


def bin_means(rng, shape):
    return rng.normal(0.0, 0.1, shape)


def bin_scales(rng, shape):
    return rng.normal(-1.5, 0.4, shape)


def steep(x, x_recon, log_scale):
    inverse = np.exp(-np.maximum(log_scale, -200.0))  # its powers are numbers, too
    return (np.abs(x_recon) + 1.0) * inverse + np.maximum(log_scale, 0.0) + 1.0


def _mixture_steep(x, logits, means, log_scales):
    return np.max(steep(x[:, None], means, log_scales) + np.abs(logits), axis=1)


def _mixture_slope(x, logits, means, log_scales):
    a = steep(x[:, None], means, log_scales) + np.abs(logits)
    return a * a * (np.exp(-np.maximum(log_scales, -200.0)) + 1.0)


def _torch_mass(torch, x, mean, log_scale):
    """As in the code of PixelCNN++, without its guards."""
    inverse = torch.exp(-log_scale)
    centre = 2 * x / (BINS - 1) - 1 - mean
    upper = torch.sigmoid((centre + 1 / (BINS - 1)) * inverse)
    lower = torch.sigmoid((centre - 1 / (BINS - 1)) * inverse)
    one_, none = torch.ones_like(upper), torch.zeros_like(lower)
    upper, lower = torch.where(x == BINS - 1, one_, upper), torch.where(x == 0, none, lower)
    return torch.log(upper - lower)


def _scipy_mass(stats, x, mean, log_scale):
    scale, centre = np.exp(log_scale), 2 * x / (BINS - 1) - 1 - mean
    lower = np.where(x == 0, -np.inf, centre - 1 / (BINS - 1)) / scale
    upper = np.where(x == BINS - 1, np.inf, centre + 1 / (BINS - 1)) / scale
    lower, upper = np.where(
        lower > 0, (-upper, -lower), (lower, upper)
    )  # the tail keeps its digits
    return np.log(stats.logistic.cdf(upper) - stats.logistic.cdf(lower))


def _torch_mixture(torch, x, logits, means, log_scales):
    masses = _torch_mass(torch, x[:, None], means, log_scales)
    return torch.logsumexp(torch.log_softmax(logits, 1) + masses, 1)


PIXEL_EXTREMES = {"x": (0, 1, 127, 254, 255), "x_recon": (-30.0, -1.0, 0.0, 1.0, 7.0)}
STEEP = (-9.0, -1.0, 0.0, 4.0)
WIDTHS = (-1e4, -100.0, -80.0, 0.0, 60.0, 1e4)
DISCRETIZED = (
    Variant(
        "DiscretizedLogistic",
        "DiscretizedLogistic",
        (),
        LEARNED,
        steep,
        (lambda *a: steep(*a) * np.exp(-a[2]), lambda *a: steep(*a) ** 2),
        draws={"x": pixels, "x_recon": bin_means, "log_scale": bin_scales},
        extremes={**PIXEL_EXTREMES, "log_scale": STEEP},
        limits={**PIXEL_EXTREMES, "log_scale": WIDTHS},
        peers={"scipy": _scipy_mass, "torch": _torch_mass},
    ),
    Variant(
        "DiscretizedLogistic-fixed",
        "DiscretizedLogistic",
        (0.3,),
        RECON,
        lambda x, m: steep(x, m, np.log(0.3)),
        (lambda x, m: steep(x, m, np.log(0.3)) / 0.3,),
        draws={"x": pixels},
        extremes=PIXEL_EXTREMES,
    ),
)
MIXTURE = Variant(
    "DiscretizedLogisticMixture",
    "DiscretizedLogisticMixture",
    (),
    {"logits": "BMD", "means": "BMD", "log_scales": "BMD"},
    _mixture_steep,
    (_mixture_slope,) * 3,
    draws={"x": pixels, "means": bin_means, "log_scales": bin_scales},
    extremes={
        "x": PIXEL_EXTREMES["x"],
        "logits": (-80.0, 0.0, 1.0, 30.0),
        "means": PIXEL_EXTREMES["x_recon"],
        "log_scales": STEEP,
    },
    limits={
        "x": PIXEL_EXTREMES["x"],
        "logits": (-80.0, 0.0),
        "means": PIXEL_EXTREMES["x_recon"],
        "log_scales": WIDTHS,
    },
    peers={"torch": _torch_mixture},
)

# Classes ----------------------------------------------------------------------------------------


def labels(rng, shape):
    return rng.integers(0, 4, shape)


def _torch_categorical(torch, x, logits):
    return torch.distributions.Categorical(logits=logits).log_prob(x)


def _numpy_categorical(x, logits):
    top = logits.max(axis=-1, keepdims=True)
    log_sum = (top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))[..., 0]
    return np.take_along_axis(logits, x.astype(int)[..., None], -1)[..., 0] - log_sum


CATEGORICAL = Variant(
    "Categorical",
    "Categorical",
    (),
    {"logits": "BDC"},
    lambda x, a: np.abs(a).max(axis=-1) + 1.0,
    (lambda x, a: np.abs(a).max(axis=-1, keepdims=True) + 1.0,),
    draws={"x": labels},
    extremes={"x": (0, 3), "logits": (-1e4, -80.0, -1.0, 0.0, 1e-6, 40.0, 300.0)},
    limits={"x": (0, 3), "logits": (-1e30, -1.0, 0.0, 1e30)},
    peers={"numpy": _numpy_categorical, "torch": _torch_categorical},
)

OF_CLASSES = replace(
    CATEGORICAL, label="Categorical-classes", arguments=(4,), peers={}, fixed={"C": 4}
)

VARIANTS = (
    *POISSONS,
    SPARSE_POISSON,
    BINOMIAL,
    BETA_BINOMIAL,
    *NEGATIVE_BINOMIALS,
    SPARSE_NEGATIVE_BINOMIAL,
    *ZERO_INFLATED,
    SPARSE_ZERO_INFLATED,
    *DISCRETIZED,
    MIXTURE,
    CATEGORICAL,
    OF_CLASSES,
)
ROWS = (
    row_of("Poisson", *POISSONS, SPARSE_POISSON),
    row_of("binomial", BINOMIAL),
    row_of("beta-binomial", BETA_BINOMIAL),
    row_of(
        "negative binomial",
        *NEGATIVE_BINOMIALS,
        SPARSE_NEGATIVE_BINOMIAL,
        extents=GENES,
        error=SCVI_ERROR,
    ),
    row_of(
        "zero-inflated negative binomial",
        *ZERO_INFLATED,
        SPARSE_ZERO_INFLATED,
        extents=GENES,
        error=SCVI_ERROR,
    ),
    row_of("discretized logistic", *DISCRETIZED, error=1e-2),  # a difference of sigmoids
    row_of(
        "mixture of discretized logistics",
        MIXTURE,
        extents={**STANDARD, "M": 5},
        error=1e-2,
        native=False,
    ),
    row_of("categorical", CATEGORICAL, OF_CLASSES, extents={**STANDARD, "C": 10}),
)
