# Maximum mean discrepancy of two sets of points: the mean of a kernel over the pairs within each
# set and between them, and the gradients by all points.
#
# Every point is finished alone, against its own set and against the other, four at a time: squared
# distances along a transposed copy of the set, the kernel, and the pull of each other point along
# rows. Distances are sums of squared differences, so that one of a point to itself is exactly zero
# and no small one cancels. Sums are kept a point, and added in order.

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.latent cimport data_of
from fastelbo._kernels.operands cimport add_up
from fastelbo._kernels.pairs cimport DEEP, DEPTH, HALF, WIDE, add_wide, ceil_div, lines
from fastelbo._kernels.terms.vecmath cimport exp, real

cnp.import_array()

cdef enum:
    ROWS = 4               # points at a time
    NEAR = 128             # others whose pulls are added in the dtype of the pass
    BLOCK = 256            # the same of values

cdef enum Kernel:
    RBF = 0                # e^(-c d^2)
    IMQ = 1                # 1 / (1 + c d^2), inverse multiquadratic

cdef struct Points:
    Py_ssize_t count, padded   # N, N rounded up to WIDE
    const char* data           # (N, L), rows stride bytes apart
    Py_ssize_t stride
    char* across               # (depth, padded + HALF): transposed; what pads it is the last point
    char* along                # (padded, width)
    char* gradient             # (N, L), or NULL
    double* sums               # (2, N): of each point's kernel with its own set and with the other
    double means[2]            # what these are multiplied by, half of it for the other

cdef struct Discrepancy:
    Py_ssize_t cols, depth, width  # L, rounded up to DEEP, to HALF
    Points sets[2]
    Kernel kernel
    int scales
    const double* c            # (scales,)
    bint unbiased              # leave out the pairs of a point with itself
    char* room                 # (threads, ROWS (padded + HALF) + 3 ROWS width)
    Py_ssize_t room_size       # elements a thread


