"""Who computes the cases of the catalogue: fastelbo, and the code that users write instead.

A contender binds a case to arrays, to be called and timed; None where nobody writes it that way. A
framework is imported when its contender is made, and ImportError says that it is absent.
"""

from functools import partial

import numpy as np

from fastelbo import _builds
from fastelbo._catalogue import CASES, flatten


def thread_count(threads):
    return f"{threads} thread" + "s" * (threads != 1)


class Contender:
    """What all share: which peer of a case is meant, and how results come out."""

    label = ""
    #: The peer of a case that is called: a key of `Case.peers`.
    kind = ""
    #: Who owns the memory: "numpy" (every allocation is traced) or "process" (only its size is).
    memory = "numpy"

    def __init__(self, threads=1, dtype=np.float64):
        self.threads = threads
        self.dtype = np.dtype(dtype)

    def bind(self, case, arrays):
        """The call of a case on these arrays, given by name, or None."""
        peer = case.peers.get(self.kind + "_and_grad" * case.gives_gradients)
        return None if peer is None else self.call(peer, case, arrays)

    def call(self, peer, case, arrays):
        return partial(peer, *case.given(arrays))

    def numpy(self, result):
        """A result as a tuple of float64 arrays."""
        leaves = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(leaf, np.float64) for leaf in flatten(leaves))


class NumPy(Contender):
    """Plain lines, one temporary an operator."""

    label, kind = "NumPy", "numpy"


class SciPy(Contender):
    label, kind = "SciPy", "scipy"

    def __init__(self, threads=1, dtype=np.float64):
        import scipy.stats

        super().__init__(threads, dtype)
        self.stats = scipy.stats

    def call(self, peer, case, arrays):
        return partial(peer, self.stats, *case.given(arrays))


class PyTorch(Contender):
    """PyTorch eager; gradients by autograd."""

    label, kind, memory = "PyTorch eager", "torch", "process"

    def __init__(self, threads=1, dtype=np.float64):
        import torch

        super().__init__(threads, dtype)
        self.torch = torch
        torch.set_num_threads(threads)

    def bind(self, case, arrays):
        peer = case.peers.get(self.kind)
        return None if peer is None else self.call(peer, case, arrays)

    def call(self, peer, case, arrays):
        function = self.prepared(partial(peer, self.torch))
        tensors = {name: self.torch.from_numpy(np.array(a)) for name, a in arrays.items()}
        if not case.gives_gradients:
            return partial(self._value, function, tuple(tensors.values()))
        wanted = tuple(tensors[name].requires_grad_() for name in case.outs)
        return partial(self._value_and_grad, function, tuple(tensors.values()), wanted, case)

    def prepared(self, function):
        return function

    def _value(self, function, tensors):
        with self.torch.no_grad():
            return function(*tensors)

    def _value_and_grad(self, function, tensors, wanted, case):
        result = function(*tensors)
        values = result if isinstance(result, tuple) else (result,)
        objective = sum(w * v for w, v in zip(case.objective, values, strict=False) if w)
        return *values, *self.torch.autograd.grad(objective, wanted)

    def numpy(self, result):
        leaves = result if isinstance(result, tuple) else (result,)
        return tuple(leaf.detach().numpy().astype(np.float64) for leaf in leaves)


class TorchCompile(PyTorch):
    """The same functions through torch.compile, warmed up."""

    label = "torch.compile"

    def prepared(self, function):
        return self.torch.compile(function, dynamic=False)


class TorchCompileProducts(TorchCompile):
    """Of what compares all pairs, the form that is mostly matrix products."""

    label, kind = "torch.compile, GEMM", "torch_products"


class Numba(Contender):
    """Explicit loops, compiled."""

    label, kind = "Numba prange", "numba"
    fastmath = False

    def __init__(self, threads=1, dtype=np.float64):
        import numba

        super().__init__(threads, dtype)
        numba.set_num_threads(threads)
        self.njit = numba.njit(parallel=True, fastmath=self.fastmath)
        self.prange = numba.prange

    def call(self, peer, case, arrays):
        return partial(peer(self.njit, self.prange), *arrays.values())


class NumbaFastmath(Numba):
    """The same, free to add in any order, and so to vectorise."""

    label = "Numba prange, fastmath"
    fastmath = True


class Jax(Contender):
    """jax.jit, and value_and_grad; on as many threads as the process has CPUs."""

    label, kind, memory = "JAX jit", "jax", "process"

    def __init__(self, threads=1, dtype=np.float64):
        import jax

        super().__init__(threads, dtype)
        self.jax = jax
        jax.config.update("jax_enable_x64", True)

    def bind(self, case, arrays):
        peer = case.peers.get(self.kind)
        return None if peer is None else self.call(peer, case, arrays)

    def call(self, peer, case, arrays):
        function = partial(peer, self.jax)
        if case.gives_gradients:
            names = list(arrays)
            wanted = tuple(names.index(name) for name in case.outs)
            function = self.jax.value_and_grad(function, wanted)
        compiled = self.jax.jit(function)
        arrays = [self.jax.numpy.array(a) for a in arrays.values()]
        return lambda: self.jax.block_until_ready(compiled(*arrays))


class FastelboInJax(Jax):
    """fastelbo.jax under the same transforms."""

    label = "fastelbo.jax"

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        import fastelbo.jax

        self.module = fastelbo.jax

    def bind(self, case, arrays):
        value = CASES[case.name.removesuffix("_and_grad")]
        return self.call(partial(self._first, value), case, arrays)

    def _first(self, value, jax, *arrays):
        return flatten(value.call(self.module, *arrays))[0]


#: In the order of the tables.
PEERS = (
    NumPy,
    SciPy,
    PyTorch,
    TorchCompile,
    TorchCompileProducts,
    Numba,
    NumbaFastmath,
    Jax,
)


class Fastelbo(Contender):
    """fastelbo through its public functions."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label = f"fastelbo, {thread_count(threads)}"

    def bind(self, case, arrays):
        return self.call(case.public, case, arrays)

    def call(self, function, case, arrays):
        options = {"num_threads": self.threads} if case.takes_threads else {}
        return partial(function, *case.given(arrays), **options)


class FastelboOut(Fastelbo):
    """The same, writing gradients into arrays that are used again, as a training loop would."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label += ", out="

    def bind(self, case, arrays):
        if not case.outs or not case.takes_out:
            return None
        out = case.as_out([np.empty(s, self.dtype) for s in case.out_shapes(arrays).values()])
        return super().call(partial(case.public, out=out), case, arrays)


class Machine(Contender):
    """Memory traffic and nothing else: reads two arrays, writes as much as the second."""

    def __init__(self, threads, dtype, streamed=False):
        super().__init__(threads, dtype)
        self.streamed = streamed
        self.kernels = _builds.kernels("bandwidth")
        self.label = f"memory traffic alone, {thread_count(threads)}" + ", streamed" * streamed

    def traffic(self, first, second, writes):
        """The call that moves what a case reads, and writes if it does."""
        a, b = _words(first), _words(second)
        if not writes:
            return partial(self.kernels.read, a, b, self.threads)
        out = _words(np.zeros_like(second))
        return partial(self.kernels.read_and_write, a, b, out, self.streamed, self.threads)


def _words(array):
    """An array's memory as whole 64-bit words; copied to where cache lines start."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    room = np.empty(raw.size + 64, np.uint8)
    start = -room.ctypes.data % 64
    whole = raw.size // 8 * 8
    aligned = room[start : start + whole]
    aligned[:] = raw[:whole]
    return aligned.view(np.uint64)
