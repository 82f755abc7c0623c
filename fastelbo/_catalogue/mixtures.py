"""Rows of mixtures, of priors that are mixtures, and of the maximum mean discrepancy."""

from functools import partial

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import numba_pairs
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad
from fastelbo._catalogue.divergences import function
from fastelbo._catalogue.jax_peers import by_jax

VAMP = {"B": 512, "M": 500, "L": 40}
TWO_SETS = {"B": 512, "N": 512, "L": 32}


# Mixtures ---------------------------------------------------------------------------------------


def log_weights(rng, shape):
    weights = rng.random(shape)
    return np.log(weights / weights.sum())


def component_scales(rng, shape):
    return 0.5 * rng.normal(size=shape)


def mixture_terms(z, mu, logvar, log_weights):
    """The largest sum of the absolute values of what makes up a joint density's logarithm."""
    z = z.reshape(int(np.prod(z.shape[:-1])), mu.shape[1])
    precision = np.exp(-logvar)
    square = (z * z) @ precision.T - 2 * z @ (mu * precision).T + (mu * mu * precision).sum(axis=1)
    other = np.abs(log_weights) + 0.5 * np.abs(logvar).sum(axis=1) + mu.shape[1]
    best = np.argmax(log_weights - 0.5 * (square + logvar.sum(axis=1)), axis=1)
    rows = np.arange(len(z))
    return float((0.5 * np.abs(square)[rows, best] + other[best]).max(initial=0.0))


def _largest_sums(z, mu, logvar, log_weights, weights=1.0):
    """The largest of what gradients by z, mu, logvar and log weights are sums of, without signs.

    Sums may cancel: points pull at a component from all sides.
    """
    points = z.reshape(int(np.prod(z.shape[:-1])), mu.shape[1])
    with np.errstate(all="ignore"):
        value, joint, d, precision = _numpy_joint(points, mu, logvar, log_weights)
        share = np.exp(joint - value[:, None]) * np.broadcast_to(weights, len(points))[:, None]
        pull = share[..., None] * np.abs(d) * precision
        by_logvar = 0.5 * np.sum(pull * np.abs(d) + share[..., None], axis=0)
    sums = (pull.sum(axis=1), pull.sum(axis=0), by_logvar, share.sum(axis=0))
    return [float(a.max(initial=0.0, where=np.isfinite(a))) for a in sums]


def mixture_scales(z, mu, logvar, log_weights, reduction="mean"):
    """Of value and gradients: weights of components inherit the rounding of the terms."""
    arrays = z, mu, logvar, log_weights
    terms = mixture_terms(*arrays)
    _, gradients = reference.mixture_log_prob_and_grad(*arrays, reduction=reduction)
    points = np.prod(np.shape(z)[:-1])
    sums = _largest_sums(*arrays, 1 / max(points, 1) if reduction == "mean" else 1.0)
    largest = tuple(
        2 * terms * max(float(np.abs(gradient).max(initial=0.0)), size)
        for gradient, size in zip(gradients, sums, strict=True)
    )
    return terms * (points if reduction == "sum" else 1.0), largest


def _numpy_joint(z, mu, logvar, log_weights):
    d = z[:, None] - mu
    precision = np.exp(-logvar)
    joint = log_weights - 0.5 * np.sum(d**2 * precision + logvar + reference.LOG_2PI, axis=2)
    top = joint.max(axis=1)
    value = top + np.log(np.sum(np.exp(joint - top[:, None]), axis=1))
    return value, joint, d, precision


def _numpy_mixture_and_grad(z, mu, logvar, log_weights):
    value, joint, d, precision = _numpy_joint(z, mu, logvar, log_weights)
    share = np.exp(joint - value[:, None]) / len(z)
    pull = share[..., None] * d * precision
    by_logvar = 0.5 * np.sum(pull * d - share[..., None], axis=0)
    return np.mean(value), -pull.sum(axis=1), pull.sum(axis=0), by_logvar, share.sum(axis=0)


