"""Bounds inside functions that Numba compiles: no Python between them and the pass.

Prints the mean ELBO of bytes and of floats, and what a call takes.
"""

import time

import numba
import numpy as np

from fastelbo import capi

SQUARED_ERROR = capi.likelihood("squared_error")  # kept: its address is used below
ADDRESS = SQUARED_ERROR.address
elbo = capi.function("elbo")


@numba.njit(nogil=True)
def mean_elbo(call, times):
    """The mean ELBO of a call, computed so many times."""
    for _ in range(times):
        elbo(ADDRESS, call.ctypes.data)
    return (call[0].log_prob - call[0].kl) / call[0].batch


def call_of(x, mu, logvar, x_recon, threads=1):
    """An array of one call; it holds addresses, so keep the arrays."""
    call = np.zeros(1, capi.CALL)
    call["batch"], call["event"] = x.shape
    call["latent"] = mu.shape[1]
    call["dtype"], call["x_dtype"] = capi.CODES[mu.dtype], capi.CODES[x.dtype]
    if x_recon.dtype != mu.dtype:  # half precision
        call["output_dtype"] = capi.CODES[x_recon.dtype]
    for name, array in {"x": x, "mu": mu, "logvar": logvar}.items():
        call[name] = array.ctypes.data
    call["outputs"][0, 0] = x_recon.ctypes.data
    call["threads"] = threads
    return call


def main():
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(2, 128, 20)).astype(np.float32)
    x_recon = rng.uniform(size=(128, 784)).astype(np.float32)
    data = rng.integers(0, 2, x_recon.shape, np.uint8)
    for x, output in (
        (data, x_recon),
        (data, x_recon.astype(np.float16)),
        (x_recon[::-1].copy(), x_recon),
    ):
        for threads in (1, 2):
            call = call_of(x, mu, logvar, output, threads)
            value, best = mean_elbo(call, 1), np.inf
            for _ in range(200):
                start = time.perf_counter()
                mean_elbo(call, 100)
                best = min(best, (time.perf_counter() - start) / 100)
            print(
                f"x {x.dtype}, x_recon {output.dtype}, {threads} thread{'s' * (threads > 1)}: "
                f"{value:.3f} nats, {1e6 * best:.2f} us a call"
            )


if __name__ == "__main__":
    main()
