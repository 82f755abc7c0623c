"""Data files of ``fastelbo demo``: arrays, tables, single cells, and the labels beside them."""

import csv
import importlib.util
import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from fastelbo._files import what_is_wrong
from fastelbo._plots import MOST_CLASSES
from fastelbo._reading import as_rows
from fastelbo._vae_settings import check_domain

#: What cells are labelled by, where there is nothing else named: the column that CELLxGENE has.
CELL_TYPE = "cell_type"


class Refusal(Exception):
    """What the user is told in one line, with exit code 2."""


class Data(NamedTuple):
    name: str
    X: Any  # (N, D), float32: an array, or a matrix of SciPy's in CSR format
    labels: np.ndarray | None  # (N,) or None
    image: tuple[int, int] | None  # what a row of X is to be drawn as, if it is a picture

    @property
    def of_counts(self):
        """Whether they are whole numbers, and more than zeros and ones."""
        values = self.X.data if hasattr(self.X, "toarray") else self.X
        with np.errstate(invalid="ignore"):
            return bool((values >= 0).all() and (values % 1 == 0).all() and (values > 1).any())

    def dense(self, rows):
        """Some rows as an array."""
        some = self.X[rows]
        return some.toarray() if hasattr(some, "toarray") else some


def need(of, *modules, install=None):
    """Refuse, where modules are absent that are needed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        names = ", ".join({"sklearn": "scikit-learn"}.get(name, name) for name in absent)
        raise Refusal(f"{of}needs {names}: pip install {install or ' '.join(absent)}")


def load_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = (digits.data / 16).astype(np.float32)
    return Data("handwritten digits of scikit-learn", X, digits.target, (8, 8))


def load_file(path, key, labels, counts):
    """The data of a file; bytes are divided by 255 unless they are to be `counts`."""
    if not path.is_file():
        raise Refusal(f"{path}: no such file")
    what, read = READERS.get(path.suffix.lower(), READERS[".npy"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error" if read is _arrays_of else "ignore")
            X, found = read(path, key, labels)
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        raise Refusal(f"{path}: no {what} to read, {what_is_wrong(error)}") from None
    if X.dtype.kind not in "fiub":
        raise Refusal(f"{path}: expected numbers, got dtype {X.dtype}")
    if X.ndim not in (2, 3) or 0 in X.shape:
        raise Refusal(f"{path}: expected samples (N, D) or pictures (N, H, W), got shape {X.shape}")
    if X.shape[0] < 10:
        raise Refusal(f"{path}: expected at least 10 samples, got {X.shape[0]}")
    image = X.shape[1:] if X.ndim == 3 else None
    if read is _arrays_of and image is None:
        side = math.isqrt(X.shape[1])
        image = (side, side) if side >= 4 and side * side == X.shape[1] else None
    scale = 255 if X.dtype == np.uint8 and not counts else 1
    X = X.reshape(X.shape[0], -1) if X.ndim == 3 else X
    with np.errstate(over="ignore"):
        X = X.astype(np.float32)
    if scale > 1:
        X = (X / np.float32(scale)).astype(np.float32, copy=False)  # SciPy's are float64 then
    return Data(path.name, X, found, image)


def check(data, likelihood):
    """Refuse data that the likelihood has no density for."""
    try:
        as_rows(data.X, np.float32, data.name).read_for(likelihood, check_domain).checked()
    except ValueError as error:
        raise Refusal(str(error)) from None


# Kinds of files: (X, labels or None) of each ------------------------------------------------------


def _arrays_of(path, key, labels):
    with open(path, "rb") as file:
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            if key is not None or labels is not None:
                raise Refusal(f"{path}: an .npy holds one array; --key and --labels are for others")
            return stored, None
        with stored:
            names = stored.files
            if {"format", "shape", "data"} <= set(names):
                return _sparse_of(path), None
            if key is None:
                key = names[0] if len(names) == 1 else "X"
            _check_there(path, "array", key, names)
            if labels is not None:
                _check_there(path, "array", labels, names)
            array, beside = stored[key], labels or "y"
            found = stored[beside] if beside in names and key != beside else None
    return array, _as_labels(path, found, len(array) if array.ndim else 0, labels)


def _sparse_of(path):
    need(f"{path}: a sparse matrix ", "scipy")
    from scipy.sparse import load_npz

    X = load_npz(path)
    if hasattr(X, "check_format"):
        X.check_format()
    return X.tocsr()


def _csv_of(path, key, labels):
    options = {"delimiter": ",", "quotechar": '"', "comments": None, "encoding": "utf-8-sig"}
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        filled = filter(None, lines)
        header = next(filled, [])
        options["skiprows"] = lines.line_num
        first = next(filled, [])
    if len(header) == 1 and any(other in header[0] for other in ";\t"):
        raise Refusal(f"{path}: expected commas between values, got {header[0]!r}")
    if not header or all(map(_is_number, header)):
        raise Refusal(f"{path}: expected a line of names, a header, and a line a sample")
    if len(first) != len(header):
        raise Refusal(
            f"{path}: expected {len(header)} values a line, as the header has names, got "
            f"{len(first)} in the first"
        )
    column = _labels_among(path, header, [_is_number(cell) for cell in first], labels)
    numbers = [i for i in range(len(header)) if i != column]
    found = None
    try:
        X = np.loadtxt(path, np.float32, usecols=numbers, ndmin=2, **options)
        if column is not None:
            found = np.loadtxt(path, str, usecols=column, ndmin=1, **options)
    except ValueError as error:
        raise Refusal(f"{path}: expected numbers in all columns but labels: {error}") from None
    return X, _as_labels(path, found, len(X), labels)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet_of(path, key, labels):
    need(f"{path}: a .parquet ", "pandas", "pyarrow")
    import pandas

    frame = pandas.read_parquet(path)
    names = [str(name) for name in frame.columns]
    numeric = [getattr(dtype, "kind", "O") in "fiub" for dtype in frame.dtypes]
    column = _labels_among(path, names, numeric, labels)
    numbers = [i for i in range(len(names)) if i != column]
    found = None if column is None else np.asarray(frame.iloc[:, column])
    X = frame.iloc[:, numbers].to_numpy(np.float32, na_value=np.nan)
    return X, _as_labels(path, found, len(X), labels)


def _labels_among(path, names, numeric, labels):
    """The number of the column of labels: the one named, or the last, if it holds no numbers."""
    if labels is not None:
        _check_there(path, "column", labels, names)
        column = names.index(labels)
    else:
        column = None if all(numeric[-1:]) else len(names) - 1
    for i, (name, is_number) in enumerate(zip(names, numeric, strict=True)):
        if not (is_number or i == column):
            raise Refusal(
                f"{path}: expected numbers in column {name!r}: --labels names the one of labels"
            )
    return column


def _cells_of(path, key, labels):
    need(f"{path}: an .h5ad ", "anndata")
    import anndata

    cells = anndata.read_h5ad(path)
    if key is not None:
        _check_there(path, "layer", key, list(cells.layers))
    X = cells.X if key is None else cells.layers[key]
    if X is None:
        raise Refusal(f"{path}: it has no X: --key names a layer, of {list(cells.layers)}")
    if labels is not None:
        _check_there(path, "column of obs", labels, list(cells.obs))
    beside = labels or CELL_TYPE
    found = np.asarray(cells.obs[beside]) if beside in cells.obs else None
    if hasattr(X, "tocsr"):
        X = X.tocsr()
    return X, _as_labels(path, found, X.shape[0], labels)


#: What files are, by the ends of their names, and what reads them; .npz goes by its contents.
READERS = {
    ".npy": (".npy or .npz", _arrays_of),
    ".csv": ("CSV file", _csv_of),
    ".parquet": ("table in Parquet", _parquet_of),
    ".h5ad": ("AnnData in HDF5", _cells_of),
}


def _check_there(path, kind, name, names):
    if name not in names:
        there = ", ".join(map(str, names)) or "none"
        raise Refusal(f"{path}: no {kind} {name!r}; there are: {there}")


def _as_labels(path, labels, rows, named):
    """One a row: numbers, or words of which no more differ than can be named; None if they cannot
    be, unless they were asked for by name."""
    if labels is None:
        return None
    if labels.dtype.kind not in "iub":
        labels = labels.astype(str)
        if all(map(_is_whole, labels.flat)):
            labels = labels.astype(np.int64)
    fit = labels.shape == (rows,)
    if fit and (labels.dtype.kind != "U" or len(np.unique(labels)) <= MOST_CLASSES):
        return labels
    if named is not None:
        raise Refusal(
            f"{path}: expected a label a row in {named!r}, of at most {MOST_CLASSES} different "
            f"words, got shape {labels.shape} of {len(np.unique(labels))}"
        )
    return None


def _is_whole(text):
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19  # of an int64
