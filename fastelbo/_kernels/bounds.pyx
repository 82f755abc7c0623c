# Passes over log weights alone, (K, B): the sums that bounds and diagnostics come from, normalised
# weights, and learning signals.
#
# Read in either dtype, computed in float64. A unit of work is COLS columns, all their samples. It
# goes tile by tile, some rows at a time: once for the largest log weight of each column, once for
# the sums, once for what is written.

cimport numpy as cnp
from libc.math cimport INFINITY, log
from libc.string cimport memset

from fastelbo._kernels.operands cimport TILE, ceil_div, data_of
from fastelbo._kernels.pairs cimport finite
from fastelbo._kernels.terms.vecmath cimport exp, log_one_plus, real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef enum:
    COLS = 32

cdef enum:                 # rows of a state (STATE, B); sums are pairs of a number and what it lost
    SHIFT = 0              # subtracted from log w: within SLACK / |power| of the extreme one
    W = 1                  # sum of w^power, with w = e^(log w - SHIFT)
    W2 = 3                 # sum of w^(2 power)
    L = 5                  # sum of the log w that are finite or NaN
    NEGATIVE = 7           # how many are -inf
    POSITIVE = 8           # and +inf
    STATE = 9

# A chunk whose extreme exceeds the shift by this moves it. What was summed before is then less than
# e^-SLACK of the sum, and what rescaling it costs is lost in rounding, however often it happens.
cdef double SLACK = 32

cdef enum What:            # is written to `out`
    NOTHING = 0
    WEIGHTS = 1
    VIMCO = 2
    REINFORCE = 3

cdef struct Columns:
    Py_ssize_t rows, cols, stride          # K, B, bytes between rows
    const char* log_w
    double power                           # what log w is multiplied by
    double* state                          # (STATE, B)
    char* out                              # (K, B) contiguous, or NULL
    double weight                          # of a column in the value
    What what


cdef void load(const Columns* job, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t n,
               double* tile, const real* kind) noexcept nogil:
    """`rows` rows of the columns first .. first + n, as a tile (rows, n)."""
    cdef const real* source
    cdef Py_ssize_t r, c
    for r in range(rows):
        source = <const real*>(job.log_w + (row + r) * job.stride) + first
        for c in range(n):
            tile[r * n + c] = source[c]


cdef void store(const Columns* job, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t n,
                const double* tile, const real* kind) noexcept nogil:
    cdef real* out
    cdef Py_ssize_t r, c
    for r in range(rows):
        out = <real*>job.out + (row + r) * job.cols + first
        for c in range(n):
            out[c] = <real>tile[r * n + c]


cdef inline void add_to(double* sum, double* lost, double x) noexcept nogil:
    """sum + lost += x, by Knuth's TwoSum; sums that are not finite lose nothing."""
    cdef double s = sum[0] + x, back = s - sum[0], rest
    rest = (sum[0] - (s - back)) + (x - back)
    lost[0] += rest if s - s == 0 else 0.0
    sum[0] = s


cdef inline void exponents(const Columns* job, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t n,
                           const double* l, double* e) noexcept nogil:
    """(w e^-shift)^power of a tile."""
    cdef const double* shift = job.state + SHIFT * job.cols + first
    cdef Py_ssize_t r, c
    for r in range(rows):
        for c in range(n):
            e[r * n + c] = job.power * (l[r * n + c] - shift[c])
    for c in range(rows * n):
        e[c] = exp(e[c])


