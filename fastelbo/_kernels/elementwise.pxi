# The pass over decoder outputs: log p(x | parameters), summed, with its gradients, and, in the
# same parallel region, the pass over the latents: a whole ELBO.
#
# Included by every family of likelihoods, after it has cimported its `terms`; the family then lists
# them in TERMS, a table from names to the pass of each. At the end comes evaluate.pxi, which plans
# the work and is called from Python.
#
# A unit of work is a chunk of the run in a block of outer positions. It goes tile by tile: stage x
# and the parameters, apply the term lane by lane, write the gradients. Ordinarily a block is a row.
# Where a parameter is broadcast, its gradient is a sum over rows: then blocks are few, chunks
# narrow, and each unit adds to a stretch of that sum which is its own.

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastelbo._kernels.follower cimport FOLLOWER, Follower
from fastelbo._kernels.latent cimport (
    Latents, ROWS, TOTAL, bind_latents, latent_share, plan_latents,
)
from fastelbo._kernels.operands cimport (
    LANES, TILE, VECTOR, Operand, Shape, FLUSH, add_lanes, add_up, arrange, bind, data_of, fetch_lanes,
    in_place, lanes_of, round_up, run_at, stage, stream, stream_fence,
)
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, ValueOnly, wanted
from fastelbo._kernels.terms.vecmath cimport log_one_plus, real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef enum:
    CHUNK = 64 * LANES     # elements a unit; in a lane no more than there may be factors
    STRETCH = FLUSH * LANES        # elements that float32 sums take up; no fewer than TILE
    MAX_PARAMETERS = 4
    MAX_GRADIENTS = 3
    OPERANDS = 2 + MAX_PARAMETERS + MAX_GRADIENTS
    FEW_UNITS = 64
    PARTS = 16             # units that are enough where a gradient is summed over rows
    SUMS = 1 << 16         # sums that may be kept once for every block of rows
    STEP = VECTOR          # lanes that may be left out together
    STREAM_FROM = 1 << 23  # bytes of a gradient that is written past the caches

# The pass of one term in one dtype; both pointers are tags, and NULL.
ctypedef void (*Share)(const void* tag, const void* kind, const Job* job, Py_ssize_t share,
                       Py_ssize_t shares) noexcept nogil

cdef struct Job:
    Share run              # the pass of the term, in the dtype of its operands
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

cdef struct Both:          # passes of an ELBO
    const Job* job
    const Latents* latents

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


