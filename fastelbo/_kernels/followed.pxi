# Rows that a follower takes over (see follower.pxd): a worker takes all samples of a row before the
# next row. Included by elementwise.pxi.
#
# Rows of one sample after the other are short runs, far apart: no processor foresees them, so they
# are fetched. Gradients larger than the caches wait for their weights in memory that stays in a
# cache, and are then written past it, while the outputs of the next row are fetched.

cdef enum:
    WAITING = 1 << 20      # bytes of gradients that wait in a worker's cache


cdef Py_ssize_t distance(const Job* job, const Operand* op, Py_ssize_t row, Py_ssize_t chunk,
                         Py_ssize_t next_row, Py_ssize_t next_chunk) noexcept nogil:
    """From where a unit finds an operand to where another does, in bytes; rows are single runs."""
    return (run_at(op, &job.shape, next_row) - run_at(op, &job.shape, row)
            + (next_chunk - chunk) * job.chunk * op.itemsize)


cdef void look_ahead(const Job* job, Py_ssize_t row, Py_ssize_t chunk, Py_ssize_t next_row,
                     Py_ssize_t next_chunk, bint waits, Ahead* ahead) noexcept nogil:
    cdef int i
    for i in range(MAX_GRADIENTS):
        if i < job.parameters:
            ahead.parameter[i] = distance(job, &job.parameter[i], row, chunk, next_row, next_chunk)
        if i < job.gradients:
            ahead.gradient[i] = 0
            if not waits:
                ahead.gradient[i] = distance(job, &job.gradient[i], row, chunk, next_row, next_chunk)


cdef void write_weighed(const real* restrict source, char* to, Py_ssize_t n, real weight,
                        const char* ahead) noexcept nogil:
    """n elements times a weight, past the caches; as many from `ahead` (unless NULL) are fetched."""
    cdef real some[TILE]
    cdef Py_ssize_t first = 0, here, i
    while first < n:
        here = min(<Py_ssize_t>TILE, n - first)
        for i in range(here):
            some[i] = source[first + i] * weight
        for i in range(ceil_div(here * sizeof(real), LINE) if ahead != NULL else 0):
            fetch_line_for_later(ahead + first * sizeof(real) + i * LINE)
        stream(to + first * sizeof(real), <char*>some, here * sizeof(real))
        first += here


cdef inline Py_ssize_t samples_of(const Job* job) noexcept nogil:
    return job.shape.rows // job.follower.rows


cdef inline Py_ssize_t event_of(const Job* job) noexcept nogil:
    return job.shape.run * job.shape.segments


cdef void write_out(const Job* job, Py_ssize_t row, Py_ssize_t next_row, const real* waiting,
                    const double* weights, bint fetches) noexcept nogil:
    cdef Py_ssize_t sample, at
    cdef const char* ahead = NULL
    cdef int i
    for i in range(job.gradients):
        for sample in range(samples_of(job)):
            at = sample * job.follower.rows
            if fetches:
                ahead = run_at(&job.parameter[i], &job.shape, at + next_row)
            write_weighed(waiting, run_at(&job.gradient[i], &job.shape, (at + row) * job.shape.segments),
                          event_of(job), <real>weights[sample], ahead)
            waiting += event_of(job)


cdef void take_row(Job* job, const Job* given, Py_ssize_t row, Py_ssize_t next_row, real* waiting,
                   real* bad) noexcept nogil:
    """All samples of a row, after which the follower takes over.

    Gradients are written where they are `given`, or, unless it is NULL, are left in `waiting`
    (gradients, samples, event), to which those of `job`, a copy of what is given, are bent.
    """
    cdef const Follower* follower = job.follower
    cdef Py_ssize_t samples = samples_of(job), sample, chunk, at, to_row
    cdef bint fetches = not job.staged and job.shape.segments == 1
    cdef Ahead ahead
    cdef const double* weights
    cdef unsigned mode
    cdef int i
    for sample in range(samples):
        at = sample * follower.rows + row
        for i in range(job.gradients if waiting != NULL else 0):
            job.gradient[i].data = given.gradient[i].data + (
                <char*>(waiting + (i * samples + sample) * event_of(job))
                - run_at(&given.gradient[i], &job.shape, at * job.shape.segments))
        to_row = at + follower.rows if sample + 1 < samples else next_row
        for chunk in range(job.chunks):
            if fetches and chunk + 1 < job.chunks:
                look_ahead(given, at, chunk, at, chunk + 1, waiting != NULL, &ahead)
            elif fetches and (sample == 0 or sample + 1 == samples or job.chunks > 1):  # else as before
                look_ahead(given, at, chunk, to_row, 0, waiting != NULL, &ahead)
            take_unit(job, at, chunk, &ahead if fetches else NULL, bad)
        write_row_value(job, at)
    weights = follower.settle(follower.job, row)
    mode = flush_denormals()
    if waiting != NULL:
        write_out(given, row, next_row, waiting, weights, fetches)
    elif job.gradients > 0:
        follower.rescale(follower.job, row)
    restore_denormals(mode)


cdef void followed_share(const Job* given, Py_ssize_t share, Py_ssize_t shares, real* bad) noexcept nogil:
    """The rows of one of `shares` workers."""
    cdef Job job = given[0]
    cdef Py_ssize_t rows = job.follower.rows, row, last = rows * (share + 1) // shares
    cdef real* waiting = NULL
    if job.streamed:
        waiting = <real*>malloc(job.gradients * samples_of(&job) * event_of(&job) * sizeof(real))
    job.streamed = False
    job.plain = is_plain(&job)
    for row in range(rows * share // shares, last):
        take_row(&job, given, row, min(row + 1, last - 1), waiting, bad)
    free(waiting)
