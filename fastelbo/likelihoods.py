"""Likelihoods log p(x | decoder output), each with ``log_prob`` and ``log_prob_and_grad``.

A likelihood names a term of ``_kernels/terms/likelihoods.pxd``, says which parameters the decoder
gives and which it adds itself, and leaves the work to one pass. Those of [0, 1] are in
``bernoulli.py``, those around a location in ``locations.py``, those over counts, pixels and classes
in ``discrete.py``.
"""

from __future__ import annotations

import copy
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, overload

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_flag, as_numbers, check_choice, positive_number
from fastelbo._blocks import Block
from fastelbo._dense import Dense, log_density
from fastelbo._parameters import Settings
from fastelbo._threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import (
        ByElement,
        ByRow,
        Float64Array,
        FloatArray,
        Missing,
        Number,
        Out,
        Reduced,
        Threads,
    )

_network = _builds.kernels("network")

REDUCTIONS = ("mean", "sum", "none")
#: Of a likelihood, whose elements have values of their own.
OF_ELEMENTS = (*REDUCTIONS, "elementwise")


#: Both roundings of a product with a float32 x_scale, relatively.
SCALING = float(np.finfo(np.float32).eps)


def check_reduction(reduction, known=REDUCTIONS):
    check_choice(reduction, "reduction", known)


