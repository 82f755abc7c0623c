"""What `bench` computes, and fastelbo as one of those who compute it.

A CASE is something to compute: a row of CASES. The others who compute it are in `baselines`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import fastelbo
from fastelbo import _builds, reference
from fastelbo._cli import baselines

STANDARD = (128, 784, 20)
IN_RAM = (4096, 784, 64)


# What is computed -------------------------------------------------------------------------------


def problem(size, dtype):
    """The arrays that cases take their arguments from, by name."""
    batch, event, latent = size
    rng = np.random.default_rng(2026)

    def normal(cols, scale):
        return (scale * rng.standard_normal((batch, cols))).astype(dtype)

    x = rng.random((batch, event)).astype(dtype)
    return {
        "x": x,
        "mu": normal(latent, 1.0),
        "logvar": normal(latent, 0.5),
        "x_recon": (x + normal(event, 0.3)).astype(dtype),
        "logits": normal(event, 2.0),
    }


@dataclass(frozen=True)
class Case:
    """One row of this table is all that a new comparison needs, besides the baselines' methods."""

    name: str  # the method of every contender
    title: str
    arguments: tuple[str, ...]  # names of arrays in `problem`
    reference: Callable  # arrays -> the results to check, in order
    written: tuple[str, ...] = ()  # arrays as large as these are written


def _value(function):
    return lambda *arrays: (function(*arrays)[0],)


def _elbo_and_grad(*arrays):
    result, gradients = reference.elbo_and_grad(*arrays)
    return result[0], *gradients


def _and_grad(function):
    def flat(*arrays):
        value, gradients = function(*arrays)
        return value, *gradients

    return flat


_ELBO = ("x", "mu", "logvar", "x_recon")
_LATENT = ("mu", "logvar")
_GRADIENTS = ("mu", "logvar", "x_recon")

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
            "bernoulli",
            "Bernoulli log-likelihood",
            ("x", "logits"),
            lambda *a: (reference.Bernoulli().log_prob(*a),),
        ),
        Case(
            "bernoulli_and_grad",
            "Bernoulli log-likelihood and gradient",
            ("x", "logits"),
            _and_grad(reference.Bernoulli().log_prob_and_grad),
            ("logits",),
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
    )
}

#: (size, cases) of the tables that are always shown.
MAIN = (
    (STANDARD, ("elbo_with_noise", "elbo", "elbo_and_grad_with_noise", "elbo_and_grad")),
    (IN_RAM, ("elbo", "elbo_and_grad")),
)
EXTRA = ((STANDARD, ("bernoulli", "bernoulli_and_grad")),)
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

    def bernoulli(self, x, logits):
        return fastelbo.Bernoulli().log_prob(x, logits, **self.options)

    def bernoulli_and_grad(self, x, logits):
        return fastelbo.Bernoulli().log_prob_and_grad(x, logits, **self.options)

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
        if name != "elbo_and_grad":
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
