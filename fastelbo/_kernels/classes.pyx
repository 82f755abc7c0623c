# The passes over decoder outputs with an axis of classes or of mixture components, which a log-sum-exp
# removes: the categorical likelihood, and mixtures of discretized logistics.
#
# Positions are the elements of x. A unit of work is a chunk of the positions of a row, or several
# short rows; a tile is LANES positions or, where there are many classes, one.

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, NAN
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastelbo._kernels.operands cimport (
    LANES, MAX_OUTER, Operand, Shape, add_lanes, add_up, bind, convert, run_at, stage,
)
from fastelbo._kernels.terms.discrete cimport is_no_count, logistic_bin
from fastelbo._kernels.terms.vecmath cimport exp, exp_to_add, log, real

cnp.import_array()

cdef enum:
    CHUNK = 4096           # decoder outputs of one kind that a unit reads, about
    MAX_OUTPUTS = 3

cdef struct Job:
    Shape shape            # its outer axes: positions (categorical) or samples (mixtures)
    Operand x
    Operand keep           # 0 where x is missing; read if `masked`
    Operand output[MAX_OUTPUTS]        # what the decoder gives
    Operand gradient[MAX_OUTPUTS]
    Py_ssize_t across[MAX_OUTPUTS]     # bytes from a component to the next
    Py_ssize_t across_gradient         # the same of the gradients, which are contiguous
    int outputs
    bint masked, nan_missing, with_gradient
    double top             # the last bin
    double weight          # what the gradients are multiplied by
    Py_ssize_t classes     # or components
    Py_ssize_t rows        # that get a sum of their own, or 1
    Py_ssize_t positions   # a row
    Py_ssize_t chunk       # positions of a row a unit
    Py_ssize_t chunks      # a row
    Py_ssize_t rows_a_unit
    Py_ssize_t units
    double* partial        # (rows, chunks)
    char* room             # for each worker
    Py_ssize_t room_size
    bint* found_outside


cdef int arrange_outer(Shape* shape, Operand** ops, list arrays, int axes) except -1:
    """Make the first `axes` axes of the arrays outer, neighbours joined where strides allow."""
    cdef cnp.ndarray first = <cnp.ndarray>arrays[0]
    cdef int d, k, n = <int>len(arrays), last
    cdef Py_ssize_t extent
    cdef bint joins
    shape.outer = 0
    for d in range(axes):
        extent = cnp.PyArray_DIM(first, d)
        if extent == 1:
            continue
        last = shape.outer - 1
        joins = shape.outer > 0
        for k in range(n):
            joins = joins and (ops[k].strides[last]
                               == cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], d) * extent)
        if joins:
            shape.extent[last] *= extent
        else:
            if shape.outer == MAX_OUTER:
                raise ValueError("arrays of more than 8 strided axes are not supported")
            last = shape.outer
            shape.extent[last] = extent
            shape.outer += 1
        for k in range(n):
            ops[k].strides[last] = cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], d)
    return 0


cdef inline real largest_lane(real* lanes) noexcept nogil:
    """The maximum of LANES numbers, by halves."""
    cdef int l
    for l in range(32):
        lanes[l] = lanes[l] if lanes[l] > lanes[l + 32] else lanes[l + 32]
    for l in range(16):
        lanes[l] = lanes[l] if lanes[l] > lanes[l + 16] else lanes[l + 16]
    for l in range(8):
        lanes[l] = lanes[l] if lanes[l] > lanes[l + 8] else lanes[l + 8]
    for l in range(4):
        lanes[l] = lanes[l] if lanes[l] > lanes[l + 4] else lanes[l + 4]
    lanes[0] = lanes[0] if lanes[0] > lanes[2] else lanes[2]
    lanes[1] = lanes[1] if lanes[1] > lanes[3] else lanes[3]
    return lanes[0] if lanes[0] > lanes[1] else lanes[1]


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


