"""Rows of Kullback-Leibler divergences."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Row, with_and_grad
from fastelbo._catalogue.sizes import STANDARD


def function(name):
    """What `with_and_grad` calls: the function of that name, or the one of its gradient."""
    return lambda module, suffix: getattr(module, name + suffix)


def with_free_bits(module, options):
    """The options with a threshold as that module's FreeBits."""
    bits = options.get("free_bits")
    if isinstance(bits, dict):
        options = {**options, "free_bits": module.FreeBits(**bits)}
    return options


# KL to the standard normal ----------------------------------------------------------------------


def _call_kl(module, suffix):
    def run(mu, logvar, **options):
        return getattr(module, f"kl_standard_normal{suffix}")(
            mu, logvar, **with_free_bits(module, options)
        )

    return run


def _numpy_kl(mu, logvar):
    return -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))


def _numpy_kl_and_grad(mu, logvar):
    batch = len(mu)
    sigma2 = np.exp(logvar)
    kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - sigma2, axis=1))
    return kl, mu / batch, 0.5 * (sigma2 - 1) / batch


def _torch_kl(torch, mu, logvar):
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()


KL_STANDARD_NORMAL = Row(
    "kl_standard_normal",
    with_and_grad(
        "kl_standard_normal",
        _call_kl,
        {"mu": "BL", "logvar": "BL"},
        lambda mu, logvar, **options: (0.0, 0.0, 0.0),  # nothing cancels
        ("mu", "logvar"),
        options=(
            {"free_bits": 0.4},
            *(
                {"free_bits": {"threshold": 0.5, "granularity": granularity, "below": below}}
                for granularity in ("dimension", "sample", "total")
                for below in ("floor", "zero")
            ),
        ),
        extremes={
            "mu": (0.0, 1e-30, -1e-4, 3.0, 1e4),
            "logvar": (-200.0, -80.0, -1e-9, 0.0, 1e-4, 60.0),
        },
        limits={
            "mu": (0.0, "smallest_normal", -1e30, "max"),
            "logvar": (-np.inf, -1e30, -1e4, 0.0, 1e4, np.inf),
        },
        peers={"numpy": _numpy_kl, "numpy_and_grad": _numpy_kl_and_grad, "torch": _torch_kl},
    ),
    (
        Bench("kl_standard_normal", "KL", STANDARD),
        Bench("kl_standard_normal_and_grad", "KL and its gradient", STANDARD),
    ),
    native=True,
)


# KL of two Gaussians ----------------------------------------------------------------------------


def _kl_normal_magnitudes(mu_q, logvar_q, mu_p, logvar_p, reduction="mean"):
    d = np.abs(mu_q - mu_p)
    spread = 0.5 * np.abs(np.expm1(logvar_q - logvar_p))
    pull = d * np.exp(-logvar_p)
    weight = reference.row_weight(len(mu_q), reduction)
    last = weight * (spread + 0.5 * d * pull)
    return 0.0, weight * pull, weight * spread, weight * pull, last


def _numpy_kl_normal(mu_q, logvar_q, mu_p, logvar_p):
    ratio = np.exp(logvar_q - logvar_p)
    distance = (mu_q - mu_p) ** 2 / np.exp(logvar_p)
    return 0.5 * np.mean(np.sum(ratio + distance - 1 - (logvar_q - logvar_p), axis=1))


def _numpy_kl_normal_and_grad(mu_q, logvar_q, mu_p, logvar_p):
    batch = len(mu_q)
    ratio = np.exp(logvar_q - logvar_p)
    pull = (mu_q - mu_p) / np.exp(logvar_p)
    distance = pull * (mu_q - mu_p)
    kl = 0.5 * np.mean(np.sum(ratio + distance - 1 - (logvar_q - logvar_p), axis=1))
    spread = 0.5 * (ratio - 1)
    gradients = (pull, spread, -pull, -spread - 0.5 * distance)
    return kl, *(gradient / batch for gradient in gradients)


def _torch_kl_normal(torch, mu_q, logvar_q, mu_p, logvar_p):
    normal = torch.distributions.Normal
    q, p = normal(mu_q, (0.5 * logvar_q).exp()), normal(mu_p, (0.5 * logvar_p).exp())
    return torch.distributions.kl_divergence(q, p).sum(1).mean()


KL_NORMAL = Row(
    "kl_normal",
    with_and_grad(
        "kl_normal",
        function("kl_normal"),
        {"mu_q": "BL", "logvar_q": "BL", "mu_p": "BL", "logvar_p": "BL"},
        _kl_normal_magnitudes,
        ("mu_q", "logvar_q", "mu_p", "logvar_p"),
        extremes={
            "mu_q": (0.0, 1e-30, 3.0, -1e4),
            "logvar_q": (-60.0, -1e-9, 0.0, 40.0),
            "mu_p": (0.0, 1e-4, 3.0),
            "logvar_p": (-30.0, 0.0, 1e-9, 60.0),
        },
        limits={
            "mu_q": (0.0, "smallest_normal", 1.0),
            "logvar_q": (-1e4, -90.0, 0.0, 90.0, 1e4, np.inf),
            "mu_p": (0.0, "smallest_normal", 1.0),
            "logvar_p": (-np.inf, -1e4, -90.0, 0.0, 90.0, 1e4),
        },
        peers={
            "numpy": _numpy_kl_normal,
            "numpy_and_grad": _numpy_kl_normal_and_grad,
            "torch": _torch_kl_normal,
        },
    ),
    (
        Bench("kl_normal", "KL of two Gaussians", STANDARD),
        Bench("kl_normal_and_grad", "KL of two Gaussians and gradient", STANDARD),
    ),
    native=True,
)