cdef inline void run_tile(const terms.term* tag, const wanted* want, bint summed, bint some,
                          const real* restrict x, const real* restrict a, const real* restrict b,
                          const real* restrict c, const real* restrict d, real* restrict ga,
                          real* restrict gb, real* restrict gc, Py_ssize_t n, Py_ssize_t lane,
                          const real* restrict keep, const Ahead* ahead, real x_scale, real weight,
                          double* restrict total, real* restrict odds, real* restrict values,
                          real* restrict factors, real* restrict bad) noexcept nogil:
    """n elements, a multiple of LANES, but for those before number `lane`, a multiple of STEP.

    `summed` (a constant): they are added up at once; with `some` (a constant) those that `keep`
    marks. Else `values`, and `factors` of a term that has some, are left for `add_values`, and what
    is missing for `drop_missing`: then one loop serves all. What lies `ahead` (or NULL) is fetched
    meanwhile.

    The logarithm of a term's factor is not taken here: lane by lane the product of the factors is
    kept, less one, so that factors near one keep their digits.
    """
    cdef real acc[LANES]
    cdef real v, e, xs, da, db, dc, here
    cdef real pb, pc, pd
    cdef Py_ssize_t j = 0, flush, at, l, i
    cdef int k, lanes = lanes_of(x), step = lanes if summed and not some else STEP
    while j < n:
        flush = min(j + FLUSH * LANES, n)
        for l in range(lanes if summed else 0):
            acc[l] = 0
        while j < flush:
            if ahead != NULL:
                fetch_lanes(a + j, lanes, ahead.parameter[0])
                if terms.gradients_of(tag) > 1:
                    fetch_lanes(b + j, lanes, ahead.parameter[1])
                if terms.gradients_of(tag) > 2:
                    fetch_lanes(c + j, lanes, ahead.parameter[2])
                if wanted is ValueAndGradient:
                    fetch_lanes(ga + j, lanes, ahead.gradient[0])
                    if terms.gradients_of(tag) > 1:
                        fetch_lanes(gb + j, lanes, ahead.gradient[1])
                    if terms.gradients_of(tag) > 2:
                        fetch_lanes(gc + j, lanes, ahead.gradient[2])
            at = max(<Py_ssize_t>0, lane - j) if some or not summed else 0
            while at < lanes:
                for k in range(step):            # a constant: no loop for a rest
                    l = at + k
                    i = j + l
                    xs = x[i] * x_scale
                    pb = b[i] if terms.parameters_of(tag) > 1 else <real>0
                    pc = c[i] if terms.parameters_of(tag) > 2 else <real>0
                    pd = d[i] if terms.parameters_of(tag) > 3 else <real>0
                    v = terms.log_prob(tag, xs, a[i], pb, pc, pd, &da, &db, &dc, &e)
                    here = <real>1 if terms.outside(tag, xs, a[i], pb, pc, pd) else <real>0
                    if some:
                        v = v if keep[i] != <real>0 else <real>0
                        if terms.has_factor(tag):
                            e = e if keep[i] != <real>0 else <real>0
                        here = here if keep[i] != <real>0 else <real>0
                    if summed:
                        acc[l] = acc[l] + v
                        if terms.has_factor(tag):
                            odds[l] = odds[l] + e * (odds[l] + <real>1.0)
                    else:
                        values[i] = v
                        if terms.has_factor(tag):
                            factors[i] = e
                    bad[l] = <real>1 if here != <real>0 else bad[l]
                    if wanted is ValueAndGradient:
                        if some:
                            da = da if keep[i] != <real>0 else <real>0
                        ga[i] = da * weight
                        if terms.gradients_of(tag) > 1:
                            if some:
                                db = db if keep[i] != <real>0 else <real>0
                            gb[i] = db * weight
                        if terms.gradients_of(tag) > 2:
                            if some:
                                dc = dc if keep[i] != <real>0 else <real>0
                            gc[i] = dc * weight
                at += step
            j += lanes
        for l in range(lanes if summed else 0):
            total[l] += acc[l]


cdef void add_values(const real* restrict values, const real* restrict factors, Py_ssize_t n,
                     double* restrict total, real* restrict odds) noexcept nogil:
    """Sum at most STRETCH values, a multiple of LANES; `factors` may be NULL."""
    cdef real acc[LANES]
    cdef Py_ssize_t j = 0
    cdef int l, lanes = lanes_of(values)
    for l in range(lanes):
        acc[l] = 0
    while j < n:
        for l in range(lanes):
            acc[l] = acc[l] + values[j + l]
        j += lanes
    for l in range(lanes):
        total[l] += acc[l]
    j = 0
    while j < n and factors != NULL:
        for l in range(lanes):
            odds[l] = odds[l] + factors[j + l] * (odds[l] + <real>1.0)
        j += lanes


cdef void clear_ends(real* values, Py_ssize_t done, Py_ssize_t n, Py_ssize_t padded) noexcept nogil:
    """What a tile begins with because it is short, and its padding, count for nothing."""
    memset(values, 0, done * sizeof(real))
    memset(values + n, 0, (padded - n) * sizeof(real))


cdef void drop_missing(const real* restrict keep, Py_ssize_t n, real* restrict values) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        values[i] = values[i] if keep[i] != <real>0 else <real>0


cdef bint any_marked(real* marks) noexcept nogil:
    """Whether one of LANES marks is set; they are cleared."""
    cdef bint found = False
    cdef int l
    for l in range(LANES):
        found |= marks[l] != 0
        marks[l] = 0
    return found