cdef void find_shift(const Columns* job, Py_ssize_t first, Py_ssize_t n,
                     const real* kind) noexcept nogil:
    """Move the shift of each column to its extreme log weight, where that is far above it."""
    cdef double l[TILE]
    cdef double extreme[COLS]
    cdef double* state = job.state + first
    cdef double sign = 1 if job.power > 0 else -1, x, factor
    cdef Py_ssize_t row = 0, rows, r, c
    for c in range(n):
        extreme[c] = -INFINITY
    while row < job.rows:
        rows = min(TILE // n, job.rows - row)
        load(job, row, rows, first, n, l, kind)
        for r in range(rows):
            for c in range(n):
                x = sign * l[r * n + c]
                extreme[c] = x if x > extreme[c] else extreme[c]
        row += rows
    for c in range(n):
        x = finite(sign * extreme[c])
        if job.power * (x - state[c]) > SLACK:
            factor = exp(job.power * (state[c] - x))
            state[c] = x
            for r in range(2):
                state[(W + r) * job.cols + c] *= factor
                state[(W2 + r) * job.cols + c] *= factor * factor


cdef void add_sums(const Columns* job, Py_ssize_t first, Py_ssize_t n, const real* kind) noexcept nogil:
    cdef double l[TILE]
    cdef double e[TILE]
    cdef double w[COLS]
    cdef double w2[COLS]
    cdef double total[COLS]
    cdef double negative[COLS]
    cdef double positive[COLS]
    cdef double* state = job.state + first
    cdef Py_ssize_t row = 0, rows, r, c, b = job.cols
    cdef double x, y
    while row < job.rows:
        rows = min(TILE // n, job.rows - row)
        load(job, row, rows, first, n, l, kind)
        exponents(job, first, rows, n, l, e)
        memset(w, 0, sizeof(w))
        memset(w2, 0, sizeof(w2))
        memset(total, 0, sizeof(total))
        memset(negative, 0, sizeof(negative))
        memset(positive, 0, sizeof(positive))
        for r in range(rows):
            for c in range(n):
                x = e[r * n + c]
                y = l[r * n + c]
                w[c] += x
                w2[c] += x * x
                negative[c] += 1.0 if y == -INFINITY else 0.0
                positive[c] += 1.0 if y == INFINITY else 0.0
                total[c] += 0.0 if (y == INFINITY) | (y == -INFINITY) else y
        for c in range(n):
            add_to(&state[W * b + c], &state[(W + 1) * b + c], w[c])
            add_to(&state[W2 * b + c], &state[(W2 + 1) * b + c], w2[c])
            add_to(&state[L * b + c], &state[(L + 1) * b + c], total[c])
            state[NEGATIVE * b + c] += negative[c]
            state[POSITIVE * b + c] += positive[c]
        row += rows


cdef void write_weights(const Columns* job, Py_ssize_t first, Py_ssize_t n,
                        const real* kind) noexcept nogil:
    """Normalised weights, times the weight of a column."""
    cdef double l[TILE]
    cdef double e[TILE]
    cdef double total[COLS]
    cdef Py_ssize_t row = 0, rows, r, c
    for c in range(n):
        total[c] = job.state[W * job.cols + first + c] + job.state[(W + 1) * job.cols + first + c]
    while row < job.rows:
        rows = min(TILE // n, job.rows - row)
        load(job, row, rows, first, n, l, kind)
        exponents(job, first, rows, n, l, e)
        for r in range(rows):
            for c in range(n):
                e[r * n + c] = e[r * n + c] / total[c] * job.weight
        store(job, row, rows, first, n, e, kind)
        row += rows


cdef void write_signals(const Columns* job, Py_ssize_t first, Py_ssize_t n,
                        const real* kind) noexcept nogil:
    """What each sample adds to the bound, against a baseline from the others.

    REINFORCE: log w_k minus the mean of the others, over K. VIMCO: L - L', where L' has in the
    place of w_k the geometric mean g of the others: log1p((w_k - g) / (rest + g)). Weights are
    relative to the largest, but for that one itself to the second largest: so its rest is exact.
    """
    cdef double l[TILE]
    cdef double largest[COLS]
    cdef double second[COLS]
    cdef double rest[COLS]
    cdef Py_ssize_t where[COLS]
    cdef const double* state = job.state + first
    cdef Py_ssize_t row, rows, r, c, b = job.cols
    cdef double x, e, mean, g, left, shift, others = <double>(job.rows - 1)
    cdef bint is_largest, vimco = job.what == VIMCO
    for c in range(n):
        largest[c] = -INFINITY
        second[c] = -INFINITY
        where[c] = 0
        rest[c] = 0
    for r in range(job.rows if vimco else 0):
        load(job, r, 1, first, n, l, kind)
        for c in range(n):
            if l[c] > largest[c]:
                second[c] = largest[c]
                largest[c] = l[c]
                where[c] = r
            elif r > 0 and l[c] > second[c]:
                second[c] = l[c]
    for c in range(n):
        second[c] = finite(second[c])
    for r in range(job.rows if vimco else 0):
        load(job, r, 1, first, n, l, kind)
        for c in range(n):
            l[c] = exp(l[c] - second[c])
        for c in range(n):
            rest[c] += 0.0 if where[c] == r else l[c]
    row = 0
    while row < job.rows:
        rows = min(TILE // n, job.rows - row)
        load(job, row, rows, first, n, l, kind)
        for r in range(rows):
            for c in range(n):
                x = l[r * n + c]
                mean = state[L * b + c] + state[(L + 1) * b + c]
                mean = mean if (x == INFINITY) | (x == -INFINITY) else mean - x
                mean = mean / others
                mean += -INFINITY if state[NEGATIVE * b + c] > (x == -INFINITY) else 0.0
                mean += INFINITY if state[POSITIVE * b + c] > (x == INFINITY) else 0.0
                if not vimco:
                    l[r * n + c] = (x - mean) * job.weight
                    continue
                is_largest = where[c] == row + r
                shift = second[c] if is_largest else finite(largest[c])
                e = exp(x - shift)
                g = exp(mean - shift)
                left = rest[c] * exp(second[c] - shift) - e + exp(largest[c] - shift)
                left = (rest[c] if is_largest else left) + g
                e = log_one_plus((e - g) / left)
                e = (x - shift) - log(left) if is_largest & (x - shift > 700) else e
                l[r * n + c] = e * job.weight
        store(job, row, rows, first, n, l, kind)
        row += rows


cdef void columns_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Columns* job = <const Columns*>given
    cdef Py_ssize_t units = ceil_div(job.cols, COLS), unit, first, n
    for unit in range(units * share // shares, units * (share + 1) // shares):
        first = unit * COLS
        n = min(<Py_ssize_t>COLS, job.cols - first)
        find_shift(job, first, n, kind)
        add_sums(job, first, n, kind)
        if job.what == WEIGHTS:
            write_weights(job, first, n, kind)
        elif job.what != NOTHING:
            write_signals(job, first, n, kind)


def columns(cnp.ndarray log_w, double power, cnp.ndarray state, str what, cnp.ndarray out,
            double weight, int threads):
    """Add the log weights (K, B) to the state (9, B) of their columns.

    Then, according to `what`, write to out (K, B), in the dtype of log_w and times `weight`:
    "weights" normalised by the state, or the learning signals of "vimco" or "reinforce" (K > 1; a
    fresh state). A fresh state is zeros, but for its first row: -power infinity, made finite.
    """
    cdef Columns job
    job.rows = cnp.PyArray_DIM(log_w, 0)
    job.cols = cnp.PyArray_DIM(log_w, 1)
    job.stride = cnp.PyArray_STRIDE(log_w, 0)
    job.log_w = data_of(log_w)
    job.power = power
    job.state = <double*>data_of(state)
    job.out = data_of(out)
    job.weight = weight
    job.what = {"": NOTHING, "weights": WEIGHTS, "vimco": VIMCO, "reinforce": REINFORCE}[what]
    with nogil:
        if cnp.PyArray_TYPE(log_w) == cnp.NPY_FLOAT:
            in_parallel[float](columns_share, &job, threads)
        else:
            in_parallel[double](columns_share, &job, threads)