# KL of Gaussians of full covariance -------------------------------------------------------------


def factors(rng, shape):
    """Cholesky factors, far from singular."""
    dims = shape[-1]
    noise = np.tril(rng.normal(size=shape) * 0.3 / np.sqrt(max(dims, 1)), -1)
    diagonal = np.exp(0.2 * rng.normal(size=shape[:-1]))
    return noise + diagonal[..., None] * np.eye(dims)


def _full_magnitudes(mu_q, tril_q, mu_p, tril_p, reduction="mean"):
    """Of what makes up precision, moments and their products, the absolute values."""
    dims = mu_q.shape[-1]
    q, p = (np.tril(t) for t in (tril_q, tril_p))
    inverse = np.abs(np.linalg.inv(p))
    back = inverse.swapaxes(-1, -2)
    q, p, d = np.abs(q), np.abs(p), np.abs(mu_q - mu_p)[..., None]
    ratio, scaled = inverse @ q, inverse @ d
    log_det = sum(np.abs(np.log(np.diagonal(t, axis1=-2, axis2=-1))).sum(axis=-1) for t in (q, p))
    squares = np.sum(ratio**2, axis=(-2, -1)) + np.sum(scaled**2, axis=(-2, -1))
    rows = np.broadcast_to(0.5 * (squares + dims) + log_det, len(mu_q))
    weight = reference.row_weight(len(mu_q), reduction)
    pull = weight * (back @ scaled)[..., 0]
    spread = ratio @ ratio.swapaxes(-1, -2) + scaled @ scaled.swapaxes(-1, -2)
    ones = [_of_diagonal(1 / np.diagonal(t, axis1=-2, axis2=-1)) for t in (q, p)]
    by_q, by_p = weight * (back @ ratio + ones[0]), weight * (back @ spread + ones[1])
    batch = len(mu_q), dims, dims
    by_q, by_p = np.broadcast_to(by_q, batch), np.broadcast_to(by_p, batch)
    by_q, by_p = (
        by if t.ndim == 3 else by.sum(axis=0) for by, t in ((by_q, tril_q), (by_p, tril_p))
    )
    return reference.reduce_rows(rows, reduction), pull, np.tril(by_q), pull, np.tril(by_p)


def _of_diagonal(a):
    """Matrices with these diagonals."""
    return a[..., None] * np.eye(a.shape[-1])


def _numpy_full_rows(mu_q, tril_q, mu_p, tril_p):
    inverse = np.linalg.inv(tril_p)
    ratio = inverse @ tril_q
    scaled = inverse @ (mu_q - mu_p)[..., None]
    diagonals = [np.diagonal(a, axis1=1, axis2=2) for a in (tril_q, tril_p)]
    log_det = 2 * np.sum(np.log(diagonals[1]) - np.log(diagonals[0]), axis=1)
    squares = np.sum(ratio**2, axis=(1, 2)) + np.sum(scaled**2, axis=(1, 2))
    return 0.5 * (squares - mu_q.shape[1] + log_det), inverse, ratio, scaled


def _numpy_full(*arrays):
    return np.mean(_numpy_full_rows(*arrays)[0])


def _numpy_full_and_grad(mu_q, tril_q, mu_p, tril_p):
    values, inverse, ratio, scaled = _numpy_full_rows(mu_q, tril_q, mu_p, tril_p)
    batch, eye = len(mu_q), np.eye(mu_q.shape[1], dtype=mu_q.dtype)
    transposed = inverse.swapaxes(1, 2)
    pull = (transposed @ scaled)[..., 0] / batch
    spread = ratio @ ratio.swapaxes(1, 2) + scaled @ scaled.swapaxes(1, 2)
    ones = [eye / np.diagonal(a, axis1=1, axis2=2)[..., None] for a in (tril_q, tril_p)]
    by_q = (np.tril(transposed @ ratio) - ones[0]) / batch
    by_p = (ones[1] - np.tril(transposed @ spread)) / batch
    return np.mean(values), pull, by_q, -pull, by_p


def _torch_full(torch, mu_q, tril_q, mu_p, tril_p):
    normal = torch.distributions.MultivariateNormal
    q, p = (normal(m, scale_tril=torch.tril(t)) for m, t in ((mu_q, tril_q), (mu_p, tril_p)))
    return torch.distributions.kl_divergence(q, p).mean()


FULL = {"mu_q": "BL", "tril_q": "BLL", "mu_p": "BL", "tril_p": "BLL"}


def _full_cases(label, inputs, **others):
    return with_and_grad(
        f"kl_full_normal{label}",
        function("kl_full_normal"),
        inputs,
        _full_magnitudes,
        tuple(FULL),
        draws={"tril_q": factors, "tril_p": factors},
        largest="BLLL",
        batched=False,
        **others,
    )


KL_FULL_NORMAL = Row(
    "kl_full_normal",
    (
        *_full_cases(
            "",
            FULL,
            peers={
                "numpy": _numpy_full,
                "numpy_and_grad": _numpy_full_and_grad,
                "torch": _torch_full,
            },
        ),
        *_full_cases("[shared p]", {**FULL, "tril_p": "LL"}),
        *_full_cases("[shared q]", {**FULL, "tril_q": "LL"}),
    ),
    (
        Bench("kl_full_normal", "KL, full covariances", STANDARD),
        Bench("kl_full_normal_and_grad", "KL, full covariances, and gradient", STANDARD),
    ),
)

ROWS = (KL_STANDARD_NORMAL, KL_NORMAL, KL_FULL_NORMAL)