cdef bint any_outside(const terms.term* tag, const real* x, const real** p, const real* keep,
                      Py_ssize_t n, real x_scale) noexcept nogil:
    """Whether something that is not missing is outside the domain."""
    cdef Py_ssize_t i
    for i in range(n):
        if keep[i] != <real>0 and terms.outside(
            tag, x[i] * x_scale, p[0][i],
            p[1][i] if terms.parameters_of(tag) > 1 else <real>0,
            p[2][i] if terms.parameters_of(tag) > 2 else <real>0,
            p[3][i] if terms.parameters_of(tag) > 3 else <real>0,
        ):
            return True
    return False


cdef inline Py_ssize_t most_factors(const real* kind) noexcept nogil:
    """How many factors between 1 and 2 have a product that the dtype holds."""
    return 120 if real is float else 1000


cdef inline void take_logs(double* restrict total, real* restrict odds,
                           Py_ssize_t factors) noexcept nogil:
    """Take the logarithms of the products of so many factors, which begin again.

    Few factors a lane are multiplied further, lanes by lanes, as long as the product holds.
    """
    cdef int l, lanes = lanes_of(odds)
    while lanes > VECTOR // 2 and 2 * factors <= most_factors(odds):
        lanes //= 2
        factors *= 2
        for l in range(lanes):
            odds[l] = odds[l] + odds[lanes + l] * (odds[l] + <real>1.0)
    for l in range(lanes):
        total[l] -= log_one_plus(odds[l])
    for l in range(LANES):
        odds[l] = 0


