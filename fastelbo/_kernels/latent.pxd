# The passes over latents, (B, L) arrays of a diagonal Gaussian posterior: noise, z and KL at once.
#
# A unit of work is a fixed block of elements, whoever runs it: CHUNK elements of the flattened
# arrays where only a total is wanted, whole rows where each row or each dimension gets a sum.
# Elements go through L1 a tile at a time: stage the operands, draw the noise, apply the term,
# write what was asked for, sum.

cimport numpy as cnp
from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport fabs
from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from fastelbo._kernels.call cimport Call
from fastelbo._kernels.operands cimport (
    NATIVE, TILE, VECTOR, data_of, padded_to, size_of, stored, tile_sum, widen,
)
from fastelbo._kernels.terms.gaussian cimport is_near, kl_standard
from fastelbo._kernels.terms.noise cimport BLOCK, normal_block
from fastelbo._kernels.terms.vecmath cimport real

cdef enum:
    CHUNK = 256            # elements a unit where only the total is wanted

cdef enum Sums:            # what the KL of the elements is summed to
    TOTAL = 0              # one number
    ROWS = 1               # (B,)
    COLUMNS = 2            # (L,)
    NOTHING = 3            # only z is wanted

cdef struct Samples:       # (K, B, L), or (B, L) with K = 1; the rows are contiguous
    const char* data       # NULL: there is no such array
    Py_ssize_t sample_stride, row_stride


cdef struct Latents:
    Py_ssize_t rows, cols, samples
    const char* mu         # (B, L), rows mu_stride bytes apart
    const char* logvar
    Py_ssize_t mu_stride, logvar_stride
    int storage            # of mu, logvar and their gradients: NATIVE, or half precision, then contiguous
    Samples noise
    bint draw              # draw the noise from `key`
    uint64_t key
    Py_ssize_t first_drawn  # the normal of the key that the first element takes
    char* z                # (K, B, L) contiguous, or NULL
    char* dmu              # (B, L) contiguous, or NULL: weight * dKL/dmu, times the two below
    char* dlogvar
    double weight
    const double* col_weight   # (L,) or NULL
    const double* row_weight   # (B,) or NULL
    double floor           # least KL of one element (free bits a sample and dimension); 0: none
    double below           # what an element below the floor counts
    Sums sums
    Py_ssize_t rows_a_unit, units, units_a_sample
    double* partial        # TOTAL (units_a_sample,); ROWS (B,); COLUMNS (units_a_sample, L)


cdef struct LatentShares:  # the units of one of some workers, for the passes that have latents beside them
    void (*of_float)(const void* job, Py_ssize_t share, Py_ssize_t shares, const float* kind) noexcept nogil
    void (*of_double)(const void* job, Py_ssize_t share, Py_ssize_t shares, const double* kind) noexcept nogil


cdef extern from *:
    """
    #define FE_LATENT_SHARES "fastelbo latent shares"
    """
    const char* LATENT_SHARES "FE_LATENT_SHARES"     # names the capsule that carries them


cdef inline void bind_samples(Samples* samples, cnp.ndarray a) noexcept:
    samples.data = data_of(a)
    if a is None:
        return
    samples.row_stride = cnp.PyArray_STRIDE(a, cnp.PyArray_NDIM(a) - 2)
    samples.sample_stride = cnp.PyArray_STRIDE(a, 0) if cnp.PyArray_NDIM(a) == 3 else 0


cdef inline int bind_latents(Latents* job, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray noise,
                             key, cnp.ndarray z, cnp.ndarray dmu, cnp.ndarray dlogvar,
                             double weight) except -1:
    """Point the job at checked arrays; floors, weights and sums are none until set."""
    job.rows = cnp.PyArray_DIM(mu, 0)
    job.cols = cnp.PyArray_DIM(mu, 1)
    job.mu = data_of(mu)
    job.logvar = data_of(logvar)
    job.mu_stride = cnp.PyArray_STRIDE(mu, 0)
    job.logvar_stride = cnp.PyArray_STRIDE(logvar, 0)
    job.storage = NATIVE
    bind_samples(&job.noise, noise)
    job.draw = key is not None
    job.key = job.first_drawn = 0
    if isinstance(key, tuple):
        job.key, job.first_drawn = key
    elif job.draw:
        job.key = key
    job.z = data_of(z)
    job.samples = 1
    if z is not None and cnp.PyArray_NDIM(z) == 3:
        job.samples = cnp.PyArray_DIM(z, 0)
    job.dmu = data_of(dmu)
    job.dlogvar = data_of(dlogvar)
    job.weight = weight
    job.col_weight = NULL
    job.row_weight = NULL
    job.floor = 0
    job.below = 0
    job.sums = TOTAL
    job.partial = NULL
    return 0