cdef inline real lowest(const real* kind) noexcept nogil:
    """Below every finite number's exponential, and yet finite."""
    if real is float:
        return <float>-3.4028234e38
    else:
        return -1.7976931348623157e308


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
    cdef Py_ssize_t c, i, at
    cdef int l
    for i in range(n):
        counts = not job.masked or run_at(&job.keep, &job.shape, index + i)[0] != 0
        at = label_of(job, run_at(&job.x, &job.shape, index + i), &counts, bad)
        label[i] = at if counts else -2
        from_ = <const real*>run_at(&job.output[0], &job.shape, index + i)
        for c in range(job.classes):
            t[c * LANES + i] = from_[c]
    for i in range(n, LANES):
        label[i] = -2
        for c in range(job.classes):
            t[c * LANES + i] = 0
    for l in range(LANES):
        m[l] = lowest(kind)
        s[l] = 0
        chosen[l] = <real>NAN if label[l] == <real>-1.0 else <real>0
    for c in range(job.classes):
        for l in range(LANES):
            m[l] = t[c * LANES + l] if t[c * LANES + l] > m[l] else m[l]
    for c in range(job.classes):
        for l in range(LANES):
            chosen[l] = t[c * LANES + l] - m[l] if label[l] == <real>c else chosen[l]
            e = exp(t[c * LANES + l] - m[l])
            s[l] = s[l] + e
            t[c * LANES + l] = e
    for l in range(LANES):
        e = chosen[l] - log(s[l])
        values[l] = e if label[l] != <real>-2.0 else <real>0
        scale[l] = w / s[l] if label[l] != <real>-1.0 else <real>NAN
    if not job.with_gradient:
        return
    for c in range(job.classes):
        for l in range(LANES):
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
        first += n


# Mixtures of discretized logistics ----------------------------------------------------------------

# Loops over lanes as functions of their own: only then does the compiler see that nothing overlaps.
cdef void weigh_component(const real* restrict x, const real* restrict a, const real* restrict b,
                          const real* restrict c, real top, real step,
                          real* restrict joint, real* restrict logit, real* restrict by_mean,
                          real* restrict by_scale, real* restrict top_joint,
                          real* restrict top_logit) noexcept nogil:
    """log(weight * mass), its derivatives, and the running maxima, of one component."""
    cdef real v
    cdef int l
    for l in range(LANES):
        v = a[l] + logistic_bin(x[l], b[l], exp(-c[l]), top, step, &by_mean[l], &by_scale[l])
        joint[l] = v
        logit[l] = a[l]
        top_joint[l] = v if v > top_joint[l] else top_joint[l]
        top_logit[l] = a[l] if a[l] > top_logit[l] else top_logit[l]


cdef void add_component(real* restrict joint, real* restrict logit, const real* restrict top_joint,
                        const real* restrict top_logit, real* restrict sum_joint,
                        real* restrict sum_logit) noexcept nogil:
    cdef int l
    for l in range(LANES):
        joint[l] = exp(joint[l] - top_joint[l])
        logit[l] = exp(logit[l] - top_logit[l])
        sum_joint[l] = sum_joint[l] + joint[l]
        sum_logit[l] = sum_logit[l] + logit[l]


cdef void close_mixture(const real* restrict top_joint, const real* restrict top_logit,
                        const real* restrict sum_joint, const real* restrict sum_logit,
                        const real* restrict keep, double* restrict values) noexcept nogil:
    cdef real v
    cdef int l
    for l in range(LANES):
        v = (top_joint[l] - top_logit[l]) + (log(sum_joint[l]) - log(sum_logit[l]))
        values[l] = v if keep[l] != <real>0 else <real>0


