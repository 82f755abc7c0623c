# Maximum mean discrepancy of two sets of points: the mean of a kernel over the pairs within each
# set and between them, and the gradients by all points.
#
# Points come in groups, and every two groups meet once: squared distances of the points of one along
# a transposed copy of the other, the kernel, and the pull of either group on the other. So no pair
# is measured twice. Distances are sums of squared differences, so that one of a point to itself is
# exactly zero and no small one cancels.
#
# Groups form clans, and clans meet as in a tournament: in turn t clan i meets clan i ^ t. The first
# half of the turns brings together only clans of the same half, the first quarter only those of the
# same quarter, and so on. So threads can take turns by sides, halves or quarters or smaller, and wait
# for each other only between the turns of sides; and however many sides there are, a group meets the
# others in one order, in which its sums are added up.

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.operands cimport LINE, add_halves, add_up, aligned, ceil_div, data_of, lines
from fastelbo._kernels.pairs cimport DEEP, DEPTH, HALF, WIDE
from fastelbo._kernels.terms.power cimport power_to_underflow
from fastelbo._kernels.terms.vecmath cimport real
from fastelbo._runtime cimport UNHEEDED, heed_signals, in_parallel

cnp.import_array()

cdef enum:
    ROWS = 8               # points at a time
    GROUP = 64             # points of a group, whose kernels and pulls are added in the dtype of the pass
    FEW = 512              # points that are too few for such groups: half as many go in one

cdef enum Kernel:
    RBF = 0                # e^(-c d^2)
    IMQ = 1                # 1 / (1 + c d^2), inverse multiquadratic

cdef dict KERNELS = {"rbf": RBF, "imq": IMQ}

cdef struct Points:
    Py_ssize_t count, first    # N, the first group of the set
    const char* data           # (N, L), rows stride bytes apart
    Py_ssize_t stride
    char* gradient             # (N, L), or NULL
    double means[2]            # what the sums of the kernel within and with the other are multiplied by

cdef struct Discrepancy:
    Py_ssize_t cols, depth, width  # L, rounded up to DEEP, to HALF
    Py_ssize_t size, groups    # points of a group, GROUP or less; groups of both sets
    Py_ssize_t clans           # the largest power of two of them: a clan is a group or two
    Points sets[2]
    Kernel kernel
    int scales
    const double* c            # (scales,)
    bint unbiased              # leave out the pairs of a point with itself
    char* across               # (groups, depth, GROUP): transposed; what pads a group is its last point
    char* along                # (groups, GROUP, width)
    double* pulls              # (groups, GROUP, width), or NULL
    double* sums               # (2, groups): of the kernel, weighted, within the set and with the other
    Py_ssize_t turn, sides     # at hand


cdef inline int set_of(const Discrepancy* job, Py_ssize_t group) noexcept nogil:
    return group >= job.sets[1].first


cdef inline Py_ssize_t begin_of(const Discrepancy* job, Py_ssize_t group) noexcept nogil:
    """The first point of a group, in its set."""
    return (group - job.sets[set_of(job, group)].first) * job.size


cdef inline Py_ssize_t count_of(const Discrepancy* job, Py_ssize_t group) noexcept nogil:
    return min(job.size, job.sets[set_of(job, group)].count - begin_of(job, group))


cdef void copy_group(const Discrepancy* job, Py_ssize_t group, const real* kind) noexcept nogil:
    """A group across and along, and nothing pulls on it yet."""
    cdef const Points* a = &job.sets[set_of(job, group)]
    cdef const real* row
    cdef real* across = <real*>job.across + group * job.depth * GROUP
    cdef real* along = <real*>job.along + group * GROUP * job.width
    cdef real x
    cdef Py_ssize_t i, l, begin = begin_of(job, group), last = count_of(job, group) - 1
    for i in range(job.size):
        row = <const real*>(a.data + (begin + min(i, last)) * a.stride)
        for l in range(job.width):
            x = row[l] if l < job.cols else <real>0.0
            along[i * job.width + l] = x
            if l < job.depth:
                across[l * GROUP + i] = x
    job.sums[group] = job.sums[job.groups + group] = 0
    if job.pulls != NULL:
        memset(job.pulls + group * GROUP * job.width, 0, job.size * job.width * sizeof(double))


cdef inline real add_square(real s, real x, real y) noexcept nogil:
    cdef real d = x - y
    return s + d * d