class Likelihood(Settings):
    """What every likelihood shares: checks, reductions and the call of the pass.

    ``log p(x | parameters)`` is ``factor`` times what the term sums plus ``constant`` per element.
    """

    #: Names of the decoder outputs, the arguments of ``log_prob`` after x.
    parameters: tuple[str, ...] = ("x_recon",)
    #: Those of them that must be positive.
    _positive = ()
    #: Whether x are numbers of something, which may be large.
    _of_counts = False
    #: The family of kernels, and the name under which its `fill` (`evaluate`, too) knows the term;
    #: None where there is no pass over dense arrays.
    _kernels = _builds.kernels("likelihood")
    _term = None
    _factor = 1.0
    _constant = 0.0
    _x_scale = 1.0
    _validate = True
    _missing_nan = False
    _domain = ""
    #: What the term reads after the decoder's outputs: float64 arrays that broadcast to the event.
    _own = ()
    _own_name = "scale"
    #: Arguments that frameworks may differentiate by, each with what stands in its place where the
    #: decoder gives it: the output of that name, or ``log_`` and that name.
    _learnable = MappingProxyType({})
    #: The argument, of those behind `_own`, that may be given by sample, for one batch.
    _by_sample = None
    #: How the parameters lie over x.
    _layout = _arrays.Layout()
    #: How many numbers a parameter has for an element of x; None: the likelihood cannot say.
    _outputs_each = 1
    #: The columns of x, where this is of some of them, by their numbers.
    _column_numbers = None
    #: Whether the pass reads parameters of half precision, and writes their gradients so.
    _reads_halves = True
    #: Whether the pass takes the latents along, so that an ELBO is a single one.
    _fuses_latents = True
    #: What the short way has found out, here nothing: each keeps its own.
    _dense = Dense()

    def __init__(
        self, *, x_scale: Number = 1.0, validate: bool = True, missing: Missing = None
    ) -> None:
        self._x_scale = positive_number(x_scale, "x_scale")
        self._validate = as_flag(validate, "validate")
        check_choice(missing, "missing", (None, "nan"))
        self._missing_nan = missing == "nan"
        #: Of `_own` what `_of_event` has cast, by dtype.
        self._cast = {}

    def __getstate__(self):
        """Without what calls have found out, which copies do by themselves: they may be changed
        before they are used.
        """
        state = {**self.__dict__, "_cast": {}}
        state.pop("_dense", None)
        return state

    @property
    def x_scale(self) -> float:
        return self._x_scale

    @property
    def validate(self) -> bool:
        return self._validate

    @property
    def missing(self) -> Missing:
        return "nan" if self._missing_nan else None

    def _pass(
        self,
        x,
        parameters,
        gradients,
        weight,
        row_values,
        latents,
        batch_axes,
        threads,
        mask,
        follower=None,
        elements=None,
    ):
        """The pass over checked arrays: the total log-density (unless row_values or elements are to
        be filled), the KL of the latents, if any, and how many elements were not missing.

        Where it fuses latents, a `follower` may take the rows over as it leaves them.
        """
        if self._own:
            first = parameters[0]
            dtype = _arrays.arithmetic(first.dtype)
            parameters += self._own_parameters(first.shape, batch_axes, dtype)
        if gradients is not None and len(gradients) > 1:
            shape = parameters[0].shape
            gradients = tuple(_broadcast(g, shape) for g in gradients)
        value, kl, outside, count = self._kernels.evaluate(
            self._term,
            x,
            mask,
            self._missing_nan,
            parameters,
            gradients,
            self._x_scale,
            weight * self._factor,
            self._factor,
            self._constant,
            batch_axes,
            row_values,
            elements,
            latents,
            follower,
            threads,
        )
        if outside and self._validate:
            self._complain(x, parameters, batch_axes, mask)
        return value, kl, count

    def _of_rows(self, rows, axes):
        """The likelihood of some rows of samples of x, (K, B, ...) with so many axes."""
        own = [rows_of(p, axes, rows) for p in self._own]
        if all(part is whole for part, whole in zip(own, self._own, strict=True)):
            return self
        some = copy.copy(self)
        some._own = tuple(own)
        return some

    def _blocks(self, columns):
        """Of so many columns of x, those that go together: all."""
        return [Block(self, slice(0, columns), columns, 0)]

    def _couples_rows(self):
        """Whether the density of a sample depends on the others of its minibatch."""
        return False

    def _variances(self, x, outputs, threads):
        """Of scales that a minibatch of checked arrays gives, the squares."""
        return []

    def _at_variances(self, variances):
        """Itself, but with scales from such numbers, which are taken off an iterator."""
        return self

    def _members(self):
        """What it is made of."""
        return [self]

    def _over(self, columns, names):
        """Itself for so many columns of x, which may have names."""
        return self

    def _own_parameters(self, shape, batch_axes, dtype):
        """Parameters added to the decoder's, broadcast to `shape`."""
        return self._of_event(self._own, shape, batch_axes, dtype)

    def _of_event(self, own, shape, batch_axes, dtype):
        """Arrays that broadcast to the event, always the same of `_own`, broadcast to `shape`."""
        event = shape[batch_axes:]
        if dtype not in self._cast:
            most = np.finfo(dtype).max  # infinity times 0 is NaN: 1 / 1e-45 in float32, say
            self._cast[dtype] = [np.clip(p, -most, most).astype(dtype) for p in own]
        own = [_compact(p, event) for p in self._cast[dtype]]
        if any(p.ndim > len(event) for p in own):
            self._misfit(event)
        try:
            return tuple(_arrays.few_axes(np.broadcast_to(p, shape)) for p in own)
        except ValueError:
            self._misfit(event)

    def _of_samples(self, own, shape, batch_axes):
        """Arrays that broadcast to x, broadcast to `shape`."""
        of_x = shape[batch_axes - 1 :]
        for p in own:
            if not broadcasts(p.shape, of_x):
                wanted = f"one that broadcasts to that of x, {of_x}"
                raise _arrays.shape_error(self._by_sample, p.shape, wanted)
        return tuple(_arrays.few_axes(np.broadcast_to(p, shape)) for p in own)

    def _misfit(self, event):
        shape = np.broadcast_shapes(*(p.shape for p in self._own))
        raise ValueError(
            f"{self._own_name} has shape {shape}, which does not broadcast to the event {event}"
        )

    def _complain(self, x, parameters, batch_axes, mask):
        """Name the first element outside the domain; the pass found that there is one."""
        x = _arrays.dense(x)
        parameters = [p.astype(_arrays.arithmetic(p.dtype), copy=False) for p in parameters]
        with np.errstate(all="ignore"):
            scaled = np.asarray(x, np.float64) * self._x_scale
            offences = list(self._offences(scaled, *parameters))
        for name, values, wrong, domain in offences:
            if mask is not None:
                wrong = wrong & (mask != 0)
            if self._missing_nan:
                wrong = wrong & ~np.isnan(scaled)
            where = np.argwhere(wrong)
            if len(where) == 0:  # it is the rounding to float32 that took x outside
                continue
            at = tuple(where[0])
            named = at[batch_axes - 1 :] if name == "x" else at
            if self._column_numbers is not None:
                named = (*named[:-1], self._column_numbers[named[-1]])
            place = f"[{', '.join(str(i) for i in named)}]" if named else ""
            value = digits(x[at] if name == "x" and self._x_scale == 1 else values[at])
            domain = domain(at) if callable(domain) else domain
            raise ValueError(
                f"{name}{place} = {value} lies outside the domain of {type(self).__name__}, "
                f"{domain} ({self._way_out(name, x)})"
            )

    def _way_out(self, name, x):
        """What to do about a value outside the domain."""
        if name == "x" and x.dtype == np.uint8 and self._x_scale == 1:
            with np.errstate(all="ignore"):
                if not self._is_outside(x / 255.0).any():
                    return f"x is uint8: {type(self).__name__}(x_scale=1/255) reads it as 0 to 1"
        return "validate=False skips this check"

    def _offences(self, x, *parameters):
        """(name, values, which are outside, the domain) of x and of what parameters need it.

        A domain that differs between elements is a function of the index.
        """
        outside = self._is_outside(x)
        if self._x_scale != 1:  # what its roundings took outside is inside
            for off in (1 - SCALING, 1 + SCALING):
                outside = outside & self._is_outside(x * off)
        yield "x", x, outside, self._domain

    def _is_outside(self, x):
        return np.zeros(x.shape, bool)

    @overload
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: Reduced = ...,
        num_threads: Threads = ...,
    ) -> float: ...
    @overload
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByRow,
        num_threads: Threads = ...,
    ) -> Float64Array: ...
    @overload
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByElement,
        num_threads: Threads = ...,
    ) -> FloatArray: ...
    def log_prob(self, x, *parameters, mask=None, reduction="mean", num_threads=None):
        """Log-density of x, summed over the event.

        Parameters
        ----------
        x : array_like, shape (B, ...)
            Data of any real dtype; integers and half precision (float16, and bfloat16 of
            ``ml_dtypes``) are read as they are, never converted in memory. For likelihoods of
            counts that say so, (B, D) in CSR format, too.
        *parameters : array_like
            The decoder outputs named in ``parameters``: the first has the shape of x, or
            (K, B, ...) for K samples of each x; others broadcast to it.
        mask : array_like of bool, optional
            True where x was observed; broadcasts to x. What is missing adds nothing to the value
            and has a gradient of zero, whatever x and the parameters hold there.
        reduction : {"mean", "sum", "none", "elementwise"}
            Over the batch, and over the samples. ``"elementwise"``: no sum over the event, either.
        num_threads : int, optional

        Returns
        -------
        float, or ndarray of shape (B,) or (K, B) and dtype float64 for ``reduction="none"``
            In nats. For ``"elementwise"`` (B, ...) or (K, B, ...), in the dtype of the gradients, 0
            where x is missing.

        Raises
        ------
        ValueError
            If shapes do not match or something lies outside the domain.
        """
        return log_density(self, x, parameters, mask, reduction, num_threads, None, False)

    @overload
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: Reduced = ...,
        out: tuple[Out, ...] | None = ...,
        num_threads: Threads = ...,
    ) -> tuple[float, tuple[FloatArray, ...]]: ...
    @overload
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByRow,
        out: tuple[Out, ...] | None = ...,
        num_threads: Threads = ...,
    ) -> tuple[Float64Array, tuple[FloatArray, ...]]: ...
    @overload
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByElement,
        out: tuple[Out, ...] | None = ...,
        num_threads: Threads = ...,
    ) -> tuple[FloatArray, tuple[FloatArray, ...]]: ...
    def log_prob_and_grad(
        self, x, *parameters, mask=None, reduction="mean", out=None, num_threads=None
    ):
        """:meth:`log_prob` and its gradients in one pass over memory.

        Parameters
        ----------
        x, *parameters, mask, reduction, num_threads
            As in :meth:`log_prob`.
        out : tuple of ndarray, optional
            Where to write the gradients, one array (or None) per parameter.

        Returns
        -------
        value : float or ndarray
        gradients : tuple of ndarray
            One per parameter, each in the parameter's own shape: the gradient of the value returned
            (with ``reduction="none"`` and ``"elementwise"``, of the sum of the values). Of a
            parameter in half precision in that, unless something else is float64 or `out` float32
            (in float16 what is less than 3e-8 is lost); arithmetic is in float32.
        """
        return log_density(self, x, parameters, mask, reduction, num_threads, out, True)

    def mean(self, *parameters: ArrayLike) -> FloatArray:
        """Mean of p(x | parameters), element by element.

        Of a location family it is the location, which is in the middle of Student's t even where
        that has no mean. With an ``x_scale`` it is the mean of x times that.

        Parameters
        ----------
        *parameters : array_like
            The decoder outputs named in ``parameters``, as in :meth:`log_prob`.

        Returns
        -------
        ndarray
            A new one, in the shape and dtype of the first parameter unless the class says
            otherwise.

        Examples
        --------
        >>> import fastelbo
        >>> fastelbo.Bernoulli().mean([[0.0, 1000.0]])
        array([[0.5, 1. ]])
        >>> fastelbo.Poisson().mean([[0.0, -1000.0]])
        array([[1., 0.]])
        >>> fastelbo.Gaussian("learned").mean([[2.0]], [[-1.0]])
        array([[2.]])
        """
        if len(parameters) != len(self.parameters):
            self._miscounted(parameters)
        names = self.parameters
        arrays = [_arrays.as_floats(p, name) for p, name in zip(parameters, names, strict=True)]
        self._check_over(arrays)
        with np.errstate(all="ignore"):
            return np.array(self._mean(*arrays), arrays[0].dtype)

    def _predicted(self, outputs):
        """The mean of x by draws of the outputs, (K, N, ...)."""
        return self.mean(*outputs).mean(axis=0)

    def _check_over(self, arrays):
        """Complain about parameters that do not lie over the first as `log_prob` wants them to."""
        first, *others = (a.shape for a in arrays)
        for name, shape in zip(self.parameters[1:], others, strict=True):
            if self._layout.more_axes and shape != first:
                raise _arrays.shape_error(name, shape, f"that of {self.parameters[0]}, {first}")
            if not broadcasts(shape, first):
                raise _arrays.shape_error(name, shape, f"one that broadcasts to {first}")

    def _mean(self, x_recon, *others):
        return x_recon

    def _event(self, x, parameters, sample_axes=0):
        """x and the parameters, checked and broadcast to one shape."""
        return _arrays.event(x, parameters, self.parameters, sample_axes, self._layout)

    def _sample_axes(self, x, parameters):
        """1 if the parameters have a leading axis of samples that x lacks, else 0."""
        first = parameters[0]
        if isinstance(x, np.ndarray) and isinstance(first, np.ndarray):
            return int(first.ndim == x.ndim + 1 + self._layout.more_axes)
        return int(_axes(first) == _axes(x) + 1 + self._layout.more_axes)

    def _check_event(self, x, parameters, mask, by_number):
        """That arrays fit, as for `log_prob`; and, if their numbers are to be looked at, the
        domain."""
        if len(parameters) != len(self.parameters):
            self._miscounted(parameters)
        sample_axes = self._sample_axes(x, parameters)
        x, parameters = self._event(x, parameters, sample_axes)
        if mask is not None:
            mask = _arrays.as_mask(mask, x, sample_axes)
        first, batch_axes = parameters[0], 1 + sample_axes
        own = self._own_parameters(first.shape, batch_axes, first.dtype)
        if by_number and self._validate:
            self._complain(x, self._of_domain(parameters, own, mask), batch_axes, mask)

    def _of_domain(self, parameters, own, mask):
        """What `_offences` reads besides x."""
        return parameters + own

    def _miscounted(self, parameters):
        raise TypeError(
            f"{type(self).__name__} takes {len(self.parameters)} decoder output(s) "
            f"{self.parameters}, got {len(parameters)}"
        )

    def _log_prob(self, x, parameters, mask, reduction, num_threads, out, with_gradient, sign=1.0):
        """The log-density and the gradients of `sign` times it."""
        check_reduction(reduction, OF_ELEMENTS)
        if len(parameters) != len(self.parameters):
            self._miscounted(parameters)
        given, halves = (x, *parameters), self._reads_halves
        sample_axes = self._sample_axes(x, parameters)
        x, parameters = _arrays.event(
            x, parameters, self.parameters, sample_axes, self._layout, halves
        )
        single = _arrays.computes_in_float32((x, *parameters))
        parameters = tuple([_arrays.in_dtype(p, single, halves) for p in parameters])
        given_mask = mask
        if mask is not None:
            mask = _arrays.as_mask(mask, x, sample_axes)
        gradients = written = None
        if with_gradient:
            shapes = own_shapes(given[1:], parameters)
            inputs = (*given, given_mask)
            gradients = _arrays.checked_outs(
                out, shapes, single, inputs, self.parameters, given[1:]
            )
            written = gradients if halves else _arrays.in_single(gradients)
        batch = x.shape[: 1 + sample_axes]
        size = math.prod(batch) if reduction == "mean" else 1
        rows = np.empty(batch) if reduction == "none" else None
        dtype = np.float32 if single else np.float64
        elements = np.empty(x.shape, dtype) if reduction == "elementwise" else None
        threads = threads_for(parameters[0].size, num_threads)
        options = (sign / size, rows, None, 1 + sample_axes, threads, mask, None, elements)
        value, _, _ = self._pass(x, parameters, written, *options)
        if with_gradient:
            _arrays.hand_over(written, gradients)
        given = rows if elements is None else elements
        value = value / size if given is None else given
        return (value, gradients) if with_gradient else value

    def __repr__(self):
        return f"{type(self).__name__}()"


