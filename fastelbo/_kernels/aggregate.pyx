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

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, M_LN2, M_LOG2E
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.latent cimport data_of, tile_sum
from fastelbo._kernels.operands cimport TILE, add_lanes
from fastelbo._kernels.terms.power cimport power_of_two
from fastelbo._kernels.terms.vecmath cimport exp, log, log_one_plus, real

cnp.import_array()

cdef enum:
    STEP = 64              # points a lane loop takes at once: LANES
    ROWS = 8               # samples a tile
    QUAD = 4               # dimensions that a lane loop of the joint density takes at once
    NEAR = 64              # dimensions that are added up before they join the others
    CHUNK = 64             # samples between two flushes of the gradients, at most
    IN_CACHE = 1 << 16     # of their weights, at most, where that leaves ROWS samples

cdef enum Weighting:       # w_ij, but for a constant
    EQUAL = 0
    PAPER = 1              # two exceptional points: i, and the next
    REFERENCE = 2          # the first two points instead

cdef struct Points:
    Py_ssize_t n, padded   # to a multiple of STEP
    Py_ssize_t dims, ld    # L; elements from row to row, no multiple of 4 KiB apart
    const char* mu         # (n, L), rows mu_stride bytes apart
    const char* logvar
    Py_ssize_t mu_stride, logvar_stride
    char* mean             # (L, ld), zeros in the rows up to a multiple of QUAD
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
    cdef Py_ssize_t rows
    cdef char* room
    q.n = cnp.PyArray_DIM(mu, 0)
    q.dims = cnp.PyArray_DIM(mu, 1)
    q.mu = data_of(mu)
    q.logvar = data_of(logvar)
    q.mu_stride = cnp.PyArray_STRIDE(mu, 0)
    q.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
    q.padded = (q.n + STEP - 1) // STEP * STEP
    q.ld = q.padded + 16
    rows = (q.dims + QUAD - 1) // QUAD * QUAD
    room = <char*>malloc((q.ld + q.dims) * sizeof(double) + (3 * rows + 1) * q.ld * sizeof(real) + 128)
    if room == NULL:
        raise MemoryError()
    q.joint = <double*>aligned(room)
    q.top = q.joint + q.ld
    q.mean = aligned(q.top + q.dims)
    q.rate = q.mean + rows * q.ld * sizeof(real)
    q.height = q.rate + rows * q.ld * sizeof(real)
    q.joint_height = q.height + rows * q.ld * sizeof(real)
    memset(q.mean, 0, 2 * rows * q.ld * sizeof(real))
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
        h = <real>(-0.5 * M_LOG2E) * (<const real*>(q.logvar + j * q.logvar_stride))[l]
        height[j] = h
        top = h if h > top else top
    top = <real>0 if top == <real>-INFINITY else top
    q.top[l] = top
    for j in range(q.n):
        rate[j] = -(<const real*>(q.logvar + j * q.logvar_stride))[l]
        height[j] = height[j] - top
    for j in range(q.padded):
        rate[j] = exp(rate[j]) * <real>(0.5 * M_LOG2E)
    for j in range(q.n, q.padded):
        mean[j] = 0
        rate[j] = 0
        height[j] = <real>-INFINITY


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

