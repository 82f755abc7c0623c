# The entry to the pass of elementwise.pxi: how the work is divided, and one parallel region over
# decoder outputs and latents.

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


cdef inline double* zeros(Py_ssize_t n, double* few) noexcept:
    """Memory for n partial sums, all zero: `few` if they fit, else allocated."""
    if n > FEW_UNITS:
        return <double*>calloc(n, sizeof(double))
    memset(few, 0, n * sizeof(double))
    return few


cdef inline bint plan_own(Job* job, tuple gradients) noexcept:
    """Which gradients are sums over rows, and into which blocks and chunks the work is divided.

    Returns whether memory ran out.
    """
    cdef cnp.ndarray view
    cdef Py_ssize_t positions = job.shape.rows * job.shape.segments, largest = 0, copies, chunks
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
    job.chunks = max(<Py_ssize_t>1, (job.shape.run + job.chunk - 1) // job.chunk)
    job.slice = positions // max(<Py_ssize_t>1, job.slices)
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


cdef inline void finish_own(const Job* job, int i, const real* kind) noexcept:
    """Add up the copies of a gradient that is a sum over rows."""
    cdef Py_ssize_t copies = 1, c, e, size = job.own_size[i]
    cdef real* to = <real*>job.gradient[i].data
    cdef double s
    copies = max(copies, job.own_chunk[i] * job.chunks)
    copies = max(copies, job.own_block[i] * job.blocks)
    if size == 1:
        to[0] = <real>add_up(job.own[i], copies)
        return
    for e in range(size):
        s = 0
        for c in range(copies):
            s += job.own[i][c * size + e]
        to[e] = <real>s


def evaluate(str name, cnp.ndarray x, cnp.ndarray mask, bint nan_missing, tuple parameters,
             tuple gradients, double x_scale, double weight, double factor, double constant,
             int batch_axes, cnp.ndarray row_values, tuple latent, follower, int threads):
    """factor * (sum of a term) + constant * (number of elements), the KL of the latents, their z.

    `name` is the term's in TERMS. Arrays come checked: x, mask (bytes, 0 where x is missing; or
    None) and parameters broadcast to one shape, batch first, parameters in the dtype of the pass;
    gradients (None: none wanted) are C-contiguous arrays, broadcast to that shape where they are to
    be summed. `latent` is None or (mu, logvar, noise, key, z, dmu, dlogvar, weight of the KL's
    gradient, row_kl). With row_values (and row_kl) a value per row is written there, else the
    totals are summed. `follower` is None or the capsule of a Follower, to take over row_values
    (K, B) row by row.

    Returns (log_prob, kl, whether something was outside the domain, elements that were not missing).
    """
    cdef Term term = (<dict>TERMS).get(name)
    cdef Job job
    cdef Latents latents
    cdef Both both
    cdef Operand* ops[OPERANDS]
    cdef PyObject* arrays[OPERANDS]
    cdef double few[FEW_UNITS]
    cdef double few_latent[FEW_UNITS]
    cdef bint single = cnp.PyArray_TYPE(<cnp.ndarray>parameters[0]) == cnp.NPY_FLOAT
    cdef bint by_row = row_values is not None, found = False, failed
    cdef int i, n = 0
    cdef Py_ssize_t k
    cdef double value = 0, kl = 0, kept = 0
    if term is None:
        raise ValueError(f"no kernel has a term {name!r}; here are {', '.join(TERMS)}")
    job.parameters = <int>len(parameters)
    job.gradients = 0 if gradients is None else <int>len(gradients)
    if job.parameters != term.parameters or job.gradients not in (0, term.gradients):
        raise ValueError(f"{name} takes {term.parameters} parameters and {term.gradients} gradients"
                         f", got {job.parameters} and {job.gradients}")
    job.run = term.of_float if single else term.of_double
    ops[n] = &job.x
    arrays[n] = <PyObject*>x
    bind(ops[n], x, single)
    n += 1
    job.masked = mask is not None
    if job.masked:
        ops[n] = &job.keep
        arrays[n] = <PyObject*>mask
        bind(ops[n], mask, single)
        n += 1
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
    job.streamed = (job.gradients > 0 and job.follower == NULL
                    and cnp.PyArray_NBYTES(<cnp.ndarray>gradients[0]) >= STREAM_FROM)
    job.staged = job.masked or nan_missing or not in_place(&job.x)
    for i in range(job.parameters):
        job.staged = job.staged or not in_place(&job.parameter[i])
    for i in range(MAX_GRADIENTS):
        job.own[i] = NULL
    both.job = &job
    both.latents = &latents
    job.found_outside = &found
    latents.units = 0
    latents.units_a_sample = 0
    latents.partial = few_latent
    cdef cnp.ndarray row_kl = None
    if latent is not None:
        bind_latents(&latents, latent[0], latent[1], latent[2], latent[3], latent[4], latent[5],
                     latent[6], latent[7])
        row_kl = latent[8]
        latents.sums = ROWS if by_row else TOTAL
        plan_latents(&latents)
    failed = plan_own(&job, gradients)
    job.units = job.blocks * job.chunks
    job.group = 1 if job.follower == NULL else max(<Py_ssize_t>1, job.units // job.follower.rows)
    job.partials = job.shape.rows * job.chunks if by_row else job.units
    job.partial = zeros(2 * job.partials, few)
    if not by_row:
        latents.partial = zeros(latents.units_a_sample, few_latent)
    elif latent is not None:
        latents.partial = <double*>data_of(row_kl)
    try:
        if failed or job.partial == NULL or latents.partial == NULL:
            raise MemoryError()
        with nogil:
            if single:
                in_parallel[float](region_share, &both, threads)
            else:
                in_parallel[double](region_share, &both, threads)
        for i in range(job.gradients):
            if job.own[i] == NULL:
                continue
            if single:
                finish_own(&job, i, <const float*>NULL)
            else:
                finish_own(&job, i, <const double*>NULL)
        kept = add_up(job.partial + job.partials, job.partials)
        if by_row:
            for k in range(job.shape.rows if job.follower == NULL else 0):
                write_row_value(&job, k)
        else:
            value = factor * add_up(job.partial, job.partials) + constant * kept
            if latent is not None:
                kl = add_up(latents.partial, latents.units_a_sample)
        return value, kl, found, kept
    finally:
        if job.partial != few:
            free(job.partial)
        if not by_row and latents.partial != few_latent:
            free(latents.partial)
        for i in range(MAX_GRADIENTS):
            free(job.own[i])
