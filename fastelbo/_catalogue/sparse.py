"""Sparse data, for the cases of what reads it; SciPy need not be there."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Csr:
    """A matrix in CSR format, its parts by the names that SciPy gives them."""

    shape: tuple
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray

    format = "csr"
    ndim = 2

    @property
    def dtype(self):
        return self.data.dtype

    def __len__(self):
        return self.shape[0]

    def toarray(self):
        dense = np.zeros(self.shape, self.dtype)
        dense[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.data
        return dense


def as_csr(x):
    """x in CSR format; as it is where it has not two axes, or has that format already."""
    if isinstance(x, Csr) or np.ndim(x) != 2:
        return x
    x = np.asarray(x)
    rows, columns = np.nonzero(x)
    indptr = np.searchsorted(rows, np.arange(len(x) + 1))
    return Csr(x.shape, indptr, columns.astype(np.int32), x[rows, columns])


def densified(peer):
    """A peer of arrays that makes them of sparse data first, as users do who have nothing else."""

    def call(*arrays):
        return peer(*[a.toarray() if isinstance(a, Csr) else a for a in arrays])

    return call