cdef inline int allocate_partial(Latents* job, cnp.ndarray out) except -1:
    """Where the units write their sums: `out`, or memory that the caller frees."""
    cdef Py_ssize_t n
    if out is not None:
        job.partial = <double*>cnp.PyArray_DATA(out)
        return 0
    n = job.units_a_sample * (job.cols if job.sums == COLUMNS else 1)
    if job.sums == ROWS:
        n = job.rows
    job.partial = <double*>malloc(max(<Py_ssize_t>1, n) * sizeof(double))
    if job.partial == NULL:
        raise MemoryError()
    return 0


cdef inline void plan_latents(Latents* job) noexcept nogil:
    """Cut the work into units; their number depends on the shapes alone."""
    cdef Py_ssize_t n = job.rows * job.cols
    job.rows_a_unit = 0
    if job.sums == TOTAL or job.sums == NOTHING:
        job.units_a_sample = (n + CHUNK - 1) // CHUNK
    else:
        if job.sums == ROWS:
            job.rows_a_unit = TILE // job.cols if 0 < job.cols < TILE else 1
        else:
            job.rows_a_unit = (job.rows + 63) // 64
        job.units_a_sample = (job.rows + job.rows_a_unit - 1) // job.rows_a_unit
    job.units = job.units_a_sample * job.samples


cdef inline void bind_dense_latents(Latents* job, const Call* call, Sums sums) noexcept nogil:
    """The same from a call, and the plan."""
    cdef Py_ssize_t stride = call.latent * size_of(call.dtype)       # of what is NATIVE
    job[0] = Latents(
        rows=call.batch, cols=call.latent, samples=1, mu=<char*>call.mu, logvar=<char*>call.logvar,
        mu_stride=stride, logvar_stride=stride, storage=call.latent_dtype,
        noise=Samples(<char*>call.noise, 0, stride), draw=call.draws, key=call.key, first_drawn=0,
        z=<char*>call.z, dmu=<char*>call.d_mu, dlogvar=<char*>call.d_logvar, weight=call.kl_weight,
        col_weight=NULL, row_weight=NULL, floor=0, below=0, sums=sums, rows_a_unit=0, units=0,
        units_a_sample=0, partial=call.row_kl)
    plan_latents(job)


cdef inline const real* gather(const char* data, Py_ssize_t stride, Py_ssize_t cols,
                               Py_ssize_t first, Py_ssize_t n, Py_ssize_t padded,
                               real* buffer) noexcept nogil:
    """Elements first .. first + n of the flattened array, zeros up to `padded`."""
    cdef Py_ssize_t i, row, col, m
    if stride == cols * <Py_ssize_t>sizeof(real) or n == 0:      # cols may be 0, too
        if n == padded:
            return <const real*>data + first
        memcpy(buffer, <const real*>data + first, n * sizeof(real))
    else:
        i = 0
        row = first // cols
        col = first % cols
        while i < n:
            m = min(cols - col, n - i)
            memcpy(buffer + i, <const real*>(data + row * stride) + col, m * sizeof(real))
            i += m
            row += 1
            col = 0
    for i in range(n, padded):
        buffer[i] = 0
    return buffer


cdef inline const real* gather_latents(const Latents* job, const char* data, Py_ssize_t stride,
                                       Py_ssize_t first, Py_ssize_t n, Py_ssize_t padded,
                                       real* buffer) noexcept nogil:
    """As above, of mu or logvar."""
    cdef Py_ssize_t i
    if real is float:
        if job.storage != NATIVE:
            widen(data + first * sizeof(uint16_t), job.storage, buffer, n)
            for i in range(n, padded):
                buffer[i] = 0
            return buffer
    return gather(data, stride, job.cols, first, n, padded, buffer)


cdef inline void put_latents(const Latents* job, char* data, Py_ssize_t first, const real* source,
                             Py_ssize_t n) noexcept nogil:
    """Elements first .. first + n of a gradient by mu or logvar."""
    if job.storage == NATIVE:
        memcpy(<real*>data + first, source, n * sizeof(real))
    else:
        stored(source, job.storage, n, <uint16_t*>data + first)


