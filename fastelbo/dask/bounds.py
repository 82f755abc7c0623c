"""Bounds of the evidence from log weights in dask arrays, chunked along samples and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import dask.array as da
import numpy as np
from dask import delayed

from fastelbo import StreamingBound as InMemory
from fastelbo import _arrays
from fastelbo._threads import check as check_threads
from fastelbo.bounds import _as_order
from fastelbo.dask._chunks import as_dask, over_chunks, total
from fastelbo.likelihoods import check_reduction
from fastelbo.streaming import as_streamed_order

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import Number, Reduction, Threads


def importance_bound(
    log_w: da.Array | ArrayLike,
    *,
    alpha: Number = 0.0,
    reduction: Reduction = "mean",
    num_threads: Threads = 1,
) -> da.Array:
    """:func:`fastelbo.importance_bound` of a dask array of log weights, lazily.

    Parameters
    ----------
    log_w : dask array, shape (K, B)
        In chunks of samples, of the batch, or of both.
    alpha, reduction
        As in :func:`fastelbo.importance_bound`.
    num_threads : int or None, optional
        Threads of the kernels in each thread of a worker; None is fastelbo's own rule.

    Returns
    -------
    dask array
        Of no axes, or (B,) for ``reduction="none"``, in nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`log_prob`.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastelbo.dask
    >>> log_w = da.zeros((1000, 6), chunks=(100, 2))
    >>> float(fastelbo.dask.importance_bound(log_w, alpha=0.5).compute())
    0.0
    """
    check_reduction(reduction)
    alpha = _as_order(alpha, "alpha")
    log_w = _log_weights(log_w)
    if alpha == 1:
        columns = _streams(log_w, num_threads)
        return _reduced(_rows(columns, log_w.chunks[1], "bound", alpha=1.0), reduction)
    columns = _streams(log_w, num_threads, 1 - alpha)
    return _reduced(_rows(columns, log_w.chunks[1], "bound") / (1 - alpha), reduction)


class StreamingBound:
    """:class:`fastelbo.StreamingBound` of dask arrays: what it gives is lazy, and computed once.

    Each chunk is read by itself; sums of the same rows merge as those of processes do.

    Parameters
    ----------
    num_threads : int or None, optional
        Threads of the kernels in each thread of a worker; None is fastelbo's own rule.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastelbo.dask
    >>> stream = fastelbo.dask.StreamingBound()
    >>> for _ in range(3):
    ...     stream = stream.update(da.zeros((1000, 6), chunks=(100, 2)))
    >>> float(stream.bound().compute()), stream.samples
    (0.0, 3000)
    """

    def __init__(self, *, num_threads: Threads = 1) -> None:
        self.num_threads = check_threads(num_threads)
        self.samples = 0
        self._columns = self._chunks = None

    def update(self, log_w: da.Array | ArrayLike) -> Self:
        """Add the log weights of more samples.

        Parameters
        ----------
        log_w : dask array, shape (any number of samples, B)
            Its chunks along B become those of the first.

        Returns
        -------
        StreamingBound
            This object.

        Raises
        ------
        ValueError, TypeError
            If log_w is not such an array, or B is not that of the arrays before.
        """
        log_w = _log_weights(log_w)
        samples = len(log_w)
        if self._chunks is not None:
            wanted = sum(self._chunks)
            if log_w.shape[1] != wanted:
                raise _arrays.shape_error(
                    "log_w", log_w.shape, f"(samples, {wanted}) like the arrays before"
                )
            log_w = log_w.rechunk({1: self._chunks})
        return self._add(_streams(log_w, self.num_threads), log_w.chunks[1], samples)

    def merge(self, other: StreamingBound) -> Self:
        """Add what another such object, of the same B in the same chunks, has seen.

        Parameters
        ----------
        other : StreamingBound

        Returns
        -------
        StreamingBound
            This object.

        Raises
        ------
        ValueError, TypeError
            If `other` is something else, or of other chunks along B.
        """
        if not isinstance(other, StreamingBound):
            raise TypeError(f"other must be a StreamingBound of dask, got {type(other).__name__}")
        if other._chunks is None:
            return self
        if self._chunks not in (None, other._chunks):
            raise ValueError(f"other has chunks of {other._chunks} rows, expected {self._chunks}")
        return self._add(other._columns, other._chunks, other.samples)

    def _add(self, columns, chunks, samples):
        if self._columns is not None:
            pairs = zip(self._columns, columns, strict=True)
            columns = [delayed(_merged)(list(pair)) for pair in pairs]
        self._columns, self._chunks, self.samples = columns, chunks, self.samples + samples
        return self

    def bound(self, *, alpha: Number = 0.0, reduction: Reduction = "mean") -> da.Array:
        """The bound of all samples seen.

        Parameters
        ----------
        alpha : {0, 1, -1}
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        dask array
            Of no axes, or (B,) for ``reduction="none"``, in nats.

        Raises
        ------
        ValueError
            If nothing was seen, or for another alpha.
        """
        check_reduction(reduction)
        alpha = as_streamed_order(alpha)
        return _reduced(self._of_rows("bound", alpha=alpha), reduction)

    def effective_sample_size(self) -> da.Array:
        """As :func:`~fastelbo.effective_sample_size` of all samples seen, (B,)."""
        return self._of_rows("effective_sample_size")

    def standard_error(self, *, reduction: Reduction = "mean") -> da.Array:
        """Standard error of ``bound()``, as :meth:`fastelbo.StreamingBound.standard_error`.

        Parameters
        ----------
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        dask array
            Of no axes, or (B,) for ``reduction="none"``, in nats.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        check_reduction(reduction)
        rows = self._of_rows("standard_error")
        if reduction == "none":
            return rows
        whole = da.sqrt(_reduced(rows * rows, "sum"))
        return whole / len(rows) if reduction == "mean" else whole

    def _of_rows(self, method, **options):
        if self._columns is None:
            raise ValueError("no log weights yet: call update first")
        return _rows(self._columns, self._chunks, method, **options)

    def __repr__(self):
        batch = None if self._chunks is None else sum(self._chunks)
        return f"StreamingBound(samples={self.samples}, batch={batch})"