cdef void share_component(real* restrict joint, const real* restrict logit, real* restrict by_mean,
                          real* restrict by_scale, const real* restrict scale_joint,
                          const real* restrict scale_logit,
                          const real* restrict keep) noexcept nogil:
    """The derivatives of the logarithm of the sum, of one component; by its logit in `joint`."""
    cdef real e, q
    cdef int l
    for l in range(LANES):
        e = joint[l] * scale_joint[l]
        q = logit[l] * scale_logit[l]
        joint[l] = e - q if keep[l] != <real>0 else <real>0
        q = e * by_mean[l]
        e = e * by_scale[l]
        by_mean[l] = q if keep[l] != <real>0 else <real>0
        by_scale[l] = e if keep[l] != <real>0 else <real>0


cdef void mixture_tile(const Job* job, Py_ssize_t sample, Py_ssize_t first, Py_ssize_t n,
                       double* values, char* room, bint* bad, const real* kind) noexcept nogil:
    """Positions first .. first + n of a sample, at most LANES."""
    cdef Py_ssize_t size = job.classes * LANES, m, at_m, padded = LANES
    cdef real* joint = <real*>room                               # (components, LANES), and the rest
    cdef real* logit = <real*>room + size
    cdef real* by_mean = <real*>room + 2 * size
    cdef real* by_scale = <real*>room + 3 * size
    cdef const real* x
    cdef const real* a
    cdef const real* b
    cdef const real* c
    cdef real buffer[MAX_OUTPUTS + 2][LANES]
    cdef real keep[LANES]
    cdef real top_joint[LANES]
    cdef real top_logit[LANES]
    cdef real sum_joint[LANES]
    cdef real sum_logit[LANES]
    cdef real outside[LANES]
    cdef const real* given
    cdef const char* at[MAX_OUTPUTS]
    cdef char* to[MAX_OUTPUTS]
    cdef real w = <real>job.weight, top = <real>job.top, step = <real>(1.0 / job.top)
    cdef int i, l
    for i in range(MAX_OUTPUTS):
        at[i] = run_at(&job.output[i], &job.shape, sample)
    x = stage(&job.x, run_at(&job.x, &job.shape, sample), first, n, padded, buffer[3])
    for l in range(LANES):
        keep[l] = <real>1 if l < n else <real>0
    if job.masked:
        given = stage(&job.keep, run_at(&job.keep, &job.shape, sample), first, n, padded, buffer[4])
        for l in range(LANES):
            keep[l] = keep[l] if given[l] != <real>0 else <real>0
    if job.nan_missing:
        for l in range(LANES):
            keep[l] = keep[l] if x[l] == x[l] else <real>0
    for l in range(LANES):
        outside[l] = keep[l] if is_no_count(x[l]) | (x[l] > top) else <real>0
        top_joint[l] = lowest(kind)
        top_logit[l] = lowest(kind)
        sum_joint[l] = 0
        sum_logit[l] = 0
    for l in range(LANES):
        if outside[l] != <real>0:
            bad[0] = True
    for m in range(job.classes):
        a = stage(&job.output[0], at[0] + m * job.across[0], first, n, padded, buffer[0])
        b = stage(&job.output[1], at[1] + m * job.across[1], first, n, padded, buffer[1])
        c = stage(&job.output[2], at[2] + m * job.across[2], first, n, padded, buffer[2])
        at_m = m * LANES
        weigh_component(x, a, b, c, top, step, joint + at_m, logit + at_m, by_mean + at_m,
                        by_scale + at_m, top_joint, top_logit)
    for m in range(job.classes):
        add_component(joint + m * LANES, logit + m * LANES, top_joint, top_logit, sum_joint, sum_logit)
    close_mixture(top_joint, top_logit, sum_joint, sum_logit, keep, values)
    if not job.with_gradient:
        return
    for l in range(LANES):
        sum_joint[l] = w / sum_joint[l]
        sum_logit[l] = w / sum_logit[l]
    for i in range(MAX_OUTPUTS):
        to[i] = (run_at(&job.gradient[i], &job.shape, sample)
                 + first * job.gradient[i].itemsize)
    for m in range(job.classes):
        at_m = m * LANES
        share_component(joint + at_m, logit + at_m, by_mean + at_m, by_scale + at_m, sum_joint,
                        sum_logit, keep)
        memcpy(to[0] + m * job.across_gradient, joint + m * LANES, n * sizeof(real))
        memcpy(to[1] + m * job.across_gradient, by_mean + m * LANES, n * sizeof(real))
        memcpy(to[2] + m * job.across_gradient, by_scale + m * LANES, n * sizeof(real))


