# Importance weights of K samples: from log p(x|z) to log weights, their bound, the normalised weights
# and the gradients; and passes over log weights alone.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange
from libc.math cimport INFINITY, log
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.follower cimport FOLLOWER, Follower
from fastelbo._kernels.latent cimport data_of
from fastelbo._kernels.operands cimport TILE, add_up
from fastelbo._kernels.terms.vecmath cimport exp, log_one_plus, real

cnp.import_array()

cdef extern from "float.h":
    double DBL_MAX


cdef inline double finite(double x) noexcept nogil:
    """x, or the finite number next to it, to be subtracted from others without making NaN."""
    cdef double low = x if x > -DBL_MAX else -DBL_MAX
    return low if low < DBL_MAX else DBL_MAX


# Weights of a model's samples -------------------------------------------------------------------
#
# The likelihood has been through some rows of the batch, all K samples of each, and has left
# log p(x|z) and its derivatives by the decoder's outputs. `settle` turns what it left into weights,
# `rescale` multiplies the derivatives by them: row by row as the likelihood's pass leaves them, or,
# where rows are too few for the workers, after it.

cdef enum:
    MAX_OUTPUTS = 4

cdef enum Estimator:       # of the gradient
    STANDARD = 0
    STL = 1                # no score of q: nothing for mu and logvar
    DREG = 2               # the same, and squared weights for z

cdef dict ESTIMATORS = {"standard": STANDARD, "stl": STL, "dreg": DREG}

cdef struct Weighing:
    Py_ssize_t samples, rows, cols     # K, B, L
    Py_ssize_t first, last             # the rows at hand
    const double* log_prob             # (K, last - first)
    const char* mu                     # (B, L), rows mu_stride bytes apart
    const char* logvar
    Py_ssize_t mu_stride, logvar_stride
    const char* z                      # (K, B, L), strides in bytes
    Py_ssize_t z_stride[2]
    double* prior                      # (K, B): log p(z), or NULL for the standard normal
    const char* prior_gradient         # (K, B, L): its derivative
    double* log_w                      # (last - first, K): ends as the normalised weights
    double* log_w_out                  # (K, B) or NULL
    double* bound                      # (B,), or NULL where no more than log_w_out is wanted
    Estimator estimator
    double weight                      # of a row in the value: gradients are multiplied by it
    char* weights_out                  # (K, B), or NULL where no gradient is wanted
    char* dz                           # (K, B, L)
    char* dmu                          # (B, L)
    char* dlogvar
    int outputs                        # of the decoder
    Py_ssize_t event                   # elements of each
    char* doutput[MAX_OUTPUTS]         # (K, B, event): derivatives of log p(x|z), to be weighed


cdef inline Py_ssize_t whole_vectors(Py_ssize_t n) noexcept nogil:
    """n rounded up to a number of elements that every vector length divides."""
    return (n + 15) // 16 * 16


cdef inline const real* row_tile(const char* row, Py_ssize_t first, Py_ssize_t n,
                                 Py_ssize_t padded, real* buffer) noexcept nogil:
    """Elements first .. first + n of a row, zeros up to `padded`."""
    cdef Py_ssize_t i
    memcpy(buffer, <const real*>row + first, n * sizeof(real))
    for i in range(n, padded):
        buffer[i] = 0
    return buffer


cdef inline double add_vectors(const real* el, Py_ssize_t n) noexcept nogil:
    """Sum of n elements, in whole vectors."""
    cdef double total[16]
    cdef Py_ssize_t i
    cdef int l
    for l in range(16):
        total[l] = el[l]
    for i in range(16, n, 16):
        for l in range(16):
            total[l] += el[i + l]
    for l in range(8):
        total[l] += total[l + 8]
    for l in range(4):
        total[l] += total[l + 4]
    return (total[0] + total[2]) + (total[1] + total[3])


cdef inline void log_ratios(const real* restrict z, const real* restrict mu, const real* restrict lv,
                            const real* restrict precision, real* restrict el, Py_ssize_t n,
                            real pull) noexcept nogil:
    cdef Py_ssize_t i
    cdef real d
    for i in range(n):
        d = z[i] - mu[i]
        el[i] = <real>0.5 * (d * (d * precision[i]) + (lv[i] - pull * (z[i] * z[i])))


