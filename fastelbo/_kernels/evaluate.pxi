# The entry to the pass of elementwise.pxi: how the work is divided, and one parallel region over
# decoder outputs and latents.

from libc.stdint cimport int32_t

from fastelbo._kernels.call cimport HANDLE, Call, Handle, bind_dense, bind_output, bind_own, lay_out
from fastelbo._kernels.latent cimport bind_dense_latents
from fastelbo._kernels.operands cimport FLOAT32, size_of


cdef void region_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                       const real* kind) noexcept nogil:
    """A worker takes its share of both passes.

    Shares of the latents go in reverse, since the last ones are the larger where units do not divide
    evenly; and every second worker takes them last, since they compute while the others read memory.
    """
    cdef const Both* both = <const Both*>given
    if share % 2 == 0:
        latents_share(both.latents, shares - 1 - share, shares, kind)
    likelihood_share(both.job, share, shares, kind)
    if share % 2 == 1:
        latents_share(both.latents, shares - 1 - share, shares, kind)


cdef inline double* zeros(Py_ssize_t n, double* few) noexcept nogil:
    """Memory for n partial sums, all zero: `few` if they fit, else allocated."""
    if n > FEW_UNITS:
        return <double*>calloc(n, sizeof(double))
    memset(few, 0, n * sizeof(double))
    return few


