# log sum_k w_k N(z; mu_k, e^logvar_k) of many points z under K diagonal Gaussians, with all gradients.
#
# Distances are sums of squared differences: the expanded square, which a matrix product would take,
# cancels where components are sharp. Vectors run along the components, of which there is a
# transposed copy. Points come in slabs, and a slab in rounds: exponents and softmax by rows of
# points; sums over the points by (chunk of points, block of components); the gradient by z, summed
# over the blocks. Chunks, blocks and slabs are fixed by the shapes, and so is every order of addition.

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.operands cimport LINE, add_halves, aligned, ceil_div, data_of, lines
from fastelbo._kernels.pairs cimport DEEP, DEPTH, HALF, WIDE, finite
from fastelbo._kernels.terms.vecmath cimport exp, exp_finite, log, real
from fastelbo._runtime cimport heed_signals, in_parallel, in_parallel_flushed

cnp.import_array()

cdef enum:
    ROWS = 8               # points that meet a vector of components while it is in registers
    CHUNK = 128            # points whose sums are taken in the dtype of the pass
    BLOCK = 256            # components a task sums for
    COLUMNS = 2048         # components times chunks of a slab, where there are fewer components

cdef struct Mixture:
    Py_ssize_t points, components, cols    # N, K, L
    Py_ssize_t padded, stride, blocks      # components rounded up; from row to row; tasks they make
    Py_ssize_t depth                       # cols rounded up to DEEP, by dimensions that count nothing
    Py_ssize_t first, rows, groups         # the slab: its points, ROWS a time; its chunks
    const char* z                          # (N, L), rows z_stride bytes apart
    const char* log_weights                # (K,)
    const char* mu                         # (K, L)
    const char* logvar
    Py_ssize_t z_stride, mu_stride, logvar_stride
    const double* point_weights            # (N,) or NULL: gradients are multiplied by them
    double weight                          # and by this
    double* values                         # (N,)
    char* dz                               # (N, L), or NULL where no gradient is wanted
    char* dlog_weights                     # (K,)
    char* dmu                              # (K, L)
    char* dlogvar
    char* mu_t                             # (depth, stride)
    char* root_t                           # (depth, stride): the root of half the precision, finite
    char* shift                            # (stride,): log w_k - sum(logvar_k) / 2
    char* staged                           # (slab, depth): points
    char* shares                           # (slab, stride): exponents, then weights of components
    char* pulls                            # (blocks, slab, L): the gradient by z
    char* room                             # (threads, 2 L + 1, BLOCK)
    double* sums                           # (groups, 2 L + 1, padded): by mu, by logvar, of shares


# Components, transposed -------------------------------------------------------------------------

cdef inline real at_most_finite(real x) noexcept nogil:
    """The largest number stands for infinity: of a component without width, where it is not."""
    cdef real most = finite(<real>INFINITY)
    return most if x > most else x


