"""Rows of metrics of latents."""

import numpy as np

from fastelbo._catalogue._row import Bench, Case, Row


def posterior_means(rng, shape):
    """From those of collapsed dimensions to those of dimensions in use."""
    return rng.normal(size=shape) * np.logspace(-3, 0, shape[1])


ACTIVE_UNITS = Row(
    "active_units",
    (
        Case(
            "active_units",
            lambda module, mu, **options: module.active_units(mu, **options),
            {"mu": "BL"},
            lambda mu, **options: 0.0,  # a flag is as it is
            draws={"mu": posterior_means},
            options=({"threshold": 0.3},),
            has_reduction=False,
            batched=False,
            peers={"numpy": lambda mu: np.var(mu, axis=0) > 0.01},
        ),
    ),
    (Bench("active_units", "active units", {"B": 10_000, "L": 20}),),
    "it has no gradient; fastelbo's reads tensors, too",
)

ROWS = (ACTIVE_UNITS,)
