"""Who computes the cases of `bench` besides the `baselines`: fastelbo, and memory traffic."""

import inspect
from functools import partial

import numpy as np

import fastelbo
from fastelbo import _builds
from fastelbo._cli import baselines
from fastelbo._cli._common import flat
from fastelbo._cli.aggregate_baselines import DATASET_SIZE
from fastelbo._cli.function_cases import OPTIONS, PRIORS
from fastelbo._cli.likelihood_cases import LIKELIHOODS


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

    def squared_error(self, x, x_recon):
        return fastelbo.SquaredError().log_prob(x, x_recon, **self.options)

    def squared_error_and_grad(self, x, x_recon):
        return fastelbo.SquaredError().log_prob_and_grad(x, x_recon, **self.options)

    def bind(self, name, arrays):
        if hasattr(self, name):
            return super().bind(name, arrays)
        base = name.removesuffix("_and_grad")
        method = "log_prob" if base == name else "log_prob_and_grad"
        if base in LIKELIHOODS:
            kind, options, _ = LIKELIHOODS[base]
            function = getattr(getattr(fastelbo, kind)(*options), method)
        elif base in PRIORS:
            first, *parameters = arrays
            function = getattr(getattr(fastelbo, PRIORS[base])(*parameters), method)
            arrays = [first]
        else:
            function = partial(getattr(fastelbo, name), **OPTIONS.get(name, {}))
        options = self.options if _takes_threads(function) else {}
        return partial(function, *arrays, **options)

    def reparameterize_kl(self, mu, logvar):
        return fastelbo.reparameterize_kl(mu, logvar, rng=self.rng, **self.options)

    def streaming_bound(self, log_w):
        stream = fastelbo.StreamingBound(**self.options)
        for chunk in np.array_split(log_w, 4):
            stream.update(chunk)
        return stream.bound()

    def elbo_bernoulli(self, *arrays):
        return fastelbo.elbo(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

    def elbo_bernoulli_and_grad(self, *arrays):
        return fastelbo.elbo_and_grad(*arrays, likelihood=fastelbo.Bernoulli(), **self.options)

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
        return super().numpy(flat(result))


def _takes_threads(function):
    """False for what LAPACK or NumPy compute."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == "num_threads" or p.kind is p.VAR_KEYWORD for p in parameters)


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
