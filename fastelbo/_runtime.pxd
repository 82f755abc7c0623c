# The parallel region of every pass; compiled once, so that a share is the same code however many
# threads there are: specialised for one of them, it would round otherwise.

from fastelbo._kernels.terms.vecmath cimport real

# A pass: the share of worker number `share` of so many. `kind` is NULL, and only names the dtype.
# How much a share does may depend on their number, what it writes may not.
cdef void in_parallel(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil
