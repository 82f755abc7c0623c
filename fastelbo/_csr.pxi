# Sparse matrices in CSR format, as passes read them; a part of `_arrays`, whose names it uses.

ctypedef fused column:
    int32_t
    int64_t

#: What reads sparse x.
READS_SPARSE = "NegativeBinomial, ZeroInflatedNegativeBinomial and Poisson"
#: What a sparse matrix may lie in, of SciPy or as SparseRows.
PARTS = ("data", "indices", "indptr", "values", "columns")


cdef class SparseRows:
    """A matrix in CSR format as passes read it: the rows of x, or of K samples of it.

    `starts` has the shape of x. What it has of a row are strides of zero over two int64: where the
    entries of that row start and stop in `columns` (int32 or int64) and `values`. Several entries of
    one column add up. `ascending`: in no row does a column follow one that is not
    smaller.
    """

    def __init__(self, cnp.ndarray starts, cnp.ndarray columns, cnp.ndarray values, bint ascending):
        self.starts, self.columns, self.values, self.ascending = starts, columns, values, ascending

    @property
    def shape(self):
        return shape_of(self.starts)

    @property
    def ndim(self):
        return cnp.PyArray_NDIM(self.starts)

    @property
    def dtype(self):
        return self.values.dtype

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, rows):
        if not isinstance(rows, np.ndarray):
            return self.over(self.starts[rows])
        ends = self.ends()[rows]
        return self.over(np.broadcast_to(ends[:, :1], (len(ends), self.shape[1])))

    def ends(self):
        """Where entries of each row of a matrix start and stop, (B, 2)."""
        return np.lib.stride_tricks.as_strided(
            self.starts, (len(self.starts), 2), (self.starts.strides[0], sizeof(int64_t)))

    def in_dtype(self, dtype):
        """The same matrix, its entries one after the other and of this dtype."""
        starts, stops = self.ends().T
        counts = stops - starts
        after = np.cumsum(counts)
        at = slice(starts[0], stops[-1])
        if (starts[1:] != stops[:-1]).any():
            at = np.arange(after[-1]) + np.repeat(starts - after + counts, counts)
        ends = np.stack([after - counts, after], axis=1)
        return SparseRows(np.broadcast_to(ends[:, :1], self.shape), self.columns[at],
                          self.values[at].astype(dtype, copy=False), self.ascending)

    def into(self, cnp.ndarray out, zero_to_zero=None):
        """The matrix, written to an array whose rows are contiguous, apart or not; or a function of
        it, where entries are one a place."""
        cdef SparseRows own = self.in_dtype(out.dtype)
        starts, stops = own.ends().T
        apart = out.strides[0] // out.itemsize
        flat = np.lib.stride_tricks.as_strided(
            out, ((len(out) - 1) * apart + out.shape[1],), (out.itemsize,))
        places = np.repeat(np.arange(len(out)) * apart, stops - starts) + own.columns
        values = own.values if zero_to_zero is None else zero_to_zero(own.values)
        out[...] = 0
        if self.ascending:
            flat[places] = values
        else:
            np.add.at(flat, places, values)
        return out

    cdef SparseRows over(self, cnp.ndarray starts):
        return SparseRows(starts, self.columns, self.values, self.ascending)

    def toarray(self):
        """All of it in float64, to find out what is wrong with it."""
        whole = np.zeros(self.shape)
        for at in np.ndindex(whole.shape[:self.ndim - 1]):
            start, stop = np.lib.stride_tricks.as_strided(self.starts[at], (2,), (sizeof(int64_t),))
            np.add.at(whole[at], self.columns[start:stop], self.values[start:stop])
        return whole


cdef inline bint is_sparse(object obj):
    """Whether it is a sparse matrix, of SciPy, say, which need not be there."""
    return type(obj) is SparseRows or hasattr(obj, "toarray")


def dense(x):
    """x as an array, of which errors tell an element."""
    return x.toarray() if type(x) is SparseRows else x


cdef inline cnp.ndarray elements_of(object x):
    """An array of x's dtype: x itself unless it is sparse."""
    return (<SparseRows>x).values if type(x) is SparseRows else x


