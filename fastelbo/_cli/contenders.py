"""Who computes the cases of the catalogue: fastelbo, and the code that users write instead.

A contender binds a case to arrays, to be called and timed; None where nobody writes it that way. A
framework is imported when its contender is made, and ImportError says that it is absent.
"""

from functools import cache, partial

import numpy as np

import fastelbo
from fastelbo import _builds
from fastelbo._catalogue import CASES, flatten
from fastelbo._catalogue.twins import objective


def thread_count(threads):
    return f"{threads} thread" + "s" * (threads != 1)


class _Noting:
    """A module that notes the calls of its functions."""

    def __init__(self, module):
        self.module = module
        self.calls = []

    def __getattr__(self, name):
        found = getattr(self.module, name)
        return found if isinstance(found, type) else partial(self._call, found)

    def _call(self, function, *arguments, **options):
        self.calls.append(partial(function, *arguments, **options))
        return self.calls[-1]()


def call_of(case, module, arrays, **options):
    """What a case calls of a module, to be timed: the catalogue makes a likelihood and sorts the
    arguments on every way there, users once. Of several calls, all that the case does."""
    if case.likelihood:
        method = f"log_prob{'_and_grad' * case.gives_gradients}"
        return partial(getattr(case.likelihood.make(module), method), *arrays, **options)
    noting = _Noting(module)
    case.call(noting, *arrays, **options)
    if len(noting.calls) == 1:
        return noting.calls[0]
    return partial(case.call, module, *arrays, **options)


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

    def results(self, case, arrays, call):
        """What the case comes to by a call that `bind` has made: a tuple of float64 arrays."""
        return self.numpy(call())

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
        return *values, *self.torch.autograd.grad(objective(case, values), wanted)

    def numpy(self, result):
        leaves = result if isinstance(result, tuple) else (result,)
        return tuple(leaf.detach().numpy().astype(np.float64) for leaf in leaves)


def compiled(torch, function, **options):
    """A function through torch.compile, for tensors of these sizes."""

    def own(*tensors):
        return function(*tensors)

    # torch.compile keeps few programs for the same code, and then none more.
    own.__code__ = own.__code__.replace()
    return torch.compile(own, dynamic=False, **options)


class TorchCompile(PyTorch):
    """The same functions through torch.compile, warmed up."""

    label = "torch.compile"

    def prepared(self, function):
        return compiled(self.torch, function)


class TorchCompileProducts(TorchCompile):
    """Of what compares all pairs, the form that is mostly matrix products."""

    label, kind = "torch.compile, GEMM", "torch_products"


class Numba(Contender):
    """Explicit loops, compiled, over OpenMP's threads where it has them."""

    label, kind = "Numba prange", "numba"
    fastmath = False

    def __init__(self, threads=1, dtype=np.float64):
        import numba

        super().__init__(threads, dtype)
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
        numba.set_num_threads(threads)
        self.njit = numba.njit(parallel=True, fastmath=self.fastmath)
        self.prange = numba.prange
        self.compiled = cache(lambda peer: peer(self.njit, self.prange))

    def call(self, peer, case, arrays):
        return partial(self.compiled(peer), *arrays.values())


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
            function = self._and_grad(function, case, list(arrays))
        compiled = self.jax.jit(function)
        arrays = [self.jax.numpy.array(a) for a in arrays.values()]
        return lambda: self.jax.block_until_ready(compiled(*arrays))

    def _and_grad(self, function, case, names):
        def valued(*arrays):
            values = tuple(flatten((function(*arrays),)))
            return objective(case, values), values

        wanted = tuple(names.index(name) for name in case.outs)
        differentiated = self.jax.value_and_grad(valued, wanted, has_aux=True)

        def function_and_grad(*arrays):
            (_, values), gradients = differentiated(*arrays)
            return *values, *gradients

        return function_and_grad


class JaxProducts(Jax):
    """Of what compares all pairs, the form that is mostly matrix products."""

    label, kind = "JAX jit, GEMM", "jax_products"


class FastelboInJax(Jax):
    """fastelbo.jax under the same transforms."""

    label = "fastelbo.jax"

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        import fastelbo.jax

        self.module = fastelbo.jax

    def bind(self, case, arrays):
        value = CASES[case.name.removesuffix("_and_grad")]
        return self.call(partial(self._values, value), case, arrays)

    def _values(self, value, jax, *arrays):
        return tuple(flatten(value.call(self.module, *arrays))[: len(value.objective)])


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
    JaxProducts,
)


class Fastelbo(Contender):
    """fastelbo through its public functions."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label = f"fastelbo, {thread_count(threads)}"

    def bind(self, case, arrays):
        return call_of(case, fastelbo, case.given(arrays), **self.options(case, arrays))

    def results(self, case, arrays, call):
        """Of the case, since a public function may return more."""
        return self.numpy(case.public(*case.given(arrays), **self.options(case, arrays)))

    def options(self, case, arrays):
        return {"num_threads": self.threads} if case.takes_threads else {}


class FastelboOut(Fastelbo):
    """The same, writing gradients into arrays that are used again, as a training loop would."""

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.label += ", out="

    def bind(self, case, arrays):
        return super().bind(case, arrays) if case.outs and case.takes_out else None

    def options(self, case, arrays):
        out = [np.empty(shape, self.dtype) for shape in case.out_shapes(arrays).values()]
        return {**super().options(case, arrays), "out": case.as_out(out)}


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
