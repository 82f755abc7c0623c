"""Rows of what is searched for: the best posterior of each x, through a linear decoder.

It is compared by its ELBO, which is flat there: of where it lies a search knows half of the digits.
"""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row

DATA = {"x": "BD", "mu": "BL", "logvar": "BL"}
FEATURES = {"D": (6,)}
NO_GRADIENT = (
    "nothing is differentiated through the search; it takes modules and tensors as they are"
)
#: What is drawn to judge a gap: 64 times at least, about as often as the last three letters count.
DRAWN = "BLLSEC"
#: Steps that end everywhere.
ENOUGH = 400


def moderate(rng, shape):
    """Weights that z does not grow by, so that gradient ascent ends, too."""
    return rng.normal(size=shape) / np.sqrt(shape[0])


def pairs(rng, shape):
    """Draws and their opposites, of which mu and sigma are found apart."""
    half = rng.normal(size=(shape[0] // 2, *shape[1:]))
    return np.concatenate([half, -half, np.zeros((shape[0] % 2, *shape[1:]))])


def linear(weights):
    """z -> z W, and its way back."""
    flat = np.asarray(weights)
    return lambda z: (z @ flat, lambda by_x: by_x @ flat.T)


def _size(x, mu, logvar, weights, spread):
    """Of the ELBO where the search begins: squared errors, the constants, the KL.

    Twice, since the search ends where rounding of that hides what is left.
    """
    mean, spread = np.abs(mu) @ np.abs(weights), spread @ np.abs(weights)
    errors = (np.abs(x) + mean + spread) ** 2 + 2
    return 2 * (errors.sum(axis=1) + reference.kl_standard_normal(mu, logvar, reduction="none"))


def _given_magnitudes(x, mu, logvar, noise, weights, **options):
    spread = np.exp(logvar / 2) * np.abs(noise).max(axis=0)
    return (_size(x, mu, logvar, weights, spread),)


def _gap_magnitudes(x, mu, logvar, weights, reduction="mean"):
    spread = np.sqrt(mu.shape[1]) * np.exp(logvar / 2)
    return (reference.reduce_rows(_size(x, mu, logvar, weights, spread), reduction),)


def _generalization_magnitudes(*arrays):
    train, test = (_gap_magnitudes(*data, arrays[-1])[0] for data in (arrays[:3], arrays[3:6]))
    return train, test, train + test


def _options(module, options):
    return {"likelihood": module.Gaussian(1.0), "steps": ENOUGH, **options}


def _searched(search=True, **options):
    """Of how many steps only none and enough have an outcome that is known beforehand."""
    return options if search else {"steps": 0, **options}


def _refined(module, x, mu, logvar, noise, weights, **options):
    decoder, options = linear(weights), _options(module, _searched(**options))
    return (module.refine_posterior(decoder, x, mu, logvar, noise=noise, **options)[2],)


def _gap(module, x, mu, logvar, weights, **options):
    options = _options(module, {"rng": 0, **options})
    return module.amortization_gap(linear(weights), x, mu, logvar, **options)


def _generalization(module, *arrays, **options):
    decoder, data = linear(arrays[-1]), (arrays[:3], arrays[3:6])
    options = _options(module, {"rng": 0, **options})
    return tuple(module.generalization_gap(decoder, *data, **options))


ROWS = (
    Row(
        "refine_posterior",
        (
            Case(
                "refine_posterior",
                _refined,
                {**DATA, "noise": "KBL", "weights": "LD"},
                _given_magnitudes,
                draws={"noise": pairs, "weights": moderate},
                options=({"search": False}, {"beta": 2.0}, {"beta": 1e300}),
                fixed=FEATURES,
                has_reduction=False,
                batched=False,
            ),
        ),
        (Bench("refine_posterior", "posteriors of a linear decoder", {"B": 128, "L": 10}),),
        untwinned=NO_GRADIENT,
    ),
    Row(
        "amortization_gap",
        (
            Case(
                "amortization_gap",
                _gap,
                {**DATA, "weights": "LD"},
                _gap_magnitudes,
                draws={"weights": moderate},
                fixed=FEATURES,
                batched=False,
                largest=DRAWN,
            ),
        ),
        (Bench("amortization_gap", "gap of a linear decoder", {"B": 128, "L": 10}),),
        untwinned=NO_GRADIENT,
    ),
    Row(
        "generalization_gap",
        (
            Case(
                "generalization_gap",
                _generalization,
                {
                    **{f"{name}_train": axes for name, axes in DATA.items()},
                    **{"x_test": "ND", "mu_test": "NL", "logvar_test": "NL", "weights": "LD"},
                },
                _generalization_magnitudes,
                draws={"weights": moderate},
                fixed=FEATURES,
                has_reduction=False,
                batched=False,
                largest=DRAWN,
            ),
        ),
        (Bench("generalization_gap", "gaps of a linear decoder", {"B": 128, "L": 10}),),
        untwinned=NO_GRADIENT,
    ),
)
