# The importance-weighted bound from Cython, without Python's lock; z is drawn as the first sample.

from libc.string cimport memset

from fastelbo.capi cimport FASTELBO_FLOAT64, Call, Handle, handle_of, iwae

import numpy as np


def mean_iwae(likelihood, const double[:, ::1] x, const double[:, :, ::1] x_recon,
              const double[:, ::1] mu, const double[:, ::1] logvar, double[:, :, ::1] z):
    """Of x (B, D), x_recon (K, B, D), mu and logvar (B, L), z (K, B, L); `likelihood` is one of
    fastelbo.capi.likelihood. Returns the mean bound."""
    cdef const Handle* handle = handle_of(likelihood)
    cdef Call call
    cdef double[::1] bound
    cdef int failed
    bound = np.empty(x.shape[0])
    memset(&call, 0, sizeof(Call))
    call.samples, call.batch, call.latent = z.shape[0], z.shape[1], z.shape[2]
    call.event = x.shape[1]
    call.dtype = call.x_dtype = FASTELBO_FLOAT64
    call.x, call.outputs[0] = &x[0, 0], &x_recon[0, 0, 0]
    call.mu, call.logvar, call.z = &mu[0, 0], &logvar[0, 0], &z[0, 0, 0]
    call.bound = &bound[0]
    call.threads = 1
    with nogil:
        failed = iwae(handle, &call)
    if failed:
        raise MemoryError()
    return call.log_prob / x.shape[0]
