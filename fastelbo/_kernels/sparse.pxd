# How passes read the rows of a sparse matrix: of a tile at a time what is not zero, and where.

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from fastelbo._kernels.operands cimport VECTOR, Entries, convert
from fastelbo._kernels.terms.vecmath cimport real

ctypedef fused column:
    int32_t
    int64_t


cdef inline void between(const column* columns, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last,
                         Py_ssize_t* start, Py_ssize_t* stop) noexcept nogil:
    """Where, of n > 0 ascending columns, those not before `first` start, and those not before `last`."""
    cdef const column* a = columns
    cdef const column* b = columns
    cdef Py_ssize_t half
    while n > 1:                 # without a branch to be foreseen; and neither search waits for the other
        half = n // 2
        a = a + half if a[half - 1] < first else a
        b = b + half if b[half - 1] < last else b
        n -= half
    start[0] = a - columns + (a[0] < first)
    stop[0] = b - columns + (b[0] < last)


cdef inline Py_ssize_t without_zeros(real* values, int* index, Py_ssize_t n) noexcept nogil:
    """Leave out values that are zero, and their places; returns how many are left."""
    cdef Py_ssize_t k, found = 0
    cdef int zeros = 0
    for k in range(n):
        zeros += values[k] == <real>0.0
    if zeros == 0:
        return n
    for k in range(n):
        values[found] = values[k]
        index[found] = index[k]
        found += values[k] != <real>0.0
    return found


cdef inline void put_places(const column* columns, Py_ssize_t found, Py_ssize_t first, Py_ssize_t n,
                            int offset, int* index) noexcept nogil:
    cdef Py_ssize_t k, to
    for k in range(found):
        to = columns[k] - first
        index[k] = offset + (<int>to if 0 <= to < n else 0)      # somebody may be writing there


cdef inline Py_ssize_t take_ascending(const Entries* entries, Py_ssize_t at, Py_ssize_t stop,
                                      Py_ssize_t first, Py_ssize_t n, int offset, real* values,
                                      int* index) noexcept nogil:
    """take_entries of the entries at .. stop, in the order of their columns."""
    cdef const int64_t* wide = <const int64_t*>entries.columns
    cdef const int32_t* narrow = <const int32_t*>entries.columns
    cdef Py_ssize_t start = 0, end = 0, found
    if at < stop and entries.wide:
        between(wide + at, stop - at, first, first + n, &start, &end)
    elif at < stop:
        between(narrow + at, stop - at, first, first + n, &start, &end)
    at += start
    found = max(<Py_ssize_t>0, min(end - start, n))
    convert(entries.values + at * entries.itemsize, entries.storage, values, found)
    if entries.wide:
        put_places(wide + at, found, first, n, offset, index)
    else:
        put_places(narrow + at, found, first, n, offset, index)
    return without_zeros(values, index, found)


cdef inline void add_places(const column* columns, const real* given, Py_ssize_t count,
                            Py_ssize_t first, Py_ssize_t n, real* values) noexcept nogil:
    cdef Py_ssize_t k, to
    for k in range(count):
        to = columns[k] - first
        if 0 <= to < n:
            values[to] += given[k]


cdef inline Py_ssize_t take_columns(const Entries* entries, Py_ssize_t at, Py_ssize_t stop,
                                    Py_ssize_t first, Py_ssize_t n, int offset, real* values,
                                    int* index) noexcept nogil:
    """take_entries of the entries at .. stop, in any order: those of one column are added up."""
    cdef real converted[VECTOR]
    cdef Py_ssize_t part, k
    memset(values, 0, n * sizeof(real))
    while at < stop:
        part = min(stop - at, <Py_ssize_t>VECTOR)
        convert(entries.values + at * entries.itemsize, entries.storage, converted, part)
        if entries.wide:
            add_places(<const int64_t*>entries.columns + at, converted, part, first, n, values)
        else:
            add_places(<const int32_t*>entries.columns + at, converted, part, first, n, values)
        at += part
    for k in range(n):
        index[k] = <int>k + offset
    return without_zeros(values, index, n)


cdef inline Py_ssize_t take_entries(const Entries* entries, const char* run, Py_ssize_t first,
                                    Py_ssize_t n, int offset, real* values, int* index) noexcept nogil:
    """What is not zero of the columns first .. first + n of a row, which `run` is: n <= TILE.

    In `values` and, counted from `first` and `offset` more, in `index`, both (n,); returns how many.
    Never more are written, whatever the entries are.
    """
    cdef const int64_t* row = <const int64_t*>run
    if entries.ascending:
        return take_ascending(entries, row[0], row[1], first, n, offset, values, index)
    return take_columns(entries, row[0], row[1], first, n, offset, values, index)


cdef inline const real* spread_out(const real* values, const int* index, Py_ssize_t found, Py_ssize_t n,
                                   real* out) noexcept nogil:
    """The inverse: n numbers, of which these are not zero."""
    cdef Py_ssize_t k
    memset(out, 0, n * sizeof(real))
    for k in range(found):
        out[index[k]] = values[k]
    return out