cdef void mixture_unit(const Job* job, Py_ssize_t unit, char* room, bint* bad,
                       const real* kind) noexcept nogil:
    """A chunk of the event of one sample."""
    cdef double values[LANES]
    cdef Py_ssize_t sample = unit // job.chunks, chunk = unit - sample * job.chunks
    cdef Py_ssize_t first = chunk * job.chunk, stop = min(first + job.chunk, job.positions), n
    cdef int l
    while first < stop:
        n = min(<Py_ssize_t>LANES, stop - first)
        mixture_tile(job, sample, first, n, values, room, bad, kind)
        for l in range(LANES):
            job.partial[unit] += values[l]
        first += n


# Entries ------------------------------------------------------------------------------------------

cdef void share_units(const Job* job, bint mixture, Py_ssize_t share, Py_ssize_t shares,
                      const real* kind) noexcept nogil:
    cdef Py_ssize_t unit
    cdef bint bad = False
    cdef char* room = job.room + share * job.room_size
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        if mixture:
            mixture_unit(job, unit, room, &bad, kind)
        else:
            categorical_unit(job, unit, room, &bad, kind)
    if bad:
        job.found_outside[0] = True


cdef object run_job(Job* job, bint mixture, bint single, cnp.ndarray row_values, int threads):
    """The units of a planned job; (total, whether something was outside the domain)."""
    cdef bint found = False
    cdef int t
    cdef Py_ssize_t k, sums = job.rows * job.chunks
    cdef double* out
    job.found_outside = &found
    job.partial = <double*>calloc(max(<Py_ssize_t>1, sums), sizeof(double))
    job.room = <char*>calloc(threads * job.room_size, 1)
    try:
        if job.partial == NULL or job.room == NULL:
            raise MemoryError()
        with nogil:
            for t in prange(threads, num_threads=threads, schedule="static", chunksize=1,
                            use_threads_if=threads > 1):
                if single:
                    share_units(job, mixture, t, threads, <const float*>NULL)
                else:
                    share_units(job, mixture, t, threads, <const double*>NULL)
        if row_values is None:
            return add_up(job.partial, sums), found
        out = <double*>cnp.PyArray_DATA(row_values)
        for k in range(job.rows):
            out[k] = add_up(job.partial + k * job.chunks, job.chunks)
        return 0.0, found
    finally:
        free(job.partial)
        free(job.room)


