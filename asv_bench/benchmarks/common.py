"""What every suite measures: the time of a call, the peak memory, the ratio to NumPy.

Arrays are made in ``setup``, thread counts are explicit, and NumPy's side is the code that users
write, from ``fastelbo._cli.baselines``.
"""

import time
from functools import partial

import numpy as np

from fastelbo._cli.baselines import NumPy

#: name: (batch, event, latent). What a call reads in float64 fits in L1 or in L2, or in neither;
#: "vae" is the minibatch of a VAE on MNIST.
SIZES = {
    "L1": (8, 128, 16),
    "L2": (64, 512, 32),
    "vae": (128, 784, 20),
    "RAM": (4096, 784, 64),
}
DTYPES = ["float64", "float32"]
THREADS = [1, 2]


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


class _Suite:
    """Subclasses give `call` (fastelbo's), `baseline` (the method of NumPy) and `arrays`.

    Its underscore keeps asv from running it by itself.
    """

    params = (list(SIZES), DTYPES, THREADS)
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

    peakmem_call.params = (list(SIZES),)
    peakmem_call.param_names = ("size",)

    def track_ratio_vs_numpy(self, size, dtype):
        """NumPy's best time over fastelbo's on THREADS[-1] threads, the two taking turns."""
        numpy = partial(getattr(NumPy(1, dtype), self.baseline), *self.arguments)
        ours = partial(self.call, *self.arguments, num_threads=self.threads)
        best = dict.fromkeys((ours, numpy), np.inf)
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            for call in best:
                call()
                start = time.perf_counter()
                call()
                best[call] = min(best[call], time.perf_counter() - start)
        return best[numpy] / best[ours]

    track_ratio_vs_numpy.unit = "x"
    track_ratio_vs_numpy.params = (list(SIZES), DTYPES)
    track_ratio_vs_numpy.param_names = ("size", "dtype")
