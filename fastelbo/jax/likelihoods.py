"""Likelihoods with a differentiable ``log_prob``: classes and arguments are those of fastelbo.

They are made of fastelbo's classes, and are pytrees: arrays among the arguments of a constructor,
and numbers that the decoder could give instead (``scale``, ``df``, ``theta``, ``concentration``),
are leaves, and have their gradients.
"""

import functools
import inspect
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import fastelbo
from fastelbo import _named
from fastelbo._arguments import shown
from fastelbo.jax._bridge import Operation, evaluate, options_of
from fastelbo.jax._inputs import (
    as_array,
    as_arrays,
    as_flags,
    axes_from,
    narrowed,
    stand_in,
)
from fastelbo.likelihoods import OF_ELEMENTS, check_reduction

#: The classes of this module, by name.
TWINS = {}


class Likelihood:
    """What every likelihood shares.

    Arguments are those of fastelbo's class of the same name. Arrays among them, and numbers that
    the decoder could give instead, may be traced and differentiated: a likelihood is a pytree.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import Gaussian
    >>> x = jnp.ones((1, 1))
    >>> jax.grad(lambda likelihood: likelihood.log_prob(x, 0 * x))(Gaussian(2.0)).scale
    Array(-0.375, dtype=float32, weak_type=True)
    """

    #: fastelbo's class.
    _of = fastelbo.Likelihood

    def __init__(self, *args, **kwargs):
        given = inspect.signature(self._of).bind(*args, **kwargs)
        given.apply_defaults()
        self._arguments = {
            name: np.asarray(value) if isinstance(value, list | tuple) else value
            for name, value in given.arguments.items()
        }
        if not any(isinstance(value, jax.core.Tracer) for value in self._arguments.values()):
            self._kernels()

    def __getattr__(self, name):
        if name != "_arguments" and name in self._arguments:
            return self._arguments[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _leaves(self):
        """Names of the arguments that JAX sees: always those that it has put back, whatever it
        has put in their places."""
        if (names := vars(self).get("_seen")) is not None:
            return names
        return [
            name
            for name, value in self._arguments.items()
            if isinstance(value, jax.Array | np.ndarray)
            or (name in self._of._learnable and isinstance(value, int | float))
        ]

    def _kernels(self, **arrays):
        """fastelbo's likelihood, with these in the places of its arrays."""
        return self._of(**{**self._arguments, **arrays})

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the decoder outputs, the arguments of ``log_prob`` after x."""
        ones = {name: 1.0 for name, value in self._arguments.items() if _is_traced(value)}
        return self._kernels(**ones).parameters

    def log_prob(self, x, *parameters, mask=None, reduction="mean"):
        """Log-density of x, summed over the event.

        Parameters
        ----------
        x : array_like, shape (B, ...)
            Data of any real dtype; integers are read as they are.
        *parameters : array_like
            The decoder outputs named in ``parameters``: the first has the shape of x, or
            (K, B, ...) for K samples of each x; others broadcast to it.
        mask : array_like of bool, optional
            True where x was observed; broadcasts to x.
        reduction : {"mean", "sum", "none", "elementwise"}
            Over the batch, and over the samples. ``"elementwise"``: no sum over the event, either.

        Returns
        -------
        Array, shape (), or (B,) or (K, B) for ``reduction="none"``, and (B, ...) or
            (K, B, ...) for ``"elementwise"``
            In nats, in the dtype of the arrays. Half precision is computed in float32.

        Raises
        ------
        ValueError, TypeError
            If shapes do not match.
        jax.errors.JaxRuntimeError
            If, on the CPU, something lies outside the domain.
        """
        check_reduction(reduction, OF_ELEMENTS)
        half, x, outputs, mask = self._as_arrays(x, parameters, mask)
        likelihood, outputs = self._joined(outputs)
        return narrowed(likelihood._log_prob(x, outputs, mask, reduction), half)

    def _log_prob(self, x, outputs, mask, reduction):
        """Of checked arrays, all that may be differentiated being among the outputs."""
        operation, arrays = self._operation(LogProb, x, outputs, mask, reduction)
        return evaluate(operation, *arrays)[0]

    def _operation(self, kind, x, outputs, mask, reduction, latents=(), *more):
        """(an operation of a kind that has a likelihood, its arrays)."""
        spec, held = self._spec()
        if reduction in ("none", "elementwise"):  # a value's gradient must be its own
            outputs = [jnp.broadcast_to(p, outputs[0].shape) for p in outputs]
        masks = () if mask is None else (mask,)
        operation = kind(spec, reduction, len(outputs), len(masks), *more)
        return operation, (x, *latents, *outputs, *masks, *held)

    def _couples_rows(self):
        """Whether a sample's density depends on the others of its minibatch."""
        return self._checked()._couples_rows()

    def _as_arrays(self, x, parameters, mask, **more):
        """(dtype of results or None, x, outputs, mask), and more arrays, checked."""
        if not parameters:
            raise TypeError(f"{type(self).__name__} takes x and decoder outputs")
        names = [f"x_recon[{i}]" if i else "x_recon" for i in range(len(parameters))]
        given = {**more, **dict(zip(names, parameters, strict=True))}
        half, (x, *arrays) = as_arrays(read_as_is=("x",), x=x, **given)
        outputs = arrays[len(more) :]
        mask = None if mask is None else as_flags(mask)
        self._checked()._check_event(
            stand_in(x), tuple(map(stand_in, outputs)), stand_in(mask), False
        )
        return half, x, *arrays[: len(more)], outputs, mask

    def _checked(self):
        """fastelbo's likelihood, for checks of shapes: with ones for what is traced."""
        return self._kernels(
            **{
                name: np.broadcast_to(np.ones((), value.dtype), value.shape)
                for name, value in self._arguments.items()
                if _is_traced(value)
            }
        )

    def _joined(self, outputs):
        """The likelihood and outputs that what is traced is part of: its kernels know the
        derivatives."""
        learned = [name for name in self._of._learnable if _is_traced(self._arguments.get(name))]
        if not learned:
            return self, outputs
        words = {name: self._of._learnable[name] for name in learned}
        opened = type(self)(**{**self._arguments, **words})
        given, whole = iter(outputs), outputs[0].shape
        joined = []
        for output in opened.parameters:
            name = output.removeprefix("log_")
            if name not in learned:
                joined.append(next(given))
                continue
            value = self._arguments[name].astype(outputs[0].dtype)
            joined.append(value if output == name else jnp.log(value))
        joined[0] = jnp.broadcast_to(joined[0], whole)
        return opened, joined

    def _spec(self):
        """(what makes the likelihood again: its name, literals, names of arrays; the arrays)."""
        arrays = {n: v for n, v in self._arguments.items() if isinstance(v, jax.Array | np.ndarray)}
        literals = tuple((n, _literal(v)) for n, v in self._arguments.items() if n not in arrays)
        held = [jax.lax.stop_gradient(as_array(v, n)) for n, v in arrays.items()]
        return (type(self).__name__, literals, tuple(arrays)), held

    def __init_subclass__(cls, of=None):
        if of is not None:
            cls._of = of
        TWINS.setdefault(cls.__name__, cls)
        jax.tree_util.register_pytree_node(cls, _flatten, functools.partial(_unflatten, cls))

    def __repr__(self):
        arguments = [f"{name}={value!r}" for name, value in self._arguments.items()]
        return f"{type(self).__name__}({', '.join(arguments)})"


def _flatten(likelihood):
    names = tuple(likelihood._leaves())
    rest = tuple((n, _literal(v)) for n, v in likelihood._arguments.items() if n not in names)
    return [likelihood._arguments[name] for name in names], (names, rest)


def _unflatten(cls, structure, leaves):
    names, rest = structure
    likelihood = object.__new__(cls)
    likelihood._seen = names
    given = {**dict(zip(names, leaves, strict=True)), **dict(rest)}
    likelihood._arguments = {name: given[name] for name in inspect.signature(cls._of).parameters}
    return likelihood


def _is_traced(value):
    return isinstance(value, jax.core.Tracer)


def _literal(value):
    """Hashable: lists as tuples."""
    return tuple(map(_literal, value)) if isinstance(value, list | tuple) else value


def as_likelihood(likelihood):
    """One of this module: itself, or the twin of one of fastelbo, which may go by name."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    own = _named.as_likelihood(likelihood)
    if (twin := TWINS.get(type(own).__name__)) is None:
        raise TypeError(f"likelihood: fastelbo.jax has no {shown(own)}")
    return twin(**own.get_params(deep=False))


# Of one of a module, fastelbo or its specification ----------------------------------------------


@functools.lru_cache(256)
def _fixed(kind, literals):
    return getattr(fastelbo, kind)(**dict(literals))


def made(module, spec, arrays):
    """The likelihood of a module."""
    kind, literals, names = spec
    if module is fastelbo and not names:
        return _fixed(kind, literals)
    return getattr(module, kind)(**dict(literals), **dict(zip(names, arrays, strict=True)))


def parted(arrays, count, masked):
    """(so many arrays, the mask or None, the rest)."""
    held = arrays[count + masked :]
    return arrays[:count], arrays[count] if masked else None, held


@dataclass(frozen=True)
class OfLikelihood(Operation):
    """What has a likelihood: the last arrays are those of it, and before them is the mask."""

    spec: tuple
    reduction: str
    outputs: int
    masked: int

    #: What arrays between x and the outputs are to a pass.
    latents = ()

    @property
    def held(self):
        return self.spec[2]

    def planned(self):
        if self.masked or self.held or self.reduction == "elementwise":
            return None
        arguments = ("x", *self.latents, *["outputs"] * self.outputs)
        likelihood = made(fastelbo, self.spec, ())
        return arguments, {"likelihood": likelihood, "reduction": self.reduction}


@dataclass(frozen=True)
class LogProb(OfLikelihood):
    """The log-density, of arrays (x, *outputs, *mask, *those of the likelihood)."""

    def _parts(self, module, arrays):
        given, mask, held = parted(arrays, 1 + self.outputs, self.masked)
        return made(module, self.spec, held), given, {"reduction": self.reduction, "mask": mask}

    def values(self, module, arrays):
        likelihood, given, options = self._parts(module, arrays)
        return (likelihood.log_prob(*given, **options),)

    def gradients(self, module, arrays, out):
        likelihood, given, options = self._parts(module, arrays)
        value, gradients = likelihood.log_prob_and_grad(*given, **options_of(out, **options))
        return (value,), gradients

    def slots(self, arrays):
        x, first = arrays[:2]
        if self.reduction in ("none", "elementwise") and ("scale", "optimal") in self.spec[1]:
            return None
        layout = getattr(fastelbo, self.spec[0])._layout
        batch = first.ndim - layout.more_axes - x.ndim + 1
        between = int(layout.more_axes and layout.axis == 1)
        axes = ()
        if self.reduction == "none":
            axes = axes_from(0, batch)
        elif self.reduction == "elementwise":
            axes = axes_from(0, batch) + axes_from(batch + between, x.ndim - 1)
        return {slot: (0, axes) for slot in range(1, 1 + self.outputs)}


def _twin(of):
    """The class made of one of fastelbo's."""
    summary = of.__doc__.splitlines()[0].replace(" [1]_", "")  # the reference stays with it
    doc = f"""{summary}

    See :class:`fastelbo.{of.__name__}`; the arguments are the same, and the class is a pytree, as
    :class:`Likelihood` says.
    """

    def __init__(self, *args, **kwargs):
        Likelihood.__init__(self, *args, **kwargs)

    __init__.__qualname__ = f"{of.__name__}.__init__"
    __init__.__signature__ = inspect.signature(of.__init__)
    members = {"__doc__": doc, "__module__": __name__, "__init__": __init__}
    return type(of.__name__, (Likelihood,), members, of=of)


#: What no twin is made of: the arguments of the second are likelihoods again.
_WITHOUT = (fastelbo.Likelihood, fastelbo.ColumnLikelihood)
for _of in map(vars(fastelbo).get, fastelbo.__all__):
    if inspect.isclass(_of) and issubclass(_of, fastelbo.Likelihood) and _of not in _WITHOUT:
        globals()[_of.__name__] = _twin(_of)
