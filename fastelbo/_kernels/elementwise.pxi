# The pass over decoder outputs: log p(x | parameters), summed, with its gradients, and, in the
# same parallel region, the pass over the latents: a whole ELBO.
#
# Included by every family of likelihoods, after it has cimported its terms: `term`, `log_prob`,
# `outside`, `parameters_of`, `gradients_of` and `has_factor`. The family then says in
# `likelihood_share` which code is which term, and includes evaluate.pxi, which plans the work and
# is called from Python.
#
# A unit of work is a chunk of the run in a block of outer positions. It goes tile by tile: stage x
# and the parameters, apply the term lane by lane, write the gradients. Ordinarily a block is a row.
# Where a parameter is broadcast, its gradient is a sum over rows: then blocks are few, chunks
# narrow, and each unit adds to a stretch of that sum which is its own.

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cython.parallel cimport prange
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastelbo._kernels.follower cimport FOLLOWER, Follower
from fastelbo._kernels.latent cimport (
    Latents, ROWS, TOTAL, bind_latents, data_of, latent_share, plan_latents,
)
from fastelbo._kernels.operands cimport (
    LANES, TILE, Operand, Shape, FLUSH, add_lanes, add_up, arrange, bind, fetch_lanes, in_place, lanes_of,
    round_up, run_at, stage, stream, stream_fence,
)
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, ValueOnly, wanted
from fastelbo._kernels.terms.vecmath cimport log_one_plus, real

cnp.import_array()

cdef enum:
    CHUNK = 4096           # elements a unit
    MAX_PARAMETERS = 4
    MAX_GRADIENTS = 3
    OPERANDS = 2 + MAX_PARAMETERS + MAX_GRADIENTS
    FEW_UNITS = 64
    PARTS = 16             # units that are enough where a gradient is summed over rows
    SUMS = 1 << 16         # sums that may be kept once for every block of rows
    STEP = 16              # lanes that may be left out together: a vector at most
    STREAM_FROM = 1 << 23  # bytes of a gradient that is written past the caches

cdef struct Job:
    int code               # which term of the family
    Shape shape
    Operand x
    Operand keep           # 0 where an element is missing; read if `masked`
    Operand parameter[MAX_PARAMETERS]
    Operand gradient[MAX_GRADIENTS]
    int parameters, gradients      # gradients: 0, or those of the first so many parameters
    bint masked
    bint nan_missing       # NaN in x is a missing element
    bint staged            # some operand cannot be read, or gradient not be written, in place
    bint streamed          # gradients are written past the caches
    bint by_row
    double x_scale         # what x is multiplied by
    double weight          # what the gradients are multiplied by
    double factor          # what the sums are multiplied by
    double constant        # what each element adds
    double* row_values     # (rows,), or NULL
    const Follower* follower       # NULL: nobody takes over
    Py_ssize_t chunk       # elements of a run that a unit takes
    Py_ssize_t chunks      # units a run
    Py_ssize_t blocks      # into which the outer positions are divided, in whole slices
    Py_ssize_t slices      # a row each, or a position of the first outer axis
    Py_ssize_t slice       # outer positions a slice
    Py_ssize_t units       # blocks * chunks
    Py_ssize_t group       # units that one worker takes: 1, or all samples of a follower's row
    Py_ssize_t partials    # one a unit, or (rows, chunks)
    double* partial        # sums of log p, then the numbers of elements that were not missing
    double* own[MAX_GRADIENTS]     # of a gradient that is a sum over rows: (copies, size), else NULL
    Py_ssize_t own_size[MAX_GRADIENTS]
    Py_ssize_t own_block[MAX_GRADIENTS]    # copies from a block to the next; 0: blocks are apart
    Py_ssize_t own_chunk[MAX_GRADIENTS]    # copies from a chunk to the next; 0: chunks are apart
    bint* found_outside

cdef struct Ahead:         # from what a unit reads and writes to what the next one will, in bytes
    Py_ssize_t parameter[MAX_GRADIENTS]
    Py_ssize_t gradient[MAX_GRADIENTS]


# Plain functions around the inline ones: one copy each, where inlining would make dozens.
cdef const real* staged(const Operand* op, const char* run, Py_ssize_t first, Py_ssize_t n,
                        Py_ssize_t padded, real* buffer) noexcept nogil:
    return stage(op, run, first, n, padded, buffer)


