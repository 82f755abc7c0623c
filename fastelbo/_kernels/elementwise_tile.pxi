# What becomes of one tile: the term applied lane by lane, values summed, what is missing or outside
# the domain found. Included by elementwise.pxi, which cuts the work into tiles.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memset

from fastelbo._kernels.lines cimport BY_LINE, begins_at, read_first, read_lines, write_ends, write_lines
from fastelbo._kernels.operands cimport (
    BFLOAT16, FLOAT16, FLUSH, LANES, LINE, NATIVE, UINT8, VECTOR, a_vector, aligned, convert, fetch_lanes,
    lanes_of, size_of, stored, widen_bytes,
)
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, wanted
from fastelbo._kernels.terms.vecmath cimport log_one_plus, real

cdef enum:
    MAX_PARAMETERS = 4
    MAX_GRADIENTS = 3
    LINES = -1             # how x, a and ga are read and written in whole lines, beside NATIVE and others

cdef struct Ahead:         # from what a unit reads and writes to what the next one will, in bytes
    Py_ssize_t parameter[MAX_GRADIENTS]
    Py_ssize_t gradient[MAX_GRADIENTS]

cdef struct Tile:          # what `run_tile` takes, but constants; pointers are to the dtype of the pass
    const void* x
    const void* parameter[MAX_PARAMETERS]
    void* gradient[MAX_GRADIENTS]
    int x_storage, storage         # of x, and of the parameter and its gradient, where they are packed
    Py_ssize_t n, lane
    const void* keep
    const Ahead* ahead
    double x_scale, weight
    double* total
    void* odds
    void* values
    void* factors
    void* bad

# A loop over a tile, compiled for a term, a dtype and what is wanted: three tags, all NULL.
ctypedef void (*Loop)(const void* tag, const void* want, const void* kind, const Tile* tile) noexcept nogil
ctypedef bint (*Question)(const void* tag, const void* kind, const Tile* tile) noexcept nogil

cdef struct Loops:         # of a term, for one dtype and one thing wanted; NULL is what it does not need
    Loop whole             # summed, nothing missing
    Loop by_line           # the same where arrays begin anywhere; NULL where it is no faster
    Loop some              # summed, where `keep` is not 0
    Loop each              # not summed
    Loop zeros             # not summed, x is zero and not read
    Loop packed            # summed; x, the parameter and its gradient as they are stored
    Question any_outside
    bint has_factor


cdef inline void run_tile(const terms.term* tag, const wanted* want, bint summed, bint some, bint none,
                          int of_x, int of_a, const real* restrict x, const real* restrict a,
                          const real* restrict b, const real* restrict c, const real* restrict d,
                          real* restrict ga, real* restrict gb, real* restrict gc, Py_ssize_t n,
                          Py_ssize_t lane, const real* restrict keep, const Ahead* ahead, real x_scale,
                          real weight, double* restrict total, real* restrict odds, real* restrict values,
                          real* restrict factors, real* restrict bad) noexcept nogil:
    """n elements, but for those before number `lane`, a multiple of `a_vector` as n is; of LANES, where
    they are `summed` without `some`.

    `summed` (a constant): they are added up at once; with `some` (a constant) those that `keep`
    marks. Else `values`, and `factors` of a term that has some, are left for `add_values`, and what
    is missing for `drop_missing`: then one loop serves all. What lies `ahead` (or NULL) is fetched
    meanwhile. `none` (a constant): x is zero, and not read. `of_x` and `of_a` (constants): unless NATIVE,
    what x is stored as, and a and ga, half precision, or LINES: they go through registers, not through L1.

    The logarithm of a term's factor is not taken here: lane by lane the product of the factors is
    kept, less one, so that factors near one keep their digits.
    """
    cdef real acc[LANES]
    cdef real x_l[LANES]
    cdef real a_l[LANES]
    cdef real g_l[LANES]
    cdef real x_rest[VECTOR]
    cdef real a_rest[VECTOR]
    cdef real g_rest[VECTOR]
    cdef real g_first[2 * VECTOR]
    cdef real v, e, pa, xs, da, db, dc, here
    cdef real pb, pc, pd
    cdef Py_ssize_t j = 0, flush, at, l, i
    cdef Py_ssize_t end
    cdef int k, lanes = lanes_of(x), step = lanes if summed and not some else a_vector(x)
    cdef int lines = lanes * <int>sizeof(real) // LINE
    cdef int x_at = begins_at(x), a_at = begins_at(a), g_at = begins_at(ga)
    cdef real* first_line = <real*>aligned(g_first)
    if of_a == LINES:
        read_first(x, x_at, x_rest)
        read_first(a, a_at, a_rest)
    while j < n:
        flush = min(j + FLUSH * LANES, n) if real is float else n
        for l in range(lanes if summed else 0):
            acc[l] = 0
        while True:                              # once at least: then `acc` stays in registers
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
            if of_a == LINES:
                read_lines(x + j, x_at, x_rest, x_l, lines)
                read_lines(a + j, a_at, a_rest, a_l, lines)
            elif of_a != NATIVE:
                if real is float and of_x == UINT8:
                    widen_bytes(<const uint8_t*>x + j, x_l, lanes)
                else:
                    convert(<const char*>x + j * size_of(of_x), of_x, x_l, lanes)
                convert(<const char*>a + j * size_of(of_a), of_a, a_l, lanes)
            at = max(<Py_ssize_t>0, lane - j) if some or not summed else 0
            end = min(<Py_ssize_t>lanes, n - j) if some or not summed else lanes
            while at < end:
                for k in range(step):            # a constant: no loop for a rest
                    l = at + k
                    i = j + l
                    pa = a[i] if of_a == NATIVE else a_l[l]
                    xs = <real>0 if none else (x[i] if of_a == NATIVE else x_l[l]) * x_scale
                    pb = b[i] if terms.parameters_of(tag) > 1 else <real>0
                    pc = c[i] if terms.parameters_of(tag) > 2 else <real>0
                    pd = d[i] if terms.parameters_of(tag) > 3 else <real>0
                    v = terms.log_prob(tag, xs, pa, pb, pc, pd, &da, &db, &dc, &e)
                    here = <real>1 if terms.outside(tag, xs, pa, pb, pc, pd) else <real>0
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
                        if of_a == NATIVE:
                            ga[i] = da * weight
                        else:
                            g_l[l] = da * weight
                        if terms.gradients_of(tag) > 1:
                            if some:
                                db = db if keep[i] != <real>0 else <real>0
                            gb[i] = db * weight
                        if terms.gradients_of(tag) > 2:
                            if some:
                                dc = dc if keep[i] != <real>0 else <real>0
                            gc[i] = dc * weight
                at += step
            if wanted is ValueAndGradient:
                if of_a == LINES:
                    write_lines(g_l, ga + j - g_at if j > 0 else first_line, ga + j, g_at, g_rest, lines)
                elif of_a != NATIVE:
                    stored(g_l, of_a, lanes, <uint16_t*>ga + j)
            j += lanes
            if j >= flush:
                break
        for l in range(lanes if summed else 0):
            total[l] += acc[l]
    if of_a == LINES and wanted is ValueAndGradient:
        write_ends(first_line, ga, n, g_at, g_rest)


