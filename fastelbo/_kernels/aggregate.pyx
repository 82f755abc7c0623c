# Every sample z_i against every data point j: logarithms of sum_j w_ij N(z_i; mu_j, e^logvar_j), the
# joint density and that of each dimension, and the gradients of a weighted sum of them.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY, M_LN2, M_LOG2E
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.operands cimport (
    FLOAT32, LINE, TILE, add_halves, aligned, ceil_div, data_of, size_of, tile_sum,
)
from fastelbo._kernels.pairs cimport finite
from fastelbo._kernels.terms.vecmath cimport exp, log, log_one_plus, real
from fastelbo._runtime cimport heed_signals, in_parallel, in_parallel_flushed

cnp.import_array()

include "densities.pxi"

cdef enum:
    CHUNK = 64             # samples between two flushes of the gradients, at most
    IN_CACHE = 1 << 16     # of their weights, at most, where that leaves ROWS samples


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
    Py_ssize_t start       # the samples at hand, up to `stop`
    Py_ssize_t stop
    double* marginals      # (L, CHUNK): log q(z_il)
    char* shares           # joint tiles of a chunk, each row times weights[1] over its sum
    double* sums           # (2, L, padded): the gradients by mu and logvar so far
    char* scratch          # of each thread: a tile, and two rows of points
    Py_ssize_t scratch_bytes
    bint heeds             # signals, for which it takes the interpreter's lock


cdef inline real pull(real c, real ratio, real mean, real rate, real share, real p,
                      real* by_mu, real* by_logvar, real* total) noexcept nogil:
    """What a sample and a point do to each other: adds to the gradients, returns that by -z."""
    cdef real d = c - mean, g = share + ratio * p, h = (d * g) * rate
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
    add_step(a0, by_z)
    add_step(a1, by_z + STEP)
    add_step(a2, by_z + 2 * STEP)
    add_step(a3, by_z + 3 * STEP)
    add_step(a4, by_z + 4 * STEP)
    add_step(a5, by_z + 5 * STEP)
    add_step(a6, by_z + 6 * STEP)
    add_step(a7, by_z + 7 * STEP)


cdef void pull_tile(const Points* q, Py_ssize_t l, const real* c, const real* ratio, const real* tile,
                    const real* share, real* by_mu, real* by_logvar, double* by_z) noexcept nogil:
    """The gradients of ROWS samples by their -c, and by all points, in dimension l."""
    cdef double sums[ROWS * STEP]
    cdef const real* mean = <const real*>q.mean + l * q.ld
    cdef const real* rate = <const real*>q.rate + l * q.ld
    cdef Py_ssize_t run, first, k
    for k in range(ROWS * STEP):
        sums[k] = 0
    for run in range(ceil_div(q.padded, RUN)):
        first = run * RUN
        pull_run(mean + first, rate + first, c, ratio,
                 min(<Py_ssize_t>RUN, q.padded - first) // STEP, tile + first * ROWS,
                 share + first * ROWS, by_mu + first, by_logvar + first, sums)
    for k in range(ROWS):
        by_z[k] = add_halves(sums + k * STEP, STEP)


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
    for tile in range(ceil_div(job.q.dims, TILE)):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.q.dims - first)
        for k in range(n):
            d = <double>z[first + k] - <double>mu[first + k]
            own[k] = d * finite(exp(-<double>logvar[first + k])) * d + <double>logvar[first + k]
            prior[k] = <double>z[first + k] * <double>z[first + k]
        a += tile_sum(own, n)
        b += tile_sum(prior, n)
    job.parts[i] = -0.5 * a - job.q.dims * 0.9189385332046727
    job.parts[3 * job.s.rows + i] = -0.5 * b - job.q.dims * 0.9189385332046727