cdef void latents_share(const Latents* job, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    latent_share(job, share, shares, kind)


cdef double keep_tile(const Job* job, const char* run, const real* x, Py_ssize_t first,
                      Py_ssize_t done, Py_ssize_t n, Py_ssize_t padded, real* keep) noexcept nogil:
    """1 for the elements of a tile that count, 0 for missing ones, padding and those that are done.

    Returns how many count.
    """
    cdef const real* given
    cdef Py_ssize_t i
    cdef double lanes[LANES]
    cdef int l
    for i in range(padded):
        keep[i] = <real>1 if (i >= done) & (i < n) else <real>0
    if not job.masked and not job.nan_missing:
        return n - done
    if job.masked:
        given = staged(&job.keep, run, first, n, padded, keep)
        for i in range(padded):
            keep[i] = given[i] if (i >= done) & (i < n) else <real>0
    if job.nan_missing:
        for i in range(padded):
            keep[i] = keep[i] if x[i] == x[i] else <real>0
    for l in range(LANES):
        lanes[l] = 0
    for i in range(padded // LANES):
        for l in range(LANES):
            lanes[l] += keep[i * LANES + l]
    return add_lanes(lanes)


cdef void add_own(const Job* job, int i, Py_ssize_t block, Py_ssize_t chunk, Py_ssize_t index,
                  Py_ssize_t first, Py_ssize_t n, Py_ssize_t padded,
                  const real* gradient) noexcept nogil:
    """Add a tile's gradient to the sums of a parameter that is broadcast over it."""
    cdef const Operand* op = &job.gradient[i]
    cdef Py_ssize_t copy = block * job.own_block[i] + chunk * job.own_chunk[i], j
    cdef double* sums = (job.own[i] + copy * job.own_size[i]
                         + (run_at(op, &job.shape, index) - op.data) // op.itemsize)
    cdef double lanes[LANES]
    cdef int l
    if op.spread:
        for l in range(LANES):
            lanes[l] = 0
        for j in range(padded // LANES):
            for l in range(LANES):
                lanes[l] += gradient[j * LANES + l]
        sums[0] += add_lanes(lanes)
    else:
        for j in range(n):
            sums[first + j] += gradient[j]


cdef inline void run_tile(const term* tag, const wanted* want, const real* restrict x,
                          const real* restrict a, const real* restrict b, const real* restrict c,
                          const real* restrict d, real* restrict ga, real* restrict gb,
                          real* restrict gc, Py_ssize_t n, const real* restrict keep, bint some,
                          int lane, const Ahead* ahead, real x_scale, real weight,
                          double* restrict total, real* restrict odds,
                          real* restrict bad) noexcept nogil:
    """n elements, a multiple of LANES; `some` (a constant): only those that `keep` marks, and of
    the first LANES only those from number `lane` on. What lies `ahead` (or NULL) is fetched
    meanwhile.

    The logarithm of a term's factor is not taken here: lane by lane the product of the factors is
    kept, less one, so that factors near one keep their digits.
    """
    cdef real acc[LANES]
    cdef real v, e, xs, da, db, dc, here
    cdef real pb, pc, pd
    cdef Py_ssize_t j = 0, flush
    cdef int l, lanes = lanes_of(x)
    while j < n:
        flush = min(j + FLUSH * LANES, n)
        for l in range(lanes):
            acc[l] = 0
        while j < flush:
            if ahead != NULL:
                fetch_lanes(a + j, lanes, ahead.parameter[0])
                if gradients_of(tag) > 1:
                    fetch_lanes(b + j, lanes, ahead.parameter[1])
                if gradients_of(tag) > 2:
                    fetch_lanes(c + j, lanes, ahead.parameter[2])
                if wanted is ValueAndGradient:
                    fetch_lanes(ga + j, lanes, ahead.gradient[0])
                    if gradients_of(tag) > 1:
                        fetch_lanes(gb + j, lanes, ahead.gradient[1])
                    if gradients_of(tag) > 2:
                        fetch_lanes(gc + j, lanes, ahead.gradient[2])
            for l in range(max(0, lane - <int>j) if some else 0, lanes):
                xs = x[j + l] * x_scale
                pb = b[j + l] if parameters_of(tag) > 1 else <real>0
                pc = c[j + l] if parameters_of(tag) > 2 else <real>0
                pd = d[j + l] if parameters_of(tag) > 3 else <real>0
                v = log_prob(tag, xs, a[j + l], pb, pc, pd, &da, &db, &dc, &e)
                here = <real>1 if outside(tag, xs, a[j + l], pb, pc, pd) else <real>0
                if some:
                    v = v if keep[j + l] != <real>0 else <real>0
                    if has_factor(tag):
                        e = e if keep[j + l] != <real>0 else <real>0
                    here = here if keep[j + l] != <real>0 else <real>0
                acc[l] = acc[l] + v
                if has_factor(tag):
                    odds[l] = odds[l] + e * (odds[l] + <real>1.0)
                bad[l] = <real>1 if here != <real>0 else bad[l]
                if wanted is ValueAndGradient:
                    if some:
                        da = da if keep[j + l] != <real>0 else <real>0
                    ga[j + l] = da * weight
                    if gradients_of(tag) > 1:
                        if some:
                            db = db if keep[j + l] != <real>0 else <real>0
                        gb[j + l] = db * weight
                    if gradients_of(tag) > 2:
                        if some:
                            dc = dc if keep[j + l] != <real>0 else <real>0
                        gc[j + l] = dc * weight
            j += lanes
        for l in range(lanes):
            total[l] += acc[l]


cdef inline Py_ssize_t most_factors(const real* kind) noexcept nogil:
    """How many factors between 1 and 2 have a product that the dtype holds."""
    return 120 if real is float else 1000


cdef inline void take_logs(double* restrict total, real* restrict odds,
                           Py_ssize_t factors) noexcept nogil:
    """Take the logarithms of the products of so many factors, which begin again.

    Few factors a lane are multiplied further, lanes by lanes, as long as the product holds.
    """
    cdef int l, lanes = lanes_of(odds)
    while lanes > 8 and 2 * factors <= most_factors(odds):
        lanes //= 2
        factors *= 2
        for l in range(lanes):
            odds[l] = odds[l] + odds[lanes + l] * (odds[l] + <real>1.0)
    for l in range(lanes):
        total[l] -= log_one_plus(odds[l])
    for l in range(LANES):
        odds[l] = 0


cdef double run_unit(const term* tag, const wanted* want, const Job* job, Py_ssize_t index,
                     Py_ssize_t block, Py_ssize_t chunk, const Ahead* ahead, double* count,
                     real* bad) noexcept nogil:
    """A chunk of run number `index`: its sum, and in `count` how many elements were not missing."""
    cdef real x_s[TILE]
    cdef real keep[TILE]
    cdef real p_s[MAX_PARAMETERS][TILE]
    cdef real g_s[MAX_GRADIENTS * TILE]
    cdef const char* xr = run_at(&job.x, &job.shape, index)
    cdef const char* kr = NULL
    cdef const char* pr[MAX_PARAMETERS]
    cdef real* gr[MAX_GRADIENTS]
    cdef const real* x
    cdef const real* p[MAX_PARAMETERS]
    cdef real* g[MAX_GRADIENTS]
    cdef double total[LANES]
    cdef real weight = <real>job.weight, x_scale = <real>job.x_scale
    cdef Py_ssize_t first = chunk * job.chunk, stop = min(first + job.chunk, job.shape.run)
    cdef real odds[LANES]
    cdef Py_ssize_t n, done, begin, padded, factors = 0
    cdef Py_ssize_t tile = TILE if job.staged or job.streamed else CHUNK
    cdef bint missing = job.masked or job.nan_missing
    cdef int i, l
    for i in range(MAX_PARAMETERS):
        p[i] = NULL
    for i in range(MAX_GRADIENTS):
        g[i] = NULL
    for i in range(parameters_of(tag)):
        pr[i] = run_at(&job.parameter[i], &job.shape, index)
    if job.masked:
        kr = run_at(&job.keep, &job.shape, index)
    if wanted is ValueAndGradient:
        for i in range(gradients_of(tag)):
            gr[i] = <real*>run_at(&job.gradient[i], &job.shape, index)
    for l in range(LANES):
        total[l] = 0
        odds[l] = 0
    count[0] = 0
    while first < stop:
        n = min(tile, stop - first)
        if n > LANES:
            n = n // LANES * LANES                     # what is left over makes a tile of its own
        done = LANES - n if n < LANES <= first + n else 0     # a short tile begins with what is done
        begin = first - done
        n += done
        padded = round_up(n)
        if job.staged or n < padded:
            x = staged(&job.x, xr, begin, n, padded, x_s)
            for i in range(parameters_of(tag)):
                p[i] = staged(&job.parameter[i], pr[i], begin, n, padded, p_s[i])
        else:
            x = <const real*>xr + begin
            for i in range(parameters_of(tag)):
                p[i] = <const real*>pr[i] + begin
        if wanted is ValueAndGradient:
            for i in range(gradients_of(tag)):
                if n == padded and done == 0 and not job.streamed and job.own[i] == NULL:
                    g[i] = gr[i] + begin
                else:
                    g[i] = g_s + i * TILE
                    memset(g[i], 0, done * sizeof(real))
        if n == padded and done == 0 and not missing:
            count[0] += n
            run_tile(tag, want, x, p[0], p[1], p[2], p[3], g[0], g[1], g[2], n, NULL, False,
                     0, ahead, x_scale, weight, total, odds, bad)
        else:
            count[0] += keep_tile(job, kr, x, begin, done, n, padded, keep)
            run_tile(tag, want, x, p[0], p[1], p[2], p[3], g[0], g[1], g[2], padded, keep, True,
                     <int>(done // STEP * STEP), NULL, x_scale, weight, total, odds, bad)
        n -= done
        if wanted is ValueAndGradient:
            for i in range(gradients_of(tag)):
                if job.own[i] != NULL:
                    add_own(job, i, block, chunk, index, begin, n + done, padded, <const real*>g[i])
                elif job.streamed:
                    stream(<char*>(gr[i] + first), <char*>(g[i] + done), n * sizeof(real))
                elif g[i] != gr[i] + begin:
                    memcpy(gr[i] + first, g[i] + done, n * sizeof(real))
        if has_factor(tag):
            factors += padded // lanes_of(odds)
            if factors > most_factors(odds) - CHUNK // lanes_of(odds):
                take_logs(total, odds, factors)
                factors = 0
        first += n
    if has_factor(tag) and factors > 0:
        take_logs(total, odds, factors)
    return add_lanes(total)


cdef Py_ssize_t unit_of(const Job* job, Py_ssize_t turn) noexcept nogil:
    """The unit whose turn it is, where all samples of a row go before the next row."""
    cdef Py_ssize_t row = turn // job.group, of_row = turn % job.group
    cdef Py_ssize_t sample = of_row // job.chunks, chunk = of_row % job.chunks
    return (sample * job.follower.rows + row) * job.chunks + chunk


cdef Py_ssize_t distance(const Job* job, const Operand* op, Py_ssize_t unit,
                         Py_ssize_t other) noexcept nogil:
    """From where a unit finds an operand to where another does, in bytes; rows are single runs."""
    cdef Py_ssize_t row = unit // job.chunks, other_row = other // job.chunks
    cdef Py_ssize_t chunks = (other - other_row * job.chunks) - (unit - row * job.chunks)
    return (run_at(op, &job.shape, other_row) - run_at(op, &job.shape, row)
            + chunks * job.chunk * op.itemsize)


cdef void look_ahead(const Job* job, Py_ssize_t unit, Py_ssize_t other, Ahead* ahead) noexcept nogil:
    """Rows of one sample after the other are short runs, far apart: no processor foresees them."""
    cdef int i
    for i in range(MAX_GRADIENTS):
        if i < job.parameters:
            ahead.parameter[i] = distance(job, &job.parameter[i], unit, other)
        if i < job.gradients:
            ahead.gradient[i] = distance(job, &job.gradient[i], unit, other)


cdef void write_row_value(const Job* job, Py_ssize_t row) noexcept nogil:
    cdef const double* sums = job.partial + row * job.chunks
    job.row_values[row] = job.factor * add_up(sums, job.chunks)
    job.row_values[row] += job.constant * add_up(sums + job.partials, job.chunks)


cdef void hand_over(const Job* job, Py_ssize_t row) noexcept nogil:
    """All samples of a row are through: the follower takes over."""
    cdef Py_ssize_t sample
    for sample in range(job.group // job.chunks):
        write_row_value(job, sample * job.follower.rows + row)
    job.follower.take(job.follower.job, row)


cdef inline void run_share(const term* tag, const wanted* want, const Job* job, Py_ssize_t share,
                           Py_ssize_t shares, const real* kind) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef real bad[LANES]
    cdef Py_ssize_t groups = job.units // job.group, turn, unit, block, chunk, index, at
    cdef Ahead ahead
    cdef bint fetches = job.follower != NULL and not job.staged and job.shape.segments == 1
    cdef double count
    cdef int l
    for l in range(LANES):
        bad[l] = 0
    for turn in range(groups * share // shares * job.group,
                      groups * (share + 1) // shares * job.group):
        unit = turn if job.follower == NULL else unit_of(job, turn)
        block = unit // job.chunks
        chunk = unit - block * job.chunks
        if fetches:
            look_ahead(job, unit, unit_of(job, min(turn + 1, job.units - 1)), &ahead)
        for index in range(job.slices * block // job.blocks * job.slice,
                           job.slices * (block + 1) // job.blocks * job.slice):
            at = index // job.shape.segments * job.chunks + chunk if job.by_row else unit
            job.partial[at] += run_unit(tag, want, job, index, block, chunk,
                                        &ahead if fetches else NULL, &count, bad)
            job.partial[job.partials + at] += count
        if job.follower != NULL and (turn + 1) % job.group == 0:
            hand_over(job, turn // job.group)
    for l in range(LANES):
        if bad[l] != 0:
            job.found_outside[0] = True
    if job.streamed:
        stream_fence()


cdef inline void run_term(const term* tag, const Job* job, Py_ssize_t share, Py_ssize_t shares,
                          const real* kind) noexcept nogil:
    if job.gradients > 0:
        run_share(tag, <const ValueAndGradient*>NULL, job, share, shares, kind)
    else:
        run_share(tag, <const ValueOnly*>NULL, job, share, shares, kind)