cdef inline void over_tile(const terms.term* tag, const wanted* want, const real* kind, bint summed,
                           bint some, bint none, int of_x, int of_a, const Tile* t) noexcept nogil:
    run_tile(tag, want, summed, some, none, of_x, of_a, <const real*>t.x, <const real*>t.parameter[0],
             <const real*>t.parameter[1], <const real*>t.parameter[2], <const real*>t.parameter[3],
             <real*>t.gradient[0], <real*>t.gradient[1], <real*>t.gradient[2], t.n, t.lane,
             <const real*>t.keep, t.ahead if summed and not some and of_a == NATIVE else NULL,
             <real>t.x_scale, <real>t.weight, t.total, <real*>t.odds, <real*>t.values, <real*>t.factors,
             <real*>t.bad)


# Functions of their own: in one, gcc spills the constants of one's loops for the sake of the other's.
cdef void whole_tile(const terms.term* tag, const wanted* want, const real* kind,
                     const Tile* t) noexcept nogil:
    over_tile(tag, want, kind, True, False, False, NATIVE, NATIVE, t)


cdef void line_tile(const terms.term* tag, const wanted* want, const real* kind,
                    const Tile* t) noexcept nogil:
    over_tile(tag, want, kind, True, False, False, LINES, LINES, t)


cdef void some_tile(const terms.term* tag, const wanted* want, const real* kind,
                    const Tile* t) noexcept nogil:
    over_tile(tag, want, kind, True, True, False, NATIVE, NATIVE, t)


cdef void each_tile(const terms.term* tag, const wanted* want, const real* kind,
                    const Tile* t) noexcept nogil:
    over_tile(tag, want, kind, False, False, False, NATIVE, NATIVE, t)


cdef void zeros_tile(const terms.term* tag, const wanted* want, const real* kind,
                     const Tile* t) noexcept nogil:
    over_tile(tag, want, kind, False, False, True, NATIVE, NATIVE, t)


cdef void packed_tile(const terms.term* tag, const wanted* want, const real* kind,
                      const Tile* t) noexcept nogil:
    """Bytes or half precision beside a parameter of half precision."""
    if t.storage == FLOAT16 and t.x_storage == UINT8:
        over_tile(tag, want, kind, True, False, False, UINT8, FLOAT16, t)
    elif t.storage == FLOAT16:
        over_tile(tag, want, kind, True, False, False, FLOAT16, FLOAT16, t)
    elif t.x_storage == UINT8:
        over_tile(tag, want, kind, True, False, False, UINT8, BFLOAT16, t)
    else:
        over_tile(tag, want, kind, True, False, False, BFLOAT16, BFLOAT16, t)


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


cdef bint any_outside(const terms.term* tag, const real* kind, const Tile* t) noexcept nogil:
    """Whether something that is not missing is outside the domain."""
    cdef const real* x = <const real*>t.x
    cdef const real* keep = <const real*>t.keep
    cdef Py_ssize_t i
    for i in range(t.n):
        if keep[i] != <real>0 and terms.outside(
            tag, x[i] * <real>t.x_scale, (<const real*>t.parameter[0])[i],
            (<const real*>t.parameter[1])[i] if terms.parameters_of(tag) > 1 else <real>0,
            (<const real*>t.parameter[2])[i] if terms.parameters_of(tag) > 2 else <real>0,
            (<const real*>t.parameter[3])[i] if terms.parameters_of(tag) > 3 else <real>0,
        ):
            return True
    return False


cdef inline Py_ssize_t most_factors(const real* kind) noexcept nogil:
    """How many factors between 1 and 2 have a product that the dtype holds."""
    return 120 if real is float else 1000


cdef void take_logs(double* restrict total, real* restrict odds, Py_ssize_t factors) noexcept nogil:
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
