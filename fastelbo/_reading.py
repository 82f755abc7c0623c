"""Rows of data, read where they lie: a batch at a time, in the dtype that is computed in.

`as_rows` makes `Rows` of whatever holds a matrix, `as_rows_or_batches` also `Batches` of what gives
one after another; both are checked when they are read. Nothing is imported here of SciPy,
h5py, Zarr and anndata, which are known by what their arrays can do.
"""

import mmap
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain

import numpy as np

from fastelbo import _arrays

#: Bytes of a matrix that are looked at together where nothing but a check is made.
PORTION = 4 << 20
#: Bytes of the rows of a store that are read together, in the order in which training wants them;
#: and of what lies so near that it is read with one request, where there are no chunks.
POOL, SPAN = 32 << 20, 64 << 10
#: Seconds a row that disks take, but no memory; and how many minibatches are asked for then.
SLOW, ASKED = 2e-5, 64


def as_rows(X, dtype, name="X", missing=None):
    """The `Rows` of X; NaN are welcome if values may be `missing`."""
    check_whole(X, name)
    return Rows(X, dtype, name, missing)


def as_rows_or_batches(X, dtype, name="X", missing=None):
    """What is trained on: the `Rows` of X, or the `Batches` that it gives."""
    check_open(X, name)
    return (Batches if gives_batches(X) else Rows)(X, dtype, name, missing)


