"""Dask arrays as arguments, and functions of their chunks.

Chunks are computed by tasks that know which they are: what goes wrong in one is told with its name
and place, and what dask has down about a chunk is compared with what came.
"""

import math
import sys
from contextlib import contextmanager

import dask.array as da
import numpy as np

from fastelbo import _threads
from fastelbo._reading import as_unmasked, check_known


def as_dask(array, name):
    """A dask array whose chunks are known; of another array, with the chunks that it may have."""
    if hasattr(array, "to_dask_array"):
        raise TypeError(f"{name} is a data frame: pass {name}.to_dask_array(lengths=True)")
    if not isinstance(array, da.Array):
        if not hasattr(array, "chunks"):  # those of Zarr and HDF5 are read chunk by chunk
            array = as_unmasked(array, name)
        array = da.from_array(array, chunks=getattr(array, "chunks", None) or "auto")
    check_known(array, name)
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    return array


def over_chunks(
    function, given, *, chunks=None, dtype=np.float64, num_threads=1, called=None, **options
):
    """A dask array of ``function(*blocks, place=..., **options)`` of every chunk.

    `given` are arrays by name: dask arrays aligned at their last axes, whose chunks match or are
    the only ones of an axis of length 1, and others, which every chunk gets whole. `place` is where
    the chunk lies in the largest of them, as slices. The result has the chunks of that, or
    `chunks`.
    """
    largest = max((a for a in given.values() if isinstance(a, da.Array)), key=lambda a: a.ndim)
    names = tuple(given)
    return da.map_blocks(
        _run,
        *given.values(),
        function=function,
        names=names,
        largest=next(i for i, a in enumerate(given.values()) if a is largest),
        stores=tuple(stores_of(a) if isinstance(a, da.Array) else () for a in given.values()),
        threads=_threads.check(num_threads),
        options=options,
        chunks=chunks or largest.chunks,
        dtype=dtype,
        meta=np.empty((0,) * largest.ndim, dtype),
        token=called or function.__name__.strip("_"),
    )


def _run(*blocks, function, names, largest, stores, threads, options, block_info):
    """The function of one chunk of each array."""
    for i, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if i in block_info:
            check_chunk(block, name, block_info[i], stores[i])
    place = block_info[largest]
    with _threads.num_threads(threads), told_where(names[largest], place):
        return function(
            *blocks, place=tuple(slice(*ends) for ends in place["array-location"]), **options
        )


def check_chunk(block, name, place, stores=()):
    """Complain about a chunk that is not what dask has down, or was not read."""
    wanted = tuple(stop - start for start, stop in place["array-location"])
    at = tuple(int(i) for i in place["chunk-location"])
    if np.shape(block) != wanted:
        raise ValueError(
            f"{name}: chunk {at} has shape {np.shape(block)}, but dask has it down as {wanted}: "
            "what made the array told it wrong"
        )
    for store in stores:
        _check_there(store, name, at)


@contextmanager
def told_where(name, place):
    """Adds to errors inside the block which chunk of which array they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        at = tuple(int(i) for i in place["chunk-location"])
        start = [int(ends[0]) for ends in place["array-location"]]
        error.args = (f"in chunk {at} of {name}, which begins at {start}: {error}",)
        raise


def stores_of(array):
    """The arrays of Zarr that a dask array reads."""
    zarr = sys.modules.get("zarr")
    layers = getattr(array.dask, "layers", {}) if zarr else {}
    found = []
    for name, layer in layers.items():
        if name.startswith("original-"):
            found += layer.values()
        else:  # where they are inlined
            found += [value for value, index in getattr(layer, "indices", ()) if index is None]
    found = [getattr(value, "value", value) for value in found]
    return tuple(value for value in found if isinstance(value, zarr.Array)) if zarr else ()


def _check_there(store, name, at):
    """Complain if an array of Zarr is gone: its chunks then read as zeros, without an error."""
    import zarr

    try:
        zarr.open_array(store.store, path=store.path, mode="r")
    except Exception as error:
        raise FileNotFoundError(
            f"{name}: the store vanished while chunk {at} was read: there is no {store!r} any more"
        ) from error


def partial_sums(array):
    """The chunks of sums, one number for each chunk of `array`."""
    return tuple((1,) * len(sizes) for sizes in array.chunks)


def total(partials, count=1):
    """The sum of all partial sums, rounded once, over `count`: a dask array of no axes."""
    whole = da.reduction(
        partials,
        chunk=_as_it_is,
        aggregate=_exact_sum,
        dtype=np.float64,
        split_every={axis: max(2, n) for axis, n in enumerate(partials.numblocks)},  # at once
        meta=np.empty((), np.float64),
    )
    return whole if count == 1 else whole / count


def _as_it_is(partials, axis, keepdims):
    return partials


def _exact_sum(partials, axis, keepdims):
    try:
        return np.float64(math.fsum(partials.ravel()))
    except (OverflowError, ValueError):  # of infinities of both signs, or beyond them
        with np.errstate(all="ignore"):
            return partials.sum()
