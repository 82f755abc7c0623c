# Every sample z_i against every data point j: logarithms of sum_j w_ij N(z_i; mu_j, e^logvar_j), the
# joint density and that of each dimension, and the gradients of a weighted sum of them.
#
# Points are transposed, a row a dimension, so that lanes run over points. All is to base 2: with
# height = -log2(e)/2 logvar and rate = log2(e)/2 e^-logvar, the log-density of one dimension is
# height - rate (z - mu)^2, constants aside. Less the largest height of its row it is never positive,
# so that a sum needs no running maximum; one that has all but vanished is taken again, exactly.
#
# A tile holds what ROWS samples have to do with all points: STEP points of the first sample, STEP of
# the second, ..., then the next STEP points. It is computed once, and read again by the gradient.
#
# STEP numbers fill one vector of the widest build, so that the sums of several samples stay in
# registers all along a RUN of points. gcc sees that only where `restrict` rules out aliases, each
# sum is an array of its own, and nothing else is in the loop.

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, M_LN2, M_LOG2E
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.latent cimport data_of, tile_sum
from fastelbo._kernels.operands cimport TILE
from fastelbo._kernels.terms.power cimport power_of_two
from fastelbo._kernels.terms.vecmath cimport exp, log, log_one_plus, real

cnp.import_array()

cdef enum:
    STEP = 16              # points a lane loop takes at once
    PADDED = 64            # points are padded to a multiple of this many
    RUN = 1024             # points whose sums are in the dtype of the pass, then float64
    ROWS = 8               # samples a tile
    QUAD = 4               # samples that a lane loop of the densities takes at once
    NEAR = 64              # dimensions that are added up before they join the others
    CHUNK = 64             # samples between two flushes of the gradients, at most
    IN_CACHE = 1 << 16     # of their weights, at most, where that leaves ROWS samples

cdef enum Weighting:       # w_ij, but for a constant
    EQUAL = 0
    PAPER = 1              # two exceptional points: i, and the next
    REFERENCE = 2          # the first two points instead

cdef dict WEIGHTINGS = {"equal": EQUAL, "paper": PAPER, "reference": REFERENCE}

cdef struct Points:
    Py_ssize_t n, padded
    Py_ssize_t dims, ld    # L; elements from row to row, no multiple of 4 KiB apart
    const char* mu         # (n, L), rows mu_stride bytes apart
    const char* logvar
    Py_ssize_t mu_stride, logvar_stride
    char* mean             # (L, ld)
    char* rate
    char* height           # less `top`
    char* joint_height     # (ld,): the sum of the rows, less the largest
    double* joint          # (ld,): that sum as it is taken
    double* top            # (L,)
    double joint_top

cdef struct Samples:
    Py_ssize_t rows
    const char* z          # (rows, L), rows z_stride bytes apart
    Py_ssize_t z_stride
    Weighting weighting
    double first, second   # log2 of the weights of the exceptional points, not positive


cdef inline char* aligned(void* p) noexcept nogil:
    """The next address at which a cache line starts."""
    return <char*>((<uintptr_t>p + 63) & ~<uintptr_t>63)


# Points -----------------------------------------------------------------------------------------

cdef char* bind(Points* q, cnp.ndarray mu, cnp.ndarray logvar, const real* kind) except NULL:
    """Point at checked arrays, find room for the transposed ones. Returns what to free."""
    cdef char* room
    q.n = cnp.PyArray_DIM(mu, 0)
    q.dims = cnp.PyArray_DIM(mu, 1)
    q.mu = data_of(mu)
    q.logvar = data_of(logvar)
    q.mu_stride = cnp.PyArray_STRIDE(mu, 0)
    q.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
    q.padded = (q.n + PADDED - 1) // PADDED * PADDED
    q.ld = q.padded + 16
    room = <char*>malloc((q.ld + q.dims) * sizeof(double) + (3 * q.dims + 1) * q.ld * sizeof(real) + 128)
    if room == NULL:
        raise MemoryError()
    q.joint = <double*>aligned(room)
    q.top = q.joint + q.ld
    q.mean = aligned(q.top + q.dims)
    q.rate = q.mean + q.dims * q.ld * sizeof(real)
    q.height = q.rate + q.dims * q.ld * sizeof(real)
    q.joint_height = q.height + q.dims * q.ld * sizeof(real)
    return room