cdef inline const real* gather_sample(const Samples* samples, Py_ssize_t k, Py_ssize_t cols,
                                      Py_ssize_t first, Py_ssize_t n, Py_ssize_t padded,
                                      real* buffer) noexcept nogil:
    """As above, elements of sample k."""
    return gather(samples.data + k * samples.sample_stride, samples.row_stride, cols, first, n,
                  padded, buffer)


cdef inline const real* draw_noise(uint64_t key, Py_ssize_t first, Py_ssize_t n,
                                   real* buffer) noexcept nogil:
    """Normals first .. first + n of the key; the buffer has room for TILE + 2 BLOCK."""
    cdef Py_ssize_t block = first // BLOCK, last = (first + n + BLOCK - 1) // BLOCK, b
    for b in range(block, last):
        normal_block(key, <uint64_t>b, &buffer[(b - block) * BLOCK])
    return &buffer[first - block * BLOCK]


cdef inline bint any_far(const real* logvar, Py_ssize_t n) noexcept nogil:
    """Whether some of n elements, a multiple of VECTOR, are not near."""
    cdef real far[VECTOR]
    cdef real found = 0
    cdef Py_ssize_t i
    cdef int l
    for l in range(VECTOR):
        far[l] = 0
    for i in range(n // VECTOR):
        for l in range(VECTOR):
            far[l] = far[l] if is_near(logvar[i * VECTOR + l]) else <real>1
    for l in range(VECTOR):
        found += far[l]
    return found != 0


cdef inline void kl_loop(const real* restrict mu, const real* restrict lv, const real* restrict eps,
                         real* restrict z, real* restrict el, real* restrict gm, real* restrict gl,
                         Py_ssize_t n, real weight, bint valued, bint noisy, bint graded) noexcept nogil:
    """Of n near elements: the KL if `valued`, z if `noisy`, gradients times the weight if `graded`.

    These three are constants. What is not near comes out wrong: see redo_far.
    """
    cdef Py_ssize_t i
    cdef real kl, sigma, dmu, dlogvar
    for i in range(n):
        kl = kl_standard(mu[i], lv[i], True, &sigma, &dmu, &dlogvar)
        if valued:
            el[i] = kl
        if noisy:
            z[i] = mu[i] + sigma * eps[i]
        if graded:
            gm[i] = dmu * weight
            gl[i] = dlogvar * weight


cdef inline bint is_beyond(double weight, const real* kind) noexcept nogil:
    """Whether it overflows or is denormal, or nothing, in the dtype."""
    if real is float:
        return weight != 0 and not FLT_MIN <= fabs(weight) <= FLT_MAX
    return False


cdef inline void redo_far(const real* mu, const real* lv, const real* eps, real* z, real* el,
                          real* gm, real* gl, Py_ssize_t n, double weight, bint beyond) noexcept nogil:
    """The elements of a tile that are not near, one by one: they are rare. And all, where the weight
    is beyond what real holds, and not what it is multiplied by.

    No other loop for the whole tile: it could round differently, and a result would depend on
    what it shares a tile with.
    """
    cdef Py_ssize_t i
    cdef real sigma, dmu, dlogvar
    for i in range(n):
        if beyond or not is_near(lv[i]):
            el[i] = kl_standard(mu[i], lv[i], False, &sigma, &dmu, &dlogvar)
            if eps != NULL:
                z[i] = mu[i] + sigma * eps[i]
            gm[i] = <real>(dmu * weight)
            gl[i] = <real>(dlogvar * weight)


cdef inline void latent_tile(const Latents* job, Py_ssize_t k, Py_ssize_t first, Py_ssize_t n,
                             real* el, const real* kind) noexcept nogil:
    """Elements first .. first + n <= first + TILE of sample k; of the first, their KL into el (TILE,)."""
    cdef real mu_s[TILE]
    cdef real lv_s[TILE]
    cdef real z_s[TILE]
    cdef real gm_s[TILE]
    cdef real gl_s[TILE]
    cdef real eps_s[TILE + 2 * BLOCK]
    cdef Py_ssize_t padded = padded_to(n), i
    cdef const real* mu = gather_latents(job, job.mu, job.mu_stride, first, n, padded, mu_s)
    cdef const real* lv = gather_latents(job, job.logvar, job.logvar_stride, first, n, padded, lv_s)
    cdef const real* eps = NULL
    cdef bint graded = job.dmu != NULL and k == 0, whole = n == padded
    cdef bint valued = job.sums != NOTHING and k == 0, in_place = whole and job.storage == NATIVE
    cdef Py_ssize_t flat = k * job.rows * job.cols + first
    cdef real* z = <real*>job.z + flat if whole and job.z != NULL else z_s
    cdef real* gm = <real*>job.dmu + first if in_place and graded else gm_s
    cdef real* gl = <real*>job.dlogvar + first if in_place and graded else gl_s
    cdef bint beyond = is_beyond(job.weight, kind)
    cdef real w = <real>job.weight, low, below
    cdef double factor
    if job.draw:
        eps = draw_noise(job.key, job.first_drawn + flat, n, eps_s)
    elif job.noise.data != NULL:
        eps = gather_sample(&job.noise, k, job.cols, first, n, padded, eps_s)
    if eps != NULL and graded:
        kl_loop(mu, lv, eps, z, el, gm, gl, padded, w, True, True, True)
    elif eps != NULL and valued:
        kl_loop(mu, lv, eps, z, el, gm, gl, padded, w, True, True, False)
    elif eps != NULL:
        kl_loop(mu, lv, eps, z, el, gm, gl, padded, w, False, True, False)
    elif graded:
        kl_loop(mu, lv, eps, z, el, gm, gl, padded, w, True, False, True)
    else:
        kl_loop(mu, lv, eps, z, el, gm, gl, padded, w, True, False, False)
    if beyond or any_far(lv, padded):
        redo_far(mu, lv, eps, z, el, gm, gl, padded, job.weight, beyond)
    if graded and job.weight == 0:                               # nothing even of infinity; NaN stays
        for i in range(padded):
            gm[i] = gm[i] if mu[i] != mu[i] else 0
            gl[i] = gl[i] if lv[i] != lv[i] else 0
    if eps != NULL and not whole:
        memcpy(<real*>job.z + flat, z, n * sizeof(real))
    if not valued:
        return
    for i in range(n, padded):
        el[i] = 0
    if job.floor > 0:
        low = <real>job.floor
        below = <real>job.below
        if graded:
            for i in range(n):
                gm[i] = 0 if el[i] <= low else gm[i]             # this way round NaN stays
                gl[i] = 0 if el[i] <= low else gl[i]
        for i in range(n):
            el[i] = below if el[i] <= low else el[i]
    if job.col_weight != NULL:
        for i in range(n):
            factor = job.col_weight[(first + i) % job.cols]
            el[i] = <real>(el[i] * factor) if factor != 0 else 0
            if graded:
                gm[i] = <real>(gm[i] * factor) if factor != 0 else 0
                gl[i] = <real>(gl[i] * factor) if factor != 0 else 0
    if job.row_weight != NULL and graded:
        for i in range(n):
            factor = job.row_weight[(first + i) // job.cols]
            gm[i] = <real>(gm[i] * factor) if factor != 0 else 0
            gl[i] = <real>(gl[i] * factor) if factor != 0 else 0
    if graded and not in_place:
        put_latents(job, job.dmu, first, gm, n)
        put_latents(job, job.dlogvar, first, gl, n)


cdef inline void latent_unit(const Latents* job, Py_ssize_t unit, const real* kind) noexcept nogil:
    cdef real el[TILE]
    cdef Py_ssize_t k = unit // job.units_a_sample, u = unit % job.units_a_sample
    cdef Py_ssize_t first, n, row, last, i
    cdef Py_ssize_t total = job.rows * job.cols
    cdef double* columns
    cdef double s
    if job.sums == TOTAL or job.sums == NOTHING:
        first = u * CHUNK
        n = min(<Py_ssize_t>CHUNK, total - first)
        latent_tile(job, k, first, n, el, kind)
        if k == 0 and job.sums == TOTAL:
            job.partial[u] = tile_sum(el, n)
        return
    row = u * job.rows_a_unit
    last = min(row + job.rows_a_unit, job.rows)
    if job.sums == ROWS and job.cols <= TILE:
        first = row * job.cols
        latent_tile(job, k, first, last * job.cols - first, el, kind)
        if k == 0:
            for i in range(row, last):
                job.partial[i] = tile_sum(el + (i - row) * job.cols, job.cols)
        return
    columns = job.partial + u * job.cols
    if k == 0 and job.sums == COLUMNS:
        for i in range(job.cols):
            columns[i] = 0
    while row < last:
        s = 0
        first = 0
        while first < job.cols:
            n = min(<Py_ssize_t>TILE, job.cols - first)
            latent_tile(job, k, row * job.cols + first, n, el, kind)
            if k == 0:
                if job.sums == ROWS:
                    s += tile_sum(el, n)
                else:
                    for i in range(n):
                        columns[first + i] += el[i]
            first += n
        if k == 0 and job.sums == ROWS:
            job.partial[row] = s
        row += 1
