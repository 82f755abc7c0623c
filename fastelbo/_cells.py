"""Cells: rows of counts and their batches, of AnnData, arrays and sparse matrices alike."""

import sys
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._estimator import names_nothing
from fastelbo._reading import Rows, as_unmasked, check_whole
from fastelbo.discrete import is_no_count
from fastelbo.likelihoods import digits


def is_anndata(X):
    """Whether it is an AnnData, of a package that is not imported for this."""
    module = sys.modules.get("anndata")
    return module is not None and isinstance(X, module.AnnData)


class Cells(Rows):
    """Rows of counts, which are checked when they are read, and the batch of each.

    What is read are `SomeCells`. `codes` (N,) are the numbers of batches among `labels`, which are
    sorted; both are None without batches. `given` is what the user gave.
    """

    def __init__(self, X, dtype, layer, batch_key, batch):
        data, name, labels, known = X, "X", batch, batch
        if is_anndata(X):
            if batch is not None:
                raise TypeError("batch is for a matrix: of an AnnData, batch_key names the column")
            data, name = _counts_of(X, layer)
            labels, known = _batches_of(X, batch_key)
        check_whole(data, name)
        super().__init__(data, dtype, name)
        self.given = X
        self._sparse = True
        self._checks.append(check_counts)
        self._batch, self.labels, self.codes = labels, None, None
        self._batch_name = "batch"
        if is_anndata(X):
            self._batch_name = f"adata.obs[{batch_key!r}]:" if batch_key else "batch_key"
        if labels is not None:
            self.labels = np.unique(as_labels(known, self._batch_name))
            self.codes = codes_of(labels, len(self), self.labels, self._batch_name)

    def coded(self, labels):
        """The same, with the numbers of batches among these labels."""
        codes = codes_of(self._batch, len(self), labels, self._batch_name)
        return self._but(labels=labels, codes=codes)

    def read_for(self, likelihood, check):
        """The same: all likelihoods are of counts."""
        return self

    def portions(self, step=1):
        for cells in super().portions(step):
            yield cells.dense()

    def _checked(self, x, numbers):
        super()._checked(x, numbers)
        return SomeCells(x, None if self.codes is None else self.codes[numbers])


class SomeCells:
    """A few cells: `counts` (B, G), dense or sparse, and `codes` (B,) of their batches or None."""

    def __init__(self, counts, codes):
        self.counts, self.codes = counts, codes

    def __len__(self):
        return len(self.counts)

    def __getitem__(self, rows):
        return SomeCells(self.counts[rows], None if self.codes is None else self.codes[rows])

    def dense(self, out=None):
        """The counts as an array."""
        if type(self.counts) is _arrays.SparseRows:
            return self.counts.into(np.empty(self.counts.shape) if out is None else out)
        if out is None:
            return self.counts
        out[...] = self.counts
        return out

    @property
    def library(self):
        """Counts of each cell, (B,), in float64."""
        if type(self.counts) is not _arrays.SparseRows:
            return self.counts.sum(axis=1, dtype=np.float64)
        counts = self.counts.in_dtype(np.float64)
        starts, stops = counts.ends().T
        before = np.concatenate([[0.0], np.cumsum(counts.values)])
        return before[stops] - before[starts]


class Setting(NamedTuple):
    """Library sizes (B,) and codes (B,) of batches, or None: all that a decoder asks of cells."""

    library: np.ndarray
    codes: np.ndarray | None

    def of(self, rows):
        return Setting(self.library[rows], None if self.codes is None else self.codes[rows])


def check_counts(X, name, numbers):
    """Complain about the first value that is no count, of rows of these numbers."""
    if type(X) is _arrays.SparseRows:
        if X.ascending and not is_no_count(X.values).any():
            return
        X = X.toarray()
    outside = is_no_count(X)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{name}[{numbers[row]}, {column}] = {digits(X[row, column])} is no count: give the "
            "raw counts 0, 1, 2, ..., neither normalised nor logarithms (of an AnnData, layer= "
            "names the layer that has them)"
        )


def _counts_of(adata, layer):
    """(the matrix of counts, its name) of an AnnData."""
    if layer is None:
        if adata.X is None:
            raise ValueError(f"adata.X is None: layer= names one of {list(adata.layers)}")
        return adata.X, "adata.X"
    if layer not in adata.layers:
        raise ValueError(f"layer={layer!r} is none of adata.layers, {list(adata.layers)}")
    return adata.layers[layer], f"adata.layers[{layer!r}]"


def _batches_of(adata, batch_key):
    """The label of each cell's batch, and all labels that there may be; None without a key."""
    if batch_key is None:
        return None, None
    if batch_key not in adata.obs:
        raise ValueError(
            f"batch_key={batch_key!r} is no column of adata.obs, which has {list(adata.obs)}"
        )
    column = adata.obs[batch_key]
    if column.isna().any():
        cell = adata.obs_names[column.isna()][0]
        raise ValueError(f"adata.obs[{batch_key!r}] has no batch for cell {cell!r}")
    kinds = column.cat.categories if hasattr(column, "cat") else column
    return np.asarray(column), np.asarray(kinds)


def as_labels(batch, name):
    """Labels of batches: a vector of integers or strings."""
    labels = as_unmasked(batch, name)
    if labels.dtype.kind in "fO":
        for i, label in enumerate(labels.flat):
            if names_nothing(label):
                raise ValueError(f"{name}[{i}] = {label} is no label: every cell needs one")
    if labels.dtype.kind in "OT" and all(isinstance(label, str) for label in labels.flat):
        labels = np.array(labels.tolist())  # NumPy casts no StringDType of any length
    if labels.dtype.kind not in "iubU":
        raise TypeError(
            f"{name} must be integers or strings, got dtype {labels.dtype}: astype(str) makes them "
            "strings"
        )
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def codes_of(batch, n, known, name):
    """The numbers of n labels among those known, which are sorted; None without any."""
    if known is None:
        if batch is not None:
            raise ValueError(f"{name} is for a model that was fitted with batches")
        return None
    if batch is None:
        raise ValueError(
            f"{name} is missing: the model was fitted to cells of batches, {known.tolist()}"
        )
    labels = as_labels(batch, name)
    if labels.shape != (n,):
        raise _arrays.shape_error(name, labels.shape, f"({n},), a label for each cell")
    of_kind = (labels.dtype.kind == "U") == (known.dtype.kind == "U")
    at = np.searchsorted(known, labels).clip(max=len(known) - 1) if of_kind else np.zeros(n, int)
    unseen = known[at] != labels if of_kind else np.ones(n, bool)
    if unseen.any():
        raise ValueError(
            f"{name} {labels[unseen][0].item()!r} is none of those that the model was fitted to, "
            f"{known.tolist()}"
        )
    return at


def check_genes(names, known):
    """Complain unless genes are those that are known, in their order."""
    if np.array_equal(names, known):
        return
    way = "adata[:, model.feature_names_in_] has those of the model, in their order"
    differing = (_beyond(known, names), "missing"), (_beyond(names, known), "unknown")
    told = [f"{_few(some)} {what}" for some, what in differing if some] or ["in another order"]
    raise ValueError(
        f"adata.var_names are not the genes that the model was fitted to: {', '.join(told)}; {way}"
    )


def _beyond(names, others):
    """Names that are not among others."""
    others = set(others)
    return [name for name in names if name not in others]


def _few(names, most=3):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
