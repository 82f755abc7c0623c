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
from cython.parallel cimport prange
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastelbo._kernels.latent cimport data_of, tile_sum
from fastelbo._kernels.operands cimport (
    LANES, MAX_OPERANDS, TILE, Operand, Shape, add_up, arrange, bind, convert, round_up, run_at,
)
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, ValueOnly, wanted
from fastelbo._kernels.terms.negative_binomial cimport (
    digamma_tail, in_domain, inflate, inflate_any, log_prob_of_any, log_prob_of_count, log_prob_of_zero,
    oddity, of_theta, ordinary, stirling_error, within_limit,
)
from fastelbo._kernels.terms.vecmath cimport real

cnp.import_array()

cdef enum:
    LEAST_ROWS = 64        # rows a unit, or more, but
    MOST_UNITS = 64        # no more blocks of rows than make this many units

ctypedef struct Plain:
    char _
ctypedef struct Inflated:
    char _

ctypedef fused model:
    Plain
    Inflated

cdef struct Job:
    Shape shape
    Operand x, mask, mean, theta, logits
    Operand dmean, dtheta, dlogits
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
    bint by_row
    double* partial                # (rows, segments * widths) if by_row, else (units,)
    double* theta_sums             # (blocks, columns): sums of the gradient over each block of rows;
    double* logit_sums             # NULL: the gradient belongs to the elements, or is not wanted
    bint* outside                  # (units,): whether something lies outside the domain

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fe_trailing_zeros(m) __builtin_ctzll(m)
    #else
    static int fe_trailing_zeros(unsigned long long m) {
        int n = 0;
        while (!(m & 1)) { m >>= 1; n++; }
        return n;
    }
    #endif
    """
    int trailing_zeros "fe_trailing_zeros"(uint64_t) noexcept nogil


# A tile -----------------------------------------------------------------------------------------

cdef void survey(const real* restrict x, const real* restrict mu, const real* restrict theta,
                 Py_ssize_t n, real* restrict odd) noexcept nogil:
    """odd (LANES,) notes where step 3 is needed, of n elements, a multiple of LANES."""
    cdef Py_ssize_t j, i
    cdef int l
    for j in range(n // LANES):
        for l in range(LANES):
            i = j * LANES + l
            odd[l] += oddity(x[i], mu[i], theta[i])


cdef void zeros_of(const model* tag, const wanted* want, const real* restrict x,
                   const real* restrict mu, const real* restrict theta,
                   const real* restrict inv_theta, const real* restrict logits,
                   real* restrict value, real* restrict dmu, real* restrict dtheta,
                   real* restrict dlogits, Py_ssize_t n, real weight,
                   real* restrict odd) noexcept nogil:
    """Step 1."""
    cdef Py_ssize_t j, i
    cdef real log_p, dm, dt, dl, share
    cdef bint none
    cdef int l
    for j in range(n // LANES):
        for l in range(LANES):
            i = j * LANES + l
            none = x[i] == <real>0.0
            log_p = log_prob_of_zero(mu[i], theta[i], inv_theta[i], &dm, &dt)
            share = <real>1.0
            if model is Inflated:
                value[i] = inflate(none, log_p, logits[i], &share, &dl, &odd[l])
            else:
                value[i] = log_p if none else <real>0.0
            if wanted is ValueAndGradient:
                dmu[i] = share * dm * weight
                dtheta[i] = share * dt * weight
                if model is Inflated:
                    dlogits[i] = dl * weight


cdef void counts_of(const wanted* want, const real* restrict x, const real* restrict mu,
                    const real* restrict theta, const real* restrict of_value,
                    const real* restrict of_slope, real* restrict value, real* restrict dmu,
                    real* restrict dtheta, Py_ssize_t n, real weight) noexcept nogil:
    """log p of counts, where x is at least 1."""
    cdef Py_ssize_t i
    cdef real inv_n, c, dm, dt
    for i in range(n):
        c = x[i] if x[i] > <real>1.0 else <real>1.0
        inv_n = <real>1.0 / (c + theta[i])
        value[i] = log_prob_of_count(
            c, mu[i], theta[i], of_value[i], of_slope[i],
            stirling_error(inv_n) - stirling_error(<real>1.0 / c), digamma_tail(inv_n), &dm, &dt)
        if wanted is ValueAndGradient:
            dmu[i] = dm * weight
            dtheta[i] = dt * weight


cdef void thetas_of(const real* restrict theta, real* restrict of_value, real* restrict of_slope,
                    Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        of_theta(theta[i], &of_value[i], &of_slope[i])


cdef void invert(const real* restrict theta, real* restrict inv_theta, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        inv_theta[i] = <real>1.0 / theta[i]


cdef Py_ssize_t find_counts(const real* restrict x, int* restrict index, Py_ssize_t n) noexcept nogil:
    """Where x is not zero, of n elements, a multiple of LANES."""
    cdef Py_ssize_t j, found = 0
    cdef unsigned char flags[LANES]
    cdef uint64_t word, mask
    cdef int l
    for j in range(n // LANES):
        for l in range(LANES):
            flags[l] = x[j * LANES + l] != <real>0.0
        mask = 0
        for l in range(8):                                       # eight bytes to eight bits
            memcpy(&word, flags + 8 * l, 8)
            mask |= ((word * <uint64_t>0x0102040810204080) >> 56) << (8 * l)
        while mask:
            index[found] = <int>(j * LANES) + trailing_zeros(mask)
            found += 1
            mask &= mask - 1
    return found


cdef void blend(const real* restrict x, const real* restrict added, const real* restrict dmu_of,
                const real* restrict dtheta_of, real* restrict value, real* restrict dmu,
                real* restrict dtheta, Py_ssize_t n) noexcept nogil:
    """What counts_of found for every element, where x is not zero."""
    cdef Py_ssize_t i
    for i in range(n):
        value[i] = value[i] if x[i] == <real>0.0 else value[i] + added[i]
        dmu[i] = dmu[i] if x[i] == <real>0.0 else dmu_of[i]
        dtheta[i] = dtheta[i] if x[i] == <real>0.0 else dtheta_of[i]


cdef bint odd_ones(const model* tag, const real* x, const real* mu, const real* theta,
                   const real* logits, const real* present, real* value, real* dmu, real* dtheta,
                   real* dlogits, Py_ssize_t n, double weight) noexcept nogil:
    """Step 3; whether something lies outside the domain."""
    cdef Py_ssize_t i
    cdef bint outside = False, is_ordinary, is_likely
    cdef double log_p, v, dm, dt, dl, share
    for i in range(n):
        if present != NULL and present[i] == 0:
            continue
        outside |= not in_domain(x[i], mu[i], theta[i])
        is_ordinary = ordinary(x[i], mu[i], theta[i])            # also a fraction above 1
        if model is Plain:
            if is_ordinary:
                continue
        log_p = log_prob_of_any(x[i], mu[i], theta[i], &dm, &dt)
        v = log_p
        if model is Inflated:
            is_likely = x[i] != 0 or log_p > -60.0 or logits[i] > <real>-60.0
            if is_ordinary and is_likely and logits[i] == logits[i]:
                continue
            v = inflate_any(x[i] == 0, log_p, logits[i], &share, &dl)
            dlogits[i] = <real>(dl * weight)
            if x[i] != 0:
                v += log_p
            else:
                dm = share * dm if share != 0 else 0.0
                dt = share * dt if share != 0 else 0.0
        value[i] = <real>v
        dmu[i] = <real>(dm * weight)
        dtheta[i] = <real>(dt * weight)
    return outside


cdef void forget(const real* restrict present, real* restrict value, real* restrict dmu,
                 real* restrict dtheta, Py_ssize_t n) noexcept nogil:
    """Nothing comes of what is missing."""
    cdef Py_ssize_t i
    for i in range(n):
        value[i] = value[i] if present[i] != <real>0.0 else <real>0.0
        dmu[i] = dmu[i] if present[i] != <real>0.0 else <real>0.0
        dtheta[i] = dtheta[i] if present[i] != <real>0.0 else <real>0.0


cdef bint run_tile(const model* tag, const wanted* want, const real* x, const real* mu,
                   const real* theta, const real* inv_theta, const real* of_value,
                   const real* of_slope, const real* logits, const real* present, real* value,
                   real* dmu, real* dtheta, real* dlogits, Py_ssize_t n,
                   double weight) noexcept nogil:
    """n elements; arrays have room up to round_up(n), with zeros in x.

    Returns whether some are outside the domain.
    of_value and of_slope are NULL where theta belongs to the elements, present where none is missing.
    """
    cdef int index[TILE]
    cdef real x_c[TILE]
    cdef real mu_c[TILE]
    cdef real theta_c[TILE]
    cdef real of_value_c[TILE]
    cdef real of_slope_c[TILE]
    cdef real value_c[TILE]
    cdef real dmu_c[TILE]
    cdef real dtheta_c[TILE]
    cdef real odd[LANES]
    cdef Py_ssize_t padded = round_up(n), found = find_counts(x, index, padded), k, j, whole_vectors
    cdef int l
    cdef bint any_odd = False, outside = False
    for l in range(LANES):
        odd[l] = 0
    survey(x, mu, theta, padded, odd)
    if model is Plain and found == padded:
        if of_value == NULL:
            thetas_of(theta, of_value_c, of_slope_c, padded)
            of_value = of_value_c
            of_slope = of_slope_c
        counts_of(want, x, mu, theta, of_value, of_slope, value, dmu, dtheta, padded, <real>weight)
        found = 0
    else:
        zeros_of(tag, want, x, mu, theta, inv_theta, logits, value, dmu, dtheta, dlogits, padded,
                 <real>weight, odd)
    if 2 * found > n:
        if of_value == NULL:
            thetas_of(theta, of_value_c, of_slope_c, padded)
            of_value = of_value_c
            of_slope = of_slope_c
        counts_of(want, x, mu, theta, of_value, of_slope, value_c, dmu_c, dtheta_c, padded, <real>weight)
        blend(x, value_c, dmu_c, dtheta_c, value, dmu, dtheta, padded)
    elif found > 0:
        whole_vectors = (found + 15) // 16 * 16
        for k in range(found):
            j = index[k]
            x_c[k] = x[j]
            mu_c[k] = mu[j]
            theta_c[k] = theta[j]
        for k in range(found, whole_vectors):
            x_c[k] = mu_c[k] = theta_c[k] = 1
        if of_value == NULL:
            thetas_of(theta_c, of_value_c, of_slope_c, whole_vectors)
        else:
            for k in range(found):
                of_value_c[k] = of_value[index[k]]
                of_slope_c[k] = of_slope[index[k]]
            for k in range(found, whole_vectors):
                of_value_c[k] = of_slope_c[k] = 0
        counts_of(want, x_c, mu_c, theta_c, of_value_c, of_slope_c, value_c, dmu_c, dtheta_c,
                  whole_vectors, <real>weight)
        for k in range(found):
            j = index[k]
            value[j] += value_c[k]
            if wanted is ValueAndGradient:
                dmu[j] = dmu_c[k]
                dtheta[j] = dtheta_c[k]
    for l in range(LANES):
        any_odd |= odd[l] != 0
    if any_odd:
        outside = odd_ones(
            tag, x, mu, theta, logits, present, value, dmu, dtheta, dlogits, n, weight)
    if present != NULL:
        forget(present, value, dmu, dtheta, padded)
        if model is Inflated:
            for k in range(padded):
                dlogits[k] = dlogits[k] if present[k] != <real>0.0 else <real>0.0
    return outside


# A unit -----------------------------------------------------------------------------------------

cdef const real* gather(const Operand* op, const Job* job, Py_ssize_t row, Py_ssize_t rows,
                        Py_ssize_t segment, Py_ssize_t first, Py_ssize_t n, real pad,
                        bint in_place, real* buffer) noexcept nogil:
    """Columns first .. first + n of some rows, one row after another, padded to whole lanes."""
    cdef Py_ssize_t i, k, size = rows * n, padded = round_up(size)
    cdef const char* run = run_at(op, &job.shape, row * job.shape.segments + segment)
    cdef real* to = buffer
    if in_place and rows == 1 and size == padded and op.storage == 0 and not op.spread:
        return <const real*>run + first
    for i in range(rows):
        run = run_at(op, &job.shape, (row + i) * job.shape.segments + segment)
        if op.spread:
            convert(run, op.storage, to, 1)
            for k in range(1, n):
                to[k] = to[0]
        else:
            convert(run + first * op.itemsize, op.storage, to, n)
        to += n
    for k in range(size, padded):
        buffer[k] = pad
    return buffer


cdef real* target(const Operand* op, const Job* job, Py_ssize_t row, Py_ssize_t rows,
                  Py_ssize_t segment, Py_ssize_t first, Py_ssize_t n, real* buffer) noexcept nogil:
    """Where a gradient is to be written; `scatter` takes it from the buffer if that is not in place."""
    if rows > 1 or n != round_up(n):
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
    cdef real room[12 * TILE + 16]
    cdef real* present = NULL
    cdef real* at = <real*>((<uintptr_t>room + 63) & ~<uintptr_t>63)          # whole cache lines
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
    cdef Py_ssize_t rows, size, i, k
    cdef double total = 0
    cdef bint outside = False
    cdef double* theta_sums = sums_of(job.theta_sums, job, block, column, n)
    cdef double* logit_sums = sums_of(job.logit_sums, job, block, column, n)
    if job.column_theta != NULL:
        for k in range(round_up(job.rows_a_tile * n)):
            theta_s[k] = (
                within_limit((<const real*>(job.column_theta + (column + k % n) * job.theta_stride))[0])
                if k < job.rows_a_tile * n else <real>1.0)
        thetas_of(theta_s, of_value, of_slope, round_up(job.rows_a_tile * n))
        invert(theta_s, inv_theta, round_up(job.rows_a_tile * n))
    while row < stop:
        rows = min(job.rows_a_tile, stop - row)
        size = rows * n
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
            if job.missing_nan:
                for k in range(size):
                    present[k] = present[k] if x[k] == x[k] else <real>0.0
            for k in range(size, round_up(size)):
                present[k] = 0
        if job.column_theta == NULL:
            gather(&job.theta, job, row, rows, segment, first, n, <real>1.0, False, theta_s)
            for k in range(size):
                theta_s[k] = within_limit(theta_s[k])
            invert(theta_s, inv_theta, round_up(size))
        if wanted is ValueAndGradient:
            dmu = target(&job.dmean, job, row, rows, segment, first, n, at + TILE)
            if theta_sums == NULL and job.column_theta == NULL:
                dtheta = target(&job.dtheta, job, row, rows, segment, first, n, at + 2 * TILE)
            if model is Inflated:
                if logit_sums == NULL:
                    dlogits = target(&job.dlogits, job, row, rows, segment, first, n, at + 3 * TILE)
        outside |= run_tile(
            tag, want, x, mu, theta_s, inv_theta, of_value if job.column_theta != NULL else NULL, of_slope,
            logits, present, value, dmu, dtheta, dlogits, size, job.weight)
        if job.by_row:
            for i in range(rows):
                job.partial[(row + i) * strips + strip] = tile_sum(value + i * n, n)
        else:
            total += tile_sum(value, size)
        if wanted is ValueAndGradient:
            scatter(&job.dmean, job, row, rows, segment, first, n, dmu)
            if theta_sums != NULL:
                add_rows(theta_sums, dtheta, rows, n)
            elif job.column_theta == NULL:
                scatter(&job.dtheta, job, row, rows, segment, first, n, dtheta)
            if logit_sums != NULL:
                add_rows(logit_sums, dlogits, rows, n)
            elif model is Inflated:
                scatter(&job.dlogits, job, row, rows, segment, first, n, dlogits)
        row += rows
    if not job.by_row:
        job.partial[unit] = total
    job.outside[unit] = outside


cdef void run_units(const model* tag, const wanted* want, const Job* job, Py_ssize_t share,
                    Py_ssize_t shares, const real* kind) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef Py_ssize_t unit
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        run_unit(tag, want, job, unit, kind)


cdef void counts_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    if job.inflated and job.with_gradient:
        run_units(<const Inflated*>NULL, <const ValueAndGradient*>NULL, job, share, shares, kind)
    elif job.inflated:
        run_units(<const Inflated*>NULL, <const ValueOnly*>NULL, job, share, shares, kind)
    elif job.with_gradient:
        run_units(<const Plain*>NULL, <const ValueAndGradient*>NULL, job, share, shares, kind)
    else:
        run_units(<const Plain*>NULL, <const ValueOnly*>NULL, job, share, shares, kind)


cdef void region(const Job* job, int threads, const real* kind) noexcept nogil:
    cdef int t
    if threads == 1:
        counts_share(job, 0, 1, kind)
        return
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        counts_share(job, t, threads, kind)


cdef void plan(Job* job) noexcept nogil:
    """Cut the work into units; their number depends on the shape alone."""
    cdef Py_ssize_t strips, most_blocks
    job.width = max(<Py_ssize_t>1, min(job.shape.run, <Py_ssize_t>TILE))
    job.widths = max(<Py_ssize_t>1, (job.shape.run + TILE - 1) // TILE)
    job.rows_a_tile = TILE // job.width
    strips = job.shape.segments * job.widths
    most_blocks = MOST_UNITS // max(<Py_ssize_t>1, strips)       # no strips: events of no elements
    job.blocks = max(<Py_ssize_t>1, min(job.shape.rows // LEAST_ROWS, most_blocks))
    job.rows_a_block = (job.shape.rows + job.blocks - 1) // job.blocks
    job.rows_a_block = (job.rows_a_block + job.rows_a_tile - 1) // job.rows_a_tile * job.rows_a_tile
    job.blocks = max(<Py_ssize_t>1, (job.shape.rows + job.rows_a_block - 1) // job.rows_a_block)
    job.units = job.blocks * strips


cdef inline void attach(Operand** ops, PyObject** arrays, int* n, Operand* op, cnp.ndarray a,
                        bint single) noexcept:
    """One more operand, unless there is none."""
    if a is not None:
        bind(op, a, single)
        ops[n[0]] = op
        arrays[n[0]] = <PyObject*>a
        n[0] += 1


cdef double* room_for_sums(const Job* job, cnp.ndarray wanted_sums) except? NULL:
    """(blocks, columns) where an array asks for sums, else NULL."""
    cdef double* room
    if wanted_sums is None:
        return NULL
    room = <double*>malloc(
        max(<Py_ssize_t>1, job.blocks * job.shape.segments * job.shape.run) * sizeof(double))
    if room == NULL:
        raise MemoryError()
    return room


cdef void add_blocks(const Job* job, double* sums, cnp.ndarray out) noexcept:
    """The sums of all blocks of rows, in their order."""
    cdef Py_ssize_t block, k, columns = job.shape.segments * job.shape.run
    if sums == NULL:
        return
    for block in range(1, job.blocks):
        for k in range(columns):
            sums[k] += sums[block * columns + k]
    memcpy(data_of(out), sums, columns * sizeof(double))


def evaluate(cnp.ndarray x, cnp.ndarray mask, bint missing_nan, cnp.ndarray mean, cnp.ndarray theta,
             cnp.ndarray column_theta, cnp.ndarray logits, tuple gradients, cnp.ndarray theta_sums,
             cnp.ndarray logit_sums, double weight, int batch_axes, cnp.ndarray row_values,
             int threads):
    """log p(x | mean, theta), inflated by zeros unless `logits` is None.

    Arrays come checked: x, mask (bytes, 0 where x is missing; may be None), mean, and logits of one
    shape, batch first, parameters in the dtype of the pass. theta is `theta`, of that shape, too, or
    `column_theta`, flat with one an element of the event, of any stride. With missing_nan NaN in x
    is missing.
    `gradients` is None or (mean, theta, logits) in that shape, None for what is not wanted; those
    summed over the batch go to theta_sums and logit_sums (columns,), in float64. With row_values
    (batch,) a value per row is written there.

    Returns (the sum of log p, whether something lay outside the domain).
    """
    cdef Job job
    cdef Operand* ops[MAX_OPERANDS]
    cdef PyObject* arrays[MAX_OPERANDS]
    cdef bint single = cnp.PyArray_TYPE(mean) == cnp.NPY_FLOAT
    cdef bint outside = False
    cdef int n = 0
    cdef Py_ssize_t k, strips
    cdef double value = 0
    cdef double* out
    job.with_gradient = gradients is not None
    job.inflated = logits is not None
    job.masked = mask is not None
    job.missing_nan = missing_nan
    job.column_theta = data_of(column_theta)
    job.theta_stride = 0 if column_theta is None else cnp.PyArray_STRIDE(column_theta, 0)
    job.weight = weight
    job.by_row = row_values is not None
    attach(ops, arrays, &n, &job.x, x, single)
    attach(ops, arrays, &n, &job.mask, mask, single)
    attach(ops, arrays, &n, &job.mean, mean, single)
    attach(ops, arrays, &n, &job.theta, theta, single)
    attach(ops, arrays, &n, &job.logits, logits, single)
    if job.with_gradient:
        attach(ops, arrays, &n, &job.dmean, gradients[0], single)
        attach(ops, arrays, &n, &job.dtheta, gradients[1], single)
        attach(ops, arrays, &n, &job.dlogits, gradients[2], single)
    arrange(&job.shape, ops, arrays, n, batch_axes, True)
    plan(&job)
    strips = job.shape.segments * job.widths
    job.theta_sums = NULL
    job.logit_sums = NULL
    job.outside = NULL
    job.partial = <double*>malloc(
        max(<Py_ssize_t>1, job.shape.rows * strips if job.by_row else job.units) * sizeof(double))
    try:
        job.theta_sums = room_for_sums(&job, theta_sums)
        job.logit_sums = room_for_sums(&job, logit_sums)
        job.outside = <bint*>malloc(max(<Py_ssize_t>1, job.units) * sizeof(bint))
        if job.partial == NULL or job.outside == NULL:
            raise MemoryError()
        with nogil:
            if single:
                region(&job, threads, <const float*>NULL)
            else:
                region(&job, threads, <const double*>NULL)
            for k in range(job.units):
                outside |= job.outside[k]
        add_blocks(&job, job.theta_sums, theta_sums)
        add_blocks(&job, job.logit_sums, logit_sums)
        if job.by_row:
            out = <double*>data_of(row_values)
            for k in range(job.shape.rows):
                out[k] = add_up(job.partial + k * strips, strips)
        else:
            value = add_up(job.partial, job.units)
        return value, outside
    finally:
        free(job.partial)
        free(job.theta_sums)
        free(job.logit_sums)
        free(job.outside)
