"""What `bench` computes: a CASE is something to compute, a row of CASES.

Who computes it is in `contenders` and `baselines`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastelbo import reference
from fastelbo._cli import function_cases, mixture_baselines
from fastelbo._cli._common import flat
from fastelbo._cli.aggregate_baselines import DATASET_SIZE
from fastelbo._cli.count_baselines import COUNT_LIKELIHOODS
from fastelbo._cli.function_cases import FUNCTIONS
from fastelbo._cli.likelihood_cases import LIKELIHOODS, likelihood_array
from fastelbo._cli.sizes import GENES, IN_RAM, MANY_PAIRS, STANDARD, TWO_SETS, VAMP

#: What scvi-tools' epsilons do to a negative binomial.
SCVI_ERROR = 1e-6


# What is computed -------------------------------------------------------------------------------


def problem(size, dtype, samples=0):
    """The arrays that cases take their arguments from, by name; with K samples z and its logits."""
    batch, event, latent = size
    rng = np.random.default_rng(2026)

    def normal(cols, scale, rows=(batch,)):
        return (scale * rng.standard_normal((*rows, cols))).astype(dtype)

    x = rng.random((batch, event)).astype(dtype)
    arrays = _Arrays(
        x=x,
        mu=normal(latent, 1.0),
        logvar=normal(latent, 0.5),
        x_recon=(x + normal(event, 0.3)).astype(dtype),
        logits=normal(event, 2.0),
    )
    if samples:
        noise = normal(latent, 1.0, (samples, batch))
        arrays["z"] = arrays["mu"] + np.exp(0.5 * arrays["logvar"]) * noise
        arrays["logits of z"] = arrays["logits"] + normal(event, 0.05, (samples, batch))
    arrays["z of q"] = arrays["mu"] + np.exp(0.5 * arrays["logvar"]) * normal(latent, 1.0)
    arrays.rest = partial(_rest, size=size, dtype=dtype)
    return arrays


def _rest(name, size, dtype):
    for arrays, make in (
        (mixture_baselines.ARRAYS, mixture_baselines.mixture_array),
        (function_cases.ARRAYS, function_cases.function_array),
    ):
        if any(name in names for names in arrays.values()):
            return make(name, size, dtype)
    return likelihood_array(name, size, dtype)


class _Arrays(dict):
    """Arrays by name; those that few cases want are made when one does."""

    def __missing__(self, name):
        self[name] = self.rest(name)
        return self[name]


@dataclass(frozen=True)
class Case:
    """One row of this table is all that a new comparison needs, besides the baselines' methods."""

    name: str  # the method of every contender
    title: str
    arguments: tuple[str, ...]  # names of arrays in `problem`
    reference: Callable  # arrays -> the results to check, in order
    written: tuple[str, ...] = ()  # arrays as large as these are written
    samples: int = 0  # K, of z
    inherited: float = 1.0  # how much larger than rounding an error may be
    others: float = 0.0  # an error that the formula of the others has by itself


def _value(function, **options):
    return lambda *arrays: (function(*arrays, **options)[0],)


def _elbo_and_grad(*arrays, **options):
    result, gradients = reference.elbo_and_grad(*arrays, **options)
    return result[0], *gradients


def _tcvae_and_grad(*arrays):
    result, gradients = reference.beta_tcvae_elbo_and_grad(*arrays, dataset_size=DATASET_SIZE)
    return result[0], *gradients


def _flat(function):
    return lambda *arrays: flat(function(*arrays))


def _likelihood_cases():
    """Two cases for each of LIKELIHOODS."""
    for name, (kind, options, arrays) in LIKELIHOODS.items():
        theirs = getattr(reference, kind)(*options)
        others = SCVI_ERROR if name in COUNT_LIKELIHOODS else 0.0
        label = f"{kind}, {arrays[0].replace('_', ' ')}:" if name in COUNT_LIKELIHOODS else kind
        title = f"{label} log-likelihood"
        yield Case(name, title, arrays, _flat(theirs.log_prob), others=others)
        yield Case(
            f"{name}_and_grad",
            f"{title} and gradient",
            arrays,
            _flat(theirs.log_prob_and_grad),
            arrays[1:],
            inherited=4.0 if kind.endswith("Mixture") else 1.0,  # weights of components: as below
            others=others,
        )


def _pair_cases():
    """Two cases for what compares all pairs."""
    for name, title in (("mixture_log_prob", "VampPrior"), ("mmd", "RBF MMD")):
        arrays = mixture_baselines.ARRAYS[name]
        yield Case(name, title, arrays, _flat(getattr(reference, name)), inherited=10.0)
        yield Case(
            f"{name}_and_grad",
            f"{title} and gradient",
            arrays,
            _flat(getattr(reference, f"{name}_and_grad")),
            arrays,
            inherited=100.0,  # shares are those of large exponents; means of kernels cancel
        )


def _reference_of(name):
    """The reference's function, or a prior's density as a function of z and its parameters."""
    base = name.removesuffix("_and_grad")
    if name == "reparameterize_kl":
        return lambda *arrays: (None, reference.kl_standard_normal(*arrays))
    if name == "streaming_bound":
        return reference.importance_bound
    if base not in function_cases.PRIORS:
        options = function_cases.OPTIONS.get(name, {})
        return partial(getattr(reference, name), **options)
    kind = getattr(reference, function_cases.PRIORS[base])
    method = "log_prob" if name == base else "log_prob_and_grad"
    return lambda z, *parameters: getattr(kind(*parameters), method)(z)


