# Entries to the passes over latents: KL, reparameterisation and its backward.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int32_t, uint16_t
from libc.stdlib cimport free, malloc

from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.latent cimport (
    COLUMNS, CHUNK, LATENT_SHARES, LatentShares, Latents, NOTHING, ROWS, Samples, TOTAL,
    allocate_partial, any_far, bind_dense_latents, bind_latents, bind_samples, draw_noise, gather,
    gather_sample, latent_unit, plan_latents,
)
from fastelbo._kernels.operands cimport (
    BFLOAT16, FLOAT16, FLOAT32, TILE, add_up, ceil_div, data_of, round_up, size_of, stored, widen,
)
from fastelbo._kernels.terms.gaussian cimport is_near, kl_between, kl_standard
from fastelbo._kernels.terms.noise cimport BLOCK
from fastelbo._kernels.terms.vecmath cimport real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef dict SUMS = {"total": TOTAL, "rows": ROWS, "columns": COLUMNS, "nothing": NOTHING}


cdef void latents_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef const Latents* job = <const Latents*>given
    cdef Py_ssize_t unit
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        latent_unit(job, unit, kind)


cdef LatentShares shares = LatentShares(latents_share[float], latents_share[double])
SHARES = PyCapsule_New(&shares, LATENT_SHARES, NULL)


cdef const double* weights_of(cnp.ndarray a) noexcept:
    return <const double*>data_of(a)


def latents(cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray noise, key, cnp.ndarray z,
            cnp.ndarray dmu, cnp.ndarray dlogvar, double kl_weight, cnp.ndarray col_weight,
            cnp.ndarray row_weight, double floor, double below, str sums, cnp.ndarray out,
            int threads):
    """z and the KL from the standard normal, one pass.

    sums: the "total" is returned; "rows" go to out (B,), "columns" to out (L,); "nothing": there is
    no KL. Weights are float64 (L,) and (B,); see the fields of Latents for the rest.
    """
    cdef Latents job
    cdef Py_ssize_t u, c
    cdef double* columns
    cdef bint single = cnp.PyArray_TYPE(mu) == cnp.NPY_FLOAT
    bind_latents(&job, mu, logvar, noise, key, z, dmu, dlogvar, kl_weight)
    job.col_weight = weights_of(col_weight)
    job.row_weight = weights_of(row_weight)
    job.floor = floor
    job.below = below
    job.sums = SUMS[sums]
    plan_latents(&job)
    allocate_partial(&job, out if job.sums == ROWS else None)
    try:
        with nogil:
            if single:
                in_parallel[float](latents_share, &job, threads)
            else:
                in_parallel[double](latents_share, &job, threads)
        if job.sums == TOTAL:
            return add_up(job.partial, job.units_a_sample)
        if job.sums == COLUMNS:
            columns = <double*>cnp.PyArray_DATA(out)
            for c in range(job.cols):
                columns[c] = 0
                for u in range(job.units_a_sample):
                    columns[c] += job.partial[u * job.cols + c]
    finally:
        if job.sums != ROWS:
            free(job.partial)


# The backward pass ------------------------------------------------------------------------------

cdef struct Backward:
    Latents latents            # mu, logvar, noise or key, the gradients to write
    Samples grad_z
    Samples z                  # none where noise or key gives sigma eps


cdef void backward_tile(const Backward* job, Py_ssize_t first, Py_ssize_t n,
                        const real* kind) noexcept nogil:
    """Elements first .. first + n, over all samples."""
    cdef const Latents* lat = &job.latents
    cdef real mu_s[TILE]
    cdef real lv_s[TILE]
    cdef real gz_s[TILE]
    cdef real z_s[TILE]
    cdef real eps_s[TILE + 2 * BLOCK]
    cdef real sigma[TILE]
    cdef real kl_mu[TILE]
    cdef real kl_lv[TILE]
    cdef real gm[TILE]
    cdef real gl[TILE]
    cdef double sum_mu[TILE]
    cdef double sum_lv[TILE]
    cdef Py_ssize_t padded = round_up(n), i, k
    cdef const real* mu = gather(lat.mu, lat.mu_stride, lat.cols, first, n, padded, mu_s)
    cdef const real* lv = gather(lat.logvar, lat.logvar_stride, lat.cols, first, n, padded, lv_s)
    cdef const real* gz
    cdef const real* z
    cdef const real* eps
    cdef double w = lat.weight
    for i in range(padded):
        kl_standard(mu[i], lv[i], True, &sigma[i], &kl_mu[i], &kl_lv[i])
    if any_far(lv, padded):
        for i in range(padded):
            if not is_near(lv[i]):
                kl_standard(mu[i], lv[i], False, &sigma[i], &kl_mu[i], &kl_lv[i])
    for i in range(padded):
        sum_mu[i] = 0
        sum_lv[i] = 0
    for k in range(lat.samples):
        gz = gather_sample(&job.grad_z, k, lat.cols, first, n, padded, gz_s)
        if job.z.data != NULL:
            z = gather_sample(&job.z, k, lat.cols, first, n, padded, z_s)
            for i in range(padded):
                sum_mu[i] += gz[i]
                sum_lv[i] += <real>0.5 * gz[i] * (z[i] - mu[i])
        else:
            if lat.draw:
                eps = draw_noise(lat.key, lat.first_drawn + k * lat.rows * lat.cols + first, n, eps_s)
            else:
                eps = gather_sample(&lat.noise, k, lat.cols, first, n, padded, eps_s)
            for i in range(padded):
                sum_mu[i] += gz[i]
                sum_lv[i] += <real>0.5 * gz[i] * (sigma[i] * eps[i])
    if lat.col_weight != NULL:
        for i in range(n):
            w = lat.col_weight[(first + i) % lat.cols]
            if w != 0:
                sum_mu[i] -= w * kl_mu[i]
                sum_lv[i] -= w * kl_lv[i]
    elif w != 0:
        for i in range(padded):
            sum_mu[i] -= w * kl_mu[i]
            sum_lv[i] -= w * kl_lv[i]
    for i in range(padded):
        gm[i] = <real>sum_mu[i]
        gl[i] = <real>sum_lv[i]
    copy_out(<real*>lat.dmu + first, gm, n)
    copy_out(<real*>lat.dlogvar + first, gl, n)


