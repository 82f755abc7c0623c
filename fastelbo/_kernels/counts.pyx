# The pass over counts: log p(x | mean, theta) of the negative binomial, with an excess of zeros or
# without, summed, with its gradients.
#
# Rows are what the batch axes span, columns the event. theta either belongs to the columns (one a
# gene, the usual case), and its gradient is summed over the rows, or to the elements.
#
# A unit of work is a block of rows of TILE columns; its shape depends on the problem alone. It goes
# tile by tile: (1) everything as if x were zero, (2) the counts, compressed where they are few,
# (3) what is outside the domain or extreme, one by one. Rows shorter than a tile share one.
# Gradients are written where they belong at once, unless a tile is padded or they are summed.

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.call cimport HANDLE, Call, Handle, bind_dense, bind_output, lay_out
from fastelbo._kernels.operands cimport (
    FLOAT32, LINE, MAX_OPERANDS, SPARSE, TILE, Entries, Operand, Shape, add_up, add_up_rows, aligned,
    arrange, attach, attach_data, ceil_div, convert, data_of, padded_to, run_at, tile_sum,
)
from fastelbo._kernels.sparse cimport take_entries
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, ValueOnly, wanted
from fastelbo._kernels.terms.negative_binomial cimport within_limit
from fastelbo._kernels.terms.vecmath cimport real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

include "counts_tile.pxi"

cdef enum:
    LEAST_ROWS = 64        # rows a unit, or more, but
    FEW = 64               # sums that need no allocation
    THETA = 1 << 1         # its bit, as an output of the decoder
    MOST_UNITS = 64        # no more blocks of rows than make this many units

cdef struct Job:
    Shape shape
    Operand x, mask, mean, theta, logits
    Entries entries                # of x that is sparse
    Operand dmean, dtheta, dlogits     # dtheta without data: the gradient is summed, or not wanted
    Operand element                # log p of each element; written if `by_element`
    const char* column_theta       # (columns,) in the dtype of the pass; NULL: an operand
    Py_ssize_t theta_stride        # bytes; 0: one number
    bint with_gradient, inflated
    bint masked                    # by `mask`, 0 where x is missing
    bint missing_nan               # NaN in x is missing, too
    double weight                  # what the gradients are multiplied by
    Py_ssize_t width               # columns a unit, at most TILE
    Py_ssize_t widths              # units a run
    Py_ssize_t rows_a_tile, rows_a_block, blocks
    Py_ssize_t units
    bint by_row, by_element
    double* partial                # (rows, segments * widths) if by_row, else (units,)
    double* theta_sums             # (blocks, columns): sums of the gradient over each block of rows;
    double* logit_sums             # NULL: the gradient belongs to the elements, or is not wanted
    bint* found_outside            # the domain


cdef const real* gather(const Operand* op, const Job* job, Py_ssize_t row, Py_ssize_t rows,
                        Py_ssize_t segment, Py_ssize_t first, Py_ssize_t n, real pad,
                        bint in_place, real* buffer) noexcept nogil:
    """Columns first .. first + n of some rows, one row after another, padded to whole vectors."""
    cdef Py_ssize_t i, k, size = rows * n, padded = padded_to(size)
    cdef const char* run = run_at(op, &job.shape, row * job.shape.segments + segment)
    cdef real* to = buffer
    if in_place and rows == 1 and size == padded and op.storage == 0 and not op.spread:
        return <const real*>run + first
    for i in range(rows):
        run = run_at(op, &job.shape, (row + i) * job.shape.segments + segment)
        if op.spread:
            if n > 0:                                # of no columns there is none
                convert(run, op.storage, to, 1)
            for k in range(1, n):
                to[k] = to[0]
        else:
            convert(run + first * op.itemsize, op.storage, to, n)
        to += n
    for k in range(size, padded):
        buffer[k] = pad
    return buffer


cdef Py_ssize_t gather_counts(const Job* job, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t first,
                              Py_ssize_t n, real* counts, int* index) noexcept nogil:
    """Of sparse x the counts, and where they are; returns how many."""
    cdef Py_ssize_t i, found = 0
    for i in range(rows):
        found += take_entries(job.x.entries, run_at(&job.x, &job.shape, row + i), first, n, <int>(i * n),
                              counts + found, index + found)
    return found