cdef void distances(const real* restrict z, Py_ssize_t width, Py_ssize_t depth,
                    const real* restrict across, Py_ssize_t count, real* restrict q) noexcept nogil:
    """q[r, j] = ||z_r - y_j||^2 of ROWS points and `count` others."""
    cdef real a[ROWS * WIDE]
    cdef real c[ROWS * DEEP]
    cdef const real* y
    cdef real* to
    cdef real y0, y1, y2, y3, s
    cdef Py_ssize_t tile, deep, l, begin
    cdef int k, r, i
    for tile in range(ceil_div(count, WIDE)):
        to = q + tile * WIDE
        for deep in range(ceil_div(max(depth, <Py_ssize_t>1), DEPTH)):
            begin = deep * (DEPTH // DEEP)
            for k in range(ROWS * WIDE):
                a[k] = 0
            for l in range(begin, min(depth // DEEP, begin + DEPTH // DEEP)):
                y = across + l * DEEP * GROUP + tile * WIDE
                for r in range(ROWS):
                    for i in range(DEEP):
                        c[r * DEEP + i] = z[r * width + l * DEEP + i]
                for k in range(WIDE):
                    y0 = y[k]
                    y1 = y[GROUP + k]
                    y2 = y[2 * GROUP + k]
                    y3 = y[3 * GROUP + k]
                    for r in range(ROWS):
                        s = add_square(a[r * WIDE + k], c[r * DEEP], y0)
                        s = add_square(s, c[r * DEEP + 1], y1)
                        s = add_square(s, c[r * DEEP + 2], y2)
                        a[r * WIDE + k] = add_square(s, c[r * DEEP + 3], y3)
            for r in range(ROWS):
                for k in range(WIDE):
                    to[r * GROUP + k] = a[r * WIDE + k] + (to[r * GROUP + k] if deep else <real>0.0)


cdef double kernels(const Discrepancy* job, const real* restrict q, Py_ssize_t count, double weight,
                    real* restrict w) noexcept nogil:
    """The sum of the kernel over the squared distances of ROWS points; w becomes weight * -dk/dd^2."""
    cdef real s[WIDE]
    cdef real c, pull, e
    cdef Py_ssize_t tiles = ceil_div(count, WIDE), tile, r, j
    cdef int i, k
    for k in range(WIDE):
        s[k] = 0
    for i in range(job.scales):
        c = <real>(job.c[i] * 1.4426950408889634 if job.kernel == RBF else job.c[i])   # log2 e
        pull = <real>(weight * job.c[i])
        for r in range(ROWS):
            for tile in range(tiles):
                j = r * GROUP + tile * WIDE
                if job.kernel == RBF:
                    for k in range(WIDE):
                        e = power_to_underflow(-c * q[j + k])
                        s[k] += e
                        w[j + k] = pull * e + (w[j + k] if i else <real>0.0)
                else:
                    for k in range(WIDE):
                        e = <real>1.0 / (<real>1.0 + c * q[j + k])
                        s[k] += e
                        w[j + k] = pull * (e * e) + (w[j + k] if i else <real>0.0)
    return add_halves(s, WIDE)


cdef void add_pulls(const real* restrict z, Py_ssize_t count, const real* restrict y,
                    Py_ssize_t others, Py_ssize_t width, const real* restrict w, Py_ssize_t down,
                    Py_ssize_t right, double* restrict to) noexcept nogil:
    """Add sum_j w_ij (y_j - z_i) to `to` (count, width); w_ij is w[i down + j right]."""
    cdef real a[ROWS * HALF]
    cdef real c[ROWS * HALF]
    cdef real v[ROWS * 4]
    cdef const real* one
    cdef real y0, y1, y2, y3, x, s
    cdef Py_ssize_t unit, half, four, begin
    cdef int k, r, i, rows = ROWS if real is float else ROWS // 2
    for unit in range(ceil_div(count, rows)):
        for half in range(width // HALF):
            begin = unit * rows * width + half * HALF
            for r in range(rows):
                for k in range(HALF):
                    c[r * HALF + k] = z[begin + r * width + k]
                    a[r * HALF + k] = 0
            for four in range(ceil_div(others, 4)):
                one = y + 4 * four * width + half * HALF
                for r in range(rows):
                    for i in range(4):
                        v[r * 4 + i] = w[(unit * rows + r) * down + (4 * four + i) * right]
                for k in range(HALF):
                    y0 = one[k]
                    y1 = one[width + k]
                    y2 = one[2 * width + k]
                    y3 = one[3 * width + k]
                    for r in range(rows):
                        x = c[r * HALF + k]
                        s = a[r * HALF + k]
                        s += v[r * 4] * (y0 - x)
                        s += v[r * 4 + 1] * (y1 - x)
                        s += v[r * 4 + 2] * (y2 - x)
                        a[r * HALF + k] = s + v[r * 4 + 3] * (y3 - x)
            for r in range(rows):
                for k in range(HALF):
                    to[begin + r * width + k] += a[r * HALF + k]


cdef void meet(const Discrepancy* job, Py_ssize_t g, Py_ssize_t h, const real* kind) noexcept nogil:
    """Two groups, or one with itself: their kernel, and the pull of each on the other."""
    cdef real q[ROWS * GROUP]
    cdef real w[GROUP * GROUP]
    cdef bint between = set_of(job, g) != set_of(job, h)
    cdef double mean = job.sets[set_of(job, g)].means[between], total = 0
    cdef Py_ssize_t n = count_of(job, g), m = count_of(job, h), size = GROUP * job.width, unit, r, i, j
    cdef const real* z = <const real*>job.along + g * size
    cdef const real* y = <const real*>job.along + h * size
    for r in range(ROWS):
        for j in range(GROUP):
            q[r * GROUP + j] = <real>INFINITY
    for unit in range(ceil_div(n, ROWS)):
        distances(z + unit * ROWS * job.width, job.width, job.depth,
                  <const real*>job.across + h * job.depth * GROUP, m, q)
        for r in range(ROWS):
            i = unit * ROWS + r
            for j in range(m if i < n else 0, GROUP):
                q[r * GROUP + j] = <real>INFINITY
            if job.unbiased and g == h:
                q[r * GROUP + i] = <real>INFINITY
        total += kernels(job, q, m, 4 * mean, w + unit * ROWS * GROUP)
    job.sums[between * job.groups + g] += mean * (total if g == h else 2 * total)
    if job.pulls != NULL:
        add_pulls(z, n, y, m, job.width, w, GROUP, 1, job.pulls + g * size)
        if g != h:
            add_pulls(y, m, z, n, job.width, w, 1, GROUP, job.pulls + h * size)


cdef inline Py_ssize_t first_of(const Discrepancy* job, Py_ssize_t clan) noexcept nogil:
    """The first group of a clan."""
    return job.groups * clan // job.clans


cdef void clans_meet(const Discrepancy* job, Py_ssize_t a, Py_ssize_t b, const real* kind) noexcept nogil:
    """Groups that come first in their set come first, so that equal sets have sums of equal bits."""
    cdef Py_ssize_t g, h
    for g in range(first_of(job, a), first_of(job, a + 1)):
        for h in range(g if a == b else first_of(job, b), first_of(job, b + 1)):
            if begin_of(job, g) <= begin_of(job, h):
                meet(job, g, h, kind)
            else:
                meet(job, h, g, kind)


cdef void sides_meet(const Discrepancy* job, Py_ssize_t a, Py_ssize_t b, Py_ssize_t size,
                     const real* kind) noexcept nogil:
    """Two sides of `size` clans each, from a and b, or one within itself: by halves, which stay in the
    cache."""
    cdef Py_ssize_t half = size // 2
    if size == 1:
        clans_meet(job, a, b, kind)
        return
    sides_meet(job, a, b, half, kind)
    sides_meet(job, a + half, b + half, half, kind)
    sides_meet(job, a, b + half, half, kind)
    if a < b:
        sides_meet(job, a + half, b, half, kind)


cdef void turn_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    """Sides meet others, which then have nothing to do; themselves at first."""
    cdef const Discrepancy* job = <const Discrepancy*>given
    cdef Py_ssize_t size = job.clans // job.sides, high = 1, meetings = job.sides, meeting, side, group
    if job.turn > 0:
        meetings //= 2
        while 2 * high <= job.turn:
            high *= 2
    for meeting in range(meetings * share // shares, meetings * (share + 1) // shares):
        side = meeting
        if job.turn > 0:                             # the side without the highest bit of the turn
            side += meeting // high * high
        else:
            for group in range(first_of(job, side * size), first_of(job, (side + 1) * size)):
                copy_group(job, group, kind)
        sides_meet(job, side * size, (side ^ job.turn) * size, size, kind)


cdef void gradient_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                         const real* kind) noexcept nogil:
    cdef const Discrepancy* job = <const Discrepancy*>given
    cdef real* to
    cdef const double* pulls
    cdef Py_ssize_t group, i, l
    for group in range(job.groups * share // shares, job.groups * (share + 1) // shares):
        to = <real*>job.sets[set_of(job, group)].gradient + begin_of(job, group) * job.cols
        pulls = job.pulls + group * GROUP * job.width
        for i in range(count_of(job, group)):
            for l in range(job.cols):
                to[i * job.cols + l] = <real>pulls[i * job.width + l]


cdef int run(Discrepancy* job, int threads, const real* kind) except -1 nogil:
    """Twice as many sides as threads, half of which see to a turn; more where those do not divide, or
    where a turn takes long."""
    cdef Py_ssize_t sides = 1, turn
    cdef double points = <double>job.groups * job.size, owed = 0
    cdef double work = points * points * job.width
    while sides < threads:
        sides *= 2
    if threads > 1:
        sides *= 2 if sides == threads else 4
    while work / sides > UNHEEDED:
        sides *= 2
    job.sides = min(sides, job.clans)
    for turn in range(job.sides):
        job.turn = turn
        in_parallel[real](turn_share, job, threads)
        heed_signals(&owed, work / job.sides)
    if job.pulls != NULL:
        in_parallel[real](gradient_share, job, threads)
    return 0


def mmd(cnp.ndarray z, cnp.ndarray y, str kernel, cnp.ndarray c, bint unbiased, tuple gradients,
        int threads):
    """MMD^2 of z (N, L) and y (M, L), both with contiguous rows; c (scales,) is float64. `kernel` is
    a name in KERNELS.

    `gradients` is None or contiguous (dz, dy).
    """
    cdef Discrepancy job
    cdef cnp.ndarray a
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(z), across, along, pulls, sums
    cdef char* memory
    cdef char* p
    cdef double n, value
    cdef Points* one
    cdef int i
    job.cols = cnp.PyArray_DIM(z, 1)
    job.depth = ceil_div(job.cols, DEEP) * DEEP
    job.width = ceil_div(job.cols, HALF) * HALF
    job.kernel = KERNELS[kernel]
    job.scales = <int>cnp.PyArray_DIM(c, 0)
    job.c = <double*>data_of(c)
    job.unbiased = unbiased
    job.groups = 0
    job.size = WIDE if cnp.PyArray_DIM(z, 0) + cnp.PyArray_DIM(y, 0) < FEW else GROUP
    for i in range(2):
        a = y if i else z
        one = &job.sets[i]
        one.count = cnp.PyArray_DIM(a, 0)
        one.first = job.groups
        job.groups += ceil_div(one.count, job.size)
        one.data = data_of(a)
        one.stride = cnp.PyArray_STRIDE(a, 0)
        one.gradient = NULL if gradients is None else data_of(gradients[i])
        n = <double>one.count
        one.means[0] = 1 / (n * (n - 1)) if unbiased else 1 / (n * n)
        one.means[1] = -1.0 / (n * (cnp.PyArray_DIM(z, 0) if i else cnp.PyArray_DIM(y, 0)))
    job.clans = 1
    while 2 * job.clans <= job.groups:
        job.clans *= 2
    across = job.groups * job.depth * GROUP * itemsize
    along = job.groups * GROUP * job.width * itemsize
    pulls = 0 if gradients is None else job.groups * GROUP * job.width * sizeof(double)
    sums = lines(2 * job.groups * sizeof(double))
    memory = <char*>malloc(across + along + pulls + sums + LINE)
    if memory == NULL:
        raise MemoryError()
    p = aligned(memory)
    job.across = p
    job.along = p + across
    job.pulls = NULL if gradients is None else <double*>(p + across + along)
    job.sums = <double*>(p + across + along + pulls)
    try:
        with nogil:
            if cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT:
                run(&job, threads, <const float*>NULL)
            else:
                run(&job, threads, <const double*>NULL)
            value = add_up(job.sums, 2 * job.groups)
    finally:
        free(memory)
    return value