cdef void transpose(const Points* q, Py_ssize_t l, const real* kind) noexcept nogil:
    """Dimension l of all points. What pads them has no density."""
    cdef real* mean = <real*>q.mean + l * q.ld
    cdef real* rate = <real*>q.rate + l * q.ld
    cdef real* height = <real*>q.height + l * q.ld
    cdef real top = <real>-INFINITY, h
    cdef Py_ssize_t j
    for j in range(q.n):
        mean[j] = (<const real*>(q.mu + j * q.mu_stride))[l]
        rate[j] = -(<const real*>(q.logvar + j * q.logvar_stride))[l]
        h = <real>(0.5 * M_LOG2E) * rate[j]
        height[j] = h
        top = h if h > top else top
    top = <real>0 if top == <real>-INFINITY else top
    q.top[l] = top
    for j in range(q.n):
        height[j] = height[j] - top
    for j in range(q.n, q.padded):
        mean[j] = 0
        rate[j] = <real>-INFINITY
        height[j] = <real>-INFINITY
    for j in range(q.padded):
        rate[j] = exp(rate[j]) * <real>(0.5 * M_LOG2E)


cdef void transpose_share(const Points* q, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    cdef Py_ssize_t l
    for l in range(q.dims * share // shares, q.dims * (share + 1) // shares):
        transpose(q, l, kind)


cdef void add_heights(Points* q, const real* kind) noexcept nogil:
    cdef real* height
    cdef real* joint_height = <real*>q.joint_height
    cdef double top = -INFINITY
    cdef Py_ssize_t l, j
    for j in range(q.padded):
        q.joint[j] = 0 if j < q.n else -INFINITY
    q.joint_top = 0
    for l in range(q.dims):
        height = <real*>q.height + l * q.ld
        q.joint_top += q.top[l]
        for j in range(q.padded):
            q.joint[j] += height[j]
    for j in range(q.n):
        top = q.joint[j] if q.joint[j] > top else top
    top = 0 if top == -INFINITY else top
    q.joint_top += top
    for j in range(q.padded):
        joint_height[j] = <real>(q.joint[j] - top)


cdef inline void transpose_all(Points* q, int threads, const real* kind) noexcept nogil:
    cdef int t
    if threads == 1:
        transpose_share(q, 0, 1, kind)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            transpose_share(q, t, threads, kind)
    add_heights(q, kind)


# Tiles ------------------------------------------------------------------------------------------

cdef inline void exceptions(const Samples* s, Py_ssize_t i, Py_ssize_t points, Py_ssize_t* at,
                            double* weight) noexcept nogil:
    """The two exceptional points of sample i, and log2 of their weights."""
    at[0] = i if s.weighting == PAPER else 0
    at[1] = (at[0] + 1) % points
    weight[0] = s.second if s.weighting == REFERENCE and i == points - 2 else s.first
    weight[1] = s.second


cdef inline real* at_point(real* row, Py_ssize_t j) noexcept nogil:
    """Where a row of a tile keeps point j."""
    return row + j // STEP * (ROWS * STEP) + j % STEP


cdef inline void add_exceptions(const Samples* s, Py_ssize_t i, Py_ssize_t points,
                                real* row) noexcept nogil:
    """To the exponents of sample i."""
    cdef Py_ssize_t at[2]
    cdef double weight[2]
    if s.weighting != EQUAL:
        exceptions(s, i, points, at, weight)
        at_point(row, at[0])[0] += <real>weight[0]
        at_point(row, at[1])[0] += <real>weight[1]


cdef inline double sum_of(double* lanes) noexcept nogil:
    """Of STEP numbers."""
    cdef int k
    for k in range(8):
        lanes[k] += lanes[k + 8]
    for k in range(4):
        lanes[k] += lanes[k + 4]
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])


cdef void add_run(const real* restrict row, Py_ssize_t steps, double* restrict sums) noexcept nogil:
    """Add the lanes of a RUN of a row of a tile to the sums."""
    cdef real a[STEP]
    cdef Py_ssize_t step, k
    for k in range(STEP):
        a[k] = 0
    for step in range(steps):
        for k in range(STEP):
            a[k] += row[step * (ROWS * STEP) + k]
    for k in range(STEP):
        sums[k] += a[k]