def _function_cases():
    """A case for each of FUNCTIONS, and for its gradient."""
    for table in FUNCTIONS.values():
        for base, (title, arrays) in table.items():
            for name in with_gradient(base):
                yield Case(
                    name,
                    title + " and gradient" * (name != base),
                    arrays,
                    _flat(_reference_of(name)),
                    samples=function_cases.SAMPLES if "z" in arrays else 0,
                    inherited=function_cases.INHERITED.get(name, 1.0),
                )


def with_gradient(base):
    """The name of a function, and that of its gradient where it has one."""
    has_one = base in function_cases.PRIORS or hasattr(reference, f"{base}_and_grad")
    return (base, f"{base}_and_grad") if has_one else (base,)


_ELBO = ("x", "mu", "logvar", "x_recon")
_ELBO_BERNOULLI = ("x", "mu", "logvar", "logits")
_LATENT = ("mu", "logvar")
_TCVAE = ("x", "z of q", "mu", "logvar", "x_recon")
_GRADIENTS = ("mu", "logvar", "x_recon")
_SAMPLES = ("x", "z", "mu", "logvar", "logits of z")

CASES = {
    case.name: case
    for case in (
        Case("elbo_with_noise", "value, noise and z", _ELBO, _value(reference.elbo), ("mu",)),
        Case("elbo", "value", _ELBO, _value(reference.elbo)),
        Case(
            "elbo_and_grad_with_noise",
            "value, gradient, noise and z",
            _ELBO,
            _elbo_and_grad,
            ("mu", *_GRADIENTS),
        ),
        Case("elbo_and_grad", "value and gradient", _ELBO, _elbo_and_grad, _GRADIENTS),
        Case(
            "elbo_bernoulli",
            "Bernoulli ELBO",
            _ELBO_BERNOULLI,
            _value(reference.elbo, likelihood=reference.Bernoulli()),
        ),
        Case(
            "elbo_bernoulli_and_grad",
            "Bernoulli ELBO and gradient",
            _ELBO_BERNOULLI,
            partial(_elbo_and_grad, likelihood=reference.Bernoulli()),
            _ELBO_BERNOULLI[1:],
        ),
        Case(
            "iwae_bernoulli",
            "Bernoulli IWAE, K = 64",
            _SAMPLES,
            _flat(partial(reference.iwae, likelihood=reference.Bernoulli())),
            samples=64,
        ),
        Case(
            "iwae_bernoulli_and_grad",
            "Bernoulli IWAE and gradient, K = 64",
            _SAMPLES,
            _flat(partial(reference.iwae_and_grad, likelihood=reference.Bernoulli())),
            _SAMPLES[1:],
            samples=64,
            inherited=100.0,  # weights are differences of large log weights
        ),
        Case("reparameterize", "noise and z", _LATENT, lambda *a: (), ("mu",)),
        Case("kl_standard_normal", "KL", _LATENT, _flat(reference.kl_standard_normal)),
        Case(
            "kl_standard_normal_and_grad",
            "KL and its gradient",
            _LATENT,
            _flat(reference.kl_standard_normal_and_grad),
            _LATENT,
        ),
        Case(
            "squared_error",
            "reconstruction",
            ("x", "x_recon"),
            _flat(reference.SquaredError().log_prob),
        ),
        Case(
            "squared_error_and_grad",
            "reconstruction and its gradient",
            ("x", "x_recon"),
            _flat(reference.SquaredError().log_prob_and_grad),
            ("x_recon",),
        ),
        Case(
            "beta_tcvae_elbo",
            "beta-TCVAE",
            _TCVAE,
            _value(partial(reference.beta_tcvae_elbo, dataset_size=DATASET_SIZE)),
        ),
        Case(
            "beta_tcvae_elbo_and_grad",
            "beta-TCVAE and gradient",
            _TCVAE,
            _tcvae_and_grad,
            _TCVAE[1:],
            inherited=10.0,  # so do the shares of the points
        ),
        *_likelihood_cases(),
        *_pair_cases(),
        *_function_cases(),
    )
}

#: (size, cases) of the tables that are always shown.
MAIN = (
    (STANDARD, ("elbo_with_noise", "elbo", "elbo_and_grad_with_noise", "elbo_and_grad")),
    (IN_RAM, ("elbo", "elbo_and_grad")),
)
EXTRA = (
    (
        STANDARD,
        tuple(
            name + kind
            for name in LIKELIHOODS
            if name not in COUNT_LIKELIHOODS
            for kind in ("", "_and_grad")
        ),
    ),
    (GENES, tuple(f"{name}_and_grad" for name in COUNT_LIKELIHOODS)),
    (STANDARD, ("elbo_bernoulli", "elbo_bernoulli_and_grad")),
    (STANDARD, ("iwae_bernoulli", "iwae_bernoulli_and_grad")),
    (VAMP, ("mixture_log_prob", "mixture_log_prob_and_grad")),
    (TWO_SETS, ("mmd", "mmd_and_grad")),
    (MANY_PAIRS, ("beta_tcvae_elbo", "beta_tcvae_elbo_and_grad")),
    *(
        (size, tuple(name for base in table for name in with_gradient(base)))
        for size, table in FUNCTIONS.items()
    ),
)
#: A whole and the stages it consists of: the profile.
STAGES = {
    "elbo_with_noise": ("reparameterize", "kl_standard_normal", "squared_error"),
    "elbo_and_grad_with_noise": (
        "reparameterize",
        "kl_standard_normal_and_grad",
        "squared_error_and_grad",
    ),
}
