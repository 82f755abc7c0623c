"""How a function of fastelbo becomes one of JAX: operations, and the ways to run one.

An operation names what to compute; the arrays are what JAX traces. On the CPU it is a call of XLA
to the handler of ``fastelbo._ffi``, which knows the operation by a text, so that compiled programs
may be kept and run by other processes. On other platforms, and under :func:`plain`, it is the
formulas of the specification.

Gradients come with values, in one pass, and only where something is to be differentiated: an
operation has a rule for forward mode, which sums gradients times tangents, and JAX transposes it.
What flows back through several values at once is `Pulled` instead.
"""

import contextlib
import functools
import json
import threading
from dataclasses import astuple, dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

import fastelbo
from fastelbo import _ffi, _threads
from fastelbo.jax._formulas import formulas, precision

try:
    from jax import ffi
    from jax.ffi import ffi_call

    DRAWS = True
except ImportError:  # before jax 0.5, whose XLA aborts where it compiles a call that only draws
    from jax.extend import ffi
    from jax.extend.ffi import ffi_call

    DRAWS = False

_TARGET = "fastelbo"
_thread = threading.local()

#: By name, as texts name them.
OPERATIONS = {}


class plain(contextlib.ContextDecorator):
    """Have what is traced meanwhile compute in JAX's own operations, on the CPU, too.

    Kernels know values and first derivatives. In operations of JAX the same functions have
    derivatives of any order, and those by data; they are slower, and less exact at limits. A
    function that was compiled before stays as it was compiled: what is to be plain is traced here.

    See Also
    --------
    fastelbo.reference : the formulas that JAX then traces.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import kl_standard_normal, plain
    >>> zero = jnp.zeros((1, 1))
    >>> with plain():
    ...     jax.hessian(kl_standard_normal)(zero, zero).ravel()
    Array([1.], dtype=float32)
    """

    def __enter__(self):
        self._before = is_plain()
        _thread.plain = True

    def __exit__(self, *raised):
        _thread.plain = self._before


def is_plain():
    return getattr(_thread, "plain", False)


@dataclass(frozen=True)
class Operation:
    """A function of arrays. Options are its fields: literals, and tuples of them.

    Methods are given a `module`, ``fastelbo`` or its specification, and arrays that this computes
    with. A class gives, besides those below:

    values(module, arrays)
        The values, a tuple.
    slots(arrays), for `evaluate`
        Which arrays have gradients, by number: of which value, and which of their axes are the axes
        of that value (a gradient is that of the sum over it). Derivatives by others, and all of
        them where this is None, are those of the formulas.
    gradients(module, arrays, out), where there are slots
        (values, gradients by the arrays of `slots`); `out` takes the latter, or is None.
    pull(module, arrays, cotangents), for `pulled`
        What flows to each array, or to each of the first.
    """

    def __init_subclass__(cls):
        OPERATIONS[cls.__name__] = cls

    #: Names of arrays at the end that decide no dtype.
    held = ()

    def dtype(self, arrays):
        """That of the results."""
        deciding = arrays[: len(arrays) - len(self.held)]
        return jnp.result_type(
            *[a.dtype for a in deciding if jnp.issubdtype(a.dtype, jnp.floating)]
        )

    def sign(self, value):
        """What gradients of a value are to be multiplied by."""
        return 1.0

    def planned(self):
        """(what arrays are to a pass, further arguments of `_ffi.plan`), for handlers that run
        without Python; None where there is no such pass."""
        return

    #: What the values are to it.
    given = "value"


def options_of(out, **options):
    """Keyword arguments of a function that gives gradients: `out` is one of kernels only."""
    return options if out is None else {**options, "out": out}


# Running one ------------------------------------------------------------------------------------


def _results(operation, mode, module, arrays, out=None):
    """What a mode gives, as a flat tuple."""
    if mode == "values":
        return operation.values(module, arrays)
    if mode == "gradients":
        values, gradients = operation.gradients(module, arrays, out)
        return *values, *gradients
    count = int(mode)  # that of the cotangents, which come last
    return operation.pull(module, arrays[:-count], arrays[-count:])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _by_formulas(operation, mode, *arrays):
    dtype = operation.dtype(arrays)
    with precision(dtype):
        results = _results(operation, mode, formulas, arrays)
    return tuple([jnp.asarray(r, r.dtype if r.dtype == bool else dtype) for r in results])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _computed(operation, mode, *arrays):
    """The results of a mode, by whatever the platform has."""
    by_formulas = functools.partial(_by_formulas, operation, mode)
    if not _is_registered():
        return by_formulas(*arrays)
    shapes = jax.eval_shape(by_formulas, *arrays)
    text = _text(operation, mode, arrays, shapes)

    def by_kernels(*arrays):
        return tuple(ffi_call(_TARGET, shapes, vmap_method="expand_dims")(*arrays, call=text))

    return jax.lax.platform_dependent(*arrays, cpu=by_kernels, default=by_formulas)


def _run(operation, mode, forced, arrays):
    if forced:
        return _by_formulas(operation, mode, *arrays)
    return _once(operation, mode, *arrays)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _once(operation, mode, *arrays):
    """What is known without derivatives."""
    return _computed(operation, mode, *arrays)


def _refuse(operation, mode, primals, tangents):
    raise TypeError(
        "fastelbo.jax computes gradients with values and cannot differentiate twice: trace it "
        "under fastelbo.jax.plain(), as operations of JAX"
    )