cdef double sum_row(const real* row, Py_ssize_t points) noexcept nogil:
    """Of a tile."""
    cdef double sums[STEP]
    cdef Py_ssize_t run, first, k
    for k in range(STEP):
        sums[k] = 0
    for run in range((points + RUN - 1) // RUN):
        first = run * RUN
        add_run(row + first * ROWS, min(<Py_ssize_t>RUN, points - first) // STEP, sums)
    return sum_of(sums)


cdef real largest_of(const real* restrict row, Py_ssize_t steps) noexcept nogil:
    """In a row of a tile, NaN aside; zero where all is -inf."""
    cdef real top = <real>-INFINITY, p
    cdef real largest[STEP]
    cdef Py_ssize_t step, k
    for k in range(STEP):
        largest[k] = <real>-INFINITY
    for step in range(steps):
        for k in range(STEP):
            p = row[step * (ROWS * STEP) + k]
            largest[k] = p if p > largest[k] else largest[k]
    for k in range(STEP):
        top = largest[k] if largest[k] > top else top
    return <real>0 if top == <real>-INFINITY else top


cdef void power_run(real* restrict row, real top, Py_ssize_t steps, double* restrict sums) noexcept nogil:
    """From exponents to powers of two in a RUN of a row of a tile; adds its lanes to the sums."""
    cdef real a[STEP]
    cdef real p
    cdef Py_ssize_t step, k
    for k in range(STEP):
        a[k] = 0
    for step in range(steps):
        for k in range(STEP):
            p = power_of_two(row[step * (ROWS * STEP) + k] - top)
            row[step * (ROWS * STEP) + k] = p
            a[k] += p
    for k in range(STEP):
        sums[k] += a[k]


cdef void retake(const Points* q, real* y, double* total, double* shift,
                 const real* kind) noexcept nogil:
    """From exponents y of one sample to powers of two, relative to the largest, and their sum."""
    cdef Py_ssize_t run, first, k
    cdef double sums[STEP]
    cdef real top
    for k in range(q.n, q.padded):
        at_point(y, k)[0] = <real>-INFINITY
    top = largest_of(y, q.padded // STEP)
    for k in range(STEP):
        sums[k] = 0
    for run in range((q.padded + RUN - 1) // RUN):
        first = run * RUN
        power_run(y + first * ROWS, top, min(<Py_ssize_t>RUN, q.padded - first) // STEP, sums)
    total[0] = sum_of(sums)
    shift[0] = top


cdef void exact_row(const Points* q, const Samples* s, Py_ssize_t l, Py_ssize_t i, real c, real* y,
                    double* total, double* shift) noexcept nogil:
    """One row of a tile again, relative to its own largest term."""
    cdef const real* mean = <const real*>q.mean + l * q.ld
    cdef const real* rate = <const real*>q.rate + l * q.ld
    cdef const real* height = <const real*>q.height + l * q.ld
    cdef Py_ssize_t step, first, k
    cdef real d
    for step in range(q.padded // STEP):
        first = step * STEP
        for k in range(STEP):
            d = c - mean[first + k]
            y[first * ROWS + k] = height[first + k] - (d * rate[first + k]) * d
    add_exceptions(s, i, q.n, y)
    retake(q, y, total, shift, y)


cdef inline real density(real c, real mean, real rate, real height) noexcept nogil:
    cdef real d = c - mean
    return power_of_two(height - (d * rate) * d)


cdef void marginal_run(const real* restrict mean, const real* restrict rate,
                       const real* restrict height, const real* restrict c, Py_ssize_t steps,
                       real* restrict tile, double* restrict sums) noexcept nogil:
    """What QUAD samples at c have to do with a RUN of points; adds the lanes of each to its sums."""
    cdef real a0[STEP]
    cdef real a1[STEP]
    cdef real a2[STEP]
    cdef real a3[STEP]
    cdef real c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], m, v, h, p
    cdef const real* means
    cdef const real* rates
    cdef const real* heights
    cdef real* to
    cdef Py_ssize_t step, k
    for k in range(STEP):
        a0[k] = a1[k] = a2[k] = a3[k] = 0
    for step in range(steps):
        means = mean + step * STEP
        rates = rate + step * STEP
        heights = height + step * STEP
        to = tile + step * (ROWS * STEP)
        for k in range(STEP):
            m, v, h = means[k], rates[k], heights[k]
            p = density(c0, m, v, h)
            to[k] = p
            a0[k] += p
            p = density(c1, m, v, h)
            to[STEP + k] = p
            a1[k] += p
            p = density(c2, m, v, h)
            to[2 * STEP + k] = p
            a2[k] += p
            p = density(c3, m, v, h)
            to[3 * STEP + k] = p
            a3[k] += p
    for k in range(STEP):
        sums[k] += a0[k]
    for k in range(STEP):
        sums[STEP + k] += a1[k]
    for k in range(STEP):
        sums[2 * STEP + k] += a2[k]
    for k in range(STEP):
        sums[3 * STEP + k] += a3[k]


cdef void marginal_tile(const Points* q, const Samples* s, Py_ssize_t l, Py_ssize_t i, Py_ssize_t n,
                        const real* c, real* tile, double* total, double* shift) noexcept nogil:
    """Powers of two, and their sums, of samples i .. i + n at c (ROWS numbers) in dimension l.

    The sum of a row is total 2^(shift + top).
    """
    cdef double sums[ROWS * STEP]
    cdef double weight[2]
    cdef Py_ssize_t at[2]
    cdef const real* mean = <const real*>q.mean + l * q.ld
    cdef const real* rate = <const real*>q.rate + l * q.ld
    cdef const real* height = <const real*>q.height + l * q.ld
    cdef Py_ssize_t run, first, quad, r, k
    cdef double least
    if real is float:
        least = 9.094947017729282e-13                # 2^-40: what power_of_two drops is far below
    else:
        least = 7.52316384526264e-37                 # 2^-120
    for k in range(ROWS * STEP):
        sums[k] = 0
    for run in range((q.padded + RUN - 1) // RUN):
        first = run * RUN
        for quad in range(ROWS // QUAD):
            r = quad * QUAD
            marginal_run(mean + first, rate + first, height + first, c + r,
                         min(<Py_ssize_t>RUN, q.padded - first) // STEP,
                         tile + first * ROWS + r * STEP, sums + r * STEP)
    for r in range(n):
        total[r] = sum_of(sums + r * STEP)
        shift[r] = 0
        if s.weighting != EQUAL:
            exceptions(s, i + r, q.n, at, weight)
            for k in range(2):
                at_point(tile + r * STEP, at[k])[0] *= <real>power_of_two(weight[k])
            total[r] = sum_row(tile + r * STEP, q.padded)
        if not total[r] >= least:
            exact_row(q, s, l, i + r, c[r], tile + r * STEP, &total[r], &shift[r])


cdef inline void add_square(real c, real mean, real rate, real* to) noexcept nogil:
    cdef real d = c - mean
    to[0] += (d * rate) * d


cdef void joint_run(const Points* q, Py_ssize_t first, Py_ssize_t start, Py_ssize_t stop,
                    const real* restrict z0, const real* restrict z1, const real* restrict z2,
                    const real* restrict z3, real* restrict tile) noexcept nogil:
    """Take the distances of 2 STEP points from QUAD samples in dimensions start .. stop off a tile."""
    cdef real a0[2 * STEP]
    cdef real a1[2 * STEP]
    cdef real a2[2 * STEP]
    cdef real a3[2 * STEP]
    cdef const real* restrict mean = <const real*>q.mean + first
    cdef const real* restrict rate = <const real*>q.rate + first
    cdef const real* means
    cdef const real* rates
    cdef real c0, c1, c2, c3, m, v
    cdef Py_ssize_t ld = q.ld, l, k
    for k in range(2 * STEP):
        a0[k] = a1[k] = a2[k] = a3[k] = 0
    for l in range(start, stop):
        means = mean + l * ld
        rates = rate + l * ld
        c0, c1, c2, c3 = z0[l], z1[l], z2[l], z3[l]
        for k in range(2 * STEP):
            m, v = means[k], rates[k]
            add_square(c0, m, v, &a0[k])
            add_square(c1, m, v, &a1[k])
            add_square(c2, m, v, &a2[k])
            add_square(c3, m, v, &a3[k])
    for l in range(2):
        for k in range(STEP):
            tile[k] -= a0[l * STEP + k]
        for k in range(STEP):
            tile[STEP + k] -= a1[l * STEP + k]
        for k in range(STEP):
            tile[2 * STEP + k] -= a2[l * STEP + k]
        for k in range(STEP):
            tile[3 * STEP + k] -= a3[l * STEP + k]
        tile += ROWS * STEP


cdef void joint_tile(const Points* q, const Samples* s, Py_ssize_t i, Py_ssize_t n, real* tile,
                     double* total, double* shift) noexcept nogil:
    """The same over all dimensions; the sum of a row is total 2^(shift + joint_top).

    Zeros in the rows of no sample.
    """
    cdef const real* height = <const real*>q.joint_height
    cdef const real* z[ROWS]
    cdef Py_ssize_t pair, step, first, near, start, stop, quad, r, k
    for r in range(ROWS):                            # the last sample pads a tile
        z[r] = <const real*>(s.z + (i + min(r, n - 1)) * s.z_stride)
    for pair in range(q.padded // (2 * STEP)):
        first = pair * 2 * STEP
        for r in range(2 * ROWS):
            for k in range(STEP):
                tile[(first * ROWS + r * STEP) + k] = height[first + r // ROWS * STEP + k]
        for near in range((q.dims + NEAR - 1) // NEAR):
            start = near * NEAR
            stop = min(start + NEAR, q.dims)
            for quad in range(ROWS // QUAD):
                r = quad * QUAD
                joint_run(q, first, start, stop, z[r], z[r + 1], z[r + 2], z[r + 3],
                          tile + first * ROWS + r * STEP)
    for r in range(n):
        add_exceptions(s, i + r, q.n, tile + r * STEP)
        retake(q, tile + r * STEP, &total[r], &shift[r], tile)
    for step in range(q.padded // STEP if n < ROWS else 0):
        memset(tile + (step * ROWS + n) * STEP, 0, (ROWS - n) * STEP * sizeof(real))


# Gradients --------------------------------------------------------------------------------------

cdef struct Job:
    Points q
    Samples s
    double* parts          # (4, rows): log q(z_i|x_i), log q(z_i), sum_l log q(z_il), log p(z_i)
    double weights[4]      # of the parts, in what the gradients are of
    char* dz               # (rows, L), or NULL where no gradient is wanted
    char* dmu
    char* dlogvar
    Py_ssize_t chunk       # samples between two flushes
    double* marginals      # (L, CHUNK): log q(z_il)
    char* shares           # joint tiles of a chunk, each row times weights[1] over its sum
    double* sums           # (2, L, padded): the gradients by mu and logvar so far
    char* scratch          # of each thread: a tile, and two rows of points
    Py_ssize_t scratch_bytes


cdef inline real pull(real c, real ratio, real mean, real rate, real share, real p,
                      real* by_mu, real* by_logvar, real* total) noexcept nogil:
    """What a sample and a point do to each other: adds to the gradients, returns that by -z."""
    cdef real d = c - mean, g = share + ratio * p, h = (d * rate) * g
    by_mu[0] += h
    by_logvar[0] += h * d
    total[0] += g
    return h


cdef void pull_run(const real* restrict mean, const real* restrict rate, const real* restrict c,
                   const real* restrict ratio, Py_ssize_t steps, const real* restrict tile,
                   const real* restrict share, real* restrict by_mu, real* restrict by_logvar,
                   double* restrict by_z) noexcept nogil:
    """The gradients of ROWS samples by a RUN of points; adds the lanes of those by -c to by_z."""
    cdef real a0[STEP]
    cdef real a1[STEP]
    cdef real a2[STEP]
    cdef real a3[STEP]
    cdef real a4[STEP]
    cdef real a5[STEP]
    cdef real a6[STEP]
    cdef real a7[STEP]
    cdef real c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7]
    cdef real r0 = ratio[0], r1 = ratio[1], r2 = ratio[2], r3 = ratio[3]
    cdef real r4 = ratio[4], r5 = ratio[5], r6 = ratio[6], r7 = ratio[7]
    cdef real m, v, x, y, t
    cdef const real* means
    cdef const real* rates
    cdef const real* p
    cdef const real* w
    cdef real* a
    cdef real* b
    cdef Py_ssize_t step, k
    for k in range(STEP):
        a0[k] = a1[k] = a2[k] = a3[k] = a4[k] = a5[k] = a6[k] = a7[k] = 0
    for step in range(steps):
        means = mean + step * STEP
        rates = rate + step * STEP
        p = tile + step * (ROWS * STEP)
        w = share + step * (ROWS * STEP)
        a = by_mu + step * STEP
        b = by_logvar + step * STEP
        for k in range(STEP):
            m, v, x, y, t = means[k], rates[k], a[k], b[k], <real>0
            a0[k] += pull(c0, r0, m, v, w[k], p[k], &x, &y, &t)
            a1[k] += pull(c1, r1, m, v, w[STEP + k], p[STEP + k], &x, &y, &t)
            a2[k] += pull(c2, r2, m, v, w[2 * STEP + k], p[2 * STEP + k], &x, &y, &t)
            a3[k] += pull(c3, r3, m, v, w[3 * STEP + k], p[3 * STEP + k], &x, &y, &t)
            a4[k] += pull(c4, r4, m, v, w[4 * STEP + k], p[4 * STEP + k], &x, &y, &t)
            a5[k] += pull(c5, r5, m, v, w[5 * STEP + k], p[5 * STEP + k], &x, &y, &t)
            a6[k] += pull(c6, r6, m, v, w[6 * STEP + k], p[6 * STEP + k], &x, &y, &t)
            a7[k] += pull(c7, r7, m, v, w[7 * STEP + k], p[7 * STEP + k], &x, &y, &t)
            a[k] = x
            b[k] = y - <real>(0.5 * M_LOG2E) * t
    for k in range(STEP):
        by_z[k] += a0[k]
    for k in range(STEP):
        by_z[STEP + k] += a1[k]
    for k in range(STEP):
        by_z[2 * STEP + k] += a2[k]
    for k in range(STEP):
        by_z[3 * STEP + k] += a3[k]
    for k in range(STEP):
        by_z[4 * STEP + k] += a4[k]
    for k in range(STEP):
        by_z[5 * STEP + k] += a5[k]
    for k in range(STEP):
        by_z[6 * STEP + k] += a6[k]
    for k in range(STEP):
        by_z[7 * STEP + k] += a7[k]


cdef void pull_tile(const Points* q, Py_ssize_t l, const real* c, const real* ratio, const real* tile,
                    const real* share, real* by_mu, real* by_logvar, double* by_z) noexcept nogil:
    """The gradients of ROWS samples by their -c, and by all points, in dimension l."""
    cdef double sums[ROWS * STEP]
    cdef const real* mean = <const real*>q.mean + l * q.ld
    cdef const real* rate = <const real*>q.rate + l * q.ld
    cdef Py_ssize_t run, first, k
    for k in range(ROWS * STEP):
        sums[k] = 0
    for run in range((q.padded + RUN - 1) // RUN):
        first = run * RUN
        pull_run(mean + first, rate + first, c, ratio,
                 min(<Py_ssize_t>RUN, q.padded - first) // STEP, tile + first * ROWS,
                 share + first * ROWS, by_mu + first, by_logvar + first, sums)
    for k in range(ROWS):
        by_z[k] = sum_of(sums + k * STEP)


# The pass over a minibatch ----------------------------------------------------------------------

cdef void add_own(const Job* job, Py_ssize_t i, const real* kind) noexcept nogil:
    """log q(z_i|x_i) and log p(z_i), in float64."""
    cdef const real* z = <const real*>(job.s.z + i * job.s.z_stride)
    cdef const real* mu = <const real*>(job.q.mu + i * job.q.mu_stride)
    cdef const real* logvar = <const real*>(job.q.logvar + i * job.q.logvar_stride)
    cdef double own[TILE]
    cdef double prior[TILE]
    cdef double d, a = 0, b = 0
    cdef Py_ssize_t tile, first, n, k
    for tile in range((job.q.dims + TILE - 1) // TILE):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.q.dims - first)
        for k in range(n):
            d = <double>z[first + k] - <double>mu[first + k]
            own[k] = d * exp(-<double>logvar[first + k]) * d + <double>logvar[first + k]
            prior[k] = <double>z[first + k] * <double>z[first + k]
        a += tile_sum(own, n)
        b += tile_sum(prior, n)
    job.parts[i] = -0.5 * a - job.q.dims * 0.9189385332046727
    job.parts[3 * job.s.rows + i] = -0.5 * b - job.q.dims * 0.9189385332046727


cdef void joint_share(const Job* job, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t share,
                      Py_ssize_t shares, const real* kind) noexcept nogil:
    """Of samples start .. stop: log q(z_i), the tiles, and what takes O(L) a sample."""
    cdef Py_ssize_t tiles = (stop - start + ROWS - 1) // ROWS, g, i, n, r, block, k
    cdef Py_ssize_t size = ROWS * job.q.padded
    cdef real* tile = <real*>(job.scratch + share * job.scratch_bytes)
    cdef double total[ROWS]
    cdef double shift[ROWS]
    cdef real scale
    cdef real* row
    for g in range(tiles * share // shares, tiles * (share + 1) // shares):
        i = start + g * ROWS
        n = min(<Py_ssize_t>ROWS, stop - i)
        if job.dz != NULL:
            tile = <real*>job.shares + g * size
        joint_tile(&job.q, &job.s, i, n, tile, total, shift)
        for r in range(n):
            add_own(job, i + r, kind)
            job.parts[job.s.rows + i + r] = (log(total[r]) + M_LN2 * (shift[r] + job.q.joint_top)
                                             - job.q.dims * 0.9189385332046727)
            if job.dz != NULL:
                scale = <real>(job.weights[1] / total[r])
                for block in range(size // (ROWS * STEP)):
                    row = tile + (block * ROWS + r) * STEP
                    for k in range(STEP):
                        row[k] = row[k] * scale


cdef void marginal_rows(const Job* job, Py_ssize_t l, Py_ssize_t start, Py_ssize_t stop, char* scratch,
                        const real* kind) noexcept nogil:
    """Dimension l of samples start .. stop."""
    cdef Py_ssize_t padded = job.q.padded, size = ROWS * padded, g, i, n, r, k, rows
    cdef Py_ssize_t dims = job.q.dims
    cdef const real* mean = <const real*>job.q.mean + l * job.q.ld
    cdef const real* rate = <const real*>job.q.rate + l * job.q.ld
    cdef real* tile = <real*>scratch
    cdef real* by_mu = tile + size
    cdef real* by_logvar = by_mu + padded
    cdef double* to
    cdef double total[CHUNK]
    cdef double shift[CHUNK]
    cdef double by_z[ROWS]
    cdef real c[ROWS]
    cdef real ratio[ROWS]
    cdef double d
    if job.dz != NULL:
        memset(by_mu, 0, 2 * padded * sizeof(real))
    for g in range((stop - start + ROWS - 1) // ROWS):
        k = g * ROWS
        i = start + k
        n = min(<Py_ssize_t>ROWS, stop - i)
        for r in range(ROWS):                        # the last sample pads a tile, with no weight
            c[r] = (<const real*>(job.s.z + (i + min(r, n - 1)) * job.s.z_stride))[l]
        marginal_tile(&job.q, &job.s, l, i, n, c, tile, &total[k], &shift[k])
        if job.dz == NULL:
            continue
        for r in range(ROWS):
            ratio[r] = <real>(job.weights[2] / total[k + r]) if r < n else <real>0
        pull_tile(&job.q, l, c, ratio, tile, <real*>job.shares + k * padded, by_mu, by_logvar, by_z)
        for r in range(n):
            d = c[r] - mean[i + r]
            d = d * rate[i + r]
            (<real*>job.dz)[(i + r) * dims + l] = <real>(
                -2 * M_LN2 * (by_z[r] + job.weights[0] * d) - job.weights[3] * c[r])
    to = job.marginals + l * CHUNK
    rows = stop - start
    for r in range(rows):
        to[r] = log(total[r]) + (M_LN2 * (shift[r] + job.q.top[l]) - 0.9189385332046727)
    if job.dz != NULL:
        to = job.sums + 2 * l * padded
        for k in range(padded):
            to[k] += by_mu[k]
        for k in range(padded):
            to[padded + k] += by_logvar[k]


cdef void marginal_share(const Job* job, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t share,
                         Py_ssize_t shares, const real* kind) noexcept nogil:
    cdef char* scratch = job.scratch + share * job.scratch_bytes
    cdef Py_ssize_t l
    for l in range(job.q.dims * share // shares, job.q.dims * (share + 1) // shares):
        marginal_rows(job, l, start, stop, scratch, kind)


cdef void finish_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    """The gradients by mu and logvar, which log q(z_i|x_i) has a part in.

    STEP rows at once, so that their cache lines are filled before they are left.
    """
    cdef Py_ssize_t padded = job.q.padded, dims = job.q.dims, l, j, step, first
    cdef Py_ssize_t steps = (job.s.rows + STEP - 1) // STEP
    cdef const real* mean
    cdef const real* rate
    cdef const double* sums
    cdef double d, t
    for step in range(steps * share // shares, steps * (share + 1) // shares):
        first = step * STEP
        for l in range(dims):
            mean = <const real*>job.q.mean + l * job.q.ld
            rate = <const real*>job.q.rate + l * job.q.ld
            sums = job.sums + 2 * l * padded
            for j in range(first, min(first + STEP, job.s.rows)):
                d = <double>(<const real*>(job.s.z + j * job.s.z_stride))[l] - <double>mean[j]
                t = d * rate[j]
                (<real*>job.dmu)[j * dims + l] = <real>(2 * M_LN2 * (sums[j] + job.weights[0] * t))
                (<real*>job.dlogvar)[j * dims + l] = <real>(
                    M_LN2 * (sums[padded + j] + job.weights[0] * (d * t - 0.5 * M_LOG2E)))


cdef inline void fold(const Job* job, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Add up the dimensions, in their order."""
    cdef double* to = job.parts + 2 * job.s.rows + start
    cdef Py_ssize_t l, r
    for r in range(stop - start):
        to[r] = 0
    for l in range(job.q.dims):
        for r in range(stop - start):
            to[r] += job.marginals[l * CHUNK + r]


cdef inline void minibatch(Job* job, int threads, const real* kind) noexcept nogil:
    cdef Py_ssize_t chunk, start, stop
    cdef int t
    transpose_all(&job.q, threads, kind)
    for chunk in range((job.s.rows + job.chunk - 1) // job.chunk):
        start = chunk * job.chunk
        stop = min(start + job.chunk, job.s.rows)
        if threads == 1:
            joint_share(job, start, stop, 0, 1, kind)
            marginal_share(job, start, stop, 0, 1, kind)
        else:
            for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                joint_share(job, start, stop, t, threads, kind)
            for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                marginal_share(job, start, stop, t, threads, kind)
        fold(job, start, stop)
    if job.dz == NULL:
        return
    if threads == 1:
        finish_share(job, 0, 1, kind)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            finish_share(job, t, threads, kind)


def decompose(tuple latent, str weighting, double first, double second, cnp.ndarray parts,
              tuple weights, tuple gradients, int threads):
    """log q(z|x), log q(z), sum_l log q(z_l) and log p(z) of every sample of a minibatch, (4, B).

    `latent` is (z, mu, logvar), each (B, L) with a contiguous last axis, of one dtype. All weights of
    the points are one, but for 2^first and 2^second where `weighting`, a name in WEIGHTINGS, says
    so. `gradients` is None or (dz, dmu, dlogvar) to be written, of the sum of the
    parts times their weights.
    """
    cdef Job job
    cdef Weighting named = WEIGHTINGS[weighting]
    cdef cnp.ndarray z = latent[0], mu = latent[1], logvar = latent[2]
    cdef bint single = cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT
    cdef Py_ssize_t size, itemsize = cnp.PyArray_ITEMSIZE(z), k
    cdef char* points
    cdef char* room
    if single:
        points = bind(&job.q, mu, logvar, <const float*>NULL)
    else:
        points = bind(&job.q, mu, logvar, <const double*>NULL)
    bind_samples(&job.s, z)
    job.s.weighting = named
    job.s.first = first
    job.s.second = second
    job.parts = <double*>data_of(parts)
    job.dz = NULL
    size = job.q.padded * itemsize
    job.chunk = min(<Py_ssize_t>CHUNK, max(IN_CACHE // job.q.padded // ROWS, 1) * ROWS)
    job.scratch_bytes = (ROWS + 2) * size + 64         # a line between threads
    k = 0
    if gradients is not None:
        job.dz = data_of(gradients[0])
        job.dmu = data_of(gradients[1])
        job.dlogvar = data_of(gradients[2])
        for k in range(4):
            job.weights[k] = weights[k]
        k = 2 * job.q.dims * job.q.padded
    room = <char*>malloc((k + job.q.dims * CHUNK) * sizeof(double) + job.chunk * size
                         + threads * job.scratch_bytes + 64)
    if room == NULL:
        free(points)
        raise MemoryError()
    job.sums = <double*>aligned(room)
    job.marginals = job.sums + k
    job.shares = <char*>(job.marginals + job.q.dims * CHUNK)
    job.scratch = job.shares + job.chunk * size
    memset(job.sums, 0, k * sizeof(double))
    with nogil:
        if single:
            minibatch(&job, threads, <const float*>NULL)
        else:
            minibatch(&job, threads, <const double*>NULL)
    free(room)
    free(points)


cdef inline void bind_samples(Samples* s, cnp.ndarray z) noexcept:
    s.rows = cnp.PyArray_DIM(z, 0)
    s.z = data_of(z)
    s.z_stride = cnp.PyArray_STRIDE(z, 0)
    s.weighting = EQUAL


# The pass over some points of a data set ---------------------------------------------------------

cdef inline double log_add(double a, double b) noexcept nogil:
    """log(e^a + e^b), neither of them +inf."""
    cdef double high = a if a > b else b, low = b if a > b else a
    return high if low == -INFINITY else high + log_one_plus(exp(low - high))


cdef void density_unit(const Points* q, const Samples* s, Py_ssize_t unit, double* joint,
                       double* marginals, char* scratch, const real* kind) noexcept nogil:
    """A tile of samples, in one dimension or jointly."""
    cdef Py_ssize_t i = unit // (q.dims + 1) * ROWS, l = unit % (q.dims + 1), r
    cdef Py_ssize_t n = min(<Py_ssize_t>ROWS, s.rows - i)
    cdef double total[ROWS]
    cdef double shift[ROWS]
    cdef real c[ROWS]
    cdef double* to
    if l == q.dims:
        joint_tile(q, s, i, n, <real*>scratch, total, shift)
        for r in range(n):
            joint[i + r] = log_add(joint[i + r], log(total[r]) + M_LN2 * (shift[r] + q.joint_top)
                                   - q.dims * 0.9189385332046727)
        return
    for r in range(ROWS):
        c[r] = (<const real*>(s.z + (i + min(r, n - 1)) * s.z_stride))[l]
    marginal_tile(q, s, l, i, n, c, <real*>scratch, total, shift)
    for r in range(n):
        to = marginals + (i + r) * q.dims + l
        to[0] = log_add(to[0], log(total[r]) + (M_LN2 * (shift[r] + q.top[l]) - 0.9189385332046727))


cdef void density_share(const Points* q, const Samples* s, double* joint, double* marginals,
                        char* scratch, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef Py_ssize_t units = (s.rows + ROWS - 1) // ROWS * (q.dims + 1), u
    scratch += share * ROWS * q.padded * sizeof(real)
    for u in range(units * share // shares, units * (share + 1) // shares):
        density_unit(q, s, u, joint, marginals, scratch, kind)


cdef inline void densities(Points* q, const Samples* s, double* joint, double* marginals,
                           char* scratch, int threads, const real* kind) noexcept nogil:
    cdef int t
    transpose_all(q, threads, kind)
    if threads == 1:
        density_share(q, s, joint, marginals, scratch, 0, 1, kind)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            density_share(q, s, joint, marginals, scratch, t, threads, kind)


def add_densities(cnp.ndarray z, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray joint,
                  cnp.ndarray marginals, int threads):
    """Add sum_j N(z_i; mu_j, e^logvar_j) to e^joint, (S,), and, by dimension, to e^marginals, (S, L).

    z is (S, L), mu and logvar (N, L), each with a contiguous last axis, of one dtype; float64 sums.
    """
    cdef Points q
    cdef Samples s
    cdef bint single = cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT
    cdef double* to_joint = <double*>data_of(joint)
    cdef double* to_marginals = <double*>data_of(marginals)
    cdef char* points
    cdef char* scratch
    if single:
        points = bind(&q, mu, logvar, <const float*>NULL)
    else:
        points = bind(&q, mu, logvar, <const double*>NULL)
    bind_samples(&s, z)
    scratch = <char*>malloc(threads * ROWS * q.padded * cnp.PyArray_ITEMSIZE(z) + 64)
    if scratch == NULL:
        free(points)
        raise MemoryError()
    with nogil:
        if single:
            densities(&q, &s, to_joint, to_marginals, aligned(scratch), threads, <const float*>NULL)
        else:
            densities(&q, &s, to_joint, to_marginals, aligned(scratch), threads, <const double*>NULL)
    free(scratch)
    free(points)