def _log_weights(log_w):
    log_w = as_dask(log_w, "log_w")
    if log_w.ndim != 2:
        raise _arrays.shape_error("log_w", log_w.shape, "(samples, batch)")
    return log_w


def _streams(log_w, num_threads, power=1.0):
    """For each chunk of the batch what has seen all its samples, their weights to a power."""
    streams = over_chunks(
        _stream_of_chunk,
        {"log_w": log_w},
        chunks=tuple((1,) * n for n in log_w.numblocks),
        dtype=object,
        num_threads=num_threads,
        power=power,
    )
    return [delayed(_merged)(list(column)) for column in streams.to_delayed().T]


def _stream_of_chunk(log_w, place, power):
    if power != 1:
        with np.errstate(all="ignore"):
            log_w = power * np.asarray(log_w, np.float64)
    found = np.empty((1, 1), object)
    found[0, 0] = InMemory().update(log_w)
    return found


def _merged(streams):
    whole = InMemory()
    for stream in streams:
        whole.merge(stream if isinstance(stream, InMemory) else stream[0, 0])
    return whole


def _rows(columns, chunks, method, **options):
    """What a method of the streams gives for each row."""
    parts = [
        da.from_delayed(delayed(_call)(column, method, options), (size,), np.float64)
        for column, size in zip(columns, chunks, strict=True)
    ]
    return da.concatenate(parts)


def _call(stream, method, options):
    if method != "effective_sample_size":
        options = {**options, "reduction": "none"}
    return getattr(stream, method)(**options)


def _reduced(rows, reduction):
    if reduction == "none":
        return rows
    sums = rows.map_blocks(_sum, chunks=((1,) * rows.numblocks[0],), dtype=np.float64)
    return total(sums, len(rows) if reduction == "mean" else 1)


def _sum(rows):
    with np.errstate(all="ignore"):
        return rows.sum(keepdims=True)
