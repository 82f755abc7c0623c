# What remains of the gamma functions, over whole arrays: for the constants of likelihoods, and for
# the accuracy tests.

from fastelbo._kernels.terms cimport gamma
from fastelbo._kernels.terms.vecmath cimport log, real


def log1p(const real[::1] u, real[::1] whole, real[::1] minus):
    """log(1 + u) and log(1 + u) - u."""
    cdef Py_ssize_t i, n = min(u.shape[0], whole.shape[0], minus.shape[0])
    with nogil:
        for i in range(n):
            gamma.log1p_pair(u[i], &whole[i], &minus[i])


def deviance(const real[::1] x, const real[::1] m, real[::1] out):
    """x log(x / m) - x + m."""
    cdef Py_ssize_t i, n = min(x.shape[0], m.shape[0], out.shape[0])
    with nogil:
        for i in range(n):
            out[i] = gamma.deviance(x[i], <real>1.0 / x[i], log(x[i]), m[i], log(m[i]))


def corrections(const real[::1] a, real[::1] c, real[::1] e):
    cdef Py_ssize_t i, n = min(a.shape[0], c.shape[0], e.shape[0])
    with nogil:
        for i in range(n):
            gamma.corrections(a[i], <real>1.0 / a[i], log(a[i]), &c[i], &e[i])


def log_factorial_rest(const real[::1] x, real[::1] out):
    cdef Py_ssize_t i, n = min(x.shape[0], out.shape[0])
    with nogil:
        for i in range(n):
            out[i] = gamma.log_factorial_rest(x[i], <real>1.0 / x[i], log(x[i]))


def rise(const real[::1] a, const real[::1] x, real[::1] value, real[::1] slope):
    cdef Py_ssize_t i, n = min(a.shape[0], x.shape[0], value.shape[0], slope.shape[0])
    cdef real b
    with nogil:
        for i in range(n):
            b = a[i] + x[i]
            gamma.rise(a[i], <real>1.0 / a[i], log(a[i]), x[i], b, <real>1.0 / b, log(b), &value[i],
                       &slope[i])


def half_rise(const real[::1] a, real[::1] value, real[::1] slope):
    cdef Py_ssize_t i, n = min(a.shape[0], value.shape[0], slope.shape[0])
    with nogil:
        for i in range(n):
            gamma.half_rise(a[i], &value[i], &slope[i])