cdef double run_unit(const terms.term* tag, const wanted* want, const Job* job, Py_ssize_t index,
                     Py_ssize_t block, Py_ssize_t chunk, const Ahead* ahead, double* count,
                     real* bad) noexcept nogil:
    """A chunk of run number `index`: its sum, and in `count` how many elements were not missing."""
    cdef real x_s[TILE]
    cdef real keep[STRETCH]
    cdef real values[STRETCH]
    cdef real factors[STRETCH]
    cdef real beyond[LANES]
    cdef real* marks = bad
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
    cdef Py_ssize_t n, done, begin, padded, multiplied = 0
    cdef Py_ssize_t tile = CHUNK if terms.is_cheap(tag) else STRETCH
    cdef bint missing = job.masked or job.nan_missing, whole
    cdef int i, l
    for i in range(MAX_PARAMETERS):
        p[i] = NULL
    for i in range(MAX_GRADIENTS):
        g[i] = NULL
    for i in range(terms.parameters_of(tag)):
        pr[i] = run_at(&job.parameter[i], &job.shape, index)
    if job.masked:
        kr = run_at(&job.keep, &job.shape, index)
    if wanted is ValueAndGradient:
        for i in range(terms.gradients_of(tag)):
            gr[i] = <real*>run_at(&job.gradient[i], &job.shape, index)
    for l in range(LANES):
        total[l] = 0
        odds[l] = 0
    if job.staged or job.streamed:
        tile = TILE
    if missing:                              # what is outside may be missing
        marks = beyond
        for l in range(LANES):
            beyond[l] = 0
    count[0] = 0
    while first < stop:
        n = min(tile, stop - first)
        if n > LANES:
            n = n // LANES * LANES                     # what is left over makes a tile of its own
        done = LANES - n if n < LANES <= first + n else 0     # a short tile begins with what is done
        begin = first - done
        n += done
        padded = round_up(n)
        whole = n == padded and done == 0
        if job.staged or n < padded:
            x = staged(&job.x, xr, begin, n, padded, x_s)
            for i in range(terms.parameters_of(tag)):
                p[i] = staged(&job.parameter[i], pr[i], begin, n, padded, p_s[i])
        else:
            x = <const real*>xr + begin
            for i in range(terms.parameters_of(tag)):
                p[i] = <const real*>pr[i] + begin
        if wanted is ValueAndGradient:
            for i in range(terms.gradients_of(tag)):
                if whole and not job.streamed and job.own[i] == NULL:
                    g[i] = gr[i] + begin
                else:
                    g[i] = g_s + i * TILE
                    memset(g[i], 0, done * sizeof(real))
        if terms.is_cheap(tag) and whole and not missing:
            count[0] += n
            run_tile(tag, want, True, False, x, p[0], p[1], p[2], p[3], g[0], g[1], g[2], n, 0, NULL,
                     ahead, x_scale, weight, total, odds, NULL, NULL, bad)
        elif terms.is_cheap(tag):
            count[0] += keep_tile(job, kr, x, begin, done, n, padded, keep)
            run_tile(tag, want, True, True, x, p[0], p[1], p[2], p[3], g[0], g[1], g[2], padded,
                     done // STEP * STEP, keep, NULL, x_scale, weight, total, odds, NULL, NULL, bad)
        else:
            run_tile(tag, want, False, False, x, p[0], p[1], p[2], p[3], g[0], g[1], g[2], padded,
                     done // STEP * STEP, NULL, NULL, x_scale, weight, total, odds, values, factors,
                     marks)
            if missing:
                count[0] += keep_tile(job, kr, x, begin, done, n, padded, keep)
                drop_missing(keep, padded, values)
                if terms.has_factor(tag):
                    drop_missing(keep, padded, factors)
                for i in range(terms.gradients_of(tag) if wanted is ValueAndGradient else 0):
                    drop_missing(keep, padded, g[i])
                if any_marked(marks) and any_outside(tag, x, p, keep, n, x_scale):
                    bad[0] = 1
            else:
                count[0] += n - done
                if not whole:
                    clear_ends(values, done, n, padded)
                    if terms.has_factor(tag):
                        clear_ends(factors, done, n, padded)
                    for i in range(terms.gradients_of(tag) if wanted is ValueAndGradient else 0):
                        clear_ends(g[i], done, n, padded)
            add_values(values, &factors[0] if terms.has_factor(tag) else NULL, padded, total, odds)
        n -= done
        if wanted is ValueAndGradient:
            for i in range(terms.gradients_of(tag)):
                if job.own[i] != NULL:
                    add_own(job, i, block, chunk, index, begin, n + done, padded, <const real*>g[i])
                elif job.streamed:
                    stream(<char*>(gr[i] + first), <char*>(g[i] + done), n * sizeof(real))
                elif g[i] != gr[i] + begin:
                    memcpy(gr[i] + first, g[i] + done, n * sizeof(real))
        if terms.has_factor(tag):
            multiplied += padded // lanes_of(odds)
            if multiplied > most_factors(odds) - CHUNK // lanes_of(odds):
                take_logs(total, odds, multiplied)
                multiplied = 0
        first += n
    if terms.has_factor(tag) and multiplied > 0:
        take_logs(total, odds, multiplied)
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


cdef inline void run_share(const terms.term* tag, const wanted* want, const Job* job, Py_ssize_t share,
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


cdef void run_term(const terms.term* tag, const real* kind, const Job* job, Py_ssize_t share,
                   Py_ssize_t shares) noexcept nogil:
    if job.gradients > 0:
        run_share(tag, <const ValueAndGradient*>NULL, job, share, shares, kind)
    else:
        run_share(tag, <const ValueOnly*>NULL, job, share, shares, kind)


cdef inline void likelihood_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                                  const real* kind) noexcept nogil:
    """The share of a worker, of the term that the job names."""
    job.run(NULL, kind, job, share, shares)


cdef class Term:
    """A row of TERMS: the pass of a term, and how many parameters and gradients it takes."""

    cdef Share of_float, of_double
    cdef readonly int parameters, gradients


cdef Term entry(const terms.term* tag):
    cdef Term made = Term.__new__(Term)
    made.of_float = <Share>run_term[terms.term, float]
    made.of_double = <Share>run_term[terms.term, double]
    made.parameters = terms.parameters_of(tag)
    made.gradients = terms.gradients_of(tag)
    return made


include "evaluate.pxi"
