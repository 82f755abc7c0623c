# Units of mixtures of discretized logistics. Included by classes.pyx.

from libc.math cimport INFINITY
from libc.string cimport memcpy

from fastelbo._kernels.operands cimport LANES, Operand, run_at, stage
from fastelbo._kernels.terms.discrete cimport is_no_count, log_distance, logistic_bin_of_log
from fastelbo._kernels.terms.vecmath cimport exp, log, real


cdef const real* staged(const Operand* op, const char* run, Py_ssize_t first, Py_ssize_t n,
                        real* buffer) noexcept nogil:
    """LANES elements of a run from `first` on, padded after n. One copy, not one a call."""
    return stage(op, run, first, n, LANES, buffer)


# Loops over lanes, as many whole vectors of them as there is need for, as functions of their own: only
# then does the compiler see that nothing overlaps.
cdef void weigh_component(const real* restrict x, const real* restrict a, const real* restrict b,
                          const real* restrict c, real top, real step,
                          real* restrict joint, real* restrict logit, real* restrict by_mean,
                          real* restrict by_scale, real* restrict top_joint,
                          real* restrict top_logit, Py_ssize_t n) noexcept nogil:
    """log(weight * mass), its derivatives, and the running maxima, of one component."""
    cdef real v
    cdef Py_ssize_t l
    for l in range(n):
        v = a[l] + logistic_bin_of_log(x[l], b[l], c[l], top, step, &by_mean[l], &by_scale[l])
        joint[l] = v
        logit[l] = a[l]
        top_joint[l] = v if v > top_joint[l] else top_joint[l]
        top_logit[l] = a[l] if a[l] > top_logit[l] else top_logit[l]


