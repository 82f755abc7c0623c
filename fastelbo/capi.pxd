# What Cython takes from fastelbo.capi; fastelbo.h says what a Call is and what the functions do.

from libc.stdint cimport int32_t

from fastelbo._call cimport (
    FASTELBO_BFLOAT16, FASTELBO_DREG, FASTELBO_FLOAT16, FASTELBO_FLOAT32, FASTELBO_FLOAT64,
    FASTELBO_INT8, FASTELBO_INT16, FASTELBO_INT32, FASTELBO_INT64, FASTELBO_STANDARD, FASTELBO_STL,
    FASTELBO_UINT8, FASTELBO_UINT16, FASTELBO_UINT32, FASTELBO_UINT64, Call, Handle,
)

# Of an object of fastelbo.capi.likelihood, as long as that is kept.
cdef const Handle* handle_of(object likelihood) except NULL
cdef int32_t elbo(const Handle* likelihood, Call* call) noexcept nogil
cdef int32_t kl(Call* call) noexcept nogil
cdef int32_t backward(Call* call) noexcept nogil
cdef int32_t iwae(const Handle* likelihood, Call* call) noexcept nogil
