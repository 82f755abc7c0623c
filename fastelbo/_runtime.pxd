# The parallel region of every pass; compiled once, so that a share is the same code however many
# threads there are: specialised for one of them, it would round otherwise.

from fastelbo._kernels.terms.vecmath cimport real

# A pass: the share of worker number `share` of so many. `kind` is NULL, and only names the dtype.
# How much a share does may depend on their number, what it writes may not.
cdef void in_parallel(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil

# The same, of weights that die out: what is less than the least normal number is zero there.
cdef void in_parallel_flushed(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil

cdef enum:
    UNHEEDED = 1 << 28     # work of a third of a second of one core, or less

# For passes over pairs, whose calls take seconds: after so much work (a pair in a dimension is one),
# which `owed` adds up, handlers of signals run; what they raise is raised.
cdef int heed_signals(double* owed, double work) except -1 nogil