def _axes(a):
    """The number of axes, 0 of what is no array: `_arrays` says so in better words."""
    try:
        return np.ndim(a)
    except ValueError:
        return 0


def own_shapes(given, broadcast):
    """The shapes of gradients: those in which the caller gave the parameters."""
    return [broadcast[0].shape, *(np.shape(p) for p in given[1:])]


def _broadcast(array, shape):
    return array if array.shape == shape else np.broadcast_to(array, shape)


def broadcasts(shape, whole):
    """Whether what has this shape broadcasts to that one; torch.compile traces it, too."""
    last = whole[len(whole) - len(shape) :]
    return len(shape) <= len(whole) and all(
        [extent in (1, wanted) for extent, wanted in zip(shape, last, strict=True)]
    )


def rows_of(array, axes, rows):
    """Some rows of an array that broadcasts to one of so many axes, (K, B, ...)."""
    if array is None:
        return None
    axis = array.ndim - axes + 1
    if axis < 0 or array.shape[axis] == 1:
        return array
    return array[:, rows] if axis == 1 else array[rows]


def _compact(array, event):
    """Broadcast to the event's last axis at least, so that it is contiguous there."""
    if array.ndim == 0 or not event or array.shape[-1] not in (1, event[-1]):
        return array
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:-1], event[-1])))


def positive_array(value, name, words=()):
    """One of `words`, or positive finite numbers as a float64 array of its own."""
    if isinstance(value, str):
        if value not in words:
            known = "".join(f' or "{word}"' for word in words)
            raise ValueError(f"{name} must be numbers{known}, got {value!r}")
        return value
    array = as_numbers(value, name)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return array


def digits(value):
    """A number as short as it can be said."""
    return f"{value:g}" if float(f"{value:g}") == value else str(value)


def is_word(value, word):
    return isinstance(value, str) and value == word


def sigmoid(logits):
    """1 / (1 + e^-logits), a new array."""
    probabilities = np.array(logits, order="C")
    _network.sigmoid(probabilities, threads_for(probabilities.size, None))
    return probabilities