cdef inline void add_exceptions(const Samples* s, Py_ssize_t i, Py_ssize_t points,
                                Py_ssize_t first, Py_ssize_t n, real* y, Py_ssize_t step) noexcept nogil:
    """Add the exceptional weights of sample i to the exponents y of points first .. first + n.

    STEP of them lie together, and the next STEP `step` further on.
    """
    cdef Py_ssize_t a = i if s.weighting == PAPER else 0, b = (a + 1) % points
    cdef double own = s.second if s.weighting == REFERENCE and i == points - 2 else s.first
    if first <= a < first + n:
        a -= first
        y[a // STEP * step + a % STEP] += <real>own
    if first <= b < first + n:
        b -= first
        y[b // STEP * step + b % STEP] += <real>s.second


cdef inline double sum_of(const real* lanes) noexcept nogil:
    """Of STEP numbers."""
    cdef double total[STEP]
    cdef int k
    for k in range(STEP):
        total[k] = lanes[k]
    return add_lanes(total)


cdef void retake(const Points* q, real* y, double* total, double* shift,
                 const real* kind) noexcept nogil:
    """From exponents y of one sample to powers of two, relative to the largest, and their sum."""
    cdef real top = <real>-INFINITY, p
    cdef real largest[STEP]
    cdef real sums[STEP]
    cdef real* row
    cdef Py_ssize_t block, k
    for k in range(STEP):
        sums[k] = 0
        largest[k] = <real>-INFINITY
    for k in range(q.n, q.padded):
        y[k // STEP * ROWS * STEP + k % STEP] = <real>-INFINITY
    for block in range(q.padded // STEP):
        row = y + block * ROWS * STEP
        for k in range(STEP):
            p = largest[k]
            largest[k] = row[k] if row[k] > p else p
    for k in range(STEP):
        top = largest[k] if largest[k] > top else top
    top = <real>0 if top == <real>-INFINITY else top
    for block in range(q.padded // STEP):
        row = y + block * ROWS * STEP
        for k in range(STEP):
            p = power_of_two(row[k] - top)
            row[k] = p
            sums[k] += p
    total[0] = sum_of(sums)
    shift[0] = top


cdef void exact_row(const Points* q, const Samples* s, Py_ssize_t l, Py_ssize_t i, real c, real* y,
                    double* total, double* shift) noexcept nogil:
    """One row of a tile again, relative to its own largest term."""
    cdef const real* mean = <const real*>q.mean + l * q.ld
    cdef const real* rate = <const real*>q.rate + l * q.ld
    cdef const real* height = <const real*>q.height + l * q.ld
    cdef Py_ssize_t block, first, k
    cdef real d
    for block in range(q.padded // STEP):
        first = block * STEP
        for k in range(STEP):
            d = c - mean[first + k]
            y[first * ROWS + k] = height[first + k] - (d * rate[first + k]) * d
    if s.weighting != EQUAL:
        add_exceptions(s, i, q.n, 0, q.n, y, ROWS * STEP)
    retake(q, y, total, shift, y)


cdef void marginal_tile(const Points* q, const Samples* s, Py_ssize_t l, Py_ssize_t i, Py_ssize_t n,
                        const real* c, real* tile, double* total, double* shift) noexcept nogil:
    """Powers of two, and their sums, of samples i .. i + n at c in dimension l; zeros in other rows.

    The sum of a row is total 2^(shift + top).
    """
    cdef real mean[STEP]
    cdef real rate[STEP]
    cdef real height[STEP]
    cdef real sums[ROWS * STEP]
    cdef real d, p, at
    cdef real* row
    cdef Py_ssize_t block, first, r, k
    cdef const real* heights = <const real*>q.height + l * q.ld
    cdef double least
    if real is float:
        least = 9.094947017729282e-13                # 2^-40: what power_of_two drops is far below
    else:
        least = 7.52316384526264e-37                 # 2^-120
    for k in range(ROWS * STEP):
        sums[k] = 0
    for block in range(q.padded // STEP):
        first = block * STEP
        memcpy(mean, <const real*>q.mean + l * q.ld + first, STEP * sizeof(real))
        memcpy(rate, <const real*>q.rate + l * q.ld + first, STEP * sizeof(real))
        memcpy(height, heights + first, STEP * sizeof(real))
        for r in range(n):
            if s.weighting != EQUAL:
                add_exceptions(s, i + r, q.n, first, STEP, height, 0)
            at = c[r]
            row = tile + first * ROWS + r * STEP
            for k in range(STEP):
                d = at - mean[k]
                p = power_of_two(height[k] - (d * rate[k]) * d)
                row[k] = p
                sums[r * STEP + k] += p
            if s.weighting != EQUAL:
                memcpy(height, heights + first, STEP * sizeof(real))
        if n < ROWS:
            memset(tile + first * ROWS + n * STEP, 0, (ROWS - n) * STEP * sizeof(real))
    for r in range(n):
        total[r] = sum_of(&sums[r * STEP])
        shift[r] = 0
        if not total[r] >= least:
            exact_row(q, s, l, i + r, c[r], tile + r * STEP, &total[r], &shift[r])


cdef inline void add_squares(real a, const real* mean_a, const real* rate_a,
                             real b, const real* mean_b, const real* rate_b, real* to) noexcept nogil:
    """Add the distances of STEP points from a sample in two dimensions."""
    cdef real d, e
    cdef Py_ssize_t k
    for k in range(STEP):
        d = a - mean_a[k]
        e = b - mean_b[k]
        to[k] += (d * rate_a[k]) * d + (e * rate_b[k]) * e


cdef void joint_tile(const Points* q, const Samples* s, Py_ssize_t i, Py_ssize_t n, real* tile,
                     double* total, double* shift) noexcept nogil:
    """The same over all dimensions; the sum of a row is total 2^(shift + joint_top)."""
    cdef const real* mean
    cdef const real* rate
    cdef const real* z
    cdef real near[STEP]
    cdef real far[STEP]
    cdef real c[QUAD]
    cdef Py_ssize_t block, first, r, k, l, start, quad
    for block in range(q.padded // STEP):
        first = block * STEP
        for r in range(n):
            z = <const real*>(s.z + (i + r) * s.z_stride)
            memcpy(far, <const real*>q.joint_height + first, STEP * sizeof(real))
            for start in range((q.dims + NEAR - 1) // NEAR):
                for k in range(STEP):
                    near[k] = 0
                for quad in range(min(<Py_ssize_t>NEAR, q.dims - start * NEAR + QUAD - 1) // QUAD):
                    l = start * NEAR + quad * QUAD
                    for k in range(QUAD):
                        c[k] = z[l + k] if l + k < q.dims else <real>0
                    mean = <const real*>q.mean + l * q.ld + first
                    rate = <const real*>q.rate + l * q.ld + first
                    add_squares(c[0], mean, rate, c[1], mean + q.ld, rate + q.ld, near)
                    mean = mean + 2 * q.ld
                    rate = rate + 2 * q.ld
                    add_squares(c[2], mean, rate, c[3], mean + q.ld, rate + q.ld, near)
                for k in range(STEP):
                    far[k] -= near[k]
            memcpy(tile + first * ROWS + r * STEP, far, STEP * sizeof(real))
        if n < ROWS:
            memset(tile + first * ROWS + n * STEP, 0, (ROWS - n) * STEP * sizeof(real))
    for r in range(n):
        if s.weighting != EQUAL:
            add_exceptions(s, i + r, q.n, 0, q.n, tile + r * STEP, ROWS * STEP)
        retake(q, tile + r * STEP, &total[r], &shift[r], tile)


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


cdef void pull_tile(const Points* q, Py_ssize_t l, const real* c, const real* ratio, const real* tile,
                    const real* share, real* by_mu, real* by_logvar, double* by_z) noexcept nogil:
    """The gradients of ROWS samples by their c, and by all points, in dimension l."""
    cdef real mean[STEP]
    cdef real rate[STEP]
    cdef real a[STEP]
    cdef real b[STEP]
    cdef real sums[ROWS * STEP]
    cdef real c0, c1, c2, c3, r0, r1, r2, r3, m, v, x, y, t
    cdef const real* p
    cdef const real* w
    cdef real* to
    cdef Py_ssize_t block, first, half, k
    for k in range(ROWS * STEP):
        sums[k] = 0
    for block in range(q.padded // STEP):
        first = block * STEP
        memcpy(mean, <const real*>q.mean + l * q.ld + first, STEP * sizeof(real))
        memcpy(rate, <const real*>q.rate + l * q.ld + first, STEP * sizeof(real))
        memcpy(a, by_mu + first, STEP * sizeof(real))
        memcpy(b, by_logvar + first, STEP * sizeof(real))
        for half in range(0, ROWS, 4):               # few enough addresses for the registers
            c0, c1, c2, c3 = c[half], c[half + 1], c[half + 2], c[half + 3]
            r0, r1, r2, r3 = ratio[half], ratio[half + 1], ratio[half + 2], ratio[half + 3]
            p = tile + first * ROWS + half * STEP
            w = share + first * ROWS + half * STEP
            to = sums + half * STEP
            for k in range(STEP):
                m, v, x, y, t = mean[k], rate[k], a[k], b[k], <real>0
                to[k] += pull(c0, r0, m, v, w[k], p[k], &x, &y, &t)
                to[STEP + k] += pull(c1, r1, m, v, w[STEP + k], p[STEP + k], &x, &y, &t)
                to[2 * STEP + k] += pull(c2, r2, m, v, w[2 * STEP + k], p[2 * STEP + k], &x, &y, &t)
                to[3 * STEP + k] += pull(c3, r3, m, v, w[3 * STEP + k], p[3 * STEP + k], &x, &y, &t)
                a[k] = x
                b[k] = y - <real>(0.5 * M_LOG2E) * t
        memcpy(by_mu + first, a, STEP * sizeof(real))
        memcpy(by_logvar + first, b, STEP * sizeof(real))
    for k in range(ROWS):
        by_z[k] = sum_of(&sums[k * STEP])


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
            d = c[r] - (<const real*>(job.q.mu + (i + r) * job.q.mu_stride))[l]
            d = d * (<const real*>job.q.rate)[l * job.q.ld + i + r]
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


cdef void finish(const Job* job, const real* kind) noexcept nogil:
    """The gradients by mu and logvar, which log q(z_i|x_i) has a part in."""
    cdef Py_ssize_t padded = job.q.padded, dims = job.q.dims, l, j
    cdef const double* sums
    cdef double d, t
    for j in range(job.s.rows):
        for l in range(dims):
            sums = job.sums + 2 * l * padded + j
            d = (<const real*>(job.s.z + j * job.s.z_stride))[l]
            d -= (<const real*>(job.q.mu + j * job.q.mu_stride))[l]
            t = d * (<const real*>job.q.rate)[l * job.q.ld + j]
            (<real*>job.dmu)[j * dims + l] = <real>(2 * M_LN2 * (sums[0] + job.weights[0] * t))
            (<real*>job.dlogvar)[j * dims + l] = <real>(
                M_LN2 * (sums[padded] + job.weights[0] * (d * t - 0.5 * M_LOG2E)))


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
    if job.dz != NULL:
        finish(job, kind)


def decompose(tuple latent, int weighting, double first, double second, cnp.ndarray parts,
              tuple weights, tuple gradients, int threads):
    """log q(z|x), log q(z), sum_l log q(z_l) and log p(z) of every sample of a minibatch, (4, B).

    `latent` is (z, mu, logvar), each (B, L) with a contiguous last axis, of one dtype. All weights of
    the points are one, but for 2^first and 2^second where `weighting` (0 equal, 1 paper, 2
    reference) says so. `gradients` is None or (dz, dmu, dlogvar) to be written, of the sum of the
    parts times their weights.
    """
    cdef Job job
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
    job.s.weighting = <Weighting>weighting
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
    for r in range(n):
        c[r] = (<const real*>(s.z + (i + r) * s.z_stride))[l]
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
