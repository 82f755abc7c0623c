"""The public functions that `bench` compares as they are: on which arrays, at which size."""

import numpy as np

from fastelbo._cli.aggregate_baselines import DATASET_SIZE, WEIGHTS
from fastelbo._cli.mixture_baselines import EXPERTS
from fastelbo._cli.sizes import LOG_WEIGHTS, MANY_PAIRS, STANDARD, VAMP

SAMPLES = 64
_SAMPLES = ("x", "z", "mu", "logvar", "logits of z")
_POINTS = ("z of q", "mu", "logvar")
_EXPERTS = ("experts", "logvar of experts")
_SIZE = ("batch", "event", "latent")

#: {size: {name: (title, arrays)}}; f stands for f_and_grad as well, where there is one.
FUNCTIONS = {
    STANDARD: {
        "elbo_from_buffers": ("value from buffers", ("x", "mu", "logvar", "x_recon", *_SIZE)),
        "reparameterize_kl": ("noise, z and KL", ("mu", "logvar")),
        "reparameterize_backward": ("back through z", ("grad_z", "mu", "logvar", "z of q")),
        "kl_normal": ("KL of two Gaussians", ("mu", "logvar", "mu of p", "logvar of p")),
        "kl_full_normal": ("KL, full covariances", ("mu", "tril", "mu of p", "tril of p")),
        "log_weights": (f"log weights, K = {SAMPLES}", _SAMPLES),
        "iwae": (f"IWAE, K = {SAMPLES}", _SAMPLES),
        "product_of_experts": ("product of experts", _EXPERTS),
        "product_of_experts_backward": (
            "product of experts, backward",
            ("grad_mu", "grad_logvar", *_EXPERTS),
        ),
        "mixture_of_experts": ("mixture of experts", ("z of q", *_EXPERTS)),
        "mopoe": ("MoPoE", _EXPERTS),
        "mopoe_backward": ("MoPoE, backward", ("grad_mu of all", "grad_logvar of all", *_EXPERTS)),
    },
    LOG_WEIGHTS: {
        "importance_bound": ("importance bound", ("log_w",)),
        "streaming_bound": ("importance bound of a stream", ("log_w",)),
        "cubo": ("CUBO", ("log_w",)),
        "vimco": ("VIMCO", ("log_w",)),
        "reinforce": ("REINFORCE", ("log_w",)),
        "effective_sample_size": ("effective sample size", ("log_w",)),
        "normalized_weights": ("normalised weights", ("log_w",)),
    },
    VAMP: {
        "standard_normal": ("standard normal prior", ("points",)),
        "mixture_of_gaussians": (
            "mixture of Gaussians as a prior",
            ("points", "log_weights", "components", "log_variances"),
        ),
        "vamp_prior": ("VampPrior as a prior", ("points", "components", "log_variances")),
    },
    MANY_PAIRS: {
        "total_correlation": ("total correlation", _POINTS),
        "aggregate_posterior_log_density": ("aggregate posterior", _POINTS),
    },
}
ARRAYS = {name: arrays for table in FUNCTIONS.values() for name, (_, arrays) in table.items()}
#: Those that are classes with a log_prob.
PRIORS = {
    "standard_normal": "StandardNormal",
    "mixture_of_gaussians": "MixtureOfGaussians",
    "vamp_prior": "VampPrior",
}
#: What else is given to fastelbo and to the reference; the baselines have it written in.
OPTIONS = {
    "total_correlation": {"dataset_size": DATASET_SIZE},
    "total_correlation_and_grad": {"dataset_size": DATASET_SIZE, "weights": WEIGHTS},
}
#: How much larger than rounding an error may be: shares are those of large exponents.
INHERITED = {
    "iwae_and_grad": 100.0,
    "mixture_of_experts_and_grad": 10.0,
    "mixture_of_gaussians_and_grad": 10.0,
    "vamp_prior_and_grad": 10.0,
}


def function_array(name, size, dtype):
    """One of the arrays named above that `problem` lacks."""
    batch, event, latent = size
    if name in _SIZE:
        return np.array(size[_SIZE.index(name)])
    rng = np.random.default_rng([2026, *name.encode()])
    if name == "log_w":
        return rng.normal(-90, 3, (max(event, 4), batch)).astype(dtype)
    several = EXPERTS if name.endswith("experts") else 2**EXPERTS - 1
    shape = (several,) if name.endswith(("experts", "of all")) else ()
    array = rng.standard_normal((*shape, batch, latent))
    if name.startswith("tril"):
        below = np.tril(0.1 * rng.standard_normal((batch, latent, latent)), -1)
        return (below + np.exp(0.3 * array)[..., None] * np.eye(latent)).astype(dtype)
    return (array * (0.5 if name.startswith("logvar") else 1.0)).astype(dtype)