_once.defjvp(_refuse, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _evaluated(operation, forced, *arrays):
    return _run(operation, "values", forced, arrays)


def _with_tangents(operation, forced, primals, tangents):
    slots = operation.slots(primals)
    wanted = {i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)}
    if slots is None or not wanted <= slots.keys():
        values = functools.partial(_by_formulas, operation, "values")
        return jax.jvp(values, primals, tuple(map(_instantiated, primals, tangents)))
    results = _run(operation, "gradients", forced, primals)
    values, gradients = results[: -len(slots)], results[-len(slots) :]
    flows = [jnp.zeros_like(value) for value in values]
    for (slot, (value, axes)), gradient in zip(slots.items(), gradients, strict=True):
        if slot not in wanted:
            continue
        others = tuple([axis for axis in range(gradient.ndim) if axis not in axes])
        flow = (gradient * tangents[slot]).sum(others)
        flows[value] += operation.sign(value) * flow
    return values, tuple(flows)


def _instantiated(primal, tangent):
    return _nothing(primal) if isinstance(tangent, SymbolicZero) else tangent


_evaluated.defjvp(_with_tangents, symbolic_zeros=True)


def evaluate(operation, *arrays):
    """The values of an operation, a tuple of arrays, differentiable by its slots."""
    return _evaluated(operation, is_plain(), *arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pulled(operation, arrays, values):
    return values


def _forth(operation, arrays, values):
    return values, arrays


def _back(operation, arrays, cotangents):
    flows = _once(operation, str(len(cotangents)), *arrays, *cotangents)
    rest = [_nothing(array) for array in arrays[len(flows) :]]
    return (*flows, *rest), tuple([jnp.zeros_like(c) for c in cotangents])


def _nothing(array):
    """The cotangent of what is not differentiated."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, jax.dtypes.float0)


_pulled.defvjp(_forth, _back)


def pulled(operation, *arrays, values=None):
    """The values of an operation, or these, whose derivatives are computed on the way back."""
    if is_plain():
        return _by_formulas(operation, "values", *arrays)
    if values is None:
        held = map(jax.lax.stop_gradient, arrays)
        values = _once(operation, "values", *held)
    return _pulled(operation, arrays, tuple(map(jax.lax.stop_gradient, values)))


# What XLA calls ---------------------------------------------------------------------------------


@functools.cache
def _is_registered():
    """Whether JAX has CPUs; then the handler is theirs.

    They must be there before: what is registered earlier and refused breaks JAX.
    """
    try:
        jax.devices("cpu")
    except RuntimeError:
        return False
    _ffi.serve(_answer)
    _allow_threads()
    _threads.followers.append(_allow_threads)
    ffi.register_ffi_target(_TARGET, _ffi.handler(), platform="cpu")
    return True


def _allow_threads():
    """Devices share the processors: each has threads of its own."""
    threads = max(1, fastelbo.get_num_threads() // jax.local_device_count("cpu"))
    _ffi.allow(threads)
    return threads


def _text(operation, mode, arrays, results):
    axes = [[len(a.shape) for a in several] for several in (arrays, results)]
    text = json.dumps([type(operation).__name__, astuple(operation), mode, axes])
    return text.replace('"', "'")  # which XLA's own texts have around it


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@functools.lru_cache(1024)
def _parsed(text):
    name, fields, mode, axes = _tuples(json.loads(text.replace(b"'", b'"')))
    return OPERATIONS[name](*fields), mode, axes


def _answer(text, arguments, results):
    """Compute into `results`; both may have further leading axes, of vmap."""
    operation, mode, (of_arguments, of_results) = _parsed(text)
    with fastelbo.num_threads(_allow_threads()):
        mapped = results[0].shape[: results[0].ndim - of_results[0]]
        for at in np.ndindex(mapped):
            inputs = [_at(a, at, axes) for a, axes in zip(arguments, of_arguments, strict=True)]
            outputs = [_at(r, at, axes) for r, axes in zip(results, of_results, strict=True)]
            _fill(operation, mode, inputs, outputs)
        if results[0].size:
            _plan(text, operation, mode, inputs, of_arguments + of_results)


def _plan(text, operation, mode, inputs, axes):
    """Have the next calls go without Python, where they can."""
    if (planned := operation.planned()) is None:
        return
    arguments, options = planned
    count = len(axes) - len(inputs)
    if mode in ("values", "gradients"):
        slots = operation.slots(inputs) if mode == "gradients" else ()
        results = [operation.given] * (count - len(slots)) + [f"d_{arguments[i]}" for i in slots]
    else:
        results = [f"d_{name}" for name in arguments[:count]]
        arguments = (*arguments, *["weight"] * int(mode))
    _ffi.plan(text, (*arguments, *results), axes, len(arguments), **options)


def _at(array, at, axes):
    """The part of one place; what is the same in all has axes of one there."""
    leading = array.shape[: array.ndim - axes]
    return array[(*[0 if n == 1 else i for n, i in zip(leading, at, strict=True)], ...)]


def _fill(operation, mode, inputs, outputs):
    out = None
    if mode == "gradients":
        out = tuple(outputs[-len(operation.slots(inputs)) :])
    found = _results(operation, mode, fastelbo, inputs, out)
    for output, result in zip(outputs, found, strict=True):
        if output is not result:
            output[...] = result
