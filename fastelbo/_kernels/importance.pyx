# Importance weights of K samples: from log p(x|z) to log weights, their bound, the normalised weights
# and the gradients.
#
# The likelihood has been through some rows of the batch, all K samples of each, and has left
# log p(x|z) and its derivatives by the decoder's outputs. `settle` turns what it left into weights,
# `rescale` multiplies the derivatives by them: row by row as the likelihood's pass leaves them, or,
# where rows are too few for the workers, after it.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.float cimport DBL_MAX
from libc.math cimport log
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.denormals cimport flush_denormals, restore_denormals
from fastelbo._kernels.follower cimport FOLLOWER, Follower
from fastelbo._kernels.operands cimport (
    FLOAT32, TILE, VECTOR, add_halves, add_up, ceil_div, data_of, padded_to, size_of,
)
from fastelbo._kernels.pairs cimport finite
from fastelbo._kernels.terms.vecmath cimport exp, real
from fastelbo._runtime cimport in_parallel, in_parallel_flushed

cnp.import_array()

cdef enum:
    MAX_OUTPUTS = 4

cpdef enum:
    ROWS_A_THREAD = 4      # rows a worker takes whole, all their samples: fewer leave workers without

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
    double* log_w                      # (last - first, K): ends as what derivatives are multiplied by
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
    cdef double total[VECTOR]
    cdef Py_ssize_t i
    cdef int l
    for l in range(VECTOR):
        total[l] = el[l]
    for i in range(1, n // VECTOR):
        for l in range(VECTOR):
            total[l] += el[i * VECTOR + l]
    return add_halves(total, VECTOR)


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
    for tile in range(ceil_div(job.cols, TILE)):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.cols - first)
        padded = padded_to(n)
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
    for tile in range(ceil_div(job.cols, TILE)):
        first = tile * TILE
        n = min(<Py_ssize_t>TILE, job.cols - first)
        padded = padded_to(n)
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
    cdef unsigned mode
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
    mode = flush_denormals()
    latent_gradients(job, b, log_w, kind)
    restore_denormals(mode)
    for k in range(job.samples):
        log_w[k] *= job.weight


cdef void rescale(const Weighing* job, Py_ssize_t k, Py_ssize_t b, const real* kind) noexcept nogil:
    """Multiply the gradients by the decoder's outputs, of sample k of row b, by the weight."""
    cdef real w = <real>job.log_w[(b - job.first) * job.samples + k]
    cdef real* g
    cdef Py_ssize_t i
    cdef int output
    for output in range(job.outputs):
        g = <real*>job.doutput[output] + (k * job.rows + b) * job.event
        for i in range(job.event):
            g[i] = g[i] * w


cdef void settle_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    cdef const Weighing* job = <const Weighing*>given
    cdef Py_ssize_t n = job.last - job.first, b
    for b in range(n * share // shares, n * (share + 1) // shares):
        settle(job, job.first + b, kind)


cdef void rescale_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Weighing* job = <const Weighing*>given
    cdef Py_ssize_t k, b
    for k in range(job.samples * share // shares, job.samples * (share + 1) // shares):
        for b in range(job.first, job.last):
            rescale(job, k, b, kind)


cdef void weigh(const Weighing* job, int threads, const real* kind) noexcept nogil:
    """The rows one pass after the other: few rows of many samples, which the workers divide."""
    in_parallel[real](settle_share, job, threads)
    in_parallel_flushed[real](rescale_share, job, threads)


cdef inline const double* settle_row(const Weighing* job, Py_ssize_t row, const real* kind) noexcept nogil:
    settle(job, job.first + row, kind)
    return job.log_w + row * job.samples


cdef inline void rescale_row(const Weighing* job, Py_ssize_t row, const real* kind) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(job.samples):
        rescale(job, k, job.first + row, kind)


cdef const double* settle_float(const void* job, Py_ssize_t row) noexcept nogil:
    return settle_row(<const Weighing*>job, row, <const float*>NULL)


cdef const double* settle_double(const void* job, Py_ssize_t row) noexcept nogil:
    return settle_row(<const Weighing*>job, row, <const double*>NULL)


cdef void rescale_float(const void* job, Py_ssize_t row) noexcept nogil:
    rescale_row(<const Weighing*>job, row, <const float*>NULL)


cdef void rescale_double(const void* job, Py_ssize_t row) noexcept nogil:
    rescale_row(<const Weighing*>job, row, <const double*>NULL)


cdef void follow(Follower* follower, const Weighing* job, bint single) noexcept nogil:
    follower.settle = settle_float if single else settle_double
    follower.rescale = rescale_float if single else rescale_double
    follower.job = job
    follower.rows = job.last - job.first


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
        follow(&self.following, &self.job, self.single)
        return PyCapsule_New(&self.following, FOLLOWER, NULL)

    def run(self, int threads):
        with nogil:
            if self.single:
                weigh(&self.job, threads, <const float*>NULL)
            else:
                weigh(&self.job, threads, <const double*>NULL)


# Dense arrays, from C ---------------------------------------------------------------------------

cdef int32_t dense(const Handle* likelihood, Call* call) noexcept nogil:
    """The importance-weighted bound of every row, and its gradients; z is read. -1 where memory ran out."""
    cdef Weighing job
    cdef Follower follower
    cdef Call of_rows = call[0]
    cdef Py_ssize_t itemsize = size_of(call.dtype), values = call.samples * call.batch
    cdef bint single = call.dtype == FLOAT32
    cdef int32_t failed
    cdef int i
    memset(&job, 0, sizeof(Weighing))
    of_rows.row_log_prob = <double*>malloc(2 * values * sizeof(double))
    if of_rows.row_log_prob == NULL:
        return -1
    job.samples = call.samples
    job.rows = job.last = call.batch
    job.cols = call.latent
    job.log_prob = of_rows.row_log_prob
    job.log_w = of_rows.row_log_prob + values
    job.mu = <char*>call.mu
    job.logvar = <char*>call.logvar
    job.mu_stride = job.logvar_stride = call.latent * itemsize
    job.z = <char*>call.z
    job.z_stride = [call.batch * call.latent * itemsize, call.latent * itemsize]
    job.bound = call.bound
    job.estimator = <Estimator>call.estimator
    job.weight = call.weight
    if call.d_outputs[0] != NULL:
        job.weights_out = <char*>call.weights
        job.dz = <char*>call.d_z
        job.dmu = <char*>call.d_mu
        job.dlogvar = <char*>call.d_logvar
        job.outputs = likelihood.gradients
        job.event = call.event * max(<int64_t>1, call.classes)
        for i in range(job.outputs):
            job.doutput[i] = <char*>call.d_outputs[i]
    of_rows.weight = 1
    of_rows.mu = NULL
    if likelihood.follows and call.batch >= ROWS_A_THREAD * call.threads:
        follow(&follower, &job, single)
        of_rows.follower = &follower
    failed = likelihood.run(likelihood, &of_rows)
    if failed == 0 and of_rows.follower == NULL:
        if single:
            weigh(&job, call.threads, <const float*>NULL)
        else:
            weigh(&job, call.threads, <const double*>NULL)
    if failed == 0:
        call.log_prob = add_up(call.bound, call.batch)
        call.outside = of_rows.outside
    free(of_rows.row_log_prob)
    return failed


def fill(handle, name):
    """Make a capsule's Handle that of the bound, which a call takes beside a likelihood's."""
    (<Handle*>PyCapsule_GetPointer(handle, HANDLE)).run = dense