cdef cnp.ndarray _places(object obj, str name):
    """A vector of int32 or int64."""
    a = np.asarray(obj)
    if a.ndim != 1 or a.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a vector of integers, got shape {shape_of(a)} of {a.dtype}")
    kept = a.dtype.kind == "i" and a.dtype.itemsize in (4, 8)
    return np.ascontiguousarray(_readable(a, a.dtype if kept else np.dtype(np.int64)))


cdef bint _ascends(const column* columns, const int64_t* rows, Py_ssize_t count,
                   int64_t* bits) noexcept nogil:
    """Whether in no row a column follows one that is not smaller, unless one of all is negative.

    `bits` are those of all columns together: none is larger, and their sign is its sign.
    """
    cdef column steps = 0, any_bit = 0
    cdef Py_ssize_t row, k
    for row in range(count):
        if rows[2 * row] < rows[2 * row + 1]:
            any_bit |= columns[rows[2 * row]]
        for k in range(rows[2 * row] + 1, rows[2 * row + 1]):
            any_bit |= columns[k]
            if column is int32_t:
                steps |= <int32_t>(<uint32_t>columns[k] - <uint32_t>columns[k - 1] - 1)
            else:
                steps |= <int64_t>(<uint64_t>columns[k] - <uint64_t>columns[k - 1] - 1)
    bits[0] = any_bit
    return steps >= 0


def csr(object shape, object indptr, object indices, object data, str name="x"):
    """The SparseRows of an argument, of what SciPy calls the parts of a matrix in CSR format."""
    cdef cnp.ndarray ends = _places(indptr, f"{name}.indptr")
    cdef cnp.ndarray columns = _places(indices, f"{name}.indices"), rows
    cdef cnp.ndarray values = np.ascontiguousarray(as_data(data, f"{name}.data"))
    cdef const int64_t* starts
    cdef int64_t bits
    cdef bint ascends
    cdef Py_ssize_t batch, width
    if len(shape) != 2:
        raise shape_error(name, shape, "(batch, features), as it is sparse")
    batch, width = shape
    if shape_of(ends) != (batch + 1,):
        raise shape_error(
            f"{name}.indptr", shape_of(ends), f"({batch + 1},), one more than {name} has rows")
    if shape_of(values) != shape_of(columns):
        raise shape_error(
            f"{name}.data", shape_of(values), f"that of {name}.indices, {shape_of(columns)}")
    rows = np.empty((batch, 2), np.int64)
    rows[:, 0], rows[:, 1] = ends[:batch], ends[1:]
    wrong = np.flatnonzero(rows[:, 0] > rows[:, 1])
    if len(wrong):
        k = wrong[0]
        raise ValueError(f"{name}.indptr[{k + 1}] = {ends[k + 1]} is less than "
                         f"{name}.indptr[{k}] = {ends[k]}")
    if ends[0] != 0:
        raise ValueError(f"{name}.indptr[0] = {ends[0]}, expected 0")
    if ends[batch] > columns.size:
        raise ValueError(f"{name}.indptr[{batch}] = {ends[batch]}, "
                         f"but {name}.indices has {columns.size} elements")
    starts = <const int64_t*>cnp.PyArray_DATA(rows)
    if cnp.PyArray_ITEMSIZE(columns) == 4:
        ascends = _ascends(<const int32_t*>cnp.PyArray_DATA(columns), starts, batch, &bits)
    else:
        ascends = _ascends(<const int64_t*>cnp.PyArray_DATA(columns), starts, batch, &bits)
    if not 0 <= bits < width:                        # else all are
        entries = columns[:ends[batch]]
        wrong = np.flatnonzero((entries < 0) | (entries >= width))
        if len(wrong):
            k, row = wrong[0], np.searchsorted(rows[:, 1], wrong[0], "right")
            raise ValueError(
                f"{name}.indices[{k}] = {entries[k]}, in row {row}: {name} has {width} columns")
    return SparseRows(np.broadcast_to(rows[:, :1], (batch, width)), columns, values, ascends)
