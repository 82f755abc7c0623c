"""Loads the OpenMP runtime so that it gets along with NumPy's BLAS.

Between parallel regions GNU OpenMP's threads spin for milliseconds, and so do OpenBLAS's. Where
there is no core for both, as in a training loop that alternates matrix products and kernels, each
waits for the other to be descheduled: a step takes 100 ms instead of 1. libgomp reads how long to
spin from the environment, once, while it is loaded. A spin of some 20 us still bridges the gap
between calls that follow each other. Nothing is changed where the user has chosen, or where another
library has loaded libgomp first; and the environment is left as it was.
"""

import os

_SPIN = "GOMP_SPINCOUNT"

_ours = _SPIN not in os.environ and "OMP_WAIT_POLICY" not in os.environ
if _ours:
    os.environ[_SPIN] = "2000"
try:
    from fastelbo import _runtime as runtime
finally:
    if _ours:
        del os.environ[_SPIN]

__all__ = ["runtime"]