cdef void copy_share(const Discrepancy* job, int which, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    """A set across and along."""
    cdef const Points* a = &job.sets[which]
    cdef const real* row
    cdef real* across = <real*>a.across
    cdef real* along = <real*>a.along
    cdef real x
    cdef Py_ssize_t i, l
    for i in range(a.padded * share // shares, a.padded * (share + 1) // shares):
        row = <const real*>(a.data + min(i, a.count - 1) * a.stride)
        for l in range(job.width):
            x = row[l] if l < job.cols else <real>0.0
            along[i * job.width + l] = x
            if l < job.depth:
                across[l * (a.padded + HALF) + i] = x


cdef inline real add_square(real s, real x, real y) noexcept nogil:
    cdef real d = x - y
    return s + d * d


cdef void distances(const real* restrict z, Py_ssize_t width, Py_ssize_t depth,
                    const real* restrict across, Py_ssize_t padded, real* restrict q) noexcept nogil:
    """q[r, j] = ||z_r - y_j||^2 of ROWS points."""
    cdef real a[ROWS * WIDE]
    cdef real c[ROWS * DEEP]
    cdef const real* y
    cdef real* to
    cdef real y0, y1, y2, y3, s
    cdef Py_ssize_t tile, deep, l, begin, stride = padded + HALF
    cdef int k, r, i
    for tile in range(padded // WIDE):
        to = q + tile * WIDE
        for deep in range(ceil_div(max(depth, <Py_ssize_t>1), DEPTH)):
            begin = deep * (DEPTH // DEEP)
            for k in range(ROWS * WIDE):
                a[k] = 0
            for l in range(begin, min(depth // DEEP, begin + DEPTH // DEEP)):
                y = across + l * DEEP * stride + tile * WIDE
                for r in range(ROWS):
                    for i in range(DEEP):
                        c[r * DEEP + i] = z[r * width + l * DEEP + i]
                for k in range(WIDE):
                    y0 = y[k]
                    y1 = y[stride + k]
                    y2 = y[2 * stride + k]
                    y3 = y[3 * stride + k]
                    for r in range(ROWS):
                        s = add_square(a[r * WIDE + k], c[r * DEEP], y0)
                        s = add_square(s, c[r * DEEP + 1], y1)
                        s = add_square(s, c[r * DEEP + 2], y2)
                        a[r * WIDE + k] = add_square(s, c[r * DEEP + 3], y3)
            for r in range(ROWS):
                for k in range(WIDE):
                    to[r * stride + k] = a[r * WIDE + k] + (to[r * stride + k] if deep else <real>0.0)


cdef double kernels(const Discrepancy* job, real* restrict q, Py_ssize_t count, Py_ssize_t padded,
                    Py_ssize_t self, double weight) noexcept nogil:
    """The sum of the kernel over a row of squared distances, which become weight * -dk/dd^2.

    `self` is the point's own place in the row, left out; -1 where it has none.
    """
    cdef real s[WIDE]
    cdef real values[WIDE]
    cdef real slopes[WIDE]
    cdef real c, e, w = <real>weight
    cdef Py_ssize_t block, tile, j
    cdef double total = 0
    cdef int i, k
    for j in range(count, padded):
        q[j] = <real>INFINITY
    if self >= 0:
        q[self] = <real>INFINITY
    for block in range(ceil_div(padded, BLOCK)):
        for k in range(WIDE):
            s[k] = 0
        for tile in range(block * (BLOCK // WIDE), min(padded, (block + 1) * BLOCK) // WIDE):
            j = tile * WIDE
            for k in range(WIDE):
                values[k] = 0
                slopes[k] = 0
            for i in range(job.scales):
                c = <real>job.c[i]
                if job.kernel == RBF:
                    for k in range(WIDE):
                        e = exp(-c * q[j + k])
                        values[k] += e
                        slopes[k] += c * e
                else:
                    for k in range(WIDE):
                        e = <real>1.0 / (<real>1.0 + c * q[j + k])
                        values[k] += e
                        slopes[k] += c * (e * e)
            for k in range(WIDE):
                q[j + k] = w * slopes[k]
                s[k] += values[k]
        total += add_wide(s)
    return total


cdef void pulls(const real* restrict z, Py_ssize_t width, const real* restrict along,
                Py_ssize_t padded, const real* restrict w, double* restrict to) noexcept nogil:
    """Add sum_j w_rj (y_j - z_r) of ROWS points to `to` (ROWS, width)."""
    cdef real a[ROWS * HALF]
    cdef real c[ROWS * HALF]
    cdef real v[ROWS * 4]
    cdef const real* y
    cdef real y0, y1, y2, y3, x, s
    cdef Py_ssize_t half, block, four, stride = padded + HALF
    cdef int k, r, i
    for half in range(width // HALF):
        for r in range(ROWS):
            for k in range(HALF):
                c[r * HALF + k] = z[r * width + half * HALF + k]
        for block in range(ceil_div(padded, NEAR)):
            for k in range(ROWS * HALF):
                a[k] = 0
            for four in range(block * (NEAR // 4), min(padded, (block + 1) * NEAR) // 4):
                y = along + 4 * four * width + half * HALF
                for r in range(ROWS):
                    for i in range(4):
                        v[r * 4 + i] = w[r * stride + 4 * four + i]
                for k in range(HALF):
                    y0 = y[k]
                    y1 = y[width + k]
                    y2 = y[2 * width + k]
                    y3 = y[3 * width + k]
                    for r in range(ROWS):
                        x = c[r * HALF + k]
                        s = a[r * HALF + k]
                        s += v[r * 4] * (y0 - x)
                        s += v[r * 4 + 1] * (y1 - x)
                        s += v[r * 4 + 2] * (y2 - x)
                        a[r * HALF + k] = s + v[r * 4 + 3] * (y3 - x)
            for r in range(ROWS):
                for k in range(HALF):
                    to[r * width + half * HALF + k] += a[r * HALF + k]


cdef void points_share(const Discrepancy* job, int which, Py_ssize_t share, Py_ssize_t shares,
                       Py_ssize_t thread, const real* kind) noexcept nogil:
    """Some points of a set against their own set, then against the other."""
    cdef const Points* a = &job.sets[which]
    cdef const Points* b
    cdef real* q = <real*>job.room + thread * job.room_size
    cdef double* to = <double*>(q + ROWS * (max(job.sets[0].padded, job.sets[1].padded) + HALF))
    cdef const real* z
    cdef Py_ssize_t unit, units = ceil_div(a.count, ROWS), r, i, l
    cdef int other
    for unit in range(units * share // shares, units * (share + 1) // shares):
        z = <const real*>a.along + unit * ROWS * job.width
        memset(to, 0, ROWS * job.width * sizeof(double))
        for other in range(1 if which and a.gradient == NULL else 2):
            b = &job.sets[which ^ other]
            distances(z, job.width, job.depth, <const real*>b.across, b.padded, q)
            for r in range(ROWS):
                i = min(unit * ROWS + r, a.count - 1)
                a.sums[other * a.count + i] = kernels(
                    job, q + r * (b.padded + HALF), b.count, b.padded,
                    i if job.unbiased and other == 0 else -1, 4 * a.means[other])
            if a.gradient != NULL:
                pulls(z, job.width, <const real*>b.along, b.padded, q, to)
        if a.gradient != NULL:
            for r in range(min(<Py_ssize_t>ROWS, a.count - unit * ROWS)):
                for l in range(job.cols):
                    (<real*>a.gradient)[(unit * ROWS + r) * job.cols + l] = (
                        <real>to[r * job.width + l])


cdef void run(const Discrepancy* job, int threads, const real* kind) noexcept nogil:
    cdef int t
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        copy_share(job, 0, t, threads, kind)
        copy_share(job, 1, t, threads, kind)
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        points_share(job, 0, t, threads, t, kind)
        points_share(job, 1, t, threads, t, kind)


def mmd(cnp.ndarray z, cnp.ndarray y, int kernel, cnp.ndarray c, bint unbiased, tuple gradients,
        int threads):
    """MMD^2 of z (N, L) and y (M, L), both with contiguous rows; c (scales,) is float64.

    `gradients` is None or contiguous (dz, dy).
    """
    cdef Discrepancy job
    cdef cnp.ndarray a
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(z), total = 64, most
    cdef char* memory
    cdef char* p
    cdef double n, value
    cdef Points* one
    cdef int i
    job.cols = cnp.PyArray_DIM(z, 1)
    job.depth = ceil_div(job.cols, DEEP) * DEEP
    job.width = ceil_div(job.cols, HALF) * HALF
    job.kernel = <Kernel>kernel
    job.scales = <int>cnp.PyArray_DIM(c, 0)
    job.c = <double*>data_of(c)
    job.unbiased = unbiased
    for i in range(2):
        a = y if i else z
        one = &job.sets[i]
        one.count = cnp.PyArray_DIM(a, 0)
        one.padded = ceil_div(one.count, WIDE) * WIDE
        one.data = data_of(a)
        one.stride = cnp.PyArray_STRIDE(a, 0)
        one.gradient = NULL if gradients is None else data_of(gradients[i])
        n = <double>one.count
        one.means[0] = 1 / (n * (n - 1)) if unbiased else 1 / (n * n)
        one.means[1] = -1.0 / (n * (cnp.PyArray_DIM(z, 0) if i else cnp.PyArray_DIM(y, 0)))
        total += lines(job.depth * (one.padded + HALF) * itemsize)
        total += lines(one.padded * job.width * itemsize) + lines(16 * one.count)
    most = max(job.sets[0].padded, job.sets[1].padded)
    job.room_size = lines(ROWS * (most + HALF) * itemsize + 8 * ROWS * job.width) // itemsize
    total += threads * job.room_size * itemsize
    memory = <char*>malloc(total)
    if memory == NULL:
        raise MemoryError()
    p = memory + (64 - <Py_ssize_t>memory % 64) % 64
    for i in range(2):
        one = &job.sets[i]
        one.across = p
        p += lines(job.depth * (one.padded + HALF) * itemsize)
        one.along = p
        p += lines(one.padded * job.width * itemsize)
        one.sums = <double*>p
        p += lines(16 * one.count)
    job.room = p
    with nogil:
        if cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT:
            run(&job, threads, <const float*>NULL)
        else:
            run(&job, threads, <const double*>NULL)
        value = 0
        for i in range(2):
            one = &job.sets[i]
            value += one.means[0] * add_up(one.sums, one.count)
        value += 2 * job.sets[0].means[1] * add_up(
            job.sets[0].sums + job.sets[0].count, job.sets[0].count)
    free(memory)
    return value
