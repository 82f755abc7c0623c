# What a pass may hand the rows of the batch to: functions that are called as soon as all samples of
# a row are through, by the worker that took them, so that what they wrote is still in its cache.

cdef struct Follower:
    # What the derivatives of each sample of the row are to be multiplied by.
    const double* (*settle)(const void* job, Py_ssize_t row) noexcept nogil
    # Multiplies them where they were written.
    void (*rescale)(const void* job, Py_ssize_t row) noexcept nogil
    const void* job
    Py_ssize_t rows        # B of the (K, B) values of the pass, which `settle` reads


cdef extern from *:
    """
    #define FE_FOLLOWER "fastelbo follower"
    """
    const char* FOLLOWER "FE_FOLLOWER"       # names the capsules that carry one