def torch_rows(torch, z, mu, logvar, log_weights):
    d = z[:, None] - mu
    square = (d * d * torch.exp(-logvar) + logvar).sum(2)
    return torch.logsumexp(log_weights - 0.5 * (square + mu.shape[1] * reference.LOG_2PI), 1)


def _torch_mixture(torch, *tensors):
    return torch_rows(torch, *tensors).mean()


def _torch_products(torch, z, mu, logvar, log_weights):
    precision = torch.exp(-logvar)
    square = (z * z) @ precision.T - 2 * z @ (mu * precision).T
    of_component = (mu * mu * precision + logvar).sum(1) + mu.shape[1] * reference.LOG_2PI
    return torch.logsumexp(log_weights - 0.5 * (square + of_component), 1).mean()


MIXTURE = Row(
    "mixture_log_prob",
    with_and_grad(
        "mixture_log_prob",
        function("mixture_log_prob"),
        {"z": "BL", "mu": "ML", "logvar": "ML", "log_weights": "M"},
        mixture_scales,
        ("z", "mu", "logvar", "log_weights"),
        draws={"log_weights": log_weights, "logvar": component_scales},
        largest="BML",
        sizes=(
            {"B": 129, "M": 5, "L": 65},
            {"B": 7, "M": 257, "L": 2},
            {"B": 300, "M": 2049, "L": 3},
            {"B": 513, "M": 300, "L": 7},
            {"B": 3, "M": 10, "L": 0},
        ),
        batched=False,
        peers={
            "numpy": lambda *arrays: np.mean(_numpy_joint(*arrays)[0]),
            "numpy_and_grad": _numpy_mixture_and_grad,
            "torch": _torch_mixture,
            "torch_products": _torch_products,
            "numba": numba_pairs.mixture_log_prob,
            "numba_and_grad": numba_pairs.mixture_log_prob_and_grad,
            "jax": by_jax(_torch_mixture),
            "jax_products": by_jax(_torch_products),
        },
    ),
    (
        Bench("mixture_log_prob", "VampPrior", VAMP),
        Bench("mixture_log_prob_and_grad", "VampPrior and gradient", VAMP),
    ),
)


# Priors -----------------------------------------------------------------------------------------


def _log_prob(make, suffix):
    return lambda module, z, *parameters, **options: getattr(
        make(module, *parameters), f"log_prob{suffix}"
    )(z, **options)


def _backward(make):
    return lambda module, z, weights, *parameters, **options: make(module, *parameters).backward(
        z, weights, **options
    )


def _prior_scales(make, z, *parameters):
    prior = make(reference, *parameters)
    arrays = z, prior.mu, prior.logvar, prior.log_weights
    terms = mixture_terms(*arrays)
    _, by_z = prior.log_prob_and_grad(z)
    return terms, 2 * terms * max(float(np.abs(by_z).max(initial=0.0)), _largest_sums(*arrays)[0])


def _backward_scales(make, z, weights, *parameters):
    """Gradients inherit the rounding of the terms; the logits' is a difference of shares."""
    prior = make(reference, *parameters)
    arrays = z, prior.mu, prior.logvar, prior.log_weights
    terms = 2 * mixture_terms(*arrays)
    *sums, _ = _largest_sums(*arrays, np.abs(weights))
    return tuple(
        terms * max(float(np.abs(gradient).max(initial=0.0)), size)
        for gradient, size in zip(
            prior.backward(z, weights), (*sums, float(np.abs(weights).sum())), strict=True
        )
        if gradient is not None
    )


