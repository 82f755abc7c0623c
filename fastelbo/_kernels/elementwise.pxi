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
from libc.stdint cimport uint16_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastelbo._kernels.denormals cimport flush_denormals, restore_denormals
from fastelbo._kernels.follower cimport FOLLOWER, Follower
from fastelbo._kernels.latent cimport (
    LATENT_SHARES, LatentShares, Latents, ROWS, TOTAL, bind_latents, plan_latents,
)
from fastelbo._kernels.operands cimport (
    BFLOAT16, FLOAT16, FLUSH, LANES, LINE, NATIVE, SPARSE, TILE, UINT8, VECTOR, Entries, Operand, Shape,
    a_vector, add_lanes, add_up, arrange, attach, attach_data, ceil_div, data_of, fetch_line_for_later,
    in_place, lanes_of, round_up, run_at, stage, stored, stream, stream_fence, vectors_of,
)
from fastelbo._kernels.sparse cimport spread_out, take_entries
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, ValueOnly, wanted
from fastelbo._kernels.terms.vecmath cimport log_one_plus, real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

from importlib import import_module

include "elementwise_tile.pxi"

cdef enum:
    CHUNK = 64 * LANES     # elements a unit; in a lane no more than there may be factors
    STRETCH = FLUSH * LANES        # elements that float32 sums take up; no fewer than TILE
    OPERANDS = 3 + MAX_PARAMETERS + MAX_GRADIENTS
    FEW_UNITS = 64
    PARTS = 16             # units that are enough where a gradient is summed over rows
    SUMS = 1 << 16         # sums that may be kept once for every block of rows
    STREAM_FROM = 1 << 23  # bytes of a gradient that is written past the caches

cdef struct Job:
    const Loops* loops     # of the term, in the dtype of its operands
    Shape shape
    Operand x
    Entries entries        # of x that is sparse
    Operand keep           # 0 where an element is missing; read if `masked`
    Operand parameter[MAX_PARAMETERS]
    Operand gradient[MAX_GRADIENTS]
    Operand element        # log p of each element; written if `by_element`
    int parameters, gradients      # gradients: 0, or those of the first so many parameters
    bint masked
    bint nan_missing       # NaN in x is a missing element
    bint staged            # some operand cannot be read, or gradient not be written, in place
    bint packed            # x, the parameter and its gradient are read and written as they are stored
    bint streamed          # gradients are written past the caches
    bint plain             # `whole_run` serves
    bint by_row, by_element
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

cdef float[LANES] FLOAT_ONES
cdef double[LANES] DOUBLE_ONES
for _lane in range(LANES):
    FLOAT_ONES[_lane] = DOUBLE_ONES[_lane] = 1

# Plain functions around the inline ones: one copy each, where inlining would make dozens.
cdef const real* staged(const Operand* op, const char* run, Py_ssize_t first, Py_ssize_t n,
                        Py_ssize_t padded, real* buffer) noexcept nogil:
    return stage(op, run, first, n, padded, buffer)


cdef Py_ssize_t take_found(const Entries* entries, const char* run, Py_ssize_t first, Py_ssize_t n,
                           real* values, int* index) noexcept nogil:
    return take_entries(entries, run, first, n, 0, values, index)


# The pass over the latents is compiled once a build.
cdef const LatentShares* LATENT = <const LatentShares*>PyCapsule_GetPointer(
    import_module(__name__.rpartition(".")[0] + ".latent").SHARES, LATENT_SHARES)


