# KL divergences that are no sum of plain terms: of discrete distributions by logits, and of Gaussians
# of full covariance by their Cholesky factors. One thread computes, in float64 whatever is stored.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.operands cimport FLOAT32, TILE, add_up, convert, padded_to, size_of
from fastelbo._kernels.terms.gaussian cimport kl_standard
from fastelbo._kernels.terms.vecmath cimport exp, log, logistic

cdef enum:
    PRIOR = 1 << 1         # its bit, as the second argument
    TRIL_Q = 1 << 0
    TRIL_P = 1 << 1
    FEW = 64


cdef inline void write(char* to, int storage, Py_ssize_t i, double value) noexcept nogil:
    if storage == FLOAT32:
        (<float*>to)[i] = <float>value
    else:
        (<double*>to)[i] = value


cdef void load(const char* source, int storage, Py_ssize_t first, double* to, Py_ssize_t n) noexcept nogil:
    """Elements from the first on. One copy, not one a call."""
    convert(source + first * size_of(storage), storage, to, n)


# Discrete distributions ---------------------------------------------------------------------------

cdef struct Discrete:
    const char* logits     # (rows, positions, classes)
    const char* prior      # the same, or of all rows; NULL: all are equally likely
    Py_ssize_t prior_row   # elements to the next, or 0
    Py_ssize_t prior_positions     # all, or 1 that they share
    int storage
    Py_ssize_t rows, positions, classes
    bint with_classes      # or else bits, one class
    double weight
    char* gradient         # NULL: none wanted
    double* by_prior       # sums of p0 - p over the rows, zero before; or NULL
    char* prior_gradient   # of a prior that no elements share; or NULL
    double* row_kl         # (rows,)

cdef struct Buffers:       # of a tile each
    double* a              # logits, then log p
    double* b              # the same of the prior
    double* p
    double* p0
    double* kl


cdef void gather_prior(const Discrete* job, Py_ssize_t first, Py_ssize_t n, double* to) noexcept nogil:
    """The prior's logits at some positions, counted over all rows."""
    cdef Py_ssize_t stop = first + n, run, row, at
    if job.prior == NULL:
        memset(to, 0, n * job.classes * sizeof(double))
        return
    while first < stop:
        row, at = first // job.positions, first % job.positions
        at %= job.prior_positions
        run = min(stop - first, job.prior_positions - at)
        load(job.prior, job.storage, row * job.prior_row + at * job.classes, to, run * job.classes)
        to += run * job.classes
        first += run


cdef void of_bits(const double* restrict l, const double* restrict r, double* restrict kl,
                  double* restrict pull, double* restrict push, Py_ssize_t n) noexcept nogil:
    """KL of whole vectors of bits, and its derivatives.

    Of the more likely outcome, whose probability is at least a half: log(p / p0), and the rest.
    """
    cdef Py_ssize_t i
    cdef double a, b, soft, q, prior_soft, prior_q, rest, value, away
    for i in range(n):
        logistic(l[i], &soft, &q)
        logistic(r[i], &prior_soft, &prior_q)
        a = -l[i] if l[i] < 0 else l[i]
        b = -r[i] if l[i] < 0 else r[i]
        rest = 0 if q == 0 else (b - a) * q
        value = (prior_soft - soft) - (b if b < 0 else 0) + rest
        value = 0 if value < 0 else value
        kl[i] = INFINITY if b == -INFINITY else value
        rest = rest * (1 - q)
        # p - p0 by the two that are small, which keep their digits.
        away = (prior_q if b > 0 else 1 - prior_q) - q if b > -a else (1 - q) - prior_q
        pull[i] = rest if l[i] < 0 else -rest
        push[i] = -away if l[i] < 0 else away


