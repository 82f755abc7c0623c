"""Gradients of fastelbo.jax, beside `jax.jit` of what users write, where they write it in JAX."""

import fastelbo
from fastelbo._catalogue import CASES
from fastelbo._cli.bench import entries_in_jax
from fastelbo._cli.contenders import FastelboInJax, Jax

from . import rows

try:
    import jax as _  # noqa: F401

    ENTRIES = {e.case: e for e in entries_in_jax() if e.case in rows.BENCH}
except ImportError:
    ENTRIES = {}


class Gradient:
    params = (list(ENTRIES), rows.THREADS)
    param_names = ("case", "threads")

    def setup(self, case, threads):
        fastelbo.set_num_threads(threads)
        arrays = CASES[case].draw(0, "float32", **ENTRIES[case].extents)
        self.plain, self.ours = (
            kind(threads, "float32").bind(CASES[case], arrays) for kind in (Jax, FastelboInJax)
        )
        self.ours()

    def time_value_and_grad(self, case, threads):
        self.ours()

    def track_ratio_vs_jit(self, case, threads):
        return rows.ratio(self.plain, self.ours)

    track_ratio_vs_jit.unit = "x"
