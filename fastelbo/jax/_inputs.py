"""What functions on JAX arrays share: conversion, promotion of dtypes, reductions, noise."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fastelbo import _checks
from fastelbo._arguments import as_number
from fastelbo.jax._bridge import DRAWS, Operation, evaluate, options_of

_HALF = (jnp.float16, jnp.bfloat16)


def as_array(value, name):
    """A JAX array of real numbers."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}") from None
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or jax.dtypes.issubdtype(
        array.dtype, jax.dtypes.prng_key
    ):
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array


def as_arrays(read_as_is=(), **given):
    """(the dtype of results where it is another one, or None; the arrays in one dtype).

    Halves are computed with in float32. Arrays of names in `read_as_is` may be integers.
    """
    arrays = {name: as_array(value, name) for name, value in given.items()}
    floats = [a for a in arrays.values() if jnp.issubdtype(a.dtype, jnp.floating)]
    dtype = result = jnp.result_type(*floats) if floats else jnp.result_type(float)
    if dtype in _HALF:
        dtype = jnp.dtype(jnp.float32)
    converted = [
        a if name in read_as_is and not jnp.issubdtype(a.dtype, jnp.floating) else a.astype(dtype)
        for name, a in arrays.items()
    ]
    return (None if result == dtype else result), converted


def as_weight(value, name):
    """A number of at least 0, or an array without axes, whose number is not looked at."""
    if isinstance(value, jax.Array) or np.ndim(value):
        if np.ndim(value):
            raise TypeError(f"{name} must be a number, got an array of shape {np.shape(value)}")
        return as_array(value, name)
    return as_number(value, name, 0)


def as_flags(mask):
    """A mask as an array of bool."""
    return as_array(mask, "mask") != 0


def narrowed(result, dtype):
    """Floats, of a tuple, too, in this dtype; None: as they are."""
    if dtype is None or result is None:
        return result
    if isinstance(result, tuple):
        parts = [narrowed(part, dtype) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return result.astype(dtype) if jnp.issubdtype(result.dtype, jnp.floating) else result


def stand_in(array):
    """A NumPy array in its place, for checks."""
    return None if array is None else _checks.stand_in(array.shape, array.dtype)


def check(name, *arrays, **options):
    """Complain as fastelbo's function of this name does."""
    _checks.CHECKS[name](*map(stand_in, arrays), **options)


def reduce(rows, reduction):
    """The rows as `reduction` says."""
    if reduction in ("none", "elementwise"):
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def axes_from(first, count):
    """So many axes of an array from the first of them on."""
    return tuple(range(first, first + count))


#: What arrays are to the pass of a function, where there is one without Python.
PASSES = {
    "kl_standard_normal": ("mu", "logvar"),
    "kl_normal": ("mu", "logvar", "mu_p", "logvar_p"),
}


@dataclass(frozen=True)
class Function(Operation):
    """fastelbo's function of this name, which has a twin ``..._and_grad`` for every array.

    With ``reduction="none"`` values are by row, whose axis is the one at `row` in every array.
    """

    name: str
    options: tuple
    row: int = 0
    rows: int = 1

    def values(self, module, arrays):
        return (getattr(module, self.name)(*arrays, **self.keywords(module)),)

    def gradients(self, module, arrays, out):
        options = options_of(out, **self.keywords(module))
        value, gradients = getattr(module, f"{self.name}_and_grad")(*arrays, **options)
        return (value,), tuple(gradients)

    def keywords(self, module):
        return dict(self.options)

    def planned(self):
        if (arguments := PASSES.get(self.name)) is None:
            return None
        return arguments, {"reduction": dict(self.options)["reduction"]}

    def slots(self, arrays):
        by_row = dict(self.options).get("reduction") == "none"
        axes = axes_from(self.row, self.rows if by_row else 0)
        return {slot: (0, axes) for slot in range(len(arrays))}


def function(name, *arrays, row=0, rows=1, **options):
    """The value of fastelbo's function of this name."""
    return evaluate(Function(name, tuple(options.items()), row, rows), *arrays)[0]


@dataclass(frozen=True)
class Normals(Operation):
    """Standard normals of this shape and dtype, of the words of a key.

    Where no kernel draws them they are those of ``jax.random``.
    """

    shape: tuple
    precision: str

    given = "noise"

    def planned(self):
        return ("key",), {}

    def dtype(self, arrays):
        return self.precision

    def values(self, module, arrays):
        (words,) = arrays
        if not isinstance(words, np.ndarray):
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            return (jax.random.normal(key, self.shape, self.precision),)
        zeros = np.broadcast_to(np.zeros((), self.precision), self.shape)
        key = int(words[0]) << 32 | int(words[1])
        rows = zeros.reshape(-1, self.shape[-1])
        return (module.reparameterize(rows, rows, rng=key).reshape(self.shape),)


def noise_like(rng, noise, shape, dtype):
    """eps: itself, or drawn by a key of ``jax.random``."""
    if noise is not None:
        if rng is not None:
            raise ValueError("give rng or noise, not both")
        return noise
    operation = Normals(tuple(shape), str(dtype))
    if not DRAWS:
        return operation.values(None, (words_of(rng),))[0]
    return evaluate(operation, words_of(rng))[0]


def words_of(rng):
    """The 64 bits of a key of ``jax.random``."""
    is_key = hasattr(rng, "dtype") and (
        jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key) or rng.dtype == jnp.uint32
    )
    if not is_key:
        raise TypeError(
            f"rng must be a key, jax.random.key(seed), got {type(rng).__name__}; or give noise"
        )
    return jax.random.bits(rng, (2,), jnp.uint32)
