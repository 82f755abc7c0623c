# Some samples against all data points: sum_j w_ij N(z_i; mu_j, e^logvar_j), in one dimension or
# jointly. Included by aggregate.pyx.
#
# Points are transposed, a row a dimension, so that lanes run over points. All is to base 2: with
# height = -log2(e)/2 logvar and rate = log2(e)/2 e^-logvar, the log-density of one dimension is
# height - rate (z - mu)^2, constants aside. Less the largest height of its row it is never positive,
# so that a sum needs no running maximum; one that has all but vanished is taken again, exactly.
#
# A tile holds what ROWS samples have to do with all points: STEP points of the first sample, STEP of
# the second, ..., then the next STEP points. It is computed once, and read again by the gradient,
# where a point whose share in every sum is tiny is alone: so its numbers are `raised`, sums are not.
#
# STEP numbers fill one vector of the widest build, so that the sums of several samples stay in
# registers all along a RUN of points. gcc sees that only where `restrict` rules out aliases, each
# sum is an array of its own, and nothing else is in the loop.

cimport numpy as cnp
from libc.math cimport INFINITY, M_LOG2E, exp2
from libc.stdlib cimport malloc
from libc.string cimport memset

from fastelbo._kernels.operands cimport LINE, VECTOR, add_halves, aligned, ceil_div, data_of
from fastelbo._kernels.terms.power cimport raised, raised_power
from fastelbo._kernels.terms.vecmath cimport exp, real
from fastelbo._runtime cimport in_parallel

cdef enum:
    STEP = VECTOR          # points a lane loop takes at once
    PADDED = 4 * STEP      # points are padded to a multiple of this many
    RUN = 1024             # points whose sums are in the dtype of the pass, then float64
    ROWS = 8               # samples a tile
    QUAD = 4               # samples that a lane loop of the densities takes at once
    NEAR = 64              # dimensions that are added up before they join the others

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


# Points -----------------------------------------------------------------------------------------

cdef char* bind(Points* q, cnp.ndarray mu, cnp.ndarray logvar) except NULL:
    """Point at checked arrays, find room for the transposed ones. Returns what to free."""
    cdef char* room
    q.n = cnp.PyArray_DIM(mu, 0)
    q.dims = cnp.PyArray_DIM(mu, 1)
    q.mu = data_of(mu)
    q.logvar = data_of(logvar)
    q.mu_stride = cnp.PyArray_STRIDE(mu, 0)
    q.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
    room = find_room(q, cnp.PyArray_ITEMSIZE(mu))
    if room == NULL:
        raise MemoryError()
    return room


cdef char* find_room(Points* q, Py_ssize_t size) noexcept nogil:
    """For the transposed arrays; NULL where memory ran out."""
    cdef char* room
    q.padded = ceil_div(q.n, PADDED) * PADDED
    q.ld = q.padded + STEP
    room = <char*>malloc((q.ld + q.dims) * sizeof(double) + (3 * q.dims + 1) * q.ld * size + 2 * LINE)
    if room == NULL:
        return NULL
    q.joint = <double*>aligned(room)
    q.top = q.joint + q.ld
    q.mean = aligned(q.top + q.dims)
    q.rate = q.mean + q.dims * q.ld * size
    q.height = q.rate + q.dims * q.ld * size
    q.joint_height = q.height + q.dims * q.ld * size
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
        rate[j] = finite(exp(rate[j])) * <real>(0.5 * M_LOG2E)   # and times a difference of 0: 0


cdef void transpose_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    cdef const Points* q = <const Points*>given
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


cdef void transpose_all(Points* q, int threads, const real* kind) noexcept nogil:
    in_parallel[real](transpose_share, q, threads)
    add_heights(q, kind)


cdef inline void bind_samples(Samples* s, cnp.ndarray z) noexcept:
    s.rows = cnp.PyArray_DIM(z, 0)
    s.z = data_of(z)
    s.z_stride = cnp.PyArray_STRIDE(z, 0)
    s.weighting = EQUAL


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


cdef inline void add_step(const real* a, double* sums) noexcept nogil:
    cdef int k
    for k in range(STEP):
        sums[k] += a[k]


cdef void add_run(const real* restrict row, Py_ssize_t steps, double* restrict sums) noexcept nogil:
    """Add the lanes of a RUN of a row of a tile to the sums."""
    cdef real a[STEP]
    cdef Py_ssize_t step, k
    for k in range(STEP):
        a[k] = 0
    for step in range(steps):
        for k in range(STEP):
            a[k] += row[step * (ROWS * STEP) + k]
    add_step(a, sums)


cdef double sum_row(const real* row, Py_ssize_t points) noexcept nogil:
    """Of a tile."""
    cdef double sums[STEP]
    cdef Py_ssize_t run, first, k
    for k in range(STEP):
        sums[k] = 0
    for run in range(ceil_div(points, RUN)):
        first = run * RUN
        add_run(row + first * ROWS, min(<Py_ssize_t>RUN, points - first) // STEP, sums)
    return add_halves(sums, STEP)


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
            p = raised_power(row[step * (ROWS * STEP) + k] - top)
            row[step * (ROWS * STEP) + k] = p
            a[k] += p
    add_step(a, sums)


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
    for run in range(ceil_div(q.padded, RUN)):
        first = run * RUN
        power_run(y + first * ROWS, top, min(<Py_ssize_t>RUN, q.padded - first) // STEP, sums)
    total[0] = add_halves(sums, STEP) * raised(kind)
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
    return raised_power(height - (d * rate) * d)


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
    add_step(a0, sums)
    add_step(a1, sums + STEP)
    add_step(a2, sums + 2 * STEP)
    add_step(a3, sums + 3 * STEP)


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
        least = 9.094947017729282e-13                # 2^-40: see raised_power
    else:
        least = 7.52316384526264e-37                 # 2^-120
    for k in range(ROWS * STEP):
        sums[k] = 0
    for run in range(ceil_div(q.padded, RUN)):
        first = run * RUN
        for quad in range(ROWS // QUAD):
            r = quad * QUAD
            marginal_run(mean + first, rate + first, height + first, c + r,
                         min(<Py_ssize_t>RUN, q.padded - first) // STEP,
                         tile + first * ROWS + r * STEP, sums + r * STEP)
    for r in range(n):
        total[r] = add_halves(sums + r * STEP, STEP) * raised(tile)
        shift[r] = 0
        if s.weighting != EQUAL:
            exceptions(s, i + r, q.n, at, weight)
            for k in range(2):
                at_point(tile + r * STEP, at[k])[0] *= <real>exp2(weight[k])
            total[r] = sum_row(tile + r * STEP, q.padded) * raised(tile)
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
        for near in range(ceil_div(q.dims, NEAR)):
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