cdef void add_latents(const Weighing* job, Py_ssize_t b, double* log_w,
                      const real* kind) noexcept nogil:
    """Add log p(z) - log q(z|x) to the log weights (K,) of sample b.

    For the standard normal that is sum((z - mu)^2 e^-logvar + logvar - z^2) / 2; any other prior
    leaves the constant log(2 pi) of q, and its own value.
    """
    cdef real lv_s[TILE]
    cdef real precision[TILE]
    cdef real el[TILE]
    cdef const real* lv
    cdef const real* mu
    cdef const real* z
    cdef real pull = <real>(1 if job.prior == NULL else 0)
    cdef Py_ssize_t tile, first, n, padded, k, i
    for tile in range((job.cols + TILE - 1) // TILE):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.cols - first)
        padded = whole_vectors(n)
        mu = <const real*>(job.mu + b * job.mu_stride) + first
        lv = row_tile(job.logvar + b * job.logvar_stride, first, n, padded, lv_s)
        for i in range(padded):
            precision[i] = exp(-lv[i])
            el[i] = 0
        for k in range(job.samples):
            z = <const real*>(job.z + k * job.z_stride[0] + b * job.z_stride[1]) + first
            log_ratios(z, mu, lv, precision, el, n, pull)
            log_w[k] += add_vectors(el, padded)
    if job.prior != NULL:
        for k in range(job.samples):
            log_w[k] += job.cols * 0.9189385332046727 + job.prior[k * job.rows + b]


cdef void normalise(double* log_w, Py_ssize_t n, double* bound) noexcept nogil:
    """log mean exp of n log weights, which become weights that add up to one."""
    cdef double largest = -DBL_MAX, total
    cdef Py_ssize_t k
    for k in range(n):
        largest = log_w[k] if log_w[k] > largest else largest
    largest = finite(largest)
    for k in range(n):
        log_w[k] = exp(log_w[k] - largest)
    total = add_up(log_w, n)
    bound[0] = largest + log(total / n)
    for k in range(n):
        log_w[k] = log_w[k] / total


cdef inline void sample_gradients(const real* restrict z, const real* restrict mu,
                                  const real* restrict precision, const real* restrict prior,
                                  real* restrict g, double* restrict by_mu,
                                  double* restrict by_logvar, Py_ssize_t n, real w, real of_q,
                                  bint standard) noexcept nogil:
    """By z, and what one sample adds to those by mu and logvar; `standard` (a constant): no prior."""
    cdef Py_ssize_t i
    cdef real d, t
    for i in range(n):
        d = z[i] - mu[i]
        t = d * precision[i]
        g[i] = w * (t - z[i] if standard else t + prior[i])
        by_mu[i] -= of_q * t
        by_logvar[i] += of_q * (<real>0.5 * (<real>1.0 - d * t))


cdef void latent_gradients(const Weighing* job, Py_ssize_t b, const double* weights,
                           const real* kind) noexcept nogil:
    """Of the bound of sample b, by z, mu and logvar: three separate arguments of log w."""
    cdef real lv_s[TILE]
    cdef real precision[TILE]
    cdef double by_mu[TILE]
    cdef double by_logvar[TILE]
    cdef const real* mu
    cdef const real* lv
    cdef const real* z
    cdef const real* prior
    cdef real* g
    cdef real w, of_q
    cdef Py_ssize_t tile, first, n, padded, k, i, row
    cdef Py_ssize_t row_bytes = job.cols * <Py_ssize_t>sizeof(real)
    for tile in range((job.cols + TILE - 1) // TILE):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.cols - first)
        padded = whole_vectors(n)
        mu = <const real*>(job.mu + b * job.mu_stride) + first
        lv = row_tile(job.logvar + b * job.logvar_stride, first, n, padded, lv_s)
        for i in range(padded):
            precision[i] = exp(-lv[i])
            by_mu[i] = 0
            by_logvar[i] = 0
        for k in range(job.samples):
            row = k * job.rows + b
            w = <real>(weights[k] * job.weight)
            of_q = w if job.estimator == STANDARD else <real>0
            w = <real>(w * weights[k]) if job.estimator == DREG else w
            z = <const real*>(job.z + k * job.z_stride[0] + b * job.z_stride[1]) + first
            g = <real*>(job.dz + row * row_bytes) + first
            if job.prior == NULL:
                sample_gradients(z, mu, precision, NULL, g, by_mu, by_logvar, n, w, of_q, True)
            else:
                prior = <const real*>(job.prior_gradient + row * row_bytes) + first
                sample_gradients(z, mu, precision, prior, g, by_mu, by_logvar, n, w, of_q, False)
        if job.estimator != STANDARD:                # not 0 times infinity: there is no such term
            for i in range(n):
                by_mu[i] = 0
                by_logvar[i] = 0
        for i in range(n):
            (<real*>(job.dmu + b * row_bytes))[first + i] = <real>by_mu[i]
            (<real*>(job.dlogvar + b * row_bytes))[first + i] = <real>by_logvar[i]


cdef void settle(const Weighing* job, Py_ssize_t b, const real* kind) noexcept nogil:
    """Everything of row b but the gradients by the decoder's outputs."""
    cdef Py_ssize_t k, here = b - job.first
    cdef double* log_w = job.log_w + here * job.samples
    for k in range(job.samples):
        log_w[k] = job.log_prob[k * (job.last - job.first) + here]
    add_latents(job, b, log_w, kind)
    if job.log_w_out != NULL:
        for k in range(job.samples):
            job.log_w_out[k * job.rows + b] = log_w[k]
    if job.bound == NULL:
        return
    normalise(log_w, job.samples, &job.bound[b])
    if job.weights_out == NULL:
        return
    for k in range(job.samples):
        (<real*>job.weights_out)[k * job.rows + b] = <real>log_w[k]
    latent_gradients(job, b, log_w, kind)


cdef void rescale(const Weighing* job, Py_ssize_t k, Py_ssize_t b, const real* kind) noexcept nogil:
    """Multiply the gradients by the decoder's outputs, of sample k of row b, by the weight."""
    cdef real w = <real>(job.log_w[(b - job.first) * job.samples + k] * job.weight)
    cdef real* g
    cdef Py_ssize_t i
    cdef int output
    for output in range(job.outputs):
        g = <real*>job.doutput[output] + (k * job.rows + b) * job.event
        for i in range(job.event):
            g[i] = g[i] * w


cdef void settle_share(const Weighing* job, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    cdef Py_ssize_t n = job.last - job.first, b
    for b in range(n * share // shares, n * (share + 1) // shares):
        settle(job, job.first + b, kind)


cdef void rescale_share(const Weighing* job, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef Py_ssize_t k, b
    for k in range(job.samples * share // shares, job.samples * (share + 1) // shares):
        for b in range(job.first, job.last):
            rescale(job, k, b, kind)


cdef inline void weigh_region(const Weighing* job, int threads, const real* kind) noexcept nogil:
    """The rows one pass after the other: few rows of many samples, which the workers divide."""
    cdef int t
    if threads == 1:
        settle_share(job, 0, 1, kind)
        rescale_share(job, 0, 1, kind)
        return
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        settle_share(job, t, threads, kind)
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        rescale_share(job, t, threads, kind)


cdef inline void take_row(const Weighing* job, Py_ssize_t b, const real* kind) noexcept nogil:
    cdef Py_ssize_t k
    settle(job, b, kind)
    for k in range(job.samples if job.outputs > 0 else 0):
        rescale(job, k, b, kind)


cdef void take_float(const void* job, Py_ssize_t row) noexcept nogil:
    take_row(<const Weighing*>job, (<const Weighing*>job).first + row, <const float*>NULL)


cdef void take_double(const void* job, Py_ssize_t row) noexcept nogil:
    take_row(<const Weighing*>job, (<const Weighing*>job).first + row, <const double*>NULL)


cdef class Weigher:
    """Log weights log p(x|z) + log p(z) - log q(z|x), and what follows, of some rows from `first`.

    log_prob (K, rows), float64, will be log p(x|z). `latent` is (z, mu, logvar), z (K, B, L) with a
    contiguous last axis; `prior` None or (log p(z) (K, B) float64, its gradient (K, B, L) or None).
    Written where they are not None: log_w (K, B), bound (B,), both float64, and `gradients`
    (weights (K, B), dz, dmu, dlogvar, tuple of those by the decoder's outputs), the last of which
    come as the derivatives of log_prob. All but z, mu and logvar are contiguous.

    Either the pass over the likelihood hands its rows over to `follower()`, or `run` is called
    after it.
    """

    cdef Weighing job
    cdef Follower following
    cdef tuple arrays      # kept alive
    cdef bint single

    def __cinit__(self, cnp.ndarray log_prob, Py_ssize_t first, tuple latent, tuple prior,
                  cnp.ndarray log_w, cnp.ndarray bound, tuple gradients=None,
                  str estimator="standard", double weight=1.0):
        cdef Weighing* job = &self.job
        cdef cnp.ndarray z = latent[0], mu = latent[1], logvar = latent[2]
        cdef tuple outputs
        cdef int i
        self.arrays = (log_prob, latent, prior, log_w, bound, gradients)
        self.single = cnp.PyArray_TYPE(mu) == cnp.NPY_FLOAT
        job.samples = cnp.PyArray_DIM(z, 0)
        job.rows = cnp.PyArray_DIM(mu, 0)
        job.cols = cnp.PyArray_DIM(mu, 1)
        job.first = first
        job.last = first + cnp.PyArray_DIM(log_prob, 1)
        job.log_prob = <double*>data_of(log_prob)
        job.z = data_of(z)
        job.z_stride = [cnp.PyArray_STRIDE(z, 0), cnp.PyArray_STRIDE(z, 1)]
        job.mu = data_of(mu)
        job.mu_stride = cnp.PyArray_STRIDE(mu, 0)
        job.logvar = data_of(logvar)
        job.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
        job.prior = NULL if prior is None else <double*>data_of(prior[0])
        job.prior_gradient = NULL if prior is None else data_of(prior[1])
        job.log_w_out = <double*>data_of(log_w)
        job.bound = <double*>data_of(bound)
        job.estimator = ESTIMATORS[estimator]
        job.weight = weight
        job.weights_out = NULL
        job.outputs = 0
        if gradients is not None:
            job.weights_out = data_of(gradients[0])
            job.dz = data_of(gradients[1])
            job.dmu = data_of(gradients[2])
            job.dlogvar = data_of(gradients[3])
            outputs = gradients[4]
            job.outputs = <int>len(outputs)
            for i in range(job.outputs):
                job.doutput[i] = data_of(outputs[i])
                job.event = cnp.PyArray_SIZE(<cnp.ndarray>outputs[i]) // (job.samples * job.rows)
        job.log_w = <double*>malloc(job.samples * (job.last - job.first) * sizeof(double))
        if job.log_w == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.job.log_w)

    def follower(self):
        """A capsule for `evaluate`, valid as long as this object."""
        self.following.take = take_float if self.single else take_double
        self.following.job = &self.job
        self.following.rows = self.job.last - self.job.first
        return PyCapsule_New(&self.following, FOLLOWER, NULL)

    def run(self, int threads):
        with nogil:
            if self.single:
                weigh_region(&self.job, threads, <const float*>NULL)
            else:
                weigh_region(&self.job, threads, <const double*>NULL)


# Log weights alone, (K, B) ----------------------------------------------------------------------
#
# Read in either dtype, computed in float64. A unit of work is COLS columns, all their samples. It
# goes tile by tile, some rows at a time: once for the largest log weight of each column, once for
# the sums, once for what is written.

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

cdef struct Columns:
    Py_ssize_t rows, cols, stride          # K, B, bytes between rows
    const char* log_w
    double power                           # what log w is multiplied by
    double* state                          # (STATE, B)
    char* out                              # (K, B) contiguous, or NULL
    double weight                          # of a column in the value
    bint vimco


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
    cdef bint is_largest
    for c in range(n):
        largest[c] = -INFINITY
        second[c] = -INFINITY
        where[c] = 0
        rest[c] = 0
    for r in range(job.rows if job.vimco else 0):
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
    for r in range(job.rows if job.vimco else 0):
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
                if not job.vimco:
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


cdef void columns_share(const Columns* job, int what, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef Py_ssize_t units = (job.cols + COLS - 1) // COLS, unit, first, n
    for unit in range(units * share // shares, units * (share + 1) // shares):
        first = unit * COLS
        n = min(<Py_ssize_t>COLS, job.cols - first)
        find_shift(job, first, n, kind)
        add_sums(job, first, n, kind)
        if what == 1:
            write_weights(job, first, n, kind)
        elif what == 2:
            write_signals(job, first, n, kind)


def columns(cnp.ndarray log_w, double power, cnp.ndarray state, str what, cnp.ndarray out,
            double weight, int threads):
    """Add the log weights (K, B) to the state (9, B) of their columns.

    Then, according to `what`, write to out (K, B), in the dtype of log_w and times `weight`:
    "weights" normalised by the state, or the learning signals of "vimco" or "reinforce" (K > 1; a
    fresh state). A fresh state is zeros, but for its first row: -power infinity, made finite.
    """
    cdef Columns job
    cdef int t, code = {"": 0, "weights": 1, "vimco": 2, "reinforce": 2}[what]
    cdef bint single = cnp.PyArray_TYPE(log_w) == cnp.NPY_FLOAT
    job.rows = cnp.PyArray_DIM(log_w, 0)
    job.cols = cnp.PyArray_DIM(log_w, 1)
    job.stride = cnp.PyArray_STRIDE(log_w, 0)
    job.log_w = data_of(log_w)
    job.power = power
    job.state = <double*>data_of(state)
    job.out = data_of(out)
    job.weight = weight
    job.vimco = what == "vimco"
    with nogil:
        if threads == 1:
            if single:
                columns_share(&job, code, 0, 1, <const float*>NULL)
            else:
                columns_share(&job, code, 0, 1, <const double*>NULL)
        else:
            for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                if single:
                    columns_share(&job, code, t, threads, <const float*>NULL)
                else:
                    columns_share(&job, code, t, threads, <const double*>NULL)