cdef inline void copy_out(real* to, const real* source, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        to[i] = source[i]


cdef void backward_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                         const real* kind) noexcept nogil:
    cdef const Backward* job = <const Backward*>given
    cdef Py_ssize_t unit, first, total = job.latents.rows * job.latents.cols
    cdef Py_ssize_t units = job.latents.units_a_sample
    for unit in range(units * share // shares, units * (share + 1) // shares):
        first = unit * CHUNK
        backward_tile(job, first, min(<Py_ssize_t>CHUNK, total - first), kind)


def backward(cnp.ndarray grad_z, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray z,
             cnp.ndarray noise, key, cnp.ndarray dmu, cnp.ndarray dlogvar, double kl_weight,
             cnp.ndarray col_weight, int threads):
    """Gradients of mu and logvar from that of z, minus kl_weight (or col_weight) times the KL's."""
    cdef Backward job
    cdef bint single = cnp.PyArray_TYPE(mu) == cnp.NPY_FLOAT
    bind_latents(&job.latents, mu, logvar, noise, key, grad_z, dmu, dlogvar, kl_weight)
    job.latents.col_weight = weights_of(col_weight)
    plan_latents(&job.latents)
    bind_samples(&job.grad_z, grad_z)
    bind_samples(&job.z, z)
    with nogil:
        if single:
            in_parallel[float](backward_share, &job, threads)
        else:
            in_parallel[double](backward_share, &job, threads)


# KL between two diagonal Gaussians --------------------------------------------------------------

cdef struct Between:
    Py_ssize_t rows, cols
    const char* operand[4]     # mu_q, logvar_q, mu_p, logvar_p
    Py_ssize_t stride[4]
    char* gradient[4]          # (B, L) contiguous; the first NULL: none wanted
    double weight
    double* partial            # (B,)


cdef void between_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Between* job = <const Between*>given
    cdef Py_ssize_t row, first, n, padded, i
    cdef real room[4][TILE]
    cdef real g[4][TILE]
    cdef const real* p[4]
    cdef real el[TILE]
    cdef int k
    cdef double s
    cdef real w = <real>job.weight
    for row in range(job.rows * share // shares, job.rows * (share + 1) // shares):
        s = 0
        first = 0
        while first < job.cols:
            n = min(<Py_ssize_t>TILE, job.cols - first)
            padded = round_up(n)
            for k in range(4):
                p[k] = gather(job.operand[k], job.stride[k], job.cols, row * job.cols + first, n,
                              padded, room[k])
            for i in range(padded):
                el[i] = kl_between(p[0][i], p[1][i], p[2][i], p[3][i],
                                   &g[0][i], &g[1][i], &g[2][i], &g[3][i])
            for i in range(n):
                s += el[i]
            if job.gradient[0] != NULL:
                for k in range(4):
                    for i in range(padded):
                        g[k][i] *= w
                    copy_out(<real*>job.gradient[k] + row * job.cols + first, g[k], n)
            first += n
        job.partial[row] = s


def between(tuple operands, tuple gradients, double weight, cnp.ndarray rows, int threads):
    """KL(q || p) of each row into rows (B,), and weight times the gradients where wanted.

    Returns the sum of the rows."""
    cdef Between job
    cdef int k
    cdef cnp.ndarray first = operands[0]
    cdef bint single = cnp.PyArray_TYPE(first) == cnp.NPY_FLOAT
    job.rows = cnp.PyArray_DIM(first, 0)
    job.cols = cnp.PyArray_DIM(first, 1)
    job.weight = weight
    job.partial = <double*>cnp.PyArray_DATA(rows)
    for k in range(4):
        job.operand[k] = data_of(operands[k])
        job.stride[k] = cnp.PyArray_STRIDE(<cnp.ndarray>operands[k], 0)
        job.gradient[k] = NULL if gradients is None else data_of(gradients[k])
    with nogil:
        if single:
            in_parallel[float](between_share, &job, threads)
        else:
            in_parallel[double](between_share, &job, threads)
    return add_up(job.partial, job.rows)


# Dense arrays, from C and by the short way from Python -------------------------------------------

cdef enum:
    FEW = 64               # partial sums that need no allocation


cdef int32_t dense(const Handle* unused, Call* call) noexcept nogil:
    """The KL of a call, and z. Returns -1 where memory ran out."""
    cdef Latents latents
    cdef Between between
    cdef double few[FEW]
    cdef double* partial = call.row_kl
    cdef Py_ssize_t sums = call.batch
    cdef bint single = call.dtype == FLOAT32, rows = partial != NULL
    if call.mu_p == NULL:
        bind_dense_latents(&latents, call, ROWS if rows else TOTAL)
        sums = latents.units
    else:
        bind_dense_between(&between, call)
    if not rows:
        partial = few
        if sums > FEW:
            partial = <double*>malloc(sums * sizeof(double))
        if partial == NULL:
            return -1
    latents.partial = between.partial = partial
    if call.mu_p == NULL and single:
        in_parallel[float](latents_share, &latents, call.threads)
    elif call.mu_p == NULL:
        in_parallel[double](latents_share, &latents, call.threads)
    elif single:
        in_parallel[float](between_share, &between, call.threads)
    else:
        in_parallel[double](between_share, &between, call.threads)
    if not rows:
        call.kl = add_up(partial, sums)
        if partial != few:
            free(partial)
    return 0


cdef void bind_dense_between(Between* job, const Call* call) noexcept nogil:
    cdef int k
    job.rows = call.batch
    job.cols = call.latent
    job.weight = call.kl_weight
    job.operand = [<char*>call.mu, <char*>call.logvar, <char*>call.mu_p, <char*>call.logvar_p]
    job.gradient = [<char*>call.d_mu, <char*>call.d_logvar, <char*>call.d_mu_p, <char*>call.d_logvar_p]
    for k in range(4):
        job.stride[k] = call.latent * size_of(call.dtype)


cdef int32_t dense_backward(const Handle* unused, Call* call) noexcept nogil:
    """d_mu and d_logvar of a call from its d_z and z, plus kl_weight times the KL's."""
    cdef Backward job
    cdef Py_ssize_t stride = call.latent * size_of(call.dtype)
    bind_dense_latents(&job.latents, call, TOTAL)
    job.latents.weight = -call.kl_weight
    job.grad_z = Samples(<char*>call.d_z, 0, stride)
    job.z = Samples(<char*>call.z, 0, stride)
    if call.dtype == FLOAT32:
        in_parallel[float](backward_share, &job, call.threads)
    else:
        in_parallel[double](backward_share, &job, call.threads)
    return 0


cdef void drawing_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Call* call = <const Call*>given
    cdef Py_ssize_t total = call.batch * call.latent, unit, first, units = ceil_div(total, CHUNK)
    cdef real room[TILE + 2 * BLOCK]
    for unit in range(units * share // shares, units * (share + 1) // shares):
        first = unit * CHUNK
        copy_out(<real*>call.z + first,
                 draw_noise(call.key, first, min(<Py_ssize_t>CHUNK, total - first), room),
                 min(<Py_ssize_t>CHUNK, total - first))


cdef int32_t dense_drawing(const Handle* unused, Call* call) noexcept nogil:
    """z of a call: the normals of its key, and nothing else."""
    if call.dtype == FLOAT32:
        in_parallel[float](drawing_share, call, call.threads)
    else:
        in_parallel[double](drawing_share, call, call.threads)
    return 0


def fill(handle, str name):
    """Make a capsule's Handle that of the "kl", of the way "backward" through z, or of "noise"."""
    cdef Handle* made = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    made.run = dense if name == "kl" else dense_backward if name == "backward" else dense_drawing


# Half precision, where a pass reads float32 -------------------------------------------------------

def convert(cnp.ndarray half, bint brain, cnp.ndarray single, bint narrows):
    """Between float16, or bfloat16, and as many float32; both contiguous."""
    cdef uint16_t* halves = <uint16_t*>cnp.PyArray_DATA(half)
    cdef float* singles = <float*>cnp.PyArray_DATA(single)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(half)
    cdef int storage = BFLOAT16 if brain else FLOAT16
    with nogil:
        if narrows:
            stored(singles, storage, n, halves)
        else:
            widen(<const char*>halves, storage, singles, n)
