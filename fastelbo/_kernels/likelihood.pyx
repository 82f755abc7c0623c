# The pass over decoder outputs: log p(x | parameters), summed, with its gradients, and, in the
# same parallel region, the pass over the latents: a whole ELBO.
#
# A unit of work is CHUNK elements of a run, or a whole row where a row is several runs. A unit goes
# tile by tile: stage x and the parameters, apply the term lane by lane, write the gradients.

cimport numpy as cnp
from cpython.object cimport PyObject
from cython.parallel cimport prange
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastelbo._kernels.latent cimport (
    Latents, ROWS, TOTAL, bind_latents, data_of, latent_share, plan_latents,
)
from fastelbo._kernels.operands cimport (
    LANES, MAX_OPERANDS, TILE, Operand, Shape, FLUSH, add_lanes, add_up, arrange, bind, in_place,
    round_up, run_at, stage,
)
from fastelbo._kernels.terms.likelihoods cimport (
    BernoulliTerm, GaussianLogScaleTerm, GaussianTerm, SquaredErrorTerm, ValueAndGradient,
    ValueOnly, gradients_of, log_prob, outside, parameters_of, term, wanted,
)
from fastelbo._kernels.terms.vecmath cimport real

cnp.import_array()

cdef enum:
    CHUNK = 4096           # elements a unit
    MAX_PARAMETERS = 3
    FEW_UNITS = 16

cdef struct Job:
    int code               # which term: an index into TERMS
    Shape shape
    Operand x
    Operand parameter[MAX_PARAMETERS]
    Operand gradient[MAX_PARAMETERS]
    int parameters, gradients      # gradients: 0, or those of the first so many parameters
    bint staged            # some operand cannot be read in place
    double x_scale         # what x is multiplied by
    double weight          # what the gradients are multiplied by
    Py_ssize_t chunk       # elements of a run that a unit takes
    Py_ssize_t chunks      # units a run
    Py_ssize_t units
    double* partial        # (units,)
    bint* found_outside


# Plain functions around the inline ones: one copy each, where inlining would make dozens.
cdef const real* staged(const Operand* op, const char* run, Py_ssize_t first, Py_ssize_t n,
                        Py_ssize_t padded, real* buffer) noexcept nogil:
    return stage(op, run, first, n, padded, buffer)


