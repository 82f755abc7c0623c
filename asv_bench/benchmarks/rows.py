"""Every case that the catalogue says how to time: its time, its peak memory, its ratio to NumPy.

Arrays are made in ``setup`` and thread counts are explicit. NumPy's side is the catalogue's: the
code that users write.
"""

import os
import time

import numpy as np

from fastelbo._catalogue import CASES, ROWS
from fastelbo._cli.contenders import Fastelbo, NumPy

#: Extents by name, those of `fastelbo._catalogue.AXES`. What `elbo` reads in float64 fits in L1 or
#: in L2, or in neither; "own" are those of the minibatch that a case is for.
SIZES = {
    "L1": {"B": 8, "D": 128, "L": 16, "K": 8, "M": 16, "N": 16},
    "L2": {"B": 64, "D": 512, "L": 32, "K": 8, "M": 64, "N": 64},
    "own": {},
    "RAM": {"B": 4096, "D": 784, "L": 64, "K": 4, "M": 1024, "N": 1024},
}
#: Elements at most of what is made of all pairs: beyond it there are fewer rows.
MOST = 1 << 27
#: Those that are run: FASTELBO_ASV_SIZES=L1 FASTELBO_ASV_THREADS=2 shows that everything works, and
#: with FASTELBO_ASV_CASES=elbo,mmd that a few do.
RUN = os.environ.get("FASTELBO_ASV_SIZES", ",".join(SIZES)).split(",")
DTYPES = ["float64", "float32"]
THREADS = [int(n) for n in os.environ.get("FASTELBO_ASV_THREADS", "1,2").split(",")]

BENCH = {bench.case: bench for row in ROWS.values() for bench in row.bench}
if "FASTELBO_ASV_CASES" in os.environ:
    BENCH = {name: BENCH[name] for name in os.environ["FASTELBO_ASV_CASES"].split(",")}


def arrays_of(name, size, dtype):
    """The arguments of a case, by name."""
    extents = BENCH[name].extents if size == "own" else SIZES[size]
    return CASES[name].draw(0, dtype, **CASES[name].within(MOST, **extents))


def ratio(theirs, ours):
    """The best time of one call over that of the other, the two taking turns."""
    best = dict.fromkeys((ours, theirs), np.inf)
    end = time.perf_counter() + 0.1
    while time.perf_counter() < end:
        for call in best:
            call()
            start = time.perf_counter()
            call()
            best[call] = min(best[call], time.perf_counter() - start)
    return best[theirs] / best[ours]


class Time:
    params = (list(BENCH), RUN, DTYPES, THREADS)
    param_names = ("case", "size", "dtype", "threads")

    def setup(self, case, size, dtype, threads):
        self.call = Fastelbo(threads, dtype).bind(CASES[case], arrays_of(case, size, dtype))
        self.call()

    def time_call(self, case, size, dtype, threads):
        self.call()


class Memory:
    params = (list(BENCH), RUN)
    param_names = ("case", "size")

    def setup(self, case, size):
        self.call = Fastelbo(THREADS[-1]).bind(CASES[case], arrays_of(case, size, "float64"))

    def peakmem_call(self, case, size):
        self.call()


class Ratio:
    """NumPy's best time over fastelbo's on the last of THREADS, in one process."""

    params = ([name for name in BENCH if NumPy().bind(CASES[name], {}) is not None], RUN, DTYPES)
    param_names = ("case", "size", "dtype")

    def track_ratio_vs_numpy(self, case, size, dtype):
        arrays = arrays_of(case, size, dtype)
        theirs, ours = NumPy(1, dtype), Fastelbo(THREADS[-1], dtype)
        return ratio(*(c.bind(CASES[case], arrays) for c in (theirs, ours)))

    track_ratio_vs_numpy.unit = "x"