cdef void exponentials(const double* restrict a, double* restrict p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        p[i] = exp(a[i])


cdef void subtract_top(double* logits, Py_ssize_t classes) noexcept nogil:
    """Of one position, what it is to the largest; infinite logits share everything."""
    cdef double top = -INFINITY
    cdef Py_ssize_t c
    for c in range(classes):
        if logits[c] > top or logits[c] != logits[c]:
            top = logits[c]
    for c in range(classes):
        if top == INFINITY:
            logits[c] = 0 if logits[c] == INFINITY else -INFINITY
        else:
            logits[c] -= top


cdef void normalize(double* t, double* p, Py_ssize_t classes) noexcept nogil:
    """From logits below 0 and their exponentials to log p and p."""
    cdef double total = 0, log_total
    cdef Py_ssize_t c
    for c in range(classes):
        total += p[c]
    log_total = log(total)
    for c in range(classes):
        p[c] = p[c] / total
        t[c] = t[c] - log_total


cdef double of_classes(double* log_p, double* p, const double* log_prior, const double* prior,
                       Py_ssize_t classes) noexcept nogil:
    """KL of one position; its derivative by the logits goes to log_p, by those of the prior to p."""
    cdef double kl = 0, surprise, term
    cdef bint rest = False, hit
    cdef Py_ssize_t c
    for c in range(classes):
        surprise = 0 if p[c] == 0 else log_p[c] - log_prior[c]
        # p log(p / p0) - p + p0: no term is negative, but for rounding.
        term = p[c] * surprise - p[c] + prior[c]
        kl += 0 if term < 0 else term
        rest |= p[c] != 0 and surprise != INFINITY
        log_p[c] = surprise
    for c in range(classes):
        hit = log_p[c] == INFINITY
        if p[c] == 0:
            log_p[c] = 0
        elif kl == INFINITY:
            log_p[c] = (INFINITY if rest else 0) if hit else -INFINITY
        else:
            log_p[c] = (log_p[c] - kl) * p[c]
        p[c] -= prior[c]
    return kl


cdef void discrete_tile(const Discrete* job, Py_ssize_t first, Py_ssize_t n,
                        const Buffers* at) noexcept nogil:
    """Positions first .. first + n, counted over all rows."""
    cdef Py_ssize_t classes = job.classes, size = n * classes, padded = padded_to(size), i, c, k, to
    cdef double* pull = at.a
    cdef double* push = at.p
    load(job.logits, job.storage, first * classes, at.a, size)
    gather_prior(job, first, n, at.b)
    for i in range(size, padded):
        at.a[i] = at.b[i] = 0
    if not job.with_classes:
        of_bits(at.a, at.b, at.kl, at.p, at.p0, padded)
        pull, push = at.p, at.p0
    else:
        for i in range(n):
            subtract_top(at.a + i * classes, classes)
            subtract_top(at.b + i * classes, classes)
        exponentials(at.a, at.p, padded)
        exponentials(at.b, at.p0, padded)
        for i in range(n):
            k = i * classes
            normalize(at.a + k, at.p + k, classes)
            normalize(at.b + k, at.p0 + k, classes)
            at.kl[i] = of_classes(at.a + k, at.p + k, at.b + k, at.p0 + k, classes)
    for i in range(n):
        job.row_kl[(first + i) // job.positions] += at.kl[i]
    if job.gradient == NULL:
        return
    for i in range(size):
        write(job.gradient, job.storage, first * classes + i, job.weight * pull[i])
    for i in range(n if job.by_prior != NULL else 0):
        to = (first + i) % job.positions % job.prior_positions * classes
        for c in range(classes):
            job.by_prior[to + c] -= push[i * classes + c]
    for i in range(size if job.prior_gradient != NULL else 0):
        write(job.prior_gradient, job.storage, first * classes + i, -job.weight * push[i])


cdef int discrete_pass(Discrete* job) noexcept nogil:
    """-1 where memory ran out."""
    cdef Py_ssize_t positions = job.rows * job.positions, first = 0, i
    cdef Py_ssize_t n = max(<Py_ssize_t>1, TILE // job.classes), padded
    cdef double few[5 * FEW]
    cdef double* room = few
    cdef Buffers at
    n = min(n, positions)
    padded = padded_to(n * job.classes)
    if padded > FEW:
        room = <double*>malloc(5 * padded * sizeof(double))
    if room == NULL:
        return -1
    at = Buffers(room, room + padded, room + 2 * padded, room + 3 * padded, room + 4 * padded)
    for i in range(job.rows):
        job.row_kl[i] = 0
    while first < positions:
        discrete_tile(job, first, min(n, positions - first), &at)
        first += n
    if room != few:
        free(room)
    return 0


cdef int32_t dense_discrete(Call* call, bint with_classes) noexcept nogil:
    """Of a call with logits, and a prior's, one for each row or one for all: then of `latent` positions."""
    cdef Discrete job
    cdef double few[FEW]
    cdef double* room = NULL
    cdef bint shared = call.outputs[1] != NULL and call.columns & PRIOR
    cdef Py_ssize_t size = call.event * call.classes, i
    cdef Py_ssize_t sums = call.latent * call.classes if shared and call.d_outputs[0] != NULL else 0
    memset(&job, 0, sizeof(Discrete))
    job.logits, job.prior = <const char*>call.outputs[0], <const char*>call.outputs[1]
    job.prior_row = 0 if shared else size
    job.prior_positions = call.latent if shared else call.event
    job.storage = call.dtype
    job.rows, job.positions, job.classes = call.batch, call.event, call.classes
    job.with_classes = with_classes
    job.weight = call.kl_weight
    job.gradient = <char*>call.d_outputs[0]
    if job.gradient != NULL and not shared:
        job.prior_gradient = <char*>call.d_outputs[1]
    job.row_kl = call.row_kl
    room = few
    if sums + job.rows > FEW:
        room = <double*>malloc((sums + job.rows) * sizeof(double))
    if room == NULL:
        return -1
    if job.row_kl == NULL:
        job.row_kl = room
    if sums > 0:
        job.by_prior = room + job.rows
        memset(job.by_prior, 0, sums * sizeof(double))
    call.outside = discrete_pass(&job)
    if call.row_kl == NULL:
        call.kl = add_up(room, job.rows)
    for i in range(sums):
        write(<char*>call.d_outputs[1], job.storage, i, job.weight * job.by_prior[i])
    if room != few:
        free(room)
    return call.outside


cdef int32_t dense_bits(const Handle* unused, Call* call) noexcept nogil:
    return dense_discrete(call, False)


cdef int32_t dense_classes(const Handle* unused, Call* call) noexcept nogil:
    return dense_discrete(call, True)


# Gaussians of full covariance ---------------------------------------------------------------------

cdef struct Full:          # arrays of `storage`, dense
    int storage
    Py_ssize_t rows, n     # n latents
    const char* mu_q
    const char* mu_p
    const char* tril_q
    const char* tril_p
    bint q_shared, p_shared        # one factor for all rows
    double weight
    char* d_mu_q           # NULL: no gradients are wanted
    char* d_mu_p
    char* d_tril_q
    char* d_tril_p
    double* row_kl
    bint indefinite        # found: a diagonal that is not positive
    bint singular          # found: P^-1 Q is beyond all numbers


cdef void divide_by(const double* tril, double* b, Py_ssize_t n, Py_ssize_t columns) noexcept nogil:
    """tril^-1 b in place of b (n, columns), row by row; of a triangle if it has n columns."""
    cdef Py_ssize_t i, k, j, width
    cdef double factor
    for i in range(n):
        for k in range(i):
            factor = tril[i * n + k]
            width = min(columns, k + 1)          # what is right of it is zero
            for j in range(width):
                b[i * columns + j] -= factor * b[k * columns + j]
        for j in range(min(columns, i + 1)):
            b[i * columns + j] /= tril[i * n + i]


cdef void divide_by_transposed(const double* tril, double* b, Py_ssize_t n,
                               Py_ssize_t columns) noexcept nogil:
    """The same with the transpose of tril; if b has n columns, only its lower triangle is looked at."""
    cdef Py_ssize_t i, k, j
    cdef double factor
    for k in range(n - 1, -1, -1):
        for j in range(min(columns, k + 1)):
            b[k * columns + j] /= tril[k * n + k]
        for i in range(k):
            factor = tril[k * n + i]
            for j in range(min(columns, i + 1)):
                b[i * columns + j] -= factor * b[k * columns + j]


cdef bint load_factor(const Full* job, const char* source, bint shared, Py_ssize_t row,
                      double* to) noexcept nogil:
    """The lower triangle, zeros above; whether its diagonal is positive, or NaN."""
    cdef Py_ssize_t n = job.n, i, k
    cdef bint positive = True
    for i in range(n):
        load(source, job.storage, (0 if shared else row * n * n) + i * n, to + i * n, i + 1)
        for k in range(i + 1, n):
            to[i * n + k] = 0
        positive &= not to[i * n + i] <= 0
    return positive


cdef bint all_finite(const double* a, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if not isfinite(a[i]):
            return False
    return True


cdef void give_factor(const Full* job, const double* by, const double* tril, double sign, bint shared,
                      Py_ssize_t row, double* sums, char* to) noexcept nogil:
    """The lower triangle of `by`, plus `sign` times the inverse of the diagonal."""
    cdef Py_ssize_t n = job.n, i, k
    cdef double value
    for i in range(n):
        for k in range(n):
            value = 0 if k > i else by[i * n + k]
            if k == i:
                value += sign / tril[i * n + i]
            if shared:
                sums[i * n + k] += value
            else:
                write(to, job.storage, (row * n + i) * n + k, job.weight * value)


cdef void full_row(Full* job, Py_ssize_t row, double* room, double* q_sums, double* p_sums) noexcept nogil:
    cdef Py_ssize_t n = job.n, i, j, k
    cdef double* q = room
    cdef double* p = room + n * n
    cdef double* ratio = room + 2 * n * n        # P^-1 Q
    cdef double* by = room + 3 * n * n
    cdef double* turned = room + 4 * n * n
    cdef double* scaled = room + 5 * n * n       # P^-1 (mu_q - mu_p)
    cdef double* other = scaled + n
    cdef double kl = 0, rest = 0, sigma, dmu, dlogvar, logvar
    if not load_factor(job, job.tril_q, job.q_shared, row, q):
        job.indefinite = True
    if not load_factor(job, job.tril_p, job.p_shared, row, p):
        job.indefinite = True
    load(job.mu_q, job.storage, row * n, scaled, n)
    load(job.mu_p, job.storage, row * n, other, n)
    for i in range(n):
        scaled[i] -= other[i]
    for i in range(n * n):
        ratio[i] = q[i]
    divide_by(p, ratio, n, n)
    divide_by(p, scaled, n, 1)
    if not all_finite(ratio, n * n) and all_finite(p, n * n) and all_finite(q, n * n):
        job.singular = True
    for i in range(n):
        # The ratio's own diagonal: two small factors that are alike need not have logarithms that are.
        logvar = 2 * log(ratio[i * n + i])
        kl += kl_standard(<double>0.0, logvar, False, &sigma, &dmu, &dlogvar)
        rest += scaled[i] * scaled[i]
        for k in range(i):
            rest += ratio[i * n + k] * ratio[i * n + k]
    job.row_kl[row] = kl + 0.5 * rest
    if job.d_mu_q == NULL:
        return
    for i in range(n * n):                       # P^-T ratio
        by[i] = ratio[i]
    divide_by_transposed(p, by, n, n)
    give_factor(job, by, q, -1.0, job.q_shared, row, q_sums, job.d_tril_q)
    for i in range(n):
        for k in range(n):
            turned[k * n + i] = ratio[i * n + k]
    for i in range(n):                           # -P^-T (ratio ratio^T + scaled scaled^T)
        for j in range(n):
            by[i * n + j] = -scaled[i] * scaled[j]
        for k in range(i + 1):
            for j in range(i + 1):
                by[i * n + j] -= ratio[i * n + k] * turned[k * n + j]
    divide_by_transposed(p, by, n, n)
    give_factor(job, by, p, 1.0, job.p_shared, row, p_sums, job.d_tril_p)
    divide_by_transposed(p, scaled, n, 1)
    for i in range(n):
        write(job.d_mu_q, job.storage, row * n + i, job.weight * scaled[i])
        write(job.d_mu_p, job.storage, row * n + i, -job.weight * scaled[i])


cdef int full_pass(Full* job) noexcept nogil:
    """-1 where memory ran out."""
    cdef Py_ssize_t n = job.n, size = 7 * n * n + 2 * n, row, i
    cdef double few[FEW]
    cdef double* room = few
    if size > FEW:
        room = <double*>malloc(size * sizeof(double))
    if room == NULL:
        return -1
    cdef double* q_sums = room + 5 * n * n + 2 * n
    cdef double* p_sums = q_sums + n * n
    memset(q_sums, 0, 2 * n * n * sizeof(double))
    for row in range(job.rows):
        full_row(job, row, room, q_sums, p_sums)
    for i in range(n * n if job.d_mu_q != NULL else 0):
        if job.q_shared:
            write(job.d_tril_q, job.storage, i, job.weight * q_sums[i])
        if job.p_shared:
            write(job.d_tril_p, job.storage, i, job.weight * p_sums[i])
    if room != few:
        free(room)
    return 0


cdef int32_t dense_full(const Handle* unused, Call* call) noexcept nogil:
    """Of a call with mu, mu_p, and the factors as outputs; something lies outside where one is none."""
    cdef Full job
    cdef double few[FEW]
    cdef double* room = few
    cdef int failed
    memset(&job, 0, sizeof(Full))
    job.storage, job.rows, job.n = call.dtype, call.batch, call.latent
    job.mu_q, job.mu_p = <const char*>call.mu, <const char*>call.mu_p
    job.tril_q, job.tril_p = <const char*>call.outputs[0], <const char*>call.outputs[1]
    job.q_shared, job.p_shared = call.columns & TRIL_Q, call.columns & TRIL_P
    job.weight = call.kl_weight
    job.d_mu_q, job.d_mu_p = <char*>call.d_mu, <char*>call.d_mu_p
    job.d_tril_q, job.d_tril_p = <char*>call.d_outputs[0], <char*>call.d_outputs[1]
    job.row_kl = call.row_kl
    if job.row_kl == NULL:
        if job.rows > FEW:
            room = <double*>malloc(job.rows * sizeof(double))
        if room == NULL:
            return -1
        job.row_kl = room
    failed = full_pass(&job)
    call.outside = job.indefinite or job.singular
    if call.row_kl == NULL:
        call.kl = add_up(room, job.rows)
    if room != few:
        free(room)
    return failed


def fill(handle, str name):
    """Make a capsule's Handle that of the "bits", the "classes" or the "full" covariances."""
    cdef Handle* made = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    made.run = dense_bits if name == "bits" else dense_classes if name == "classes" else dense_full
    made.columns = TRIL_Q | TRIL_P if name == "full" else PRIOR
    made.outputs = 2