def _prior_cases(kind, label, parameters, make, peers=None, by_hand=None):
    """`peers` are of the rows of log_prob; `by_hand` is NumPy's gradient: autograd's are of one."""
    inputs = {"z": "BL", **parameters}
    common = {
        "draws": {"logits": log_weights, "logvar": component_scales},
        "has_reduction": False,
        "batched": False,
        "takes_out": False,
        "largest": "BML",
    }
    name = kind + label
    return (
        Case(
            name,
            _log_prob(make, ""),
            inputs,
            lambda *a, **o: _prior_scales(make, *a)[0],
            **common,
            peers=peers or {},
        ),
        Case(
            f"{name}_and_grad",
            _log_prob(make, "_and_grad"),
            inputs,
            lambda *a, **o: _prior_scales(make, *a),
            outs=("z",),
            **common,
            peers={"numpy_and_grad": by_hand} if by_hand else {},
        ),
        Case(
            f"{name}.backward",
            _backward(make),
            {"z": "BL", "weights": "B", **parameters},
            lambda *a, **o: _backward_scales(make, *a),
            twinned=False,  # autograd goes back
            **common,
        ),
    )


def _prior(kind, title, *cases):
    return Row(
        kind,
        cases,
        (Bench(kind, title, VAMP), Bench(f"{kind}_and_grad", f"{title} and gradient", VAMP)),
    )


def _standard_rows(z):
    return -0.5 * np.sum(z**2 + reference.LOG_2PI, axis=1)


def _standard_cases(label, axes, peers=None):
    common = {"has_reduction": False, "batched": False, "takes_out": False, "peers": peers or {}}
    return (
        Case(
            f"StandardNormal{label}",
            lambda module, z, **o: module.StandardNormal().log_prob(z, **o),
            {"z": axes},
            lambda z, **options: 0.0,
            **common,
        ),
        Case(
            f"StandardNormal{label}_and_grad",
            lambda module, z, **o: module.StandardNormal().log_prob_and_grad(z, **o),
            {"z": axes},
            lambda z, **options: (0.0, 0.0),
            outs=("z",),
            **common,
        ),
    )


STANDARD_NORMAL = Row(
    "StandardNormal",
    (
        *_standard_cases(
            "",
            "BL",
            {"numpy": _standard_rows, "numpy_and_grad": lambda z: (_standard_rows(z), -z)},
        ),
        *_standard_cases("[samples]", "KBL"),
    ),
    (
        Bench("StandardNormal", "standard normal prior", VAMP),
        Bench("StandardNormal_and_grad", "standard normal prior and gradient", VAMP),
    ),
    native=True,
)


def _equal(mu):
    return np.zeros_like(mu[:, 0])


def _numpy_prior(z, mu, logvar, logits):
    return _numpy_joint(z, mu, logvar, logits - np.log(np.sum(np.exp(logits))))[0]


def _numpy_prior_and_grad(z, mu, logvar, logits):
    log_weights = logits - np.log(np.sum(np.exp(logits)))
    value, joint, d, precision = _numpy_joint(z, mu, logvar, log_weights)
    share = np.exp(joint - value[:, None])
    return value, -np.sum(share[..., None] * d * precision, axis=1)


def _torch_prior(torch, z, mu, logvar, logits):
    return torch_rows(torch, z, mu, logvar, torch.log_softmax(logits, 0))


COMPONENTS = {"mu": "ML", "logvar": "ML"}
PRIORS = (
    STANDARD_NORMAL,
    _prior(
        "MixtureOfGaussians",
        "mixture of Gaussians as a prior",
        *_prior_cases(
            "MixtureOfGaussians",
            "",
            {**COMPONENTS, "logits": "M"},
            lambda module, *parameters: module.MixtureOfGaussians(*parameters),
            {"numpy": _numpy_prior, "torch": _torch_prior},
            _numpy_prior_and_grad,
        ),
        *_prior_cases(
            "MixtureOfGaussians",
            "[equal]",
            COMPONENTS,
            lambda module, *parameters: module.MixtureOfGaussians(*parameters),
        ),
    ),
    _prior(
        "VampPrior",
        "VampPrior as a prior",
        *_prior_cases(
            "VampPrior",
            "",
            COMPONENTS,
            lambda module, *parameters: module.VampPrior(*parameters),
            {"numpy": lambda z, mu, logvar: _numpy_prior(z, mu, logvar, _equal(mu))},
            lambda z, mu, logvar: _numpy_prior_and_grad(z, mu, logvar, _equal(mu)),
        ),
        *_prior_cases(
            "VampPrior",
            "[weighted]",
            {**COMPONENTS, "logits": "M"},
            lambda module, *parameters: module.VampPrior(*parameters),
        ),
    ),
)


