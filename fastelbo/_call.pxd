# What fastelbo.h declares.

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from "fastelbo.h":
    enum:
        FASTELBO_UINT8, FASTELBO_INT8, FASTELBO_UINT16, FASTELBO_INT16, FASTELBO_UINT32, FASTELBO_INT32
        FASTELBO_UINT64, FASTELBO_INT64, FASTELBO_FLOAT32, FASTELBO_FLOAT64
        FASTELBO_FLOAT16, FASTELBO_BFLOAT16
        FASTELBO_STANDARD, FASTELBO_STL, FASTELBO_DREG
        FASTELBO_NO_MEMORY, FASTELBO_UNFIT

    ctypedef struct Call "fastelbo_call":
        int64_t samples, batch, event, latent, classes
        int32_t dtype, x_dtype, output_dtype, latent_dtype, columns, summed
        const void* x
        const void** outputs
        const void* mu
        const void* logvar
        const void* mu_p
        const void* logvar_p
        const void* noise
        uint64_t key
        int32_t draws, estimator
        double weight, kl_weight
        void* z
        void** d_outputs
        void* d_mu
        void* d_logvar
        void* d_mu_p
        void* d_logvar_p
        void* d_z
        void* weights
        double* row_log_prob
        double* row_kl
        double* bound
        const void* follower
        int32_t threads, outside
        double log_prob, kl

    ctypedef struct Own "struct fastelbo_own":
        const void** data
        int32_t storage, spread

    ctypedef struct Handle "fastelbo_likelihood":
        int32_t (*run)(const Handle*, Call*) noexcept nogil
        void** term
        int32_t outputs, owns, gradients, nan_missing, follows, columns
        int64_t classes
        double x_scale, factor, constant
        int64_t event
        Own* own
