"""Rows of a dask array in the place of a matrix in memory, for training."""

import dask
import numpy as np
from dask import delayed

from fastelbo._estimator import finite_matrix
from fastelbo._vae_settings import check_domain
from fastelbo.dask._chunks import as_dask, check_chunk, stores_of, told_where

#: Bytes of the rows that are read together, in the order in which training wants them.
POOL = 64 << 20


class Rows:
    """The rows of a dask array (N, D), read when they are taken; they are checked beforehand.

    Has what training asks of `fastelbo._reading.Rows`. Told by :meth:`expect` in which order rows
    will be wanted, it reads those of the next minibatches together.
    """

    once = False  # training may read them again and again

    def __init__(self, X, dtype):
        X = as_dask(X, "X")
        if X.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {X.ndim}D array instead: X has shape {X.shape}. "
                "Reshape your data to (samples, features)."
            )
        self.shape, self.dtype = X.shape, np.dtype(dtype)
        stores = stores_of(X)
        X = X.rechunk({1: -1})
        ends = np.cumsum(X.chunks[0])
        self._starts = np.concatenate([[0], ends[:-1]])
        places = [
            {"array-location": [(stop - size, stop), (0, X.shape[1])], "chunk-location": (i, 0)}
            for i, (stop, size) in enumerate(zip(ends.tolist(), X.chunks[0], strict=True))
        ]
        self._blocks = [
            delayed(_as_dask_has_it)(block, place, stores)
            for block, place in zip(X.to_delayed()[:, 0], places, strict=True)
        ]
        self._places = places
        self._largest = None

    def __len__(self):
        return self.shape[0]

    def check(self, likelihood):
        """Complain about the first chunk that the likelihood cannot be trained on."""
        found = dask.compute(
            *(
                delayed(_largest_of)(block, place, self.dtype, likelihood)
                for block, place in zip(self._blocks, self._places, strict=True)
            )
        )
        self._largest = max(found)

    def reach(self):
        """The largest absolute value."""
        return self._largest

    def parts(self):
        """What an epoch goes through."""
        return [self]

    def first(self):
        return self

    def portions(self, step):
        """Every `step`th row, in memory."""
        return [self[::step]]

    def expect(self, order):
        """Rows will be taken in this order, a minibatch at a time."""
        self._order, self._next, self._held = order, 0, {}

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        return dask.compute(self.lazily(rows))[0]

    def take(self, rows, axis, out, mode):
        """Rows of a minibatch, in memory."""
        out[...] = self._planned(rows, "rows", self._several)
        return out

    def slices(self, rows, size):
        """A minibatch in slices of so many rows, kept where dask computes."""
        return self._planned(rows, "slices", lambda batches: self._kept(batches, size))

    def _planned(self, rows, kind, make):
        """What `make` makes of a minibatch; if it comes as expected, with the next ones."""
        start, batch = self._next, len(rows)
        if not np.array_equal(self._order[start : start + batch], rows):
            return make([rows])[0]
        self._next += batch
        if (kind, start) not in self._held:
            several = max(1, POOL // (batch * self.shape[1] * self.dtype.itemsize))
            ahead = self._order[start : start + several * batch]
            made = make([ahead[i : i + batch] for i in range(0, len(ahead), batch)])
            self._held = {(kind, start + i * batch): one for i, one in enumerate(made)}
        return self._held.pop((kind, start))

    def _several(self, batches):
        return np.split(self[np.concatenate(batches)], np.cumsum([*map(len, batches)])[:-1])

    def _kept(self, batches, size):
        cut = [[rows[i : i + size] for i in range(0, len(rows), size)] for rows in batches]
        kept = iter(dask.persist(*(self.lazily(rows) for slices in cut for rows in slices)))
        return [[next(kept) for _ in slices] for slices in cut]

    def lazily(self, rows):
        """These rows, as a dask value."""
        chunk = np.searchsorted(self._starts, rows, "right") - 1
        order = np.argsort(chunk, kind="stable")
        numbers, firsts = np.unique(chunk[order], return_index=True)
        parts = [
            delayed(_rows_of)(self._blocks[number], rows[some] - self._starts[number], self.dtype)
            for number, some in zip(numbers, np.split(order, firsts[1:]), strict=True)
        ]
        return delayed(_joined)(parts, order)


def _as_dask_has_it(block, place, stores):
    """A chunk, if it is what dask has down."""
    check_chunk(block, "X", place, stores)
    return block


def _largest_of(block, place, dtype, likelihood):
    """The largest absolute value of a chunk that training can read."""
    with told_where("X", place):
        block = finite_matrix(block, dtype)
        check_domain(block, likelihood)
    return float(np.abs(block).max())


def _rows_of(block, rows, dtype):
    return np.asarray(block[rows], dtype)


def _joined(parts, order):
    """The rows of all parts, in the order of which `order` gives the places."""
    rows = np.empty((len(order), parts[0].shape[1]), parts[0].dtype)
    rows[order] = np.concatenate(parts)
    return rows
