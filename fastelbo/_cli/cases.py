"""What `bench` computes, and fastelbo as one of those who compute it.

A CASE is something to compute: a row of CASES. The others who compute it are in `baselines`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import fastelbo
from fastelbo import _builds, reference
from fastelbo._cli import baselines, mixture_baselines
from fastelbo._cli.aggregate_baselines import DATASET_SIZE
from fastelbo._cli.count_baselines import COUNT_LIKELIHOODS
from fastelbo._cli.likelihood_cases import LIKELIHOODS, likelihood_array

STANDARD = (128, 784, 20)
IN_RAM = (4096, 784, 64)
GENES = (128, 5000, 20)
#: Points, components or other points, latent dimensions.
VAMP = (512, 500, 40)
TWO_SETS = (512, 512, 32)
#: What scvi-tools' epsilons do to a negative binomial.
SCVI_ERROR = 1e-6
MANY_PAIRS = (1024, 64, 32)


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
    of_pairs = any(name in names for names in mixture_baselines.ARRAYS.values())
    make = mixture_baselines.mixture_array if of_pairs else likelihood_array
    return make(name, size=size, dtype=dtype)


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


def _and_grad(function):
    def flat(*arrays):
        value, gradients = function(*arrays)
        return value, *gradients

    return flat


def _likelihood_cases():
    """Two cases for each of LIKELIHOODS."""
    for name, (kind, options, arrays) in LIKELIHOODS.items():
        theirs = getattr(reference, kind)(*options)
        others = SCVI_ERROR if name in COUNT_LIKELIHOODS else 0.0
        label = f"{kind}, {arrays[0].replace('_', ' ')}:" if name in COUNT_LIKELIHOODS else kind
        title = f"{label} log-likelihood"
        yield Case(name, title, arrays, _alone(theirs.log_prob), others=others)
        yield Case(
            f"{name}_and_grad",
            f"{title} and gradient",
            arrays,
            _and_grad(theirs.log_prob_and_grad),
            arrays[1:],
            inherited=4.0 if kind.endswith("Mixture") else 1.0,  # weights of components: as below
            others=others,
        )


def _pair_cases():
    """Two cases for what compares all pairs."""
    for name, title in (("mixture_log_prob", "VampPrior"), ("mmd", "RBF MMD")):
        arrays = mixture_baselines.ARRAYS[name]
        yield Case(name, title, arrays, _alone(getattr(reference, name)), inherited=10.0)
        with_gradient = f"{name}_and_grad"
        yield Case(
            with_gradient,
            f"{title} and gradient",
            arrays,
            _and_grad(getattr(reference, with_gradient)),
            arrays,
            inherited=100.0,  # shares are those of large exponents; means of kernels cancel
        )


def _alone(function):
    return lambda *arrays: (function(*arrays),)


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
            lambda *a: (reference.iwae(*a, likelihood=reference.Bernoulli()),),
            samples=64,
        ),
        Case(
            "iwae_bernoulli_and_grad",
            "Bernoulli IWAE and gradient, K = 64",
            _SAMPLES,
            _and_grad(partial(reference.iwae_and_grad, likelihood=reference.Bernoulli())),
            _SAMPLES[1:],
            samples=64,
            inherited=100.0,  # weights are differences of large log weights
        ),
        Case("reparameterize", "noise and z", _LATENT, lambda *a: (), ("mu",)),
        Case("kl_standard_normal", "KL", _LATENT, lambda *a: (reference.kl_standard_normal(*a),)),
        Case(
            "kl_standard_normal_and_grad",
            "KL and its gradient",
            _LATENT,
            _and_grad(reference.kl_standard_normal_and_grad),
            _LATENT,
        ),
        Case(
            "squared_error",
            "reconstruction",
            ("x", "x_recon"),
            lambda *a: (reference.SquaredError().log_prob(*a),),
        ),
        Case(
            "squared_error_and_grad",
            "reconstruction and its gradient",
            ("x", "x_recon"),
            _and_grad(reference.SquaredError().log_prob_and_grad),
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


# Who computes it --------------------------------------------------------------------------------


class Fastelbo(baselines.Baseline):
    """fastelbo through its public functions."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label = f"fastelbo, {thread_count(threads)}"
        self.rng = np.random.default_rng(0)
        self.options = {"num_threads": threads}

    def elbo(self, x, mu, logvar, x_recon):
        return fastelbo.elbo(x, mu, logvar, x_recon, **self.options)

    def elbo_with_noise(self, x, mu, logvar, x_recon):
        return fastelbo.elbo(x, mu, logvar, x_recon, rng=self.rng, **self.options)

    def elbo_and_grad(self, x, mu, logvar, x_recon):
        return fastelbo.elbo_and_grad(x, mu, logvar, x_recon, **self.options)

    def elbo_and_grad_with_noise(self, x, mu, logvar, x_recon):
        return fastelbo.elbo_and_grad(x, mu, logvar, x_recon, rng=self.rng, **self.options)

    def reparameterize(self, mu, logvar):
        return fastelbo.reparameterize(mu, logvar, rng=self.rng, **self.options)

    def kl_standard_normal(self, mu, logvar):
        return fastelbo.kl_standard_normal(mu, logvar, **self.options)

    def kl_standard_normal_and_grad(self, mu, logvar):
        return fastelbo.kl_standard_normal_and_grad(mu, logvar, **self.options)

    def squared_error(self, x, x_recon):
        return fastelbo.SquaredError().log_prob(x, x_recon, **self.options)

    def squared_error_and_grad(self, x, x_recon):
        return fastelbo.SquaredError().log_prob_and_grad(x, x_recon, **self.options)

    def bind(self, name, arrays):
        base = name.removesuffix("_and_grad")
        if base not in LIKELIHOODS:
            return super().bind(name, arrays)
        kind, options, _ = LIKELIHOODS[base]
        likelihood = getattr(fastelbo, kind)(*options)
        method = likelihood.log_prob if base == name else likelihood.log_prob_and_grad
        return partial(method, *arrays, **self.options)

    def elbo_bernoulli(self, *arrays):
        return fastelbo.elbo(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

    def elbo_bernoulli_and_grad(self, *arrays):
        return fastelbo.elbo_and_grad(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

    def mixture_log_prob(self, *arrays):
        return fastelbo.mixture_log_prob(*arrays, **self.options)

    def mixture_log_prob_and_grad(self, *arrays):
        return fastelbo.mixture_log_prob_and_grad(*arrays, **self.options)

    def mmd(self, *arrays):
        return fastelbo.mmd(*arrays, **self.options)

    def mmd_and_grad(self, *arrays):
        return fastelbo.mmd_and_grad(*arrays, **self.options)

    def iwae_bernoulli(self, *arrays):
        return fastelbo.iwae(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

    def iwae_bernoulli_and_grad(self, *arrays):
        return fastelbo.iwae_and_grad(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

    def beta_tcvae_elbo(self, *arrays):
        result = fastelbo.beta_tcvae_elbo(*arrays, dataset_size=DATASET_SIZE, **self.options)
        return (result.elbo,)

    def beta_tcvae_elbo_and_grad(self, *arrays):
        options = {"dataset_size": DATASET_SIZE, **self.options}
        result, gradients = fastelbo.beta_tcvae_elbo_and_grad(*arrays, **options)
        return result.elbo, *gradients

    def numpy(self, result):
        if isinstance(result, tuple) and result and isinstance(result[0], fastelbo.ElboResult):
            result = result[0].elbo, *result[1]
        elif isinstance(result, fastelbo.ElboResult):
            result = (result.elbo,)
        return super().numpy(_flat(result))


class FastelboOut(Fastelbo):
    """The same, writing gradients into arrays that are used again, as a training loop would."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label += ", out="

    def bind(self, name, arrays):
        if name not in ("elbo_and_grad", "elbo_bernoulli_and_grad", "iwae_bernoulli_and_grad"):
            return None
        self.options["out"] = tuple(np.empty_like(a) for a in arrays[1:])
        return super().bind(name, arrays)


def _flat(tree):
    if not isinstance(tree, tuple):
        return (tree,)
    return tuple(leaf for branch in tree for leaf in _flat(branch))


def thread_count(threads):
    return f"{threads} thread" + "s" * (threads != 1)


class Machine(baselines.Baseline):
    """Memory traffic and nothing else: reads x and x_recon, writes as much as x_recon."""

    def __init__(self, threads, dtype, streamed=False):
        super().__init__(threads, dtype)
        self.streamed = streamed
        self.kernels = _builds.kernels("bandwidth")
        self.label = f"memory traffic alone, {thread_count(threads)}" + ", streamed" * streamed

    def bind(self, name, arrays):
        """The traffic of a case that reads these two arrays."""
        a, b = map(_words, arrays)
        if name == "read":
            return partial(self.kernels.read, a, b, self.threads)
        out = _words(np.zeros_like(arrays[1]))
        return partial(self.kernels.read_and_write, a, b, out, self.streamed, self.threads)


def _words(array):
    """An array's memory as whole 64-bit words; copied to where cache lines start."""
    raw = array.reshape(-1).view(np.uint8)
    room = np.empty(raw.size + 64, np.uint8)
    start = -room.ctypes.data % 64
    whole = raw.size // 8 * 8
    aligned = room[start : start + whole]
    aligned[:] = raw[:whole]
    return aligned.view(np.uint64)