cdef real* target(const Operand* op, const Job* job, Py_ssize_t row, Py_ssize_t rows,
                  Py_ssize_t segment, Py_ssize_t first, Py_ssize_t n, real* buffer) noexcept nogil:
    """Where a gradient is to be written; `scatter` takes it from the buffer if that is not in place."""
    if rows > 1 or n != padded_to(n):
        return buffer
    return <real*>run_at(op, &job.shape, row * job.shape.segments + segment) + first


cdef void scatter(const Operand* op, const Job* job, Py_ssize_t row, Py_ssize_t rows,
                  Py_ssize_t segment, Py_ssize_t first, Py_ssize_t n, const real* source) noexcept nogil:
    """The inverse of gather, for a gradient."""
    cdef Py_ssize_t i
    cdef real* to
    for i in range(rows):
        to = <real*>run_at(op, &job.shape, (row + i) * job.shape.segments + segment) + first
        if to != source:
            memcpy(to, source + i * n, n * sizeof(real))


cdef double* sums_of(double* sums, const Job* job, Py_ssize_t block, Py_ssize_t column,
                     Py_ssize_t n) noexcept nogil:
    """Where a unit sums its columns, set to zero; NULL if it does not."""
    cdef Py_ssize_t k
    if sums == NULL:
        return NULL
    sums += block * job.shape.segments * job.shape.run + column
    for k in range(n):
        sums[k] = 0
    return sums