cdef void add_component(real* restrict joint, real* restrict logit, const real* restrict top_joint,
                        const real* restrict top_logit, real* restrict sum_joint,
                        real* restrict sum_logit, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t l
    for l in range(n):
        joint[l] = exp(joint[l] - top_joint[l])
        logit[l] = exp(logit[l] - top_logit[l])
        sum_joint[l] = sum_joint[l] + joint[l]
        sum_logit[l] = sum_logit[l] + logit[l]


cdef void measure_component(const real* restrict x, const real* restrict a, const real* restrict b,
                            const real* restrict c, real top, real step, real* restrict distance,
                            Py_ssize_t n) noexcept nogil:
    """How far one component is, as a logarithm; those that are switched off are nowhere."""
    cdef real v
    cdef Py_ssize_t l
    for l in range(n):
        v = log_distance(x[l], b[l], c[l], top, step)
        distance[l] = v if a[l] > -<real>INFINITY else <real>INFINITY


cdef void settle_far(const Job* job, const char** at, Py_ssize_t first, Py_ssize_t n, const real* x,
                     real top, real step, real* joint, real* top_joint, real* sum_joint) noexcept nogil:
    """Where no component's mass is a number of the dtype, all belongs to the nearest component."""
    cdef real buffer[MAX_OUTPUTS][LANES]
    cdef real distance[LANES]
    cdef real nearest[LANES]
    cdef bint is_far[LANES]
    cdef const real* given[MAX_OUTPUTS]
    cdef Py_ssize_t m, l
    cdef int i, sweep
    for l in range(n):
        is_far[l] = sum_joint[l] == <real>0
        nearest[l] = <real>INFINITY
    for sweep in range(2):                       # find the nearest, then give it all
        for m in range(job.classes):
            for i in range(MAX_OUTPUTS):
                given[i] = staged(&job.output[i], at[i] + m * job.across[i], first, n, buffer[i])
            measure_component(x, given[0], given[1], given[2], top, step, distance, vectors_of(n, x))
            for l in range(n):
                if sweep == 0 and distance[l] < nearest[l]:
                    nearest[l] = distance[l]
                elif sweep == 1 and is_far[l]:
                    joint[m * LANES + l] = <real>1 if distance[l] <= nearest[l] else <real>0
                    sum_joint[l] = sum_joint[l] + joint[m * LANES + l]
                    top_joint[l] = -<real>INFINITY


cdef void close_mixture(const real* restrict top_joint, const real* restrict top_logit,
                        const real* restrict sum_joint, const real* restrict sum_logit,
                        const real* restrict keep, double* restrict values, Py_ssize_t n) noexcept nogil:
    cdef real v
    cdef Py_ssize_t l
    for l in range(n):
        v = (top_joint[l] - top_logit[l]) + (log(sum_joint[l]) - log(sum_logit[l]))
        values[l] = v if keep[l] != <real>0 else <real>0


cdef void share_component(real* restrict joint, const real* restrict logit, real* restrict by_mean,
                          real* restrict by_scale, const real* restrict scale_joint,
                          const real* restrict scale_logit,
                          const real* restrict keep, Py_ssize_t n) noexcept nogil:
    """The derivatives of the logarithm of the sum, of one component; by its logit in `joint`."""
    cdef real e, q
    cdef Py_ssize_t l
    for l in range(n):
        e = joint[l] * scale_joint[l]
        q = logit[l] * scale_logit[l]
        joint[l] = e - q if keep[l] != <real>0 else <real>0
        q = e * by_mean[l] if e != <real>0 else <real>0           # they may be infinite
        e = e * by_scale[l] if e != <real>0 else <real>0
        by_mean[l] = q if keep[l] != <real>0 else <real>0
        by_scale[l] = e if keep[l] != <real>0 else <real>0


cdef void mixture_tile(const Job* job, Py_ssize_t sample, Py_ssize_t first, Py_ssize_t n,
                       double* values, char* room, bint* bad, const real* kind) noexcept nogil:
    """Positions first .. first + n of a sample, at most LANES."""
    cdef Py_ssize_t size = job.classes * LANES, m, at_m, lanes = vectors_of(n, kind), l
    cdef real* joint = <real*>room                               # (components, LANES), and the rest
    cdef real* logit = <real*>room + size
    cdef real* by_mean = <real*>room + 2 * size
    cdef real* by_scale = <real*>room + 3 * size
    cdef const real* x
    cdef const real* a
    cdef const real* b
    cdef const real* c
    cdef real buffer[MAX_OUTPUTS + 2][LANES]
    cdef real keep[LANES]
    cdef real top_joint[LANES]
    cdef real top_logit[LANES]
    cdef real sum_joint[LANES]
    cdef real sum_logit[LANES]
    cdef real outside[LANES]
    cdef const real* given
    cdef const char* at[MAX_OUTPUTS]
    cdef char* to[MAX_OUTPUTS]
    cdef real w = <real>job.weight, top = <real>job.top, step = <real>(1.0 / job.top)
    cdef bint far = False
    cdef int i
    for i in range(MAX_OUTPUTS):
        at[i] = run_at(&job.output[i], &job.shape, sample)
    x = staged(&job.x, run_at(&job.x, &job.shape, sample), first, n, buffer[3])
    for l in range(lanes):
        keep[l] = <real>1 if l < n else <real>0
    if job.masked:
        given = staged(&job.keep, run_at(&job.keep, &job.shape, sample), first, n, buffer[4])
        for l in range(lanes):
            keep[l] = keep[l] if given[l] != <real>0 else <real>0
    if job.nan_missing:
        for l in range(lanes):
            keep[l] = keep[l] if x[l] == x[l] else <real>0
    for l in range(lanes):
        outside[l] = keep[l] if is_no_count(x[l]) | (x[l] > top) else <real>0
        top_joint[l] = lowest(kind)
        top_logit[l] = lowest(kind)
        sum_joint[l] = 0
        sum_logit[l] = 0
    for l in range(lanes):
        if outside[l] != <real>0:
            bad[0] = True
    for m in range(job.classes):
        a = staged(&job.output[0], at[0] + m * job.across[0], first, n, buffer[0])
        b = staged(&job.output[1], at[1] + m * job.across[1], first, n, buffer[1])
        c = staged(&job.output[2], at[2] + m * job.across[2], first, n, buffer[2])
        at_m = m * LANES
        weigh_component(x, a, b, c, top, step, joint + at_m, logit + at_m, by_mean + at_m,
                        by_scale + at_m, top_joint, top_logit, lanes)
    for m in range(job.classes):
        add_component(joint + m * LANES, logit + m * LANES, top_joint, top_logit, sum_joint, sum_logit,
                      lanes)
    for l in range(n):
        far = far or sum_joint[l] == <real>0
    if far:
        settle_far(job, at, first, n, x, top, step, joint, top_joint, sum_joint)
    close_mixture(top_joint, top_logit, sum_joint, sum_logit, keep, values, lanes)
    if not job.with_gradient:
        return
    for l in range(lanes):
        sum_joint[l] = w / sum_joint[l]
        sum_logit[l] = w / sum_logit[l]
    for i in range(MAX_OUTPUTS):
        to[i] = (run_at(&job.gradient[i], &job.shape, sample)
                 + first * job.gradient[i].itemsize)
    for m in range(job.classes):
        at_m = m * LANES
        share_component(joint + at_m, logit + at_m, by_mean + at_m, by_scale + at_m, sum_joint,
                        sum_logit, keep, lanes)
        memcpy(to[0] + m * job.across_gradient, joint + m * LANES, n * sizeof(real))
        memcpy(to[1] + m * job.across_gradient, by_mean + m * LANES, n * sizeof(real))
        memcpy(to[2] + m * job.across_gradient, by_scale + m * LANES, n * sizeof(real))


cdef void mixture_unit(const Job* job, Py_ssize_t unit, char* room, bint* bad,
                       const real* kind) noexcept nogil:
    """A chunk of the event of one sample."""
    cdef double values[LANES]
    cdef Py_ssize_t sample = unit // job.chunks, chunk = unit - sample * job.chunks
    cdef Py_ssize_t first = chunk * job.chunk, stop = min(first + job.chunk, job.positions), n
    cdef Py_ssize_t l
    while first < stop:
        n = min(<Py_ssize_t>LANES, stop - first)
        mixture_tile(job, sample, first, n, values, room, bad, kind)
        for l in range(n):
            job.partial[unit] += values[l]
        for l in range(n if job.elements != NULL else 0):
            (<real*>job.elements)[sample * job.positions + first + l] = <real>values[l]
        first += n