def categorical(cnp.ndarray x, cnp.ndarray mask, bint nan_missing, cnp.ndarray logits,
                cnp.ndarray gradient, double weight, int batch_axes, cnp.ndarray row_values,
                int threads):
    """log softmax(logits)[x], summed: x (B, ...), logits (B, ..., C) with a contiguous last axis.

    Arrays come checked. With row_values a value per row of the first batch_axes axes is written
    there. Returns (total, whether some x was no class).
    """
    cdef Job job
    cdef Operand* ops[4]
    cdef bint single = cnp.PyArray_TYPE(logits) == cnp.NPY_FLOAT
    cdef list arrays = [logits, x]
    cdef int d, axes = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    ops[0] = &job.output[0]
    ops[1] = &job.x
    bind(ops[0], logits, single)
    bind(ops[1], x, False)
    job.masked = mask is not None
    job.with_gradient = gradient is not None
    job.nan_missing = nan_missing
    if job.masked:
        ops[len(arrays)] = &job.keep
        bind(&job.keep, mask, False)
        arrays.append(mask)
    if job.with_gradient:
        ops[len(arrays)] = &job.gradient[0]
        bind(&job.gradient[0], gradient, single)
        arrays.append(gradient)
    arrange_outer(&job.shape, ops, arrays, axes)
    job.weight = weight
    job.classes = cnp.PyArray_DIM(logits, axes)
    job.rows = 1
    if row_values is not None:
        for d in range(batch_axes):
            job.rows *= cnp.PyArray_DIM(x, d)
    job.positions = n // job.rows
    job.chunk = max(<Py_ssize_t>1, CHUNK // job.classes)
    if job.classes < LANES:
        job.chunk = (job.chunk + LANES - 1) // LANES * LANES
    job.chunks = max(<Py_ssize_t>1, (job.positions + job.chunk - 1) // job.chunk)
    job.rows_a_unit = max(<Py_ssize_t>1, job.chunk // max(<Py_ssize_t>1, job.positions))
    job.units = job.rows * job.chunks
    if job.chunks == 1:
        job.units = (job.rows + job.rows_a_unit - 1) // job.rows_a_unit
    job.room_size = LANES * LANES * sizeof(double)
    return run_job(&job, False, single, row_values, threads)


def mixture(cnp.ndarray x, cnp.ndarray mask, bint nan_missing, tuple parameters, tuple gradients,
            double top, double weight, int batch_axes, cnp.ndarray row_values, int threads):
    """Mixtures of discretized logistics over bins 0 .. top, summed.

    x is (B, event), or (K, B, event), and parameters (logits, means, log scales) have a component
    axis before the event, which is contiguous or broadcast; gradients are contiguous. Returns
    (total, whether some x was no bin).
    """
    cdef Job job
    cdef Operand* ops[2 + 2 * MAX_OUTPUTS]
    cdef cnp.ndarray first = parameters[0]
    cdef bint single = cnp.PyArray_TYPE(first) == cnp.NPY_FLOAT
    cdef list arrays = [x, *parameters]
    cdef int i, d
    ops[0] = &job.x
    bind(ops[0], x, single)
    job.x.spread = cnp.PyArray_STRIDE(x, batch_axes) == 0
    for i in range(MAX_OUTPUTS):
        ops[1 + i] = &job.output[i]
        bind(ops[1 + i], parameters[i], single)
        job.output[i].spread = cnp.PyArray_STRIDE(<cnp.ndarray>parameters[i], batch_axes + 1) == 0
        job.across[i] = cnp.PyArray_STRIDE(<cnp.ndarray>parameters[i], batch_axes)
    job.masked = mask is not None
    job.with_gradient = gradients is not None
    job.nan_missing = nan_missing
    if job.masked:
        ops[len(arrays)] = &job.keep
        bind(&job.keep, mask, single)
        job.keep.spread = cnp.PyArray_STRIDE(mask, batch_axes) == 0
        arrays.append(mask)
    if job.with_gradient:
        for i in range(MAX_OUTPUTS):
            ops[len(arrays)] = &job.gradient[i]
            bind(&job.gradient[i], gradients[i], single)
            arrays.append(gradients[i])
        job.across_gradient = job.gradient[0].itemsize * cnp.PyArray_DIM(first, batch_axes + 1)
    arrange_outer(&job.shape, ops, arrays, batch_axes)
    job.top = top
    job.weight = weight
    job.classes = cnp.PyArray_DIM(first, batch_axes)
    job.positions = cnp.PyArray_DIM(first, batch_axes + 1)
    job.rows = 1
    for d in range(batch_axes):
        job.rows *= cnp.PyArray_DIM(first, d)
    job.chunk = max(<Py_ssize_t>LANES, CHUNK // job.classes // LANES * LANES)
    job.chunks = max(<Py_ssize_t>1, (job.positions + job.chunk - 1) // job.chunk)
    job.units = job.rows * job.chunks
    job.room_size = 4 * job.classes * LANES * sizeof(double)
    return run_job(&job, True, single, row_values, threads)
