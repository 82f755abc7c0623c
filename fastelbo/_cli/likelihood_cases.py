"""The likelihoods that `bench` and asv compare: what is evaluated, and on which arrays."""

import numpy as np

from fastelbo._cli.count_baselines import COUNT_LIKELIHOODS, count_array
from fastelbo._cli.likelihood_baselines import BINS, TRIALS

COMPONENTS = 5
CLASSES = 10

#: Class, its arguments, and the names of the arrays in `likelihood_array`; x comes first.
LIKELIHOODS = {
    "gaussian": ("Gaussian", ("learned",), ("x", "x_recon", "log_scale")),
    "bernoulli": ("Bernoulli", (), ("x", "logits")),
    "continuous_bernoulli": ("ContinuousBernoulli", (), ("x", "far_logits")),
    "laplace": ("Laplace", ("learned",), ("x", "x_recon", "log_scale")),
    "student_t": ("StudentT", ("learned", "learned"), ("x", "x_recon", "log_scale", "log_df")),
    "poisson": ("Poisson", (), ("counts", "log_rate")),
    "binomial": ("Binomial", (TRIALS,), ("counts", "logits")),
    "beta_binomial": ("BetaBinomial", (TRIALS,), ("counts", "alpha", "beta")),
    "discretized_logistic": ("DiscretizedLogistic", (), ("pixels", "pixel_mean", "log_scale")),
    "discretized_logistic_mixture": (
        "DiscretizedLogisticMixture",
        (),
        ("pixels", "mixture_logits", "means", "log_scales"),
    ),
    "categorical": ("Categorical", (), ("labels", "class_logits")),
    **COUNT_LIKELIHOODS,
}


def likelihood_array(name, size, dtype):
    """One of the arrays named above that `problem` lacks."""
    batch, event, _ = size
    rng = np.random.default_rng([2026, *name.encode()])
    if any(name in arrays for _, _, arrays in COUNT_LIKELIHOODS.values()):
        return count_array(name, size, dtype, rng)
    shape = (batch, event)
    if name in ("mixture_logits", "means", "log_scales"):
        shape = (batch, COMPONENTS, event)
    elif name == "class_logits":
        shape = (batch, event, CLASSES)
    if name == "counts":
        return rng.binomial(TRIALS, 0.1, shape).astype(dtype)
    if name == "pixels":
        return np.clip(rng.normal(BINS / 2, BINS / 16, shape), 0, BINS - 1).astype(np.uint8)
    if name == "labels":
        return rng.integers(0, CLASSES, shape)
    noise = rng.standard_normal(shape)
    array = {
        "far_logits": 2.0 * noise + np.sign(noise),  # PyTorch's gradient is wrong near 0
        "log_scale": -1.0 + 0.3 * noise,
        "log_df": 1.0 + 0.5 * noise,
        "log_rate": 2.0 + 0.5 * noise,
        "alpha": np.exp(0.5 * noise),
        "beta": np.exp(0.5 * noise),
        "pixel_mean": 0.1 * noise,
        "mixture_logits": noise,
        "means": 0.1 * noise,
        "log_scales": -1.5 + 0.3 * noise,
        "class_logits": 2.0 * noise,
    }[name]
    return array.astype(dtype)