cdef void joint_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                      const real* kind) noexcept nogil:
    """Of the samples at hand: log q(z_i), the tiles, and what takes O(L) a sample."""
    cdef const Job* job = <const Job*>given
    cdef Py_ssize_t tiles = ceil_div(job.stop - job.start, ROWS), g, i, n, r, block, k
    cdef Py_ssize_t size = ROWS * job.q.padded
    cdef real* tile = <real*>(job.scratch + share * job.scratch_bytes)
    cdef double total[ROWS]
    cdef double shift[ROWS]
    cdef real scale
    cdef real* row
    for g in range(tiles * share // shares, tiles * (share + 1) // shares):
        i = job.start + g * ROWS
        n = min(<Py_ssize_t>ROWS, job.stop - i)
        if job.dz != NULL:
            tile = <real*>job.shares + g * size
        joint_tile(&job.q, &job.s, i, n, tile, total, shift)
        for r in range(n):
            add_own(job, i + r, kind)
            job.parts[job.s.rows + i + r] = (log(total[r]) + M_LN2 * (shift[r] + job.q.joint_top)
                                             - job.q.dims * 0.9189385332046727)
            if job.dz != NULL:
                scale = <real>(job.weights[1] / total[r] * raised(kind))
                for block in range(size // (ROWS * STEP)):
                    row = tile + (block * ROWS + r) * STEP
                    for k in range(STEP):
                        row[k] = row[k] * scale


cdef void marginal_rows(const Job* job, Py_ssize_t l, char* scratch, const real* kind) noexcept nogil:
    """Dimension l of the samples at hand."""
    cdef Py_ssize_t padded = job.q.padded, size = ROWS * padded, g, i, n, r, k
    cdef Py_ssize_t rows = job.stop - job.start, dims = job.q.dims
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
    for g in range(ceil_div(rows, ROWS)):
        k = g * ROWS
        i = job.start + k
        n = min(<Py_ssize_t>ROWS, job.stop - i)
        for r in range(ROWS):                        # the last sample pads a tile, with no weight
            c[r] = (<const real*>(job.s.z + (i + min(r, n - 1)) * job.s.z_stride))[l]
        marginal_tile(&job.q, &job.s, l, i, n, c, tile, &total[k], &shift[k])
        if job.dz == NULL:
            continue
        for r in range(ROWS):
            ratio[r] = <real>(job.weights[2] / total[k + r] * raised(kind)) if r < n else <real>0
        pull_tile(&job.q, l, c, ratio, tile, <real*>job.shares + k * padded, by_mu, by_logvar, by_z)
        for r in range(n):
            d = c[r] - mean[i + r]
            d = d * rate[i + r]
            (<real*>job.dz)[(i + r) * dims + l] = <real>(
                -2 * M_LN2 * (by_z[r] + job.weights[0] * d) - job.weights[3] * c[r])
    to = job.marginals + l * CHUNK
    for r in range(rows):
        to[r] = log(total[r]) + (M_LN2 * (shift[r] + job.q.top[l]) - 0.9189385332046727)
    if job.dz != NULL:
        to = job.sums + 2 * l * padded
        for k in range(padded):
            to[k] += by_mu[k]
        for k in range(padded):
            to[padded + k] += by_logvar[k]


cdef void marginal_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                         const real* kind) noexcept nogil:
    cdef const Job* job = <const Job*>given
    cdef char* scratch = job.scratch + share * job.scratch_bytes
    cdef Py_ssize_t l
    for l in range(job.q.dims * share // shares, job.q.dims * (share + 1) // shares):
        marginal_rows(job, l, scratch, kind)


cdef void finish_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    """The gradients by mu and logvar, which log q(z_i|x_i) has a part in.

    STEP rows at once, so that their cache lines are filled before they are left.
    """
    cdef const Job* job = <const Job*>given
    cdef Py_ssize_t padded = job.q.padded, dims = job.q.dims, l, j, step, first
    cdef Py_ssize_t steps = ceil_div(job.s.rows, STEP)
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


cdef inline void fold(const Job* job) noexcept nogil:
    """Add up the dimensions, in their order."""
    cdef double* to = job.parts + 2 * job.s.rows + job.start
    cdef Py_ssize_t l, r
    for r in range(job.stop - job.start):
        to[r] = 0
    for l in range(job.q.dims):
        for r in range(job.stop - job.start):
            to[r] += job.marginals[l * CHUNK + r]


cdef int minibatch(Job* job, int threads, const real* kind) except -1 nogil:
    cdef double owed = 0
    transpose_all(&job.q, threads, kind)
    job.start = 0
    while job.start < job.s.rows:
        job.stop = min(job.start + job.chunk, job.s.rows)
        in_parallel_flushed[real](joint_share, job, threads)
        in_parallel_flushed[real](marginal_share, job, threads)
        fold(job)
        if job.heeds:
            heed_signals(&owed, <double>(job.stop - job.start) * job.q.padded * job.q.dims)
        job.start = job.stop
    if job.dz != NULL:
        in_parallel[real](finish_share, job, threads)
    return 0


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
    cdef char* points = bind(&job.q, mu, logvar)
    cdef char* room
    cdef int k
    bind_samples(&job.s, z)
    job.s.weighting = named
    job.s.first = first
    job.s.second = second
    job.parts = <double*>data_of(parts)
    job.heeds = True
    job.dz = NULL
    if gradients is not None:
        job.dz = data_of(gradients[0])
        job.dmu = data_of(gradients[1])
        job.dlogvar = data_of(gradients[2])
        for k in range(4):
            job.weights[k] = weights[k]
    room = prepare(&job, cnp.PyArray_ITEMSIZE(z), threads)
    if room == NULL:
        free(points)
        raise MemoryError()
    try:
        with nogil:
            if single:
                minibatch(&job, threads, <const float*>NULL)
            else:
                minibatch(&job, threads, <const double*>NULL)
    finally:
        free(room)
        free(points)


cdef char* prepare(Job* job, Py_ssize_t itemsize, int threads) noexcept nogil:
    """Cut a bound job into chunks, and find room for it. Returns what to free; NULL where there is none."""
    cdef Py_ssize_t size = job.q.padded * itemsize, k = 0
    cdef char* room
    job.chunk = min(<Py_ssize_t>CHUNK, max(IN_CACHE // job.q.padded // ROWS, 1) * ROWS)
    job.scratch_bytes = (ROWS + 2) * size + LINE       # a line between threads
    if job.dz != NULL:
        k = 2 * job.q.dims * job.q.padded
    room = <char*>malloc((k + job.q.dims * CHUNK) * sizeof(double) + job.chunk * size
                         + threads * job.scratch_bytes + LINE)
    if room == NULL:
        return NULL
    job.sums = <double*>aligned(room)
    job.marginals = job.sums + k
    job.shares = <char*>(job.marginals + job.q.dims * CHUNK)
    job.scratch = job.shares + job.chunk * size
    memset(job.sums, 0, k * sizeof(double))
    return room


# Dense arrays, without Python --------------------------------------------------------------------

cdef int32_t dense(const Handle* weighting, Call* call) noexcept nogil:
    """What `decompose` does: the parts, (4, B), are `row_log_prob` of the call, and `bound` their weights
    in what gradients are of. Returns -1 where memory ran out.
    """
    cdef Job job
    cdef Py_ssize_t itemsize = size_of(call.dtype)
    cdef char* points
    cdef char* room
    cdef int k
    job.q.n = job.s.rows = call.batch
    job.q.dims = call.latent
    job.q.mu = <char*>call.mu
    job.q.logvar = <char*>call.logvar
    job.s.z = <char*>call.z
    job.q.mu_stride = job.q.logvar_stride = job.s.z_stride = call.latent * itemsize
    job.s.weighting = <Weighting>weighting.outputs
    job.s.first = weighting.factor
    job.s.second = weighting.constant
    job.parts = call.row_log_prob
    job.heeds = False
    job.dz = <char*>call.d_z
    job.dmu = <char*>call.d_mu
    job.dlogvar = <char*>call.d_logvar
    if job.dz != NULL:
        for k in range(4):
            job.weights[k] = call.bound[k]
    points = find_room(&job.q, itemsize)
    room = prepare(&job, itemsize, call.threads) if points != NULL else NULL
    if room != NULL and call.dtype == FLOAT32:
        minibatch(&job, call.threads, <const float*>NULL)
    elif room != NULL:
        minibatch(&job, call.threads, <const double*>NULL)
    free(room)
    free(points)
    return -1 if room == NULL else 0


def fill(handle, str weighting):
    """Make a capsule's Handle that of a weighting; its numbers are `factor` and `constant`."""
    cdef Handle* made = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    made.run = dense
    made.outputs = <int32_t><Weighting>WEIGHTINGS[weighting]


# The pass over some points of a data set ---------------------------------------------------------

cdef struct Densities:
    Points q
    Samples s
    double* joint          # (S,): logarithms of what has been added up so far
    double* marginals      # (S, L)
    char* scratch          # of each thread: a tile


cdef inline double log_add(double a, double b) noexcept nogil:
    """log(e^a + e^b), neither of them +inf."""
    cdef double high = a if a > b else b, low = b if a > b else a
    return high if low == -INFINITY else high + log_one_plus(exp(low - high))


cdef void density_unit(const Densities* job, Py_ssize_t unit, real* tile) noexcept nogil:
    """A tile of samples, in one dimension or jointly."""
    cdef const Points* q = &job.q
    cdef const Samples* s = &job.s
    cdef Py_ssize_t i = unit // (q.dims + 1) * ROWS, l = unit % (q.dims + 1), r
    cdef Py_ssize_t n = min(<Py_ssize_t>ROWS, s.rows - i)
    cdef double total[ROWS]
    cdef double shift[ROWS]
    cdef real c[ROWS]
    cdef double* to
    if l == q.dims:
        joint_tile(q, s, i, n, tile, total, shift)
        for r in range(n):
            to = job.joint + i + r
            to[0] = log_add(to[0], log(total[r]) + M_LN2 * (shift[r] + q.joint_top)
                            - q.dims * 0.9189385332046727)
        return
    for r in range(ROWS):
        c[r] = (<const real*>(s.z + (i + min(r, n - 1)) * s.z_stride))[l]
    marginal_tile(q, s, l, i, n, c, tile, total, shift)
    for r in range(n):
        to = job.marginals + (i + r) * q.dims + l
        to[0] = log_add(to[0], log(total[r]) + (M_LN2 * (shift[r] + q.top[l]) - 0.9189385332046727))


cdef void density_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Densities* job = <const Densities*>given
    cdef Py_ssize_t units = ceil_div(job.s.rows, ROWS) * (job.q.dims + 1), u
    cdef real* tile = <real*>job.scratch + share * ROWS * job.q.padded
    for u in range(units * share // shares, units * (share + 1) // shares):
        density_unit(job, u, tile)


cdef void densities(Densities* job, int threads, const real* kind) noexcept nogil:
    transpose_all(&job.q, threads, kind)
    in_parallel[real](density_share, job, threads)


def add_densities(cnp.ndarray z, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray joint,
                  cnp.ndarray marginals, int threads):
    """Add sum_j N(z_i; mu_j, e^logvar_j) to e^joint, (S,), and, by dimension, to e^marginals, (S, L).

    z is (S, L), mu and logvar (N, L), each with a contiguous last axis, of one dtype; float64 sums.
    """
    cdef Densities job
    cdef bint single = cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT
    cdef char* points = bind(&job.q, mu, logvar)
    cdef char* scratch
    bind_samples(&job.s, z)
    job.joint = <double*>data_of(joint)
    job.marginals = <double*>data_of(marginals)
    scratch = <char*>malloc(threads * ROWS * job.q.padded * cnp.PyArray_ITEMSIZE(z) + LINE)
    if scratch == NULL:
        free(points)
        raise MemoryError()
    job.scratch = aligned(scratch)
    with nogil:
        if single:
            densities(&job, threads, <const float*>NULL)
        else:
            densities(&job, threads, <const double*>NULL)
    free(scratch)
    free(points)
