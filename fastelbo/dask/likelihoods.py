"""Log-densities by any likelihood, of dask arrays."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from fastelbo import _arrays
from fastelbo._named import as_likelihood
from fastelbo.dask._chunks import as_dask, over_chunks, partial_sums, total
from fastelbo.likelihoods import OF_ELEMENTS, broadcasts, check_reduction
from fastelbo.locations import NoOptimalScale, SquaredError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import AnyLikelihood, ByElement, Reduction, Threads


def log_prob(
    likelihood: AnyLikelihood,
    x: da.Array | ArrayLike,
    *parameters: da.Array | ArrayLike,
    mask: da.Array | ArrayLike | None = None,
    reduction: Reduction | ByElement = "mean",
    num_threads: Threads = 1,
) -> da.Array:
    """Log-density of x, as the likelihood's own ``log_prob`` has it, of dask arrays and lazily.

    Chunks of rows and of features add up to what the arrays in memory give: within 1e-12 in
    float64. All arrays take the chunks of x; an axis of classes or components comes whole.

    Parameters
    ----------
    likelihood : Likelihood or str
        Any of fastelbo's. What it has of each feature or sample, a scale say, belongs to the whole
        of x.
    x : dask array, shape (B, ...)
        Or an array of Zarr, HDF5 or NumPy, which becomes one.
    *parameters : dask array
        The decoder's outputs, in the shapes that :meth:`~fastelbo.Likelihood.log_prob` takes.
    mask : dask array of bool, optional
    reduction : {"mean", "sum", "none", "elementwise"}
    num_threads : int or None, optional
        Threads of the kernels in each thread of a worker; None is fastelbo's own rule.

    Returns
    -------
    dask array
        Of no axes for the mean and the sum, (B,) or (K, B) for ``"none"``, in nats.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, or chunks are of unknown size; and when it is computed, if a chunk is
        not of the size that dask has down, or holds what lies outside the domain: the message
        names the argument and the chunk.
    FileNotFoundError
        When it is computed, if an array of Zarr is gone.

    See Also
    --------
    fastelbo.Likelihood.log_prob : the same of arrays in memory.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastelbo.dask
    >>> x = da.zeros((1000, 20), chunks=(100, 10))
    >>> value = fastelbo.dask.log_prob(fastelbo.Bernoulli(), x, x)
    >>> round(float(value.compute()), 6)  # -20 log 2
    -13.862944
    """
    likelihood = as_likelihood(likelihood)
    check_reduction(reduction, OF_ELEMENTS)
    event = _Event(likelihood, x, parameters, mask)
    options = {"likelihood": likelihood, "num_threads": num_threads}
    if likelihood._couples_rows():
        if _of_blocks(likelihood):
            raise ValueError(
                f'{likelihood!r} has a scale="optimal", which all chunks give together: give it one'
            )
        options["likelihood"] = SquaredError(x_scale=likelihood.x_scale, missing=likelihood.missing)
        errors = event.over(_log_prob_of_chunk, reduction="sum", **options)
        count = total(event.over(_observed_in_chunk, **options))
        variance = -total(errors) / da.maximum(count, 1)
        event.given["variance"] = da.where(count == 0, 1.0, variance)  # of nothing any would do
        options["likelihood"] = likelihood
    if reduction == "elementwise":
        dtype = np.float32 if event.single else np.float64
        elements = event.over(
            _log_prob_of_chunk, reduction=reduction, chunks=event.chunks, dtype=dtype, **options
        )
        return elements if event.extra is None else elements.squeeze(event.extra)
    if reduction == "none":
        chunks = (*event.chunks[: event.batch_axes], *event.sums[event.batch_axes :])
        rows = event.over(_log_prob_of_chunk, reduction=reduction, chunks=chunks, **options)
        return rows.sum(tuple(range(event.batch_axes, rows.ndim)))
    sums = event.over(_log_prob_of_chunk, reduction="sum", **options)
    return total(sums, math.prod(event.batch) if reduction == "mean" else 1)


class _Event:
    """x, the parameters of its likelihood and a mask, in chunks that match."""

    def __init__(self, likelihood, x, parameters, mask):
        names, layout = likelihood.parameters, likelihood._layout
        if len(parameters) != len(names):
            likelihood._miscounted(parameters)
        x = as_dask(x, "x")
        if x.ndim == 0:
            raise _arrays.shape_error("x", x.shape, "(batch, ...)")
        first = as_dask(parameters[0], names[0])
        more, wide = layout.more_axes, _of_blocks(likelihood)
        if (
            wide
        ):  # columns of several likelihoods, whose outputs come whole, as on an axis of theirs
            x, more = x.rechunk({-1: -1}), 1
            first = da.expand_dims(first, first.ndim - 1)
        self.batch_axes = 1 + int(first.ndim == x.ndim + 1 + more)
        samples = self.batch_axes - 1
        self.extra = None
        if more:
            self.extra = samples + (layout.axis if layout.axis >= 0 and not wide else x.ndim)
        over = tuple(n for axis, n in enumerate(first.shape) if axis != self.extra)
        over = (*over[:-1], *x.shape[-1:]) if wide else over
        if over[samples:] != x.shape or first.ndim != x.ndim + samples + more:
            wanted = f"that of x, {x.shape}"
            if more:
                wanted = f"that of x, {x.shape}, and an axis of its own"
            raise _arrays.shape_error(names[0], first.shape, wanted)
        chunks = list(first.chunks[:samples]) + list(x.chunks)
        if more:
            chunks.insert(self.extra, (first.shape[self.extra],))
            x = da.expand_dims(x, self.extra - samples)
        first = first.rechunk(
            tuple(c if n > 1 else (n,) for n, c in zip(first.shape, chunks, strict=True))
        )
        self.given = {"x": x, names[0]: first}
        for name, value in zip(names[1:], parameters[1:], strict=True):
            self.given[name] = value if np.ndim(value) == 0 else _laid_over(value, name, first)
        if mask is not None:
            mask = as_dask(mask, "mask")
            whole = over[samples:]
            if not broadcasts(mask.shape, whole):
                raise _arrays.shape_error("mask", mask.shape, f"one that broadcasts to {whole}")
            mask = mask[(None,) * (len(whole) - mask.ndim)]
            if more:
                mask = da.expand_dims(mask, self.extra - samples)
            mask = _laid_over(mask, "mask", x if wide else first)
        self.given |= {"mask": mask, "variance": None}
        self.single = x.dtype != np.float64 and all(map(is_single, parameters))
        self.batch = over[: self.batch_axes]
        self.shape = over
        self.chunks = tuple((1,) if axis == self.extra else c for axis, c in enumerate(chunks))
        self.sums = partial_sums(first)
        likelihood._own_parameters(over, self.batch_axes, np.dtype(np.float64))  # complains

    def over(self, function, chunks=None, **options):
        return over_chunks(
            function,
            self.given,
            chunks=chunks or self.sums,
            extra=self.extra,
            batch_axes=self.batch_axes,
            **options,
        )


def is_single(array):
    """Whether floats so exact, of an array or a number, leave a computation in float32."""
    dtype = getattr(array, "dtype", None)
    return dtype is None or (dtype.kind == "f" and dtype.itemsize <= 4)


def _laid_over(array, name, first):
    """A dask array that broadcasts to `first`, in chunks that match."""
    array = as_dask(array, name)
    if not broadcasts(array.shape, first.shape):
        raise _arrays.shape_error(name, array.shape, f"one that broadcasts to {first.shape}")
    last = first.chunks[first.ndim - array.ndim :]
    return array.rechunk(
        tuple(c if n > 1 else (n,) for n, c in zip(array.shape, last, strict=True))
    )


def _log_prob_of_chunk(x, *rest, place, likelihood, extra, batch_axes, reduction):
    *parameters, mask, variance = rest
    if _of_blocks(likelihood):
        parameters = [parameters[0].squeeze(-2)]
    if variance is not None:
        likelihood = _at_variance(likelihood, float(variance))
    where = tuple(s for axis, s in enumerate(place) if axis != extra)[batch_axes - 1 :]
    x, mask = _over_x(x, extra, batch_axes), _over_x(mask, extra, batch_axes)
    value = _in_chunk(likelihood, where).log_prob(x, *parameters, mask=mask, reduction=reduction)
    if reduction == "elementwise":
        return value if extra is None else np.expand_dims(value, extra)
    if reduction == "none":
        return value.reshape(value.shape + (1,) * (len(place) - batch_axes))
    return np.full((1,) * len(place), value)


def _of_blocks(likelihood):
    """Whether it is made of several, over columns of their own."""
    return likelihood._members()[0] is not likelihood


def _observed_in_chunk(x, first, *rest, place, likelihood, extra, batch_axes):
    """How many elements are not missing."""
    *_, mask, _ = rest
    observed = np.ones(first.shape, bool) if mask is None else np.broadcast_to(mask, first.shape)
    if likelihood.missing:
        observed = observed & ~np.isnan(x)
    return np.full((1,) * len(place), float(np.count_nonzero(observed)))


def _over_x(array, extra, batch_axes):
    """Without the axis that x lacks."""
    return array if array is None or extra is None else array.squeeze(extra - batch_axes + 1)


def _at_variance(likelihood, variance):
    """The Gaussian of the scale that is best for all chunks."""
    if not variance > 0 or not math.isfinite(variance):
        raise NoOptimalScale(
            f'scale="optimal" needs a positive, finite mean squared error, got {variance}'
        )
    return likelihood._at_variances([variance])


def _in_chunk(likelihood, where):
    """The likelihood of a chunk of x: what it has of each feature or sample, cut likewise."""
    own = [name for name in ("_own", "_theta") if getattr(likelihood, name, None) is not None]
    some = copy.copy(likelihood)
    some._cast = {}
    for name in own:
        value = getattr(likelihood, name)
        cut = [_cut(p, where) for p in (value if isinstance(value, tuple) else (value,))]
        setattr(some, name, tuple(cut) if isinstance(value, tuple) else cut[0])
    return some


def _cut(array, where):
    """The part of an array that broadcasts to x, in a chunk of x."""
    last = where[len(where) - array.ndim :]
    cut = (s if n > 1 else slice(None) for s, n in zip(last, array.shape, strict=True))
    return array[(..., *cut)]  # an array, also of a single number
