"""Rows of likelihoods of times until an event."""

import numpy as np

from fastelbo._catalogue.likelihoods import Variant, positive, row_of

SEEN = (True, True, False, True, False, False, True)


def _sizes(scale, concentration):
    """What cancels, with fixed parameters or None for those of the decoder."""

    def parts(x, *given):
        k = given[-1] if concentration is None else concentration
        s = given[0] if scale is None else scale
        log_ratio = np.log(x) - np.log(s)
        z = k * log_ratio
        pull = 1 + (1 + np.abs(z)) * np.exp(z)  # a power inherits the rounding of its logarithm
        return s, k, log_ratio, pull

    def of_value(x, *given):
        s, k, log_ratio, pull = parts(x, *given)
        return np.abs(np.log(k)) + np.abs(np.log(s)) + np.abs((k - 1) * log_ratio) + pull

    def of_scale(x, *given):
        s, k, _, pull = parts(x, *given)
        return k / s * pull

    def of_concentration(x, *given):
        _, k, log_ratio, pull = parts(x, *given)
        return 1 / k + np.abs(log_ratio) * pull

    learned = (of_scale,) * (scale is None) + (of_concentration,) * (concentration is None)
    return of_value, learned


def times(rng, shape):
    return rng.weibull(1.5, shape)


def _weibull(label, scale=None, concentration=None, **others):
    fixed = {"scale": scale, "concentration": concentration}
    learned = {name: "BD" for name, value in fixed.items() if value is None}
    draws = {"x": times, "scale": positive, "concentration": positive}
    extremes = {
        "x": (0.0, 1e-6, 0.5, 1.0, 1.001, 30.0),
        "scale": (0.05, 0.5, 1.0, 100.0),
        "concentration": (0.1, 1.0, 2.5, 8.0),
    }
    of_value, sizes = _sizes(scale, concentration)
    return Variant(
        label,
        "Weibull",
        (scale, concentration),
        learned,
        of_value,
        sizes,
        draws=draws,
        extremes={name: extremes[name] for name in ("x", *learned)},
        **others,
    )


def _torch_weibull(torch, x, scale, k):
    return torch.log(k / scale) + (k - 1) * torch.log(x / scale) - (x / scale) ** k


WEIBULLS = (
    _weibull(
        "Weibull",
        peers={
            "numpy": lambda x, s, k: np.log(k / s) + (k - 1) * np.log(x / s) - (x / s) ** k,
            "scipy": lambda stats, x, s, k: stats.weibull_min.logpdf(x, k, scale=s),
            "torch": _torch_weibull,
        },
    ),
    _weibull(
        "Weibull-scale",
        concentration=1.7,
        peers={"scipy": lambda stats, x, s: stats.weibull_min.logpdf(x, 1.7, scale=s)},
    ),
    _weibull("Weibull-concentration", scale=3.0),
    _weibull("Weibull-censored", options={"observed": SEEN}, fixed={"D": (7,)}),
)
VARIANTS = WEIBULLS
ROWS = (row_of("Weibull", *WEIBULLS),)
