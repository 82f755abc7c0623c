"""What every suite measures: the time of a call, the peak memory, the ratio to NumPy.

Arrays are made in ``setup``, thread counts are explicit, and NumPy's side is the code that users
write, from ``fastelbo._cli.baselines``.
"""

import os
import time
from functools import partial

import numpy as np

import fastelbo
from fastelbo._cli.baselines import NumPy
from fastelbo._cli.cases import problem as arrays_of
from fastelbo._cli.likelihood_cases import LIKELIHOODS

#: name: (batch, event, latent). What a call reads in float64 fits in L1 or in L2, or in neither;
#: "vae" is the minibatch of a VAE on MNIST.
SIZES = {
    "L1": (8, 128, 16),
    "L2": (64, 512, 32),
    "vae": (128, 784, 20),
    "RAM": (4096, 784, 64),
}
#: Those that are run: FASTELBO_ASV_SIZES=L1 FASTELBO_ASV_THREADS=2 shows that everything works.
RUN = os.environ.get("FASTELBO_ASV_SIZES", ",".join(SIZES)).split(",")
#: Samples z of each x, where there are several.
SAMPLES = {"L1": 8, "L2": 8, "vae": 64, "RAM": 4}
DTYPES = ["float64", "float32"]
THREADS = [int(n) for n in os.environ.get("FASTELBO_ASV_THREADS", "1,2").split(",")]


def latents(size, dtype):
    """(mu, logvar)."""
    batch, _, latent = SIZES[size]
    rng = np.random.default_rng(0)
    mu, logvar = rng.standard_normal((2, batch, latent))
    return mu.astype(dtype), (0.5 * logvar).astype(dtype)


def data(size, dtype):
    """(x, x_recon), x in [0, 1]."""
    batch, event, _ = SIZES[size]
    rng = np.random.default_rng(1)
    x = rng.random((batch, event))
    return x.astype(dtype), (x + 0.3 * rng.standard_normal(x.shape)).astype(dtype)


def problem(size, dtype):
    """(x, mu, logvar, x_recon)."""
    x, x_recon = data(size, dtype)
    mu, logvar = latents(size, dtype)
    return x, mu, logvar, x_recon


def samples(size, dtype):
    """(x, z, mu, logvar, logits), z (K, B, L) and logits (K, B, D)."""
    x, mu, logvar, _ = problem(size, dtype)
    rng = np.random.default_rng(2)
    several = SAMPLES[size], len(x)
    z = mu + np.exp(0.5 * logvar) * rng.standard_normal((*several, mu.shape[1])).astype(dtype)
    return x, z, mu, logvar, rng.standard_normal((*several, x.shape[1])).astype(dtype)


def log_weights(size, dtype):
    """(log_w,), as many of each x as it has features, up to 128."""
    batch, event, _ = SIZES[size]
    rng = np.random.default_rng(3)
    return (rng.normal(-90.0, 3.0, (min(event, 128), batch)).astype(dtype),)


#: Points, components, latent dimensions; "vae" is a VampPrior's.
PAIRS = {"L1": (64, 16, 16), "L2": (256, 64, 32), "vae": (512, 500, 40), "RAM": (1024, 1024, 64)}
EXPERTS = 3


def points(size, dtype):
    """(z, mu, logvar), z (N, L), mu and logvar (K, L)."""
    n, components, latent = PAIRS[size]
    rng = np.random.default_rng(4)
    z, mu, logvar = (rng.standard_normal((rows, latent)) for rows in (n, components, components))
    return z.astype(dtype), mu.astype(dtype), (0.5 * logvar).astype(dtype)


def experts(size, dtype):
    """(mu, logvar), each (EXPERTS, B, L)."""
    batch, _, latent = SIZES[size]
    mu, logvar = np.random.default_rng(5).standard_normal((2, EXPERTS, batch, latent))
    return mu.astype(dtype), logvar.astype(dtype)


def ratio(theirs, ours):
    """The best time of one call over that of the other, the two taking turns."""
    best = dict.fromkeys((ours, theirs), np.inf)
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        for call in best:
            call()
            start = time.perf_counter()
            call()
            best[call] = min(best[call], time.perf_counter() - start)
    return best[theirs] / best[ours]


#: Of counts: "vae" is the minibatch of a single-cell model.
COUNT_SIZES = {**SIZES, "vae": (128, 5000, 20)}


class _Suite:
    """Subclasses give `call` (fastelbo's), `baseline` (the method of NumPy) and `arrays`.

    Its underscore keeps asv from running it by itself.
    """

    params = (RUN, DTYPES, THREADS)
    param_names = ("size", "dtype", "threads")
    baseline = ""

    @staticmethod
    def arrays(size, dtype):
        """The arguments of both sides."""
        return problem(size, dtype)

    def call(self, *arrays, num_threads):
        raise NotImplementedError

    def setup(self, size, dtype="float64", threads=THREADS[-1]):
        self.dtype = dtype
        self.threads = threads
        self.arguments = self.arrays(size, dtype)
        self.call(*self.arguments, num_threads=threads)

    def time_call(self, size, dtype, threads):
        self.call(*self.arguments, num_threads=threads)

    def peakmem_call(self, size):
        self.call(*self.arguments, num_threads=self.threads)

    peakmem_call.params = (RUN,)
    peakmem_call.param_names = ("size",)

    def track_ratio_vs_numpy(self, size, dtype):
        """NumPy's best time over fastelbo's on THREADS[-1] threads, the two taking turns."""
        numpy = partial(getattr(NumPy(1, dtype), self.baseline), *self.arguments)
        return ratio(numpy, partial(self.call, *self.arguments, num_threads=self.threads))

    track_ratio_vs_numpy.unit = "x"
    track_ratio_vs_numpy.params = (RUN, DTYPES)
    track_ratio_vs_numpy.param_names = ("size", "dtype")


class _Likelihood(_Suite):
    """A likelihood of LIKELIHOODS, on the arrays that `bench` takes; subclasses give `baseline`."""

    sizes = SIZES

    def setup(self, size, dtype="float64", threads=THREADS[-1]):
        kind, options, names = LIKELIHOODS[self.baseline.removesuffix("_and_grad")]
        likelihood = getattr(fastelbo, kind)(*options)
        with_grad = self.baseline.endswith("_and_grad")
        self.call = likelihood.log_prob_and_grad if with_grad else likelihood.log_prob
        drawn = arrays_of(self.sizes[size], dtype)
        self.arrays = lambda size, dtype: [drawn[name] for name in names]
        super().setup(size, dtype, threads)
