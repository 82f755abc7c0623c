# What a pass may hand the rows of the batch to: a function that is called as soon as all samples of
# a row are through, by the worker that took them, so that what they wrote is still in its cache.

cdef struct Follower:
    void (*take)(const void* job, Py_ssize_t row) noexcept nogil
    const void* job
    Py_ssize_t rows        # B of the (K, B) values of the pass, which `take` reads


cdef extern from *:
    """
    #define FE_FOLLOWER "fastelbo follower"
    """
    const char* FOLLOWER "FE_FOLLOWER"       # names the capsules that carry one