class Rows:
    """The rows of a matrix (N, D): what is asked of it as of an array is read when it is.

    What is read is C-contiguous and of `dtype`: a view where X is such an array in memory, else a
    copy of these rows alone. Sparse rows are `SparseRows` where they are read for a likelihood that
    reads these, else dense.
    """

    #: Whether there is only one pass.
    once = False

    def __init__(self, X, dtype, name="X", missing=None):
        self.given, self.name, self.dtype = X, name, np.dtype(dtype)
        self._source = _source_of(X, self.dtype, name)
        self._chosen, self._sparse = None, False
        self._checks = [partial(check_finite, missing=missing)]
        self.shape = self._source.shape

    def __len__(self):
        return self.shape[0]

    def _but(self, **changes):
        other = object.__new__(type(self))
        vars(other).update(vars(self), **changes)
        return other

    def read_for(self, likelihood, check):
        """The same, read for a likelihood: ``check(x, likelihood, name, numbers)``, too."""
        check = partial(_with_likelihood, check, likelihood)
        return self._but(_checks=[*self._checks, check], _sparse=likelihood._layout.sparse)

    def checked(self):
        """The same once all have been checked: later reading does not look again."""
        for _ in self.portions():
            pass
        return self._but(_checks=[])

    def part(self, rows):
        """Some of them, by an array of numbers, of which nothing is read."""
        chosen = rows if self._chosen is None else self._chosen[rows]
        return self._but(_chosen=chosen, shape=(len(chosen), self.shape[1]))

    def parts(self):
        """What an epoch goes through, one after the other."""
        return [self]

    def first(self):
        """Rows that tell what all are like."""
        return self

    def portions(self, step=1):
        """Arrays of some MiB, of every `step`th row."""
        of_one = self.shape[1] * max(8, self.dtype.itemsize)
        count = step * max(1, PORTION // of_one)
        for start in range(0, len(self), count):
            yield dense(self[start : start + count : step], self.dtype)

    def reach(self):
        """The largest absolute value."""
        return max(float(np.nanmax(np.abs(x), initial=0.0)) for x in self.portions())

    def expect(self, order):
        """Rows will be taken in this order, some at a time."""
        if hasattr(self._source, "expect"):
            self._source.expect(order if self._chosen is None else self._chosen[order])

    def __getitem__(self, rows):
        """Rows by a slice or an array of numbers."""
        numbers = rows if self._chosen is None else self._chosen[rows]
        return self._checked(self._converted(self._read(numbers)), numbers)

    def take(self, rows, axis=0, out=None, mode=None):
        """Rows by an array of numbers, into `out` unless they are sparse; as `numpy.take`."""
        numbers = rows if self._chosen is None else self._chosen[rows]
        source = self._source
        if type(source) is np.ndarray and source.dtype == self.dtype and out is not None:
            x = np.take(source, numbers, axis=0, out=out, mode="clip")
        else:
            x = self._converted(self._read(numbers), out)
        return self._checked(x, numbers)

    def _read(self, numbers):
        try:
            return self._source[numbers]
        except OSError as error:
            raise OSError(f"{self._told(numbers)} could not be read: {error}") from error

    def _told(self, numbers):
        numbers = self._numbers(numbers)
        return f"{self.name}: rows {min(numbers)} to {max(numbers)}"

    def _numbers(self, rows):
        """Those of rows, as an array or a range."""
        return range(len(self._source))[rows] if isinstance(rows, slice) else rows

    def _converted(self, x, out=None):
        if type(x) is _arrays.SparseRows:
            x = x.in_dtype(self.dtype)
            return x if self._sparse else dense(x, self.dtype, out)
        with np.errstate(over="ignore"):  # which the check finds
            if out is None:
                return np.ascontiguousarray(x, self.dtype)
            out[...] = x
        return out

    def _checked(self, x, numbers):
        for check in self._checks:
            check(x, self.name, self._numbers(numbers))
        return x


class Batches:
    """Rows that come in batches, as often as they are asked for, or once."""

    def __init__(self, X, dtype, name, missing):
        self.given, self.name, self.dtype = X, name, np.dtype(dtype)
        self._missing, self._read_for, self._begun, self._width = missing, None, None, None
        self.once = hasattr(X, "__next__")

    def _but(self, **changes):
        other = object.__new__(type(self))
        vars(other).update(vars(self), **changes)
        return other

    def read_for(self, likelihood, check):
        return self._but(_read_for=(likelihood, check))

    def checked(self):
        """They are checked as they come."""
        return self

    def first(self):
        """The first batch, which the next pass begins with."""
        if self._begun is None:
            batches = self._batches()
            first = next(batches, None)
            if first is None:
                way = ": a generator gives its batches once" if self.once else ""
                raise ValueError(f"{self.name} is empty: it gives no batch{way}")
            self._width = first.shape[1]
            self._begun = chain([first], batches)
            self._first = first
        return self._first

    def parts(self):
        """The batches of an epoch, each as `Rows` that have been checked."""
        self.first()
        batches, self._begun = self._begun, None
        for i, rows in enumerate(batches):
            with told_where(f"{self.name}, batch {i}"):
                if rows.shape[1] != self._width:
                    raise ValueError(
                        f"it has {rows.shape[1]} features, but the first batch has {self._width}"
                    )
                _check_same_names(rows.given, self._first.given)
                if self._read_for:
                    rows = rows.read_for(*self._read_for)
                rows = rows.checked()
            yield rows

    def _batches(self):
        with told_where(self.name):
            batches = iter(self.given() if callable(self.given) else self.given)
        i = 0
        while True:
            with told_where(f"{self.name}, batch {i}"):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                rows = Rows(_data_of(batch), self.dtype, self.name, self._missing)
            yield rows
            i += 1


def check_whole(X, name):
    """Complain about an iterable of batches."""
    check_open(X, name)
    if gives_batches(X):
        raise TypeError(
            f"{name} is an iterable of batches, which fit and partial_fit of a VAE take: give one "
            "of them at a time here"
        )


def gives_batches(X):
    """Whether it is an iterable of batches, or a function that gives one: nothing like an array."""
    if isinstance(X, Sequence):
        return len(X) > 0 and _axes(X[0]) == 2
    if isinstance(X, Mapping) or any(hasattr(X, name) for name in ("shape", "__array__")):
        return False
    return (callable(X) and not isinstance(X, type)) or hasattr(X, "__iter__")


def names_of(X):
    """Names of the columns of a frame as a list; None where it has none, or others than strings."""
    names = list(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _check_same_names(X, first):
    """Complain about a frame whose columns have other names than those of the first batch."""
    names, known = names_of(X), names_of(first)
    if names and known and names != known:
        raise ValueError(f"its columns are {names}, but those of the first batch {known}")


def _data_of(batch):
    """X of a batch, which may have y and more beside it, as loaders give them."""
    several = isinstance(batch, list | tuple) and len(batch) > 0 and _axes(batch[0]) == 2
    return batch[0] if several else batch


def _axes(thing):
    return getattr(thing, "ndim", None)


@contextmanager
def told_where(place):
    """Errors within name the place, too."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        kind = next(kind for kind in (OSError, TypeError, ValueError) if isinstance(error, kind))
        raise kind(f"{place}: {error}") from error
    except Exception as error:
        error.add_note(f"in {place}")
        raise


# Where rows lie ---------------------------------------------------------------------------------


def _source_of(X, dtype, name):
    """What gives rows by ``source[rows]``: an array, `SparseRows` or a `_Store`."""
    if isinstance(X, np.ndarray) and hasattr(X, "toarray"):  # a view of anndata's, an array for all
        source = _array(np.asarray(X), dtype, name)
    elif hasattr(X, "toarray"):
        source = sparse_rows(X, name)
    elif hasattr(X, "chunks") or hasattr(X, "to_memory"):
        source = _Store(X, name)
    else:
        source = _array(X, dtype, name)
    if len(source.shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(source.shape)}D array instead: {name} has shape "
            f"{source.shape}. Reshape your data to (samples, features)."
        )
    if 0 in source.shape:
        what = "sample" if source.shape[0] == 0 else "feature"
        raise ValueError(
            f"{name} is empty: 0 {what}(s) (shape={source.shape}) while a minimum of 1 is required."
        )
    return source


def _array(X, dtype, name):
    X = np.asarray(as_real(X, name))
    if X.ndim != 2:
        return X
    if _map_of(X) is not None:
        return _Mapped(X)
    if X.strides[1] != X.itemsize and X.shape[1] > 1:  # rows lie all over the memory
        X = np.ascontiguousarray(X, dtype if dtype.itemsize < X.itemsize else None)
    return X


def as_real(X, name):
    """An array of real numbers, of whatever dtype holds them."""
    given, X = X, as_unmasked(X, name)
    if _arrays.is_half(X.dtype):
        return X
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {X.dtype}")
    if X.dtype.kind in "mM":
        raise TypeError(f"{name} must hold real numbers, got dtype {X.dtype}")
    if X.dtype.kind in "USV":  # a string may read like a number, and is none
        raise ValueError(f"{name} must hold real numbers, got dtype {X.dtype}")
    if X.dtype.kind not in "fiub":
        try:
            if hasattr(given, "isna"):  # a frame of pandas, which has more than one kind of these
                X = given.to_numpy(object, na_value=np.nan)
            X = X.astype(np.float64)
        except (TypeError, ValueError) as error:
            told = f"{name} must hold real numbers: {error}{_where_no_number(X)}"
            raise type(error)(told) from None
        except OverflowError:
            raise ValueError(f"{name} holds a number larger than a float64 can be") from None
    return X


def _where_no_number(X):
    """Where the first element of a matrix of objects lies that is no number, and what to do."""
    for row, column in np.ndindex(X.shape) if X.ndim == 2 else ():
        found = X[row, column]
        try:
            float(np.nan if found is None else found)
        except (TypeError, ValueError):
            way = ": of classes give the codes 0, 1, ..." if isinstance(found, str) else ""
            return f" (at row {row}, column {column}{way})"
    return ""


def check_unmasked(X, name):
    """X, unless something of it is masked, which nobody would look at."""
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored: pass {name}.filled(value), "
            'with NaN where missing="nan" is set'
        )
    return X


def as_unmasked(X, name):
    """An array, of which nothing is masked."""
    return _arrays.as_any_array(check_unmasked(X, name), name)


def _map_of(X):
    """What maps the file that an array lies in, as numpy.memmap and numpy.load have it, or None."""
    while isinstance(X, np.ndarray):
        X = X.base
    X = X.obj if isinstance(X, memoryview) else X
    return X if isinstance(X, mmap.mmap) else None


def sparse_rows(X, name):
    """Of a sparse matrix in memory; CSR is borrowed, all else is converted to it."""
    if type(X) is _arrays.SparseRows:
        return X
    if getattr(X, "format", None) != "csr":
        if hasattr(X, "check_format"):
            X.check_format()
        X = X.tocsr()
    return _arrays.csr(X.shape, X.indptr, X.indices, X.data, name)


class _Mapped:
    """An array in a file that is mapped to memory.

    Rows that are not in memory yet come with the disk's answer to one page fault after the other,
    unless all of them are asked for before: once reading is slow, those of some minibatches are.
    """

    def __init__(self, X):
        self._X, self.shape, self.dtype = np.asarray(X), X.shape, X.dtype
        self._map = _map_of(X)
        self._start = X.ctypes.data - np.frombuffer(self._map, np.uint8).ctypes.data
        self._can_ask = hasattr(self._map, "madvise") and X.strides[1] == X.itemsize
        self._asking = 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            return self._X[rows]
        if self._asking and self._can_ask:
            self._asking -= 1
            self._ask_for(rows)
        began = time.perf_counter()
        found = self._X[rows]
        if time.perf_counter() - began > SLOW * len(rows):
            self._asking = ASKED
        return found

    def _ask_for(self, rows):
        starts = self._start + self._X.strides[0] * np.asarray(rows, np.int64)
        for start in starts.tolist():
            page = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, start + self._X[0].nbytes - page)


class _Store:
    """An array in chunks or a sparse one, of HDF5, Zarr, dask or anndata.

    A chunk is read for however few of its rows: those that will be taken next are read together,
    so that it is not read again for each minibatch.
    """

    def __init__(self, X, name):
        if not hasattr(X, "dtype"):
            raise TypeError(
                f"{name} is no matrix, but of the class {type(X).__name__}: pass the matrix in it, "
                "or fit a CountVAE, which takes an AnnData"
            )
        if np.dtype(X.dtype).kind not in "fiub":
            raise TypeError(f"{name} must hold real numbers, got dtype {X.dtype}")
        if getattr(X, "format", "csr") != "csr":
            raise TypeError(
                f"{name} is stored by columns, in the format {X.format!r}, of which no rows can be "
                f"read by themselves: pass {name}.to_memory(), or store it in CSR format"
            )
        check_known(X, name)
        self._X, self._name, self.shape = X, name, tuple(X.shape)
        self._row_bytes = self.shape[-1] * np.dtype(X.dtype).itemsize
        chunks = getattr(X, "chunks", None)
        self._span = np.max(chunks[0]) if chunks else max(1, SPAN // max(1, self._row_bytes))
        self.expect(np.empty(0, np.intp))

    def __len__(self):
        return self.shape[0]

    def expect(self, order):
        """Rows will be taken in this order."""
        self._order, self._next, self._held = order, 0, range(0)

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            return self._read(rows)
        if len(rows) == 0:
            return self._read(slice(0, 1))[:0]
        start, stop = self._next, self._next + len(rows)
        if not np.array_equal(self._order[start:stop], rows):
            return self._gathered(rows)
        if stop > self._held.stop:
            several = max(len(rows), POOL // self._row_bytes)
            self._held = range(start, min(start + several, len(self._order)))
            self._pool = self._gathered(self._order[start : self._held.stop])
        self._next = stop
        return self._pool[start - self._held.start : stop - self._held.start]

    def _gathered(self, rows):
        """Rows of any numbers, of which those near each other are read at once."""
        order = np.argsort(rows, kind="stable")
        cuts = np.flatnonzero(np.diff(rows[order] // self._span)) + 1
        out, parts = None, []
        for places in np.split(order, cuts):
            near = rows[places]
            part = self._read(slice(near[0], near[-1] + 1))[near - near[0]]
            if type(part) is _arrays.SparseRows:
                parts.append(part.in_dtype(part.dtype))
            else:
                out = np.empty((len(rows), part.shape[1]), part.dtype) if out is None else out
                out[places] = part
        return joined(parts)[np.argsort(order)] if parts else out

    def _read(self, rows):
        try:
            check_there(self._X)
            found = self._X[rows]
            found = found.compute() if hasattr(found, "compute") else found
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        wanted = len(range(len(self))[rows]), self.shape[1]
        if found.shape != wanted:
            raise OSError(f"what came has shape {found.shape}, expected {wanted}")
        if not hasattr(found, "toarray"):
            return np.asarray(check_unmasked(found, self._name))
        found = sparse_rows(found, self._name)
        self._row_bytes = max(1, (found.values.nbytes + found.columns.nbytes) // len(found))
        return found


def joined(parts):
    """SparseRows of some rows after those of others."""
    counts = np.concatenate([np.diff(part.ends(), axis=1)[:, 0] for part in parts])
    return _arrays.csr(
        (len(counts), parts[0].shape[1]),
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def check_known(X, name):
    """Complain about an array of dask that does not know how many rows it has."""
    if np.isnan(X.shape).any():
        raise ValueError(
            f"{name} has chunks of unknown size, shape {X.shape}: {name}.compute_chunk_sizes() "
            "finds them out"
        )


def check_open(X, name):
    """Complain about an array of a closed HDF5 file, which says nothing of itself any more."""
    h5py = sys.modules.get("h5py")
    if h5py is not None and isinstance(X, h5py.Dataset) and not X:
        raise OSError(f"{name} could not be read: its HDF5 file is closed")


def check_there(X):
    """Complain if an array of Zarr is gone: its chunks then read as zeros, without an error."""
    zarr = sys.modules.get("zarr")
    if zarr is None or not isinstance(X, zarr.Array):
        return
    try:
        zarr.open_array(X.store, path=X.path, mode="r")
    except Exception as error:
        raise FileNotFoundError(f"there is no {X!r} any more") from error


# Checks of what has been read -------------------------------------------------------------------


def check_finite(X, name, numbers, missing=None):
    """Complain about the first number that is none, of rows of these numbers."""
    if type(X) is _arrays.SparseRows:
        if np.isfinite(X.values).all():
            return
        X = X.toarray()
    finite = np.isfinite(X)
    if missing:
        finite |= np.isnan(X)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        kind = "infinity" if missing else "NaN or infinity"
        way = ""
        if missing is False and np.isnan(X[row, column]):
            way = '; missing="nan" takes it for a value that is missing'
        elif X.dtype == np.float32 and np.isinf(X[row, column]):
            way = ", or a number beyond what float32 holds"
        raise ValueError(
            f"{name} contains {kind}: {X[row, column]} at row {numbers[row]}, column {column}{way}"
        )


def _with_likelihood(check, likelihood, X, name, numbers):
    """A check of what a likelihood has a density for; of sparse rows, of their entries first."""
    if type(X) is _arrays.SparseRows:
        entries = np.zeros((1 + X.values.size // X.shape[1], X.shape[1]))
        entries.flat[: X.values.size] = X.values
        with suppress(ValueError):  # which names the wrong place, if it is wrong: they add up
            return check(entries, likelihood, name)
    return check(dense(X, np.float64), likelihood, name, numbers)


def dense(x, dtype, out=None):
    """Rows as an array: themselves, unless they are sparse."""
    if type(x) is not _arrays.SparseRows:
        return x
    return x.into(np.empty(x.shape, dtype) if out is None else out)
