# Units of the categorical likelihood. Included by classes.pyx.

from libc.math cimport INFINITY, NAN

from fastelbo._kernels.operands cimport LANES, add_lanes, convert, run_at
from fastelbo._kernels.terms.vecmath cimport exp, exp_to_add, log, real


cdef inline void keep_larger(real* lanes, int n) noexcept nogil:
    """The first n numbers become the larger of each and the one n behind it."""
    cdef int l
    for l in range(n):
        lanes[l] = lanes[l] if lanes[l] > lanes[l + n] else lanes[l + n]


cdef inline real largest_lane(real* lanes) noexcept nogil:
    """The maximum of LANES numbers, by halves."""
    if LANES > 64:
        keep_larger(lanes, 64)
    if LANES > 32:
        keep_larger(lanes, 32)
    keep_larger(lanes, 16)
    keep_larger(lanes, 8)
    keep_larger(lanes, 4)
    keep_larger(lanes, 2)
    keep_larger(lanes, 1)
    return lanes[0]


cdef real largest(const real* restrict t, Py_ssize_t blocks, const real* restrict rest,
                  real m) noexcept nogil:
    """The maximum of m, of blocks of LANES numbers, and of LANES more."""
    cdef real lanes[LANES]
    cdef Py_ssize_t i
    cdef int l
    for l in range(LANES):
        lanes[l] = rest[l] if rest[l] > m else m
    for i in range(blocks):
        for l in range(LANES):
            lanes[l] = t[i * LANES + l] if t[i * LANES + l] > lanes[l] else lanes[l]
    return largest_lane(lanes)


cdef double sum_exp(const real* restrict t, Py_ssize_t blocks, const real* restrict rest,
                    real m) noexcept nogil:
    """The sum of e^(t - m) over the same numbers, none of them above m."""
    cdef real acc[LANES]
    cdef double total[LANES]
    cdef Py_ssize_t i
    cdef int l
    for l in range(LANES):
        acc[l] = exp_to_add(rest[l] - m)
    for i in range(blocks):
        for l in range(LANES):
            acc[l] = acc[l] + exp_to_add(t[i * LANES + l] - m)
    for l in range(LANES):
        total[l] = acc[l]
    return add_lanes(total)


cdef double keep_exp(const real* restrict t, Py_ssize_t blocks, const real* restrict rest,
                     real m, real* restrict to) noexcept nogil:
    """The same sum; writes e^(t - m), too."""
    cdef real acc[LANES]
    cdef double total[LANES]
    cdef real e
    cdef Py_ssize_t i
    cdef int l
    for l in range(LANES):
        acc[l] = exp(rest[l] - m)
    for i in range(blocks):
        for l in range(LANES):
            e = exp(t[i * LANES + l] - m)
            to[i * LANES + l] = e
            acc[l] = acc[l] + e
    for l in range(LANES):
        total[l] = acc[l]
    return add_lanes(total)


cdef inline Py_ssize_t label_of(const Job* job, const char* at, bint* counts, bint* bad) noexcept nogil:
    """The class at a position, -1 if there is none such; NaN is none, but not outside the domain."""
    cdef double label
    convert(at, job.x.storage, &label, 1)
    if job.nan_missing and label != label:
        counts[0] = False
    if label >= 0 and label < job.classes and <double><Py_ssize_t>label == label:
        return <Py_ssize_t>label
    if counts[0] and label == label:
        bad[0] = True
    return -1


# Many classes: one position after the other, lanes of classes -------------------------------------