cdef inline void cut(Job* job) noexcept nogil:
    job.chunks = max(<Py_ssize_t>1, (job.shape.run + job.chunk - 1) // job.chunk)
    job.slice = job.shape.rows * job.shape.segments // max(<Py_ssize_t>1, job.slices)


cdef inline bint plan_own(Job* job, tuple gradients) noexcept:
    """Which gradients are sums over rows, and into which blocks and chunks the work is divided.

    Returns whether memory ran out.
    """
    cdef cnp.ndarray view
    cdef Py_ssize_t largest = 0, copies, chunks
    cdef bint any_own = False, narrow = False
    cdef bint is_own[MAX_GRADIENTS]
    cdef int i, d
    job.chunk = CHUNK
    job.slices = job.blocks = job.shape.rows
    for i in range(job.gradients):
        view = <cnp.ndarray>gradients[i]
        is_own[i] = False
        job.own_size[i] = 1
        if cnp.PyArray_SIZE(view) == 0:              # its strides may be zero as well
            continue
        for d in range(cnp.PyArray_NDIM(view)):
            if cnp.PyArray_DIM(view, d) > 1 and cnp.PyArray_STRIDE(view, d) == 0:
                is_own[i] = True
            else:
                job.own_size[i] *= cnp.PyArray_DIM(view, d)
        if is_own[i]:
            any_own = True
            if job.gradient[i].spread and job.own_size[i] > 1:   # one sum a row: rows stay whole
                job.chunk = max(job.chunk, job.shape.run)
            elif not job.gradient[i].spread:
                narrow = True
                largest = max(largest, job.own_size[i])
    if narrow:
        job.chunk = TILE
    chunks = (job.shape.run + job.chunk - 1) // job.chunk
    if any_own:
        job.slices = job.shape.extent[0] if job.shape.outer > 0 else 1
        job.blocks = min(job.slices, max(<Py_ssize_t>1, PARTS // max(<Py_ssize_t>1, chunks)))
        if job.blocks * largest > SUMS:                          # parts of columns instead of rows
            job.blocks = 1
            job.chunk = min(job.chunk, round_up((job.shape.run + PARTS - 1) // PARTS))
    cut(job)
    for i in range(job.gradients):
        if not is_own[i]:
            continue
        copies = 1
        job.own_chunk[i] = 0
        job.own_block[i] = 0
        if job.gradient[i].spread:
            job.own_chunk[i] = 1
            copies = job.chunks
        if job.shape.outer > 0 and job.gradient[i].strides[0] == 0:
            job.own_block[i] = copies
            copies *= job.blocks
        job.own[i] = <double*>calloc(max(<Py_ssize_t>1, copies * job.own_size[i]), sizeof(double))
        job.staged = True
        if job.own[i] == NULL:
            return True
    return False


cdef bint is_packed(const Job* job, bint single) noexcept nogil:
    """Whether `packed_tile` can serve, if the term has a part there."""
    cdef const Operand* a = &job.parameter[0]
    if a.storage != FLOAT16 and a.storage != BFLOAT16 or a.spread or job.x.spread or not single:
        return False
    if job.gradients > 0 and (job.gradient[0].storage != a.storage or job.gradient[0].spread):
        return False
    return ((job.x.storage == UINT8 or job.x.storage == a.storage) and not job.masked
            and not job.nan_missing and not job.streamed and job.follower == NULL)


cdef bint goes_past_caches(const Job* job) noexcept nogil:
    """Whether gradients are too large to stay in a cache, and, where they have to wait for a follower's
    weights, can do so in one."""
    cdef Py_ssize_t size = job.shape.rows * job.shape.segments * job.shape.run * job.gradient[0].itemsize
    if job.gradients == 0 or size < STREAM_FROM:
        return False
    return job.follower == NULL or job.gradients * size // job.follower.rows <= WAITING


cdef inline void finish_own(const Job* job, int i, const real* kind) noexcept nogil:
    """Add up the copies of a gradient that is a sum over rows."""
    cdef Py_ssize_t copies = 1, c, e, size = job.own_size[i]
    cdef const Operand* op = &job.gradient[i]
    cdef uint16_t half
    cdef real one
    cdef double s
    copies = max(copies, job.own_chunk[i] * job.chunks)
    copies = max(copies, job.own_block[i] * job.blocks)
    for e in range(size):
        s = add_up(job.own[i], copies) if size == 1 else 0
        for c in range(copies if size > 1 else 0):
            s += job.own[i][c * size + e]
        one = <real>s
        memcpy(op.data + e * op.itemsize, stored(&one, op.storage, 1, &half), op.itemsize)


cdef bint compute(Job* job, Latents* latents, bint single, int threads, double* value, double* kl,
                  double* kept) noexcept nogil:
    """Both passes over what is bound and planned, and their sums. Returns whether memory ran out."""
    cdef Both both
    cdef double few[FEW_UNITS]
    cdef double few_latent[FEW_UNITS]
    cdef bint failed
    cdef int i
    cdef Py_ssize_t k
    both.job = job
    both.latents = latents
    job.units = job.blocks * job.chunks
    job.plain = is_plain(job)
    job.partials = job.shape.rows * job.chunks if job.by_row else job.units
    job.partial = zeros(2 * job.partials, few)
    if not job.by_row:
        latents.partial = zeros(latents.units_a_sample, few_latent)
    failed = job.partial == NULL or not job.by_row and latents.partial == NULL
    if not failed:
        if single:
            in_parallel[float](region_share, &both, threads)
        else:
            in_parallel[double](region_share, &both, threads)
        for i in range(job.gradients):
            if job.own[i] == NULL:
                continue
            if single:
                finish_own(job, i, <const float*>NULL)
            else:
                finish_own(job, i, <const double*>NULL)
        kept[0] = add_up(job.partial + job.partials, job.partials)
        if job.by_row:
            for k in range(job.shape.rows if job.follower == NULL else 0):
                write_row_value(job, k)
        else:
            value[0] = job.factor * add_up(job.partial, job.partials) + job.constant * kept[0]
            kl[0] = add_up(latents.partial, latents.units_a_sample)
    if job.partial != few:
        free(job.partial)
    if not job.by_row and latents.partial != few_latent:
        free(latents.partial)
    return failed


def evaluate(str name, object x, cnp.ndarray mask, bint nan_missing, tuple parameters,
             tuple gradients, double x_scale, double weight, double factor, double constant,
             int batch_axes, cnp.ndarray row_values, cnp.ndarray elements, tuple latent, follower,
             int threads):
    """factor * (sum of a term) + constant * (number of elements), the KL of the latents, their z.

    `name` is the term's in TERMS. Arrays come checked: x (SparseRows where it is sparse), mask (bytes,
    0 where x is missing; or None) and parameters broadcast to one shape, batch first, parameters in
    the dtype of the pass, which for half precision is float32; gradients (None: none wanted), in the
    dtype of the pass or in half precision, are C-contiguous arrays, broadcast to that
    shape where they are to be summed. `latent` is None or (mu, logvar, noise, key, z, dmu, dlogvar,
    weight of the KL's gradient, row_kl). With row_values (and row_kl) a value per row is written
    there, with elements (C-contiguous, of the common shape) one per element, else the totals are
    summed. `follower` is None or the capsule of a Follower, to take over row_values (K, B) row by row.

    Returns (log_prob, kl, whether something was outside the domain, elements that were not missing).
    """
    cdef Term term = (<dict>TERMS).get(name)
    cdef Job job
    cdef Latents latents
    cdef Operand* ops[OPERANDS]
    cdef PyObject* arrays[OPERANDS]
    cdef bint single = cnp.PyArray_TYPE(<cnp.ndarray>parameters[0]) != cnp.NPY_DOUBLE
    cdef bint by_row = row_values is not None, found = False, failed
    cdef int i, n = 0
    cdef double value = 0, kl = 0, kept = 0
    if term is None:
        raise ValueError(f"no kernel has a term {name!r}; here are {', '.join(TERMS)}")
    job.parameters = <int>len(parameters)
    job.gradients = 0 if gradients is None else <int>len(gradients)
    if job.parameters != term.parameters or job.gradients not in (0, term.gradients):
        raise ValueError(f"{name} takes {term.parameters} parameters and {term.gradients} gradients"
                         f", got {job.parameters} and {job.gradients}")
    job.loops = &term.loops[single][job.gradients > 0]
    attach_data(ops, arrays, &n, &job.x, &job.entries, x, single)
    job.masked = mask is not None
    attach(ops, arrays, &n, &job.keep, mask, single)
    for i in range(job.parameters):
        attach(ops, arrays, &n, &job.parameter[i], parameters[i], single)
    for i in range(job.gradients):
        attach(ops, arrays, &n, &job.gradient[i], gradients[i], single)
    job.by_element = elements is not None
    attach(ops, arrays, &n, &job.element, elements, single)
    # Rows of a sparse matrix stay apart, even where they are of one element.
    arrange(&job.shape, ops, arrays, n, batch_axes, by_row or job.x.storage == SPARSE)
    job.nan_missing = nan_missing
    job.x_scale = x_scale
    job.weight = weight
    job.factor = factor
    job.constant = constant
    job.by_row = by_row
    job.row_values = <double*>data_of(row_values)
    job.follower = NULL
    if follower is not None:
        job.follower = <const Follower*>PyCapsule_GetPointer(follower, FOLLOWER)
    job.streamed = goes_past_caches(&job)
    job.staged = job.masked or nan_missing or not in_place(&job.x)
    for i in range(job.parameters):
        job.staged = job.staged or not in_place(&job.parameter[i])
    for i in range(job.gradients):
        job.staged = job.staged or job.gradient[i].storage != NATIVE
    job.packed = is_packed(&job, single)
    for i in range(MAX_GRADIENTS):
        job.own[i] = NULL
    job.found_outside = &found
    latents.units = latents.units_a_sample = 0
    cdef cnp.ndarray row_kl = None
    if latent is not None:
        bind_latents(&latents, latent[0], latent[1], latent[2], latent[3], latent[4], latent[5],
                     latent[6], latent[7])
        row_kl = latent[8]
        latents.sums = ROWS if by_row else TOTAL
        latents.partial = <double*>data_of(row_kl)
        plan_latents(&latents)
    try:
        if plan_own(&job, gradients):
            raise MemoryError()
        with nogil:
            failed = compute(&job, &latents, single, threads, &value, &kl, &kept)
        if failed:
            raise MemoryError()
        return value, kl, found, kept
    finally:
        for i in range(MAX_GRADIENTS):
            free(job.own[i])


# Dense arrays, from C and by the short way from Python -------------------------------------------

cdef int32_t dense(const Handle* likelihood, Call* call) noexcept nogil:
    """The pass over dense arrays: what `evaluate` does, with nothing to find out.

    Returns -1 where memory ran out.
    """
    cdef Job job
    cdef Latents latents
    cdef bint single = call.dtype == FLOAT32, found = False, by_row = call.row_log_prob != NULL
    cdef bint joined = not by_row and call.samples <= 1      # else x begins again with every sample
    cdef double kept = 0
    cdef int i
    job.parameters = likelihood.outputs + likelihood.owns
    job.gradients = likelihood.gradients if call.d_outputs[0] != NULL else 0
    job.loops = <const Loops*>likelihood.term[single] + (job.gradients > 0)
    job.nan_missing = likelihood.nan_missing
    job.x_scale = likelihood.x_scale
    job.factor = likelihood.factor
    job.constant = likelihood.constant
    job.weight = call.weight * likelihood.factor
    job.by_row = by_row
    job.row_values = call.row_log_prob
    job.found_outside = &found
    job.follower = <const Follower*>call.follower
    job.masked = job.by_element = False
    for i in range(likelihood.owns):
        joined = joined and likelihood.own[i].spread
    lay_out(&job.shape, call, joined)
    bind_dense(&job.x, call.x, call.x_dtype, call, False, True, True)
    job.staged = job.nan_missing or not in_place(&job.x)
    for i in range(MAX_PARAMETERS):
        if i < likelihood.outputs:
            bind_output(&job.parameter[i], call.outputs[i], call)
        elif i < job.parameters:
            bind_own(&job.parameter[i], &likelihood.own[i - likelihood.outputs], call)
        if i < job.parameters:
            job.staged = job.staged or not in_place(&job.parameter[i])
    for i in range(MAX_GRADIENTS):
        job.own[i] = NULL
        if i < job.gradients:
            bind_output(&job.gradient[i], call.d_outputs[i], call)
            job.staged = job.staged or not in_place(&job.gradient[i])
    job.streamed = goes_past_caches(&job)
    job.packed = is_packed(&job, single)
    job.chunk = CHUNK
    job.slices = job.blocks = job.shape.rows
    cut(&job)
    latents.units = latents.units_a_sample = 0
    if call.mu != NULL:
        bind_dense_latents(&latents, call, ROWS if by_row else TOTAL)
    if compute(&job, &latents, single, call.threads, &call.log_prob, &call.kl, &kept):
        return -1
    call.outside = found
    return 0


def fill(handle, str name):
    """Make a capsule's Handle that of a term."""
    cdef Handle* likelihood = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    cdef Term term = (<dict>TERMS)[name]
    likelihood.run = dense
    likelihood.term[0] = <void*>&term.loops[0][0]
    likelihood.term[1] = <void*>&term.loops[1][0]
    likelihood.outputs = term.parameters - likelihood.owns
    likelihood.gradients = term.gradients
    likelihood.follows = True