cdef void latents_share(const Latents* job, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    latent_share(job, share, shares, kind)


cdef inline void run_tile(const term* tag, const wanted* want, const real* restrict x,
                          const real* restrict a, const real* restrict b, const real* restrict c,
                          real* restrict ga, real* restrict gb, real* restrict gc,
                          Py_ssize_t n, Py_ssize_t valid, bint padded, real x_scale, real weight,
                          double* restrict total, real* restrict bad) noexcept nogil:
    """n elements, a multiple of LANES; `padded` (a constant): only the first `valid` count."""
    cdef real acc[LANES]
    cdef real v, xs, da, db, dc
    cdef Py_ssize_t i = 0, j, flush, loops = n // LANES
    cdef int l
    while i < loops:
        flush = min(i + FLUSH, loops)
        for l in range(LANES):
            acc[l] = 0
        while i < flush:
            j = i * LANES
            for l in range(LANES):
                xs = x[j + l] * x_scale
                v = log_prob(tag, xs, a[j + l], b[j + l] if parameters_of(tag) > 1 else <real>0,
                             c[j + l] if parameters_of(tag) > 2 else <real>0, &da, &db, &dc)
                if padded:
                    v = v if j + l < valid else <real>0
                acc[l] = acc[l] + v
                bad[l] = <real>1 if outside(tag, xs) else bad[l]
                if wanted is ValueAndGradient:
                    ga[j + l] = da * weight
                    if gradients_of(tag) > 1:
                        gb[j + l] = db * weight
                    if gradients_of(tag) > 2:
                        gc[j + l] = dc * weight
            i += 1
        for l in range(LANES):
            total[l] += acc[l]


cdef double run_unit(const term* tag, const wanted* want, const Job* job, Py_ssize_t index,
                     Py_ssize_t first, Py_ssize_t stop, real* bad) noexcept nogil:
    """Elements first .. stop of run number `index`."""
    cdef real x_s[TILE]
    cdef real p_s[MAX_PARAMETERS][TILE]
    cdef real g_s[MAX_PARAMETERS][LANES]     # of a padded tile, which is one lane loop
    cdef const char* xr = run_at(&job.x, &job.shape, index)
    cdef const char* pr[MAX_PARAMETERS]
    cdef real* gr[MAX_PARAMETERS]
    cdef const real* x
    cdef const real* p[MAX_PARAMETERS]
    cdef real* g[MAX_PARAMETERS]
    cdef double total[LANES]
    cdef real weight = <real>job.weight, x_scale = <real>job.x_scale
    cdef Py_ssize_t n, padded, tile = TILE if job.staged else CHUNK
    cdef int i, l
    for i in range(MAX_PARAMETERS):
        p[i] = NULL
        g[i] = NULL
    for i in range(parameters_of(tag)):
        pr[i] = run_at(&job.parameter[i], &job.shape, index)
    if wanted is ValueAndGradient:
        for i in range(gradients_of(tag)):
            gr[i] = <real*>run_at(&job.gradient[i], &job.shape, index)
    for l in range(LANES):
        total[l] = 0
    while first < stop:
        n = min(tile, stop - first)
        if n > LANES:
            n = n // LANES * LANES                     # what is left over makes a tile of its own
        padded = round_up(n)
        if job.staged or n < padded:
            x = staged(&job.x, xr, first, n, padded, x_s)
            for i in range(parameters_of(tag)):
                p[i] = staged(&job.parameter[i], pr[i], first, n, padded, p_s[i])
        else:
            x = <const real*>xr + first
            for i in range(parameters_of(tag)):
                p[i] = <const real*>pr[i] + first
        if wanted is ValueAndGradient:
            for i in range(gradients_of(tag)):
                g[i] = gr[i] + first if n == padded else g_s[i]
        if n == padded:
            run_tile(tag, want, x, p[0], p[1], p[2], g[0], g[1], g[2], n, n, False,
                     x_scale, weight, total, bad)
        else:
            run_tile(tag, want, x, p[0], p[1], p[2], g[0], g[1], g[2], padded, n, True,
                     x_scale, weight, total, bad)
        if wanted is ValueAndGradient:
            for i in range(gradients_of(tag)):
                if g[i] != gr[i] + first:
                    memcpy(gr[i] + first, g[i], n * sizeof(real))
        first += n
    return add_lanes(total)


cdef inline void run_share(const term* tag, const wanted* want, const Job* job, Py_ssize_t share,
                           Py_ssize_t shares, const real* kind) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef real bad[LANES]
    cdef Py_ssize_t unit, first, segment, index
    cdef double s
    cdef int l
    for l in range(LANES):
        bad[l] = 0
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        s = 0
        index = unit // job.chunks
        first = (unit - index * job.chunks) * CHUNK
        for segment in range(job.shape.segments):
            s += run_unit(tag, want, job, index * job.shape.segments + segment, first,
                          min(first + job.chunk, job.shape.run), bad)
        job.partial[unit] = s
    for l in range(LANES):
        if bad[l] != 0:
            job.found_outside[0] = True


cdef inline void run_term(const term* tag, const Job* job, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    if job.gradients > 0:
        run_share(tag, <const ValueAndGradient*>NULL, job, share, shares, kind)
    else:
        run_share(tag, <const ValueOnly*>NULL, job, share, shares, kind)


cdef void likelihood_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                           const real* kind) noexcept nogil:
    """The share of a worker, with the term that the job names (`likelihoods.py` has the codes)."""
    if job.code == 0:
        run_term(<const SquaredErrorTerm*>NULL, job, share, shares, kind)
    elif job.code == 1:
        run_term(<const GaussianTerm*>NULL, job, share, shares, kind)
    elif job.code == 2:
        run_term(<const GaussianLogScaleTerm*>NULL, job, share, shares, kind)
    elif job.code == 3:
        run_term(<const BernoulliTerm*>NULL, job, share, shares, kind)


cdef inline void region(const Job* job, const Latents* latents, int threads,
                        const real* kind) noexcept nogil:
    """One parallel region over both passes; a worker takes its share of each.

    A lone worker does without the region: opening one costs more than a small problem.
    """
    cdef int t
    if threads == 1:
        latents_share(latents, 0, 1, kind)
        likelihood_share(job, 0, 1, kind)
        return
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        latents_share(latents, t, threads, kind)
        likelihood_share(job, t, threads, kind)


cdef inline double* room_for(Py_ssize_t n, double* few) noexcept:
    """Memory for n partial sums: `few` if they fit, else allocated."""
    return few if n <= FEW_UNITS else <double*>malloc(n * sizeof(double))


def evaluate(int code, cnp.ndarray x, tuple parameters, tuple gradients, double x_scale,
             double weight, int batch_axes, cnp.ndarray row_values, tuple latent, int threads):
    """log p(x | parameters) and, unless `latent` is None, the KL of the latents and their z.

    Arrays come checked: x and parameters broadcast to one shape, batch first, parameters in the
    dtype of the pass; gradients (None: none wanted) in that shape. `latent` is (mu, logvar, noise,
    key, z, dmu, dlogvar, weight of the KL's gradient, row_kl). With row_values (and row_kl) a value
    per row is written there, else the totals are summed.

    Returns (log_prob, kl, whether some x was outside the domain).
    """
    cdef Job job
    cdef Latents latents
    cdef Operand* ops[MAX_OPERANDS]
    cdef PyObject* arrays[MAX_OPERANDS]
    cdef double few[FEW_UNITS]
    cdef double few_latent[FEW_UNITS]
    cdef bint single = cnp.PyArray_TYPE(<cnp.ndarray>parameters[0]) == cnp.NPY_FLOAT
    cdef bint by_row = row_values is not None, found = False
    cdef int i, n = 0
    cdef Py_ssize_t k
    cdef double value = 0, kl = 0
    cdef double* out
    ops[n] = &job.x
    arrays[n] = <PyObject*>x
    bind(ops[n], x, single)
    n += 1
    job.parameters = <int>len(parameters)
    job.gradients = 0 if gradients is None else <int>len(gradients)
    for i in range(job.parameters):
        ops[n] = &job.parameter[i]
        arrays[n] = <PyObject*>parameters[i]
        bind(ops[n], parameters[i], single)
        n += 1
    for i in range(job.gradients):
        ops[n] = &job.gradient[i]
        arrays[n] = <PyObject*>gradients[i]
        bind(ops[n], gradients[i], single)
        n += 1
    arrange(&job.shape, ops, arrays, n, batch_axes, by_row)
    job.code = code
    job.x_scale = x_scale
    job.weight = weight
    job.staged = not in_place(&job.x)
    for i in range(job.parameters):
        job.staged = job.staged or not in_place(&job.parameter[i])
    job.chunk = CHUNK if job.shape.segments == 1 else job.shape.run
    job.chunks = max(<Py_ssize_t>1, (job.shape.run + CHUNK - 1) // CHUNK) if job.shape.segments == 1 else 1
    job.units = job.shape.rows * job.chunks
    job.found_outside = &found
    latents.units = 0
    latents.units_a_sample = 0
    cdef cnp.ndarray row_kl = None
    if latent is not None:
        bind_latents(&latents, latent[0], latent[1], latent[2], latent[3], latent[4], latent[5],
                     latent[6], latent[7])
        row_kl = latent[8]
        latents.sums = ROWS if by_row else TOTAL
        plan_latents(&latents)
    job.partial = room_for(job.units, few)
    latents.partial = <double*>data_of(row_kl) if by_row else room_for(latents.units_a_sample, few_latent)
    try:
        if job.partial == NULL or (latents.partial == NULL and not by_row):
            raise MemoryError()
        with nogil:
            if single:
                region(&job, &latents, threads, <const float*>NULL)
            else:
                region(&job, &latents, threads, <const double*>NULL)
        if by_row:
            out = <double*>cnp.PyArray_DATA(row_values)
            for k in range(job.shape.rows):
                out[k] = add_up(job.partial + k * job.chunks, job.chunks)
        else:
            value = add_up(job.partial, job.units)
            if latent is not None:
                kl = add_up(latents.partial, latents.units_a_sample)
        return value, kl, found
    finally:
        if job.partial != few:
            free(job.partial)
        if not by_row and latents.partial != few_latent:
            free(latents.partial)
