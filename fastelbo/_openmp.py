"""Loads the OpenMP runtime so that it gets along with NumPy's BLAS and with PyTorch.

Between parallel regions GNU OpenMP's threads spin for milliseconds, and so do OpenBLAS's. Where
there is no core for both, as in a training loop that alternates matrix products and kernels, each
waits for the other to be descheduled: a step takes several times as long. libgomp reads how long to
spin from the environment, once, while it is loaded. A spin of some 20 us still bridges the gap
between calls that follow each other.

PyTorch computes with the same threads, and loses several times as much to waking them after so
short a spin. So nothing that needs libgomp is imported before it is used: in a program that imports
PyTorch, in whatever order, PyTorch loads it by then. Nor is anything changed where the user has
chosen; and the environment is left as it was. The price: threadpoolctl finds libgomp, and limits
it, only after a first use, of ``get_num_threads`` at the least.
"""

import importlib
import os

_SPIN = "GOMP_SPINCOUNT"


class Lazy:
    """A module that is linked with OpenMP, imported when an attribute of it is first asked for."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith("__"):  # asked for by tools that inspect whatever they find
            raise AttributeError(attribute)
        ours = _SPIN not in os.environ and "OMP_WAIT_POLICY" not in os.environ
        if ours:
            os.environ[_SPIN] = "2000"
        try:
            module = importlib.import_module(self._name)
        finally:
            if ours:
                os.environ.pop(_SPIN, None)
        self.__dict__ = {**vars(module), **vars(self)}
        return getattr(module, attribute)


runtime = Lazy("fastelbo._runtime")
