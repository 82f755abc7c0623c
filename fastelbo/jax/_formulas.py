"""The specification once more, on JAX arrays: what runs where no kernel does.

``fastelbo.reference`` is plain NumPy without assignments in place, so that its source, with
``jax.numpy`` in the place of NumPy, is what JAX can trace. Its modules are executed a second time
for that; formulas stand once.
"""

import builtins
import contextlib
import importlib.util
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np

_ROOT = "fastelbo.reference"
_modules = {}
_traced = threading.local()


class _Quiet(contextlib.ContextDecorator):
    """In the place of ``np.errstate``: JAX warns of nothing."""

    def __init__(self, **kinds):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *raised):
        pass


class _JaxNumpy:
    """``jax.numpy`` as the specification asks for NumPy."""

    errstate = _Quiet

    def __getattr__(self, name):
        return getattr(jnp, name)

    @property
    def float64(self):
        """The precision of the inputs: looked up when asked for, since x64 may be on or off."""
        return getattr(_traced, "dtype", None) or jnp.result_type(float)


def _number(value):
    """In the place of ``float``: what is traced stays as it is."""
    return value if isinstance(value, jax.Array) else float(value)


def _import(name, *context):
    if name == "numpy":
        return _numpy
    if name.startswith(_ROOT):
        return _module(name)
    return builtins.__import__(name, *context)


def _module(name):
    if name not in _modules:
        source = importlib.util.find_spec(name)
        module = _modules[name] = types.ModuleType(f"{__name__}:{name}")
        sys.modules[module.__name__] = module  # where dataclasses look
        vars(module)["__builtins__"] = {
            **vars(builtins),
            "__import__": _import,
            "float": _number,
        }
        exec(source.loader.get_code(name), vars(module))
    return _modules[name]


def _climb(a, *steps):
    """The specification's, as a loop that is compiled once."""

    def raised(_, state):
        a, *sums = state
        small = a < 16.0
        sums = [s + jnp.where(small, step(a), 0.0) for s, step in zip(sums, steps, strict=True)]
        return jnp.where(small, a + 1.0, a), *sums

    return jax.lax.fori_loop(0, 16, raised, (a, *[0.0 * a for _ in steps]))


def _forward(tril, b):
    """The specification's, by a function that is compiled once."""
    return jax.scipy.linalg.solve_triangular(tril, b, lower=True)


_numpy = _JaxNumpy()


def formulas_of(name):
    """A module of the specification."""
    return _module(f"{_ROOT}.{name}")


#: The specification on JAX arrays.
formulas = _module(_ROOT)
formulas_of("_gamma").climb = _climb
formulas_of("divergences").forward = _forward
formulas.Likelihood.check = lambda *arrays: None  # numbers are not looked at


@contextlib.contextmanager
def precision(dtype):
    """Have formulas compute in this dtype, float32 or float64."""
    before = getattr(_traced, "dtype", None)
    _traced.dtype = np.dtype(dtype)
    try:
        with np.errstate(all="ignore"):  # constants that float32 has not are infinite, or zero
            yield
    finally:
        _traced.dtype = before