cdef void latents_share(const Latents* job, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    if real is float:
        LATENT.of_float(job, share, shares, kind)
    else:
        LATENT.of_double(job, share, shares, kind)


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


cdef void write(const Job* job, int i, const real* source, Py_ssize_t n, char* to) noexcept nogil:
    """Write a tile's gradient where it is not computed in place."""
    cdef uint16_t halves[TILE]
    cdef const char* made = stored(source, job.gradient[i].storage, n, halves)
    if job.streamed:
        stream(to, made, n * job.gradient[i].itemsize)
    elif made != to:
        memcpy(to, made, n * job.gradient[i].itemsize)


cdef void finish_elements(const Job* job, real* restrict values, const real* restrict factors,
                          Py_ssize_t n) noexcept nogil:
    """From what the term gives to log p; `factors` may be NULL."""
    cdef real factor = <real>job.factor, constant = <real>job.constant
    cdef Py_ssize_t i
    if factors != NULL:
        for i in range(n):
            values[i] = values[i] - log_one_plus(factors[i])
    for i in range(n):
        values[i] = factor * values[i] + constant


cdef void run_counts(const Job* job, const char* run, Py_ssize_t first, Py_ssize_t n, Py_ssize_t padded,
                     const Tile* given, real* x) noexcept nogil:
    """Not summed, of one parameter and sparse x: of zeros, then of the counts. Where something may be
    missing, x itself is written."""
    cdef real counts[TILE]
    cdef int index[TILE]
    cdef real x_c[TILE]
    cdef real a_c[TILE]
    cdef real ga_c[TILE]
    cdef real values_c[TILE]
    cdef const real* a = <const real*>given.parameter[0]
    cdef real* ga = <real*>given.gradient[0]
    cdef real* values = <real*>given.values
    cdef Py_ssize_t k, found = take_found(job.x.entries, run, first, n, counts, index)
    cdef Tile t = given[0]
    if job.masked or job.nan_missing:
        spread_out(counts, index, found, padded, x)
    t.n = padded
    t.x_scale = 1
    job.loops.zeros(NULL, NULL, NULL, &t)
    t.n = vectors_of(found, x)
    for k in range(t.n):
        x_c[k] = counts[min(k, found - 1)]
        a_c[k] = a[index[min(k, found - 1)]]
    t.x, t.parameter[0], t.gradient[0], t.values = x_c, a_c, ga_c, values_c
    t.lane = 0
    job.loops.each(NULL, NULL, NULL, &t)
    for k in range(found):
        values[index[k]] = values_c[k]
        if job.gradients > 0:
            ga[index[k]] = ga_c[k]


cdef inline void start(const Job* job, const Ahead* ahead, double* total, real* odds, Tile* t) noexcept nogil:
    """A unit of which nothing is summed yet."""
    cdef int l
    t.x_scale = job.x_scale
    t.weight = job.weight
    t.ahead = ahead
    t.total = total
    t.odds = odds
    for l in range(LANES):
        total[l] = 0
    for l in range(LANES if job.loops.has_factor else 0):
        odds[l] = 0


cdef inline double run_unit(int parameters, int gradients, bint sparse, const Job* job, Py_ssize_t index,
                            Py_ssize_t block, Py_ssize_t chunk, const Ahead* ahead, double* count,
                            real* bad) noexcept nogil:
    """A chunk of run number `index`: its sum, and in `count` how many elements were not missing.

    Compiled for every term at once: only the loop over a tile knows which it is. `parameters`,
    `gradients` (those wanted) and `sparse` (x is) are the job's, or constants.
    """
    cdef const Loops* loops = job.loops
    cdef Tile t
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
    cdef char* gr[MAX_GRADIENTS]
    cdef const real* x
    cdef const real* p[MAX_PARAMETERS]
    cdef real* g[MAX_GRADIENTS]
    cdef double total[LANES]
    cdef Py_ssize_t first = chunk * job.chunk, stop = min(first + job.chunk, job.shape.run)
    cdef real odds[LANES]
    cdef Py_ssize_t n, done, begin, padded, multiplied = 0
    cdef bint cheap = loops.whole != NULL and not job.by_element
    cdef Py_ssize_t tile = CHUNK if cheap else STRETCH
    cdef bint missing = job.masked or job.nan_missing, whole, packed, direct
    cdef int i, l
    start(job, ahead, total, odds, &t)
    t.values = values
    t.factors = factors
    t.keep = keep
    t.x_storage = job.x.storage
    t.storage = job.parameter[0].storage
    for i in range(parameters):
        pr[i] = run_at(&job.parameter[i], &job.shape, index)
    if job.masked:
        kr = run_at(&job.keep, &job.shape, index)
    for i in range(gradients):
        gr[i] = run_at(&job.gradient[i], &job.shape, index)
        g[i] = NULL
    packed = job.packed and cheap and loops.packed != NULL and job.own[0] == NULL
    if (job.staged or job.streamed) and not packed:
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
        direct = packed and whole
        if direct:
            x = <const real*>(xr + begin * job.x.itemsize)
            p[0] = <const real*>(pr[0] + begin * job.parameter[0].itemsize)
            if gradients > 0:
                g[0] = <real*>(gr[0] + begin * job.gradient[0].itemsize)
        elif job.staged or n < padded:
            x = x_s
            if not sparse:
                x = staged(&job.x, xr, begin, n, padded, x_s)
            for i in range(parameters):
                p[i] = staged(&job.parameter[i], pr[i], begin, n, padded, p_s[i])
        else:
            x = <const real*>xr + begin
            for i in range(parameters):
                p[i] = <const real*>pr[i] + begin
        for i in range(gradients if not direct else 0):
            if whole and not job.streamed and job.own[i] == NULL and job.gradient[i].storage == NATIVE:
                g[i] = <real*>gr[i] + begin
            else:
                g[i] = g_s + i * TILE
                clear_ends(g[i], done, n, padded)
        t.x = x
        for i in range(parameters):
            t.parameter[i] = p[i]
        for i in range(gradients):
            t.gradient[i] = g[i]
        t.n = n if direct else vectors_of(n, x)
        t.lane = done // a_vector(x) * a_vector(x)
        t.bad = bad if cheap else marks
        if direct:
            count[0] += n
            loops.packed(NULL, NULL, NULL, &t)
        elif cheap and whole and not missing:
            count[0] += n
            loops.whole(NULL, NULL, NULL, &t)
        elif cheap:
            count[0] += keep_tile(job, kr, x, begin, done, n, padded, keep)
            loops.some(NULL, NULL, NULL, &t)
        else:
            if sparse:
                run_counts(job, xr, begin, n, padded, &t, x_s)
            else:
                loops.each(NULL, NULL, NULL, &t)
            if missing:
                count[0] += keep_tile(job, kr, x, begin, done, n, padded, keep)
                drop_missing(keep, padded, values)
                if loops.has_factor:
                    drop_missing(keep, padded, factors)
                for i in range(gradients):
                    drop_missing(keep, padded, g[i])
                if any_marked(marks):
                    t.n = n
                    if loops.any_outside(NULL, NULL, &t):
                        bad[0] = 1
            else:
                count[0] += n - done
                if not whole:
                    clear_ends(values, done, n, padded)
                    if loops.has_factor:
                        clear_ends(factors, done, n, padded)
                    for i in range(gradients):
                        clear_ends(g[i], done, n, padded)
            if job.by_element:
                finish_elements(job, values, &factors[0] if loops.has_factor else NULL, padded)
                if missing:
                    drop_missing(keep, padded, values)
                memcpy(<real*>run_at(&job.element, &job.shape, index) + first, values + done,
                       (n - done) * sizeof(real))
            else:
                add_values(values, &factors[0] if loops.has_factor else NULL, padded, total, odds)
        n -= done
        for i in range(gradients if not direct else 0):
            if job.own[i] != NULL:
                add_own(job, i, block, chunk, index, begin, n + done, padded, <const real*>g[i])
            else:
                write(job, i, g[i] + done, n, gr[i] + first * job.gradient[i].itemsize)
        if loops.has_factor:
            multiplied += padded // lanes_of(odds)
            if multiplied > most_factors(odds) - CHUNK // lanes_of(odds):
                take_logs(total, odds, multiplied)
                multiplied = 0
        first += n
    if loops.has_factor and multiplied > 0:
        take_logs(total, odds, multiplied)
    return add_lanes(total)


# Of one parameter, which leaves nothing to find out, and of any number.
cdef double value_of_one(const Job* job, Py_ssize_t index, Py_ssize_t block, Py_ssize_t chunk,
                         const Ahead* ahead, double* count, real* bad) noexcept nogil:
    return run_unit(1, 0, False, job, index, block, chunk, ahead, count, bad)


cdef double gradient_of_one(const Job* job, Py_ssize_t index, Py_ssize_t block, Py_ssize_t chunk,
                            const Ahead* ahead, double* count, real* bad) noexcept nogil:
    return run_unit(1, 1, False, job, index, block, chunk, ahead, count, bad)


cdef double of_any(const Job* job, Py_ssize_t index, Py_ssize_t block, Py_ssize_t chunk,
                   const Ahead* ahead, double* count, real* bad) noexcept nogil:
    return run_unit(job.parameters, job.gradients, job.x.storage == SPARSE, job, index, block, chunk,
                    ahead, count, bad)


cdef inline bint is_plain(const Job* job) noexcept nogil:
    """Whether `whole_run` can serve: nothing is missing, and all is where it is computed."""
    cdef int i
    for i in range(job.gradients):
        if job.own[i] != NULL:
            return False
    return (job.loops.whole != NULL and job.shape.run >= LANES and job.shape.run % VECTOR == 0
            and not (job.staged or job.streamed or job.masked or job.nan_missing or job.by_element))


cdef inline bint begin_lines(const Tile* t) noexcept nogil:
    return (<uintptr_t>t.x | <uintptr_t>t.parameter[0] | <uintptr_t>t.gradient[0]) % LINE == 0


cdef double whole_run(const Job* job, Py_ssize_t index, Py_ssize_t chunk, const Ahead* ahead,
                      real* bad) noexcept nogil:
    """A chunk of run number `index` of a `plain` job."""
    cdef const Loops* loops = job.loops
    cdef Py_ssize_t first = chunk * job.chunk, n = min(job.chunk, job.shape.run - first)
    cdef Py_ssize_t rest = n % LANES, back = n - LANES
    cdef double total[LANES]
    cdef real odds[LANES]
    cdef Tile t
    cdef int i
    start(job, ahead, total, odds, &t)
    t.x = <const real*>run_at(&job.x, &job.shape, index) + first
    t.gradient[0] = NULL
    for i in range(job.parameters):
        t.parameter[i] = <const real*>run_at(&job.parameter[i], &job.shape, index) + first
    for i in range(job.gradients):
        t.gradient[i] = <real*>run_at(&job.gradient[i], &job.shape, index) + first
    t.bad = bad
    t.n = n - rest
    t.lane = 0
    if loops.by_line != NULL and chunk < job.chunks - 1 and ahead == NULL and not begin_lines(&t):
        loops.by_line(NULL, NULL, NULL, &t)
    else:
        loops.whole(NULL, NULL, NULL, &t)
    if rest > 0:                             # its lanes that are done already are passed over
        t.x = <const real*>t.x + back
        for i in range(job.parameters):
            t.parameter[i] = <const real*>t.parameter[i] + back
        for i in range(job.gradients):
            t.gradient[i] = <real*>t.gradient[i] + back
        t.n = LANES
        t.lane = LANES - rest
        t.keep = FLOAT_ONES if real is float else DOUBLE_ONES
        loops.some(NULL, NULL, NULL, &t)
    if loops.has_factor:
        take_logs(total, odds, (n + LANES - 1) // lanes_of(odds))
    return add_lanes(total)


cdef void take_unit(const Job* job, Py_ssize_t block, Py_ssize_t chunk, const Ahead* ahead,
                    real* bad) noexcept nogil:
    """A chunk of every run of a block: their sums, and how many elements were not missing."""
    cdef Py_ssize_t first = block * job.shape.segments, last = first + job.shape.segments, index, at
    cdef double sum, count
    cdef bint is_row = job.blocks == job.shape.rows      # ordinarily: divisions would show in short rows
    if not is_row:
        first = job.slices * block // job.blocks * job.slice
        last = job.slices * (block + 1) // job.blocks * job.slice
    for index in range(first, last):
        if job.plain:
            sum = whole_run(job, index, chunk, ahead, bad)
            count = min(job.chunk, job.shape.run - chunk * job.chunk)
        elif job.parameters > 1 or job.x.storage == SPARSE:
            sum = of_any(job, index, block, chunk, ahead, &count, bad)
        elif job.gradients > 0:
            sum = gradient_of_one(job, index, block, chunk, ahead, &count, bad)
        else:
            sum = value_of_one(job, index, block, chunk, ahead, &count, bad)
        at = (block if is_row or not job.by_row else index // job.shape.segments) * job.chunks + chunk
        job.partial[at] += sum
        job.partial[job.partials + at] += count


cdef void write_row_value(const Job* job, Py_ssize_t row) noexcept nogil:
    cdef const double* sums = job.partial + row * job.chunks
    job.row_values[row] = job.factor * add_up(sums, job.chunks)
    job.row_values[row] += job.constant * add_up(sums + job.partials, job.chunks)


include "followed.pxi"


cdef void units_share(const Job* job, Py_ssize_t share, Py_ssize_t shares, real* bad) noexcept nogil:
    """The units of one of `shares` workers."""
    cdef Py_ssize_t unit, block
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        block = unit // job.chunks
        take_unit(job, block, unit - block * job.chunks, NULL, bad)


cdef void likelihood_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                           const real* kind) noexcept nogil:
    """What one of `shares` workers does."""
    cdef real bad[LANES]
    cdef int l
    for l in range(LANES):
        bad[l] = 0
    if job.follower != NULL:
        followed_share(job, share, shares, bad)
    else:
        units_share(job, share, shares, bad)
    for l in range(LANES):
        if bad[l] != 0:
            job.found_outside[0] = True
    if job.streamed:
        stream_fence()


cdef void choose(const terms.term* tag, const wanted* want, const real* kind, Loops* loops) noexcept nogil:
    loops.each = <Loop>each_tile[terms.term, wanted, real]
    loops.any_outside = <Question>any_outside[terms.term, real]
    loops.has_factor = terms.has_factor(tag)
    loops.whole = loops.by_line = loops.some = loops.zeros = loops.packed = NULL
    if terms.is_cheap(tag):
        loops.whole = <Loop>whole_tile[terms.term, wanted, real]
        loops.some = <Loop>some_tile[terms.term, wanted, real]
        if terms.is_light(tag) and BY_LINE:
            loops.by_line = <Loop>line_tile[terms.term, wanted, real]
        if real is float:
            if terms.parameters_of(tag) == 1:
                loops.packed = <Loop>packed_tile[terms.term, wanted, real]
    if terms.reads_sparse(tag):
        loops.zeros = <Loop>zeros_tile[terms.term, wanted, real]


cdef class Term:
    """A row of TERMS: the loops of a term, and how many parameters and gradients it takes."""

    cdef Loops loops[2][2]         # float64 and float32; value alone and with gradients
    cdef readonly int parameters, gradients


cdef Term entry(const terms.term* tag):
    cdef Term made = Term.__new__(Term)
    choose(tag, <const ValueOnly*>NULL, <const double*>NULL, &made.loops[0][0])
    choose(tag, <const ValueAndGradient*>NULL, <const double*>NULL, &made.loops[0][1])
    choose(tag, <const ValueOnly*>NULL, <const float*>NULL, &made.loops[1][0])
    choose(tag, <const ValueAndGradient*>NULL, <const float*>NULL, &made.loops[1][1])
    made.parameters = terms.parameters_of(tag)
    made.gradients = terms.gradients_of(tag)
    return made


include "evaluate.pxi"