# The maximum mean discrepancy -------------------------------------------------------------------


def mmd_scales(z, y, kernel="rbf", **options):
    """Means of the kernel cancel, and so do pulls, of kernels as steep as at d = s at most."""
    scales = 7 if kernel == "imq" else 1
    pull = 4.0 * scales * (1 + np.sqrt(z.shape[1]))
    return 3.0 * scales, pull / len(z), pull / len(y)


def _numpy_mmd_and_grad(z, y):
    n, m = len(z), len(y)

    def pairs(a, b):
        d = b - a[:, None]
        k = np.exp(-np.sum(d**2, axis=2) / (2 * a.shape[1]))
        return k, k[..., None] * d / a.shape[1]

    (kz, dz), (ky, dy), (k, d) = pairs(z, z), pairs(y, y), pairs(z, y)
    within = (kz.sum() - n) / (n * (n - 1)) + (ky.sum() - m) / (m * (m - 1))
    by_z = 2 * dz.sum(axis=1) / (n * (n - 1)) - 2 * d.sum(axis=1) / (n * m)
    by_y = 2 * dy.sum(axis=1) / (m * (m - 1)) + 2 * d.sum(axis=0) / (n * m)
    return within - 2 * k.mean(), by_z, by_y


def _torch_mmd(torch, z, y, square):
    n, m = len(z), len(y)
    kz, ky, k = (torch.exp(-square(*ab) / (2 * z.shape[1])) for ab in ((z, z), (y, y), (z, y)))
    within = (kz.sum() - kz.diagonal().sum()) / (n * (n - 1))
    within = within + (ky.sum() - ky.diagonal().sum()) / (m * (m - 1))
    return within - 2 * k.mean()


def _differences(a, b):
    return ((a[:, None] - b) ** 2).sum(2)


def _products(a, b):
    return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T


MMD = Row(
    "mmd",
    with_and_grad(
        "mmd",
        function("mmd"),
        {"z": "BL", "y": "NL"},
        mmd_scales,
        ("z", "y"),
        draws={"y": lambda rng, shape: rng.normal(0.2, 1.2, shape)},
        options=(
            {"kernel": "imq"},
            {"estimator": "biased"},
            {"kernel": "imq", "estimator": "biased"},
            {"bandwidth": (0.5, 2.0)},
        ),
        has_reduction=False,
        batched=False,
        largest="BNL",
        least={"B": 2, "N": 2},
        sizes=(
            {"B": 31, "N": 4, "L": 65},
            {"B": 130, "N": 260, "L": 16},
            {"B": 300, "N": 5, "L": 3},
            {"B": 390, "N": 200, "L": 7},  # so many that they are taken in greater groups
            {"B": 2, "N": 600, "L": 2},
        ),
        peers={
            "numpy": lambda z, y: _numpy_mmd_and_grad(z, y)[0],
            "numpy_and_grad": _numpy_mmd_and_grad,
            "torch": partial(_torch_mmd, square=_differences),
            "torch_products": partial(_torch_mmd, square=_products),
            "jax": by_jax(partial(_torch_mmd, square=_differences)),
            "jax_products": by_jax(partial(_torch_mmd, square=_products)),
            "numba": numba_pairs.mmd,
            "numba_and_grad": numba_pairs.mmd_and_grad,
        },
    ),
    (
        Bench("mmd", "RBF MMD", TWO_SETS),
        Bench("mmd_and_grad", "RBF MMD and gradient", TWO_SETS),
    ),
)

ROWS = (MIXTURE, *PRIORS, MMD)