cdef void transpose_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    """mu_t, precision_t and shift. What pads them repeats the last component, without weight."""
    cdef const Mixture* job = <const Mixture*>given
    cdef real* restrict mu = <real*>job.mu_t
    cdef real* restrict root = <real*>job.root_t
    cdef double logvars[WIDE]
    cdef Py_ssize_t tile, k, l, i, one, tiles = job.padded // WIDE
    cdef real x
    for tile in range(tiles * share // shares, tiles * (share + 1) // shares):
        for k in range(WIDE):
            i = tile * WIDE + k
            one = min(i, job.components - 1)
            for l in range(job.cols):
                mu[l * job.stride + i] = (<real*>(job.mu + one * job.mu_stride))[l]
                root[l * job.stride + i] = (<real*>(job.logvar + one * job.logvar_stride))[l]
            logvars[k] = 0
        for l in range(job.cols):
            for k in range(WIDE):
                i = l * job.stride + tile * WIDE + k
                x = root[i]
                logvars[k] += x
                root[i] = <real>0.7071067811865476 * exp_finite(<real>-0.5 * x)
        for l in range(job.cols, job.depth):
            for k in range(WIDE):
                i = l * job.stride + tile * WIDE + k
                mu[i] = root[i] = 0
        for k in range(WIDE):
            i = tile * WIDE + k
            if i < job.components:
                (<real*>job.shift)[i] = at_most_finite(
                    <real>((<real*>job.log_weights)[i] - 0.5 * logvars[k]))
            else:
                (<real*>job.shift)[i] = -<real>INFINITY


# Values and weights of components ---------------------------------------------------------------

cdef inline real square(real z, real mu, real root) noexcept nogil:
    cdef real d = (z - mu) * root
    return d * d


cdef void distances(const real* restrict z, Py_ssize_t depth, const real* restrict mu,
                    const real* restrict root, Py_ssize_t stride, Py_ssize_t padded,
                    real* restrict q) noexcept nogil:
    """q[r, k] = sum_l ((z_rl - mu_kl) root_kl)^2 of four points."""
    cdef real a[4 * WIDE]
    cdef real c[4 * DEEP]
    cdef const real* m
    cdef const real* p
    cdef real m0, m1, m2, m3, p0, p1, p2, p3
    cdef Py_ssize_t tile, deep, l, begin
    cdef real* to
    cdef int k, r, i
    for tile in range(padded // WIDE):
        to = q + tile * WIDE
        for deep in range(ceil_div(max(depth, <Py_ssize_t>1), DEPTH)):
            begin = deep * (DEPTH // DEEP)
            for k in range(4 * WIDE):
                a[k] = 0
            for l in range(begin, min(depth // DEEP, begin + DEPTH // DEEP)):
                m = mu + l * DEEP * stride + tile * WIDE
                p = root + l * DEEP * stride + tile * WIDE
                for r in range(4):
                    for i in range(DEEP):
                        c[r * DEEP + i] = z[r * depth + l * DEEP + i]
                for k in range(WIDE):
                    m0 = m[k]
                    m1 = m[stride + k]
                    m2 = m[2 * stride + k]
                    m3 = m[3 * stride + k]
                    p0 = p[k]
                    p1 = p[stride + k]
                    p2 = p[2 * stride + k]
                    p3 = p[3 * stride + k]
                    for r in range(4):
                        a[r * WIDE + k] += (
                            square(c[r * DEEP], m0, p0) + square(c[r * DEEP + 1], m1, p1)
                            + (square(c[r * DEEP + 2], m2, p2) + square(c[r * DEEP + 3], m3, p3)))
            for r in range(4):
                for k in range(WIDE):
                    to[r * stride + k] = a[r * WIDE + k] + (to[r * stride + k] if deep else <real>0.0)


cdef double soften(real* restrict w, const real* restrict shift, Py_ssize_t n,
                   double weight, bint with_shares) noexcept nogil:
    """log sum e^(shift - w) of n components; w becomes weight times the softmax."""
    cdef real top[WIDE]
    cdef real s[WIDE]
    cdef real y, p, largest = -<real>INFINITY, scale
    cdef double total = 0
    cdef Py_ssize_t tile, block, j
    cdef bint dense
    cdef int k
    for k in range(WIDE):
        top[k] = -<real>INFINITY
    for tile in range(n // WIDE):
        j = tile * WIDE
        for k in range(WIDE):
            y = shift[j + k] - w[j + k]
            p = top[k]
            w[j + k] = y
            top[k] = y if y > p else p
    for k in range(WIDE):
        largest = top[k] if top[k] > largest else largest
    largest = finite(largest)
    dense = largest == finite(<real>INFINITY)                    # see at_most_finite
    for block in range(ceil_div(n, BLOCK)):
        for k in range(WIDE):
            s[k] = 0
        for tile in range(block * (BLOCK // WIDE), min(n, (block + 1) * BLOCK) // WIDE):
            j = tile * WIDE
            for k in range(WIDE):
                p = exp(w[j + k] - largest)
                w[j + k] = p
                s[k] += p
        total += add_halves(s, WIDE)
    if with_shares:
        scale = <real>(weight / total)
        for j in range(n):
            w[j] = w[j] * scale
    return INFINITY if dense else <double>largest + log(total)


cdef void soften_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    """The values of the slab's points, and their weights of the components."""
    cdef const Mixture* job = <const Mixture*>given
    cdef Py_ssize_t unit, r, i, l, here, four
    cdef real* z
    cdef real* w
    cdef double weight, normaliser = job.cols * 0.9189385332046727
    for unit in range(job.rows * share // shares, job.rows * (share + 1) // shares):
        here = unit * ROWS
        z = <real*>job.staged + here * job.depth
        w = <real*>job.shares + here * job.stride
        for r in range(ROWS):                        # the last point again, where there are no more
            i = min(job.first + here + r, job.points - 1)
            memcpy(z + r * job.depth, job.z + i * job.z_stride, job.cols * sizeof(real))
            for l in range(job.cols, job.depth):
                z[r * job.depth + l] = 0
        for four in range(2):
            r = 4 * four
            distances(z + r * job.depth, job.depth, <const real*>job.mu_t,
                      <const real*>job.root_t, job.stride, job.padded, w + r * job.stride)
        for r in range(ROWS):
            i = job.first + here + r
            if i < job.points:
                weight = job.weight
                if job.point_weights != NULL:
                    weight *= job.point_weights[i]
                job.values[i] = soften(w + r * job.stride, <const real*>job.shift, job.padded,
                                       weight, job.dz != NULL) - normaliser
            else:
                memset(w + r * job.stride, 0, job.padded * sizeof(real))


# Gradients --------------------------------------------------------------------------------------

cdef inline real pull(real z, real w, real mu, real root, real* by_mu,
                      real* by_logvar) noexcept nogil:
    cdef real d = z - mu
    cdef real h = w * d
    by_mu[0] += h
    by_logvar[0] += h * d
    return h * root


cdef void pull_points(const real* restrict z, Py_ssize_t depth, Py_ssize_t cols,
                      const real* restrict mu, const real* restrict root,
                      const real* restrict w, Py_ssize_t stride, Py_ssize_t n,
                      real* restrict by_mu, real* restrict by_logvar, real* restrict out) noexcept nogil:
    """Gradients of ROWS points under n components: by_mu and by_logvar (L, BLOCK) are added to.

    Those by the points, out (ROWS, L), are summed lane by lane, in registers, over the components.
    """
    cdef real e[ROWS * HALF]
    cdef real a, b, m, p
    cdef Py_ssize_t tile, j, l, at
    cdef int k, r
    for l in range(cols):
        for k in range(ROWS * HALF):
            e[k] = 0
        for tile in range(n // HALF):
            j = tile * HALF
            at = l * BLOCK + j
            for k in range(HALF):
                m = mu[l * stride + j + k]
                p = root[l * stride + j + k]
                a = by_mu[at + k]
                b = by_logvar[at + k]
                for r in range(ROWS):
                    e[r * HALF + k] += p * pull(z[r * depth + l], w[r * stride + j + k], m, p, &a, &b)
                by_mu[at + k] = a
                by_logvar[at + k] = b
        for r in range(ROWS):
            out[r * cols + l] = <real>-2.0 * add_halves(e + r * HALF, HALF)


cdef void pull_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    """Sums over the points of each chunk, for each block of components."""
    cdef const Mixture* job = <const Mixture*>given
    cdef Py_ssize_t tasks = job.groups * job.blocks, rows = 2 * job.cols + 1
    cdef Py_ssize_t task, group, block, first, last, begin, n, unit, r, j, row
    cdef real* room = <real*>job.room + share * rows * BLOCK
    cdef real* by_logvar = room + job.cols * BLOCK
    cdef real* of_shares = room + 2 * job.cols * BLOCK
    cdef real* w
    cdef real* to
    cdef double* sums
    for task in range(tasks * share // shares, tasks * (share + 1) // shares):
        group = task // job.blocks
        block = task % job.blocks
        first = group * (CHUNK // ROWS)
        last = min(job.rows, first + CHUNK // ROWS)
        begin = block * BLOCK
        n = min(<Py_ssize_t>BLOCK, job.padded - begin)
        memset(room, 0, rows * BLOCK * sizeof(real))
        for unit in range(first, last):
            w = <real*>job.shares + unit * ROWS * job.stride + begin
            to = <real*>job.pulls + (block * job.groups * CHUNK + unit * ROWS) * job.cols
            pull_points(<const real*>job.staged + unit * ROWS * job.depth, job.depth, job.cols,
                        <const real*>job.mu_t + begin, <const real*>job.root_t + begin,
                        w, job.stride, n, room, by_logvar, to)
            for r in range(ROWS):
                for j in range(n):
                    of_shares[j] += w[r * job.stride + j]
        for row in range(rows):
            sums = job.sums + (group * rows + row) * job.padded + begin
            if job.first == 0:
                for j in range(n):
                    sums[j] = room[row * BLOCK + j]
            else:
                for j in range(n):
                    sums[j] += room[row * BLOCK + j]


cdef void point_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                      const real* kind) noexcept nogil:
    """dz of the slab's points: the sum over the blocks of components."""
    cdef const Mixture* job = <const Mixture*>given
    cdef Py_ssize_t n = min(job.rows * ROWS, job.points - job.first) * job.cols
    cdef Py_ssize_t i, block
    cdef real* restrict dz = <real*>job.dz + job.first * job.cols
    cdef const real* restrict pulls = <const real*>job.pulls
    cdef double total
    for i in range(n * share // shares, n * (share + 1) // shares):
        total = 0
        for block in range(job.blocks):
            total += pulls[block * job.groups * CHUNK * job.cols + i]
        dz[i] = <real>total


cdef void component_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    """The gradients by the components: sums over the groups of points."""
    cdef const Mixture* job = <const Mixture*>given
    cdef double by_mu[WIDE]
    cdef double by_logvar[WIDE]
    cdef double of_shares[WIDE]
    cdef const double* sums
    cdef Py_ssize_t tile, tiles = job.padded // WIDE, rows = 2 * job.cols + 1
    cdef Py_ssize_t first, n, k, l, group
    cdef double root
    for tile in range(tiles * share // shares, tiles * (share + 1) // shares):
        first = tile * WIDE
        n = min(<Py_ssize_t>WIDE, job.components - first)
        for k in range(WIDE):
            of_shares[k] = 0
        for group in range(job.groups):
            sums = job.sums + (group * rows + 2 * job.cols) * job.padded + first
            for k in range(WIDE):
                of_shares[k] += sums[k]
        for k in range(n):
            (<real*>job.dlog_weights)[first + k] = <real>of_shares[k]
        for l in range(job.cols):
            for k in range(WIDE):
                by_mu[k] = 0
                by_logvar[k] = 0
            for group in range(job.groups):
                sums = job.sums + (group * rows + l) * job.padded + first
                for k in range(WIDE):
                    by_mu[k] += sums[k]
                    by_logvar[k] += sums[job.cols * job.padded + k]
            for k in range(n):
                root = (<const real*>job.root_t)[l * job.stride + first + k]
                (<real*>job.dmu)[(first + k) * job.cols + l] = <real>(2 * (root * by_mu[k] * root))
                (<real*>job.dlogvar)[(first + k) * job.cols + l] = (
                    <real>(root * by_logvar[k] * root - 0.5 * of_shares[k]))


# All of it --------------------------------------------------------------------------------------

cdef int run(Mixture* job, int threads, const real* kind) except -1 nogil:
    cdef Py_ssize_t groups = job.groups, slab = groups * CHUNK
    cdef double owed = 0
    in_parallel[real](transpose_share, job, threads)
    job.first = 0
    while job.first < job.points:
        job.rows = ceil_div(min(slab, job.points - job.first), ROWS)
        in_parallel_flushed[real](soften_share, job, threads)
        if job.dz != NULL:
            job.groups = ceil_div(job.rows, CHUNK // ROWS)
            in_parallel_flushed[real](pull_share, job, threads)
            in_parallel_flushed[real](point_share, job, threads)
        heed_signals(&owed, <double>slab * job.padded * job.cols)
        job.first += slab
    if job.dz != NULL:
        job.groups = groups
        in_parallel_flushed[real](component_share, job, threads)
    return 0


def mixture(cnp.ndarray z, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray log_weights,
            cnp.ndarray point_weights, double weight, cnp.ndarray values, tuple gradients,
            int threads):
    """values (N,) float64 of points z (N, L), and gradients times `weight` and `point_weights`.

    log_weights (K,) is contiguous; z, mu and logvar (K, L) have contiguous rows; point_weights is
    (N,) float64 or None; `gradients` is None or contiguous (dz, dmu, dlogvar, dlog_weights).
    """
    cdef Mixture job
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(z), slab, rest
    cdef Py_ssize_t sizes[8]
    cdef char* memory
    cdef char* p
    cdef int i
    job.points = cnp.PyArray_DIM(z, 0)
    job.cols = cnp.PyArray_DIM(z, 1)
    job.components = cnp.PyArray_DIM(mu, 0)
    job.depth = ceil_div(job.cols, DEEP) * DEEP
    job.padded = ceil_div(job.components, WIDE) * WIDE
    job.stride = job.padded + HALF                   # no power of two
    job.blocks = ceil_div(job.padded, BLOCK)
    job.groups = min(ceil_div(job.points, CHUNK), max(<Py_ssize_t>1, COLUMNS // job.padded))
    job.z = data_of(z)
    job.z_stride = cnp.PyArray_STRIDE(z, 0)
    job.log_weights = data_of(log_weights)
    job.mu = data_of(mu)
    job.mu_stride = cnp.PyArray_STRIDE(mu, 0)
    job.logvar = data_of(logvar)
    job.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
    job.point_weights = <double*>data_of(point_weights)
    job.weight = weight
    job.values = <double*>data_of(values)
    job.dz = NULL
    slab = job.groups * CHUNK
    rest = 0
    if gradients is not None:
        job.dz = data_of(gradients[0])
        job.dmu = data_of(gradients[1])
        job.dlogvar = data_of(gradients[2])
        job.dlog_weights = data_of(gradients[3])
        rest = 1
    sizes = [
        job.depth * job.stride * size,
        job.depth * job.stride * size,
        job.stride * size,
        slab * job.depth * size,
        slab * job.stride * size,
        rest * job.blocks * slab * job.cols * size,
        rest * threads * (2 * job.cols + 1) * BLOCK * size,
        rest * job.groups * (2 * job.cols + 1) * job.padded * <Py_ssize_t>sizeof(double),
    ]
    size = LINE
    for i in range(8):
        sizes[i] = lines(sizes[i])
        size += sizes[i]
    memory = <char*>malloc(size)
    if memory == NULL:
        raise MemoryError()
    p = aligned(memory)
    job.mu_t = p
    job.root_t = job.mu_t + sizes[0]
    job.shift = job.root_t + sizes[1]
    job.staged = job.shift + sizes[2]
    job.shares = job.staged + sizes[3]
    job.pulls = job.shares + sizes[4]
    job.room = job.pulls + sizes[5]
    job.sums = <double*>(job.room + sizes[6])
    try:
        with nogil:
            if cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT:
                run(&job, threads, <const float*>NULL)
            else:
                run(&job, threads, <const double*>NULL)
    finally:
        free(memory)