cdef void add_rows(double* restrict sums, const real* restrict source, Py_ssize_t rows,
                   Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, k
    for i in range(rows):
        for k in range(n):
            sums[k] += source[i * n + k]


cdef void run_unit(const model* tag, const wanted* want, const Job* job, Py_ssize_t unit,
                   const real* kind) noexcept nogil:
    cdef real room[12 * TILE + LINE]
    cdef real counts[TILE]
    cdef int index[TILE]
    cdef real* present = NULL
    cdef real* at = <real*>aligned(room)
    cdef real* value = at
    cdef real* dmu = at + TILE                                   # or in place
    cdef real* dtheta = at + 2 * TILE
    cdef real* dlogits = at + 3 * TILE
    cdef real* theta_s = at + 4 * TILE
    cdef real* of_value = at + 5 * TILE
    cdef real* of_slope = at + 6 * TILE
    cdef real* inv_theta = at + 11 * TILE
    cdef const real* x
    cdef const real* mu
    cdef const real* logits = NULL
    cdef Py_ssize_t strips = job.shape.segments * job.widths
    cdef Py_ssize_t block = unit // strips, strip = unit % strips
    cdef Py_ssize_t segment = strip // job.widths, first = (strip % job.widths) * job.width
    cdef Py_ssize_t n = min(job.width, job.shape.run - first), column = segment * job.shape.run + first
    cdef Py_ssize_t row = block * job.rows_a_block, stop = min(row + job.rows_a_block, job.shape.rows)
    cdef Py_ssize_t rows, size, found = 0, i, k
    cdef double total = 0
    cdef bint outside = False
    cdef double* theta_sums = sums_of(job.theta_sums, job, block, column, n)
    cdef double* logit_sums = sums_of(job.logit_sums, job, block, column, n)
    if job.column_theta != NULL:
        size = min(job.rows_a_tile, stop - row) * n
        for k in range(padded_to(size)):
            theta_s[k] = (
                within_limit((<const real*>(job.column_theta + (column + k % n) * job.theta_stride))[0])
                if k < size else <real>1.0)
        thetas_of(theta_s, of_value, of_slope, padded_to(size))
        invert(theta_s, inv_theta, padded_to(size))
    while row < stop:
        rows = min(job.rows_a_tile, stop - row)
        size = rows * n
        if job.x.storage == SPARSE:
            x = NULL
            found = gather_counts(job, row, rows, first, n, counts, index)
        else:
            x = gather(&job.x, job, row, rows, segment, first, n, <real>0.0, True, at + 7 * TILE)
        mu = gather(&job.mean, job, row, rows, segment, first, n, <real>1.0, True, at + 8 * TILE)
        if model is Inflated:
            logits = gather(&job.logits, job, row, rows, segment, first, n, <real>0.0, True,
                            at + 9 * TILE)
        if job.masked or job.missing_nan:
            present = at + 10 * TILE
            for k in range(size):
                present[k] = 1
            if job.masked:
                gather(&job.mask, job, row, rows, segment, first, n, <real>0.0, False, present)
            if job.missing_nan and x == NULL:
                for k in range(found):
                    present[index[k]] = present[index[k]] if counts[k] == counts[k] else <real>0.0
            elif job.missing_nan:
                for k in range(size):
                    present[k] = present[k] if x[k] == x[k] else <real>0.0
            for k in range(size, padded_to(size)):
                present[k] = 0
        if job.column_theta == NULL:
            gather(&job.theta, job, row, rows, segment, first, n, <real>1.0, False, theta_s)
            for k in range(size):
                theta_s[k] = within_limit(theta_s[k])
            invert(theta_s, inv_theta, padded_to(size))
        if wanted is ValueAndGradient:
            dmu = target(&job.dmean, job, row, rows, segment, first, n, at + TILE)
            if job.dtheta.data != NULL:
                dtheta = target(&job.dtheta, job, row, rows, segment, first, n, at + 2 * TILE)
            if model is Inflated:
                if logit_sums == NULL:
                    dlogits = target(&job.dlogits, job, row, rows, segment, first, n, at + 3 * TILE)
        outside |= run_tile(
            tag, want, x, mu, theta_s, inv_theta, of_value if job.column_theta != NULL else NULL, of_slope,
            logits, present, counts, index, found, value, dmu, dtheta, dlogits, size, job.weight)
        if job.by_element:
            scatter(&job.element, job, row, rows, segment, first, n, value)
        elif job.by_row:
            for i in range(rows):
                job.partial[(row + i) * strips + strip] = tile_sum(value + i * n, n)
        else:
            total += tile_sum(value, size)
        if wanted is ValueAndGradient:
            scatter(&job.dmean, job, row, rows, segment, first, n, dmu)
            if theta_sums != NULL:
                add_rows(theta_sums, dtheta, rows, n)
            elif job.dtheta.data != NULL:
                scatter(&job.dtheta, job, row, rows, segment, first, n, dtheta)
            if logit_sums != NULL:
                add_rows(logit_sums, dlogits, rows, n)
            elif model is Inflated:
                scatter(&job.dlogits, job, row, rows, segment, first, n, dlogits)
        row += rows
    if not job.by_row:
        job.partial[unit] = total
    if outside:
        job.found_outside[0] = True


cdef void run_units(const model* tag, const wanted* want, const Job* job, Py_ssize_t share,
                    Py_ssize_t shares, const real* kind) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef Py_ssize_t unit
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        run_unit(tag, want, job, unit, kind)


cdef void counts_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    cdef const Job* job = <const Job*>given
    if job.inflated and job.with_gradient:
        run_units(<const Inflated*>NULL, <const ValueAndGradient*>NULL, job, share, shares, kind)
    elif job.inflated:
        run_units(<const Inflated*>NULL, <const ValueOnly*>NULL, job, share, shares, kind)
    elif job.with_gradient:
        run_units(<const Plain*>NULL, <const ValueAndGradient*>NULL, job, share, shares, kind)
    else:
        run_units(<const Plain*>NULL, <const ValueOnly*>NULL, job, share, shares, kind)


cdef void plan(Job* job) noexcept nogil:
    """Cut the work into units; their number depends on the shape alone."""
    cdef Py_ssize_t strips, most_blocks
    job.width = max(<Py_ssize_t>1, min(job.shape.run, <Py_ssize_t>TILE))
    job.widths = max(<Py_ssize_t>1, ceil_div(job.shape.run, TILE))
    job.rows_a_tile = TILE // job.width
    strips = job.shape.segments * job.widths
    most_blocks = MOST_UNITS // max(<Py_ssize_t>1, strips)       # no strips: events of no elements
    job.blocks = max(<Py_ssize_t>1, min(job.shape.rows // LEAST_ROWS, most_blocks))
    job.rows_a_block = ceil_div(ceil_div(job.shape.rows, job.blocks), job.rows_a_tile) * job.rows_a_tile
    job.blocks = max(<Py_ssize_t>1, ceil_div(job.shape.rows, job.rows_a_block))
    job.units = job.blocks * strips


cdef void add_blocks(const Job* job, double* sums) noexcept nogil:
    """The sums of all blocks of rows, in their order, to those of the first."""
    cdef Py_ssize_t block, k, columns = job.shape.segments * job.shape.run
    for block in range(1, job.blocks):
        for k in range(columns):
            sums[k] += sums[block * columns + k]


cdef void hand_over(const Job* job, double* sums, cnp.ndarray out) noexcept:
    if sums != NULL:
        add_blocks(job, sums)
        memcpy(data_of(out), sums, job.shape.segments * job.shape.run * sizeof(double))


def evaluate(object x, cnp.ndarray mask, bint missing_nan, cnp.ndarray mean, cnp.ndarray theta,
             cnp.ndarray column_theta, cnp.ndarray logits, tuple gradients, cnp.ndarray theta_sums,
             cnp.ndarray logit_sums, double weight, int batch_axes, cnp.ndarray row_values,
             cnp.ndarray elements, int threads):
    """log p(x | mean, theta), inflated by zeros unless `logits` is None.

    Arrays come checked: x (SparseRows where it is sparse), mask (bytes, 0 where x is missing; may be
    None), mean, and logits of one shape, batch first, parameters in the dtype of the pass. theta is
    `theta`, of that shape, too, or `column_theta`, flat with one an element of the event, of any
    stride. With missing_nan NaN in x is missing.
    `gradients` is None or (mean, theta, logits) in that shape, None for what is not wanted (theta's may
    be by element where theta is not); those summed over the batch go to theta_sums and logit_sums
    (columns,), in float64. With row_values (batch,) a value per row is written there, with elements, of
    the common shape, one per element.

    Returns (the sum of log p, whether something lay outside the domain).
    """
    cdef Job job
    cdef Operand* ops[MAX_OPERANDS + 1]
    cdef PyObject* arrays[MAX_OPERANDS + 1]
    cdef bint single = cnp.PyArray_TYPE(mean) == cnp.NPY_FLOAT
    cdef bint outside = False
    cdef int n = 0
    cdef Py_ssize_t strips, partials, sums
    cdef double value
    job.with_gradient = gradients is not None
    job.inflated = logits is not None
    job.masked = mask is not None
    job.missing_nan = missing_nan
    job.column_theta = data_of(column_theta)
    job.theta_stride = 0 if column_theta is None else cnp.PyArray_STRIDE(column_theta, 0)
    job.weight = weight
    job.by_row = row_values is not None
    job.by_element = elements is not None
    job.found_outside = &outside
    job.dtheta.data = NULL
    attach_data(ops, arrays, &n, &job.x, &job.entries, x, single)
    attach(ops, arrays, &n, &job.mask, mask, single)
    attach(ops, arrays, &n, &job.mean, mean, single)
    attach(ops, arrays, &n, &job.theta, theta, single)
    attach(ops, arrays, &n, &job.logits, logits, single)
    if job.with_gradient:
        attach(ops, arrays, &n, &job.dmean, gradients[0], single)
        attach(ops, arrays, &n, &job.dtheta, gradients[1], single)
        attach(ops, arrays, &n, &job.dlogits, gradients[2], single)
    attach(ops, arrays, &n, &job.element, elements, single)
    arrange(&job.shape, ops, arrays, n, batch_axes, True)
    plan(&job)
    strips = job.shape.segments * job.widths
    partials = job.shape.rows * strips if job.by_row else job.units
    sums = job.blocks * job.shape.segments * job.shape.run
    job.partial = <double*>malloc((1 + partials + 2 * sums) * sizeof(double))
    if job.partial == NULL:
        raise MemoryError()
    job.theta_sums = NULL if theta_sums is None else job.partial + partials
    job.logit_sums = NULL if logit_sums is None else job.partial + partials + sums
    with nogil:
        if single:
            in_parallel[float](counts_share, &job, threads)
        else:
            in_parallel[double](counts_share, &job, threads)
    hand_over(&job, job.theta_sums, theta_sums)
    hand_over(&job, job.logit_sums, logit_sums)
    value = add_up_rows(job.partial, job.shape.rows if job.by_row else job.blocks, strips, row_values)
    free(job.partial)
    return value, outside


# Dense arrays, from C and by the short way from Python -------------------------------------------

cdef void write_sums(const Job* job, double* sums, void* to, bint single) noexcept nogil:
    """The sums of all blocks of rows, in the dtype of the pass."""
    cdef Py_ssize_t k
    add_blocks(job, sums)
    for k in range(job.shape.run):
        if single:
            (<float*>to)[k] = <float>sums[k]
        else:
            (<double*>to)[k] = sums[k]


cdef int32_t dense(const Handle* likelihood, Call* call) noexcept nogil:
    """The pass over dense arrays: mean, theta unless the likelihood has it, logits. Returns -1 where
    memory ran out.
    """
    cdef Job job
    cdef bint single = call.dtype == FLOAT32, outside = False, own = likelihood.owns == 1, summed = False
    cdef bint alone = call.batch == 1 and call.samples <= 1
    cdef int last = likelihood.outputs - 1
    cdef Py_ssize_t strips, partials, room, row
    cdef double few[FEW]
    memset(&job, 0, sizeof(Job))
    job.inflated = likelihood.outputs == (2 if own else 3)
    job.with_gradient = call.d_outputs[0] != NULL
    job.missing_nan = likelihood.nan_missing
    job.weight = call.weight
    job.by_row = call.row_log_prob != NULL
    job.found_outside = &outside
    lay_out(&job.shape, call, False)
    bind_dense(&job.x, call.x, call.x_dtype, call, False, True, True)
    bind_output(&job.mean, call.outputs[0], call)
    bind_output(&job.logits, call.outputs[last], call)
    bind_output(&job.dmean, call.d_outputs[0], call)
    bind_output(&job.dlogits, call.d_outputs[last], call)
    if own:
        job.column_theta = <const char*>likelihood.own[0].data[single]
        job.theta_stride = 0 if likelihood.own[0].spread else job.mean.itemsize
    elif alone or call.columns & THETA:        # what belongs to the only row belongs to the columns
        job.column_theta = <const char*>call.outputs[1]
        job.theta_stride = job.mean.itemsize
        summed = job.with_gradient and (alone or call.summed & THETA)
    else:
        bind_output(&job.theta, call.outputs[1], call)
    if not own and not summed:
        bind_output(&job.dtheta, call.d_outputs[1], call)
    plan(&job)
    strips = job.shape.segments * job.widths
    partials = job.shape.rows * strips if job.by_row else job.units
    room = partials + (job.blocks * job.shape.run if summed else 0)
    job.partial = few
    if room > FEW:
        job.partial = <double*>malloc(room * sizeof(double))
    if job.partial == NULL:
        return -1
    if summed:
        job.theta_sums = job.partial + partials
    if single:
        in_parallel[float](counts_share, &job, call.threads)
    else:
        in_parallel[double](counts_share, &job, call.threads)
    if summed:
        write_sums(&job, job.theta_sums, call.d_outputs[1], single)
    if job.by_row:
        for row in range(job.shape.rows):
            call.row_log_prob[row] = add_up(job.partial + row * strips, strips)
    else:
        call.log_prob = add_up(job.partial, job.blocks * strips)
    if job.partial != few:
        free(job.partial)
    call.outside = outside
    return 0


def fill(handle, name):
    """Make a capsule's Handle that of the counts."""
    cdef Handle* likelihood = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    likelihood.run = dense
    likelihood.outputs = (3 if name == "ZeroInflatedNegativeBinomial" else 2) - likelihood.owns
    likelihood.gradients = likelihood.outputs
    likelihood.columns = 0 if likelihood.owns else THETA
