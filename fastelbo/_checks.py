"""The checks of arguments that kernels make, for arrays that no kernel sees: the same code.

What is checked is shapes and dtypes, by arrays that stand in for others and have memory for a
single row. By the name of a function, `CHECKS` has the check of its arrays and options.
"""

import numpy as np

from fastelbo import (
    _arrays,
    aggregate,
    bounds,
    discrepancies,
    discrete_divergences,
    divergences,
    full_normal,
    importance,
    semi_supervised,
)
from fastelbo.mixtures import Components
from fastelbo.posterior import check_points, noise_source, shape_of_samples


def stand_in(shape, dtype):
    """An array that reads like those of this shape and dtype."""
    return np.broadcast_to(np.zeros(shape[-1:], dtype), shape)


def elbo(likelihood, x, mu, logvar, outputs, mask):
    if len(outputs) != len(likelihood.parameters):
        likelihood._miscounted(outputs)
    data, *_ = _arrays.problem(x, outputs, likelihood.parameters, mu, logvar, likelihood._layout)
    if mask is not None:
        _arrays.as_mask(mask, data)


def samples(mu, logvar, rng, noise, count):
    """Of what is to be drawn, `count` times."""
    mu, _ = _arrays.latents(mu, logvar)
    shape = shape_of_samples(mu, count)
    if noise is not None:
        noise_source(rng, noise, shape, mu.dtype.itemsize == 4)


def iwae(likelihood, x, z, mu, logvar, outputs, mask):
    importance._Problem(x, z, mu, logvar, outputs, likelihood, None, mask, None)


CHECKS = {
    "kl_standard_normal": lambda mu, logvar, **options: _arrays.latents(mu, logvar),
    "kl_normal": lambda *arrays, **options: divergences.pairs(arrays),
    "kl_full_normal": lambda *arrays, **options: full_normal.checked_shapes(arrays),
    "importance_bound": lambda log_w, **options: bounds.as_log_weights(log_w),
    "vimco": bounds._several,
    "reinforce": lambda log_w, baseline: bounds.of_baseline(log_w, baseline),
    "effective_sample_size": bounds.as_log_weights,
    "normalized_weights": bounds.as_log_weights,
    "posterior_log_prob": lambda *arrays, **options: check_points(*arrays),
    "kl_categorical": lambda logits, prior, **options: discrete_divergences.checked_pair(
        logits, prior, True
    ),
    "kl_bernoulli": lambda logits, prior, **options: discrete_divergences.checked_pair(
        logits, prior, False
    ),
    "m2_elbo": semi_supervised.checked_classes,
    "mmd": lambda z, y, kernel, bandwidth, estimator: discrepancies._Problem(
        z, y, kernel, bandwidth, estimator, None
    ),
    "mixture_log_prob": lambda z, *arrays, **options: Components(*arrays).points(z),
    "total_correlation": lambda *arrays, **options: aggregate._decompose(
        arrays, **options, num_threads=None
    ),
}