cdef double wide_position(const Job* job, Py_ssize_t index, bint* bad, const real* kind) noexcept nogil:
    cdef const real* restrict t = <const real*>run_at(&job.output[0], &job.shape, index)
    cdef real* restrict g = NULL
    cdef real rest[LANES]
    cdef int l
    cdef Py_ssize_t c, first = 0, n, at, label, classes = job.classes
    cdef bint counts = not job.masked or run_at(&job.keep, &job.shape, index)[0] != 0
    cdef real m = lowest(kind), higher, scale
    cdef double s = 0
    if job.with_gradient:
        g = <real*>run_at(&job.gradient[0], &job.shape, index)
    label = label_of(job, run_at(&job.x, &job.shape, index), &counts, bad)
    if not counts:
        if job.with_gradient:
            for c in range(classes):
                g[c] = 0
        return 0
    while first < classes:                       # streaming: the sum so far is of e^(t - m)
        n = min(<Py_ssize_t>CHUNK, classes - first)
        for l in range(LANES):                   # what is left over, filled up with nothing
            at = n // LANES * LANES + l
            rest[l] = t[first + at] if at < n else <real>-INFINITY
        higher = largest(t + first, n // LANES, rest, m)
        if higher > m:
            s *= exp(m - higher)
            m = higher
        if job.with_gradient:
            s += keep_exp(t + first, n // LANES, rest, m, g)
        else:
            s += sum_exp(t + first, n // LANES, rest, m)
        first += n
    if job.with_gradient:
        scale = <real>(-job.weight / s) if label >= 0 else <real>NAN
        first = classes // LANES * LANES if classes <= CHUNK else 0
        for c in range(first):                   # exponentials that are there, all of the same m
            g[c] = scale * g[c]
        for c in range(first, classes):
            g[c] = scale * exp(t[c] - m)
        if label >= 0:
            g[label] = <real>(g[label] + job.weight)
    if label < 0:
        return NAN
    return (<double>t[label] - m) - log(s)


# Few classes: lanes of positions ------------------------------------------------------------------

cdef void narrow_tile(const Job* job, Py_ssize_t index, Py_ssize_t n, double* values, char* room,
                      bint* bad, const real* kind) noexcept nogil:
    """Positions index .. index + n, at most LANES."""
    cdef real* restrict t = <real*>room                          # (classes, LANES)
    cdef real m[LANES]
    cdef real s[LANES]
    cdef real chosen[LANES]
    cdef real scale[LANES]
    cdef real label[LANES]
    cdef const real* restrict from_
    cdef real* restrict to
    cdef bint counts
    cdef real w = <real>job.weight, e
    cdef Py_ssize_t c, i, at, l, lanes = vectors_of(n, kind)
    for i in range(n):
        counts = not job.masked or run_at(&job.keep, &job.shape, index + i)[0] != 0
        at = label_of(job, run_at(&job.x, &job.shape, index + i), &counts, bad)
        label[i] = at if counts else -2
        from_ = <const real*>run_at(&job.output[0], &job.shape, index + i)
        for c in range(job.classes):
            t[c * LANES + i] = from_[c]
    for i in range(n, lanes):
        label[i] = -2
        for c in range(job.classes):
            t[c * LANES + i] = 0
    for l in range(lanes):
        m[l] = lowest(kind)
        s[l] = 0
        chosen[l] = <real>NAN if label[l] == <real>-1.0 else <real>0
    for c in range(job.classes):
        for l in range(lanes):
            m[l] = t[c * LANES + l] if t[c * LANES + l] > m[l] else m[l]
    for c in range(job.classes):
        for l in range(lanes):
            chosen[l] = t[c * LANES + l] - m[l] if label[l] == <real>c else chosen[l]
            e = exp(t[c * LANES + l] - m[l])
            s[l] = s[l] + e
            t[c * LANES + l] = e
    for l in range(lanes):
        e = chosen[l] - log(s[l])
        values[l] = e if label[l] != <real>-2.0 else <real>0
        scale[l] = w / s[l] if label[l] != <real>-1.0 else <real>NAN
    if not job.with_gradient:
        return
    for c in range(job.classes):
        for l in range(lanes):
            e = (w if label[l] == <real>c else <real>0) - scale[l] * t[c * LANES + l]
            t[c * LANES + l] = e if label[l] != <real>-2.0 else <real>0
    for i in range(n):
        to = <real*>run_at(&job.gradient[0], &job.shape, index + i)
        for c in range(job.classes):
            to[c] = t[c * LANES + i]


cdef void categorical_unit(const Job* job, Py_ssize_t unit, char* room, bint* bad,
                           const real* kind) noexcept nogil:
    cdef double values[LANES]
    cdef Py_ssize_t block = unit // job.chunks, chunk = unit - block * job.chunks
    cdef Py_ssize_t first, stop, n, i
    if job.chunks == 1:
        first = block * job.rows_a_unit * job.positions
        stop = min((block + 1) * job.rows_a_unit, job.rows) * job.positions
    else:
        first = block * job.positions + chunk * job.chunk
        stop = min(first + job.chunk, (block + 1) * job.positions)
    while first < stop:
        if job.classes >= LANES:
            n = 1
            values[0] = wide_position(job, first, bad, kind)
        else:
            n = min(<Py_ssize_t>LANES, stop - first)
            narrow_tile(job, first, n, values, room, bad, kind)
        for i in range(n):
            job.partial[(first + i) // job.positions * job.chunks + chunk] += values[i]
            if job.elements != NULL:
                (<real*>job.elements)[first + i] = <real>values[i]
        first += n
