# What remains of the gamma functions, over whole arrays: for the constants of likelihoods, and for
# the accuracy tests. Arrays are contiguous, of one dtype and one length, as in vecmath.pyx.

cimport numpy as cnp

from fastelbo._kernels.terms cimport gamma
from fastelbo._kernels.terms.vecmath cimport log, real

cnp.import_array()


cdef inline bint is_single(cnp.ndarray a) noexcept:
    return cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return cnp.PyArray_DATA(a)


cdef void log1p_all(const real* restrict u, real* restrict whole, real* restrict minus,
                    Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.log1p_pair(u[i], &whole[i], &minus[i])


def log1p(cnp.ndarray u, cnp.ndarray whole, cnp.ndarray minus):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(u)
    if is_single(u):
        log1p_all(<const float*>data_of(u), <float*>data_of(whole), <float*>data_of(minus), n)
    else:
        log1p_all(<const double*>data_of(u), <double*>data_of(whole), <double*>data_of(minus), n)


cdef void deviance_all(const real* restrict x, const real* restrict m, real* restrict out,
                       Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = gamma.deviance(x[i], <real>1.0 / x[i], log(x[i]), m[i], log(m[i]))


def deviance(cnp.ndarray x, cnp.ndarray m, cnp.ndarray out):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        deviance_all(<const float*>data_of(x), <const float*>data_of(m), <float*>data_of(out), n)
    else:
        deviance_all(<const double*>data_of(x), <const double*>data_of(m), <double*>data_of(out), n)


cdef void corrections_all(const real* restrict a, real* restrict c, real* restrict e,
                          Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.corrections(a[i], <real>1.0 / a[i], log(a[i]), &c[i], &e[i])


def corrections(cnp.ndarray a, cnp.ndarray c, cnp.ndarray e):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(a)
    if is_single(a):
        corrections_all(<const float*>data_of(a), <float*>data_of(c), <float*>data_of(e), n)
    else:
        corrections_all(<const double*>data_of(a), <double*>data_of(c), <double*>data_of(e), n)


cdef void log_factorial_rest_all(const real* restrict x, real* restrict out,
                                 Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = gamma.log_factorial_rest(x[i], <real>1.0 / x[i], log(x[i]))


def log_factorial_rest(cnp.ndarray x, cnp.ndarray out):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        log_factorial_rest_all(<const float*>data_of(x), <float*>data_of(out), n)
    else:
        log_factorial_rest_all(<const double*>data_of(x), <double*>data_of(out), n)


cdef void rise_all(const real* restrict a, const real* restrict x, real* restrict value,
                   real* restrict slope, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real b
    for i in range(n):
        b = a[i] + x[i]
        gamma.rise(a[i], <real>1.0 / a[i], log(a[i]), x[i], b, <real>1.0 / b, log(b), &value[i],
                   &slope[i])


def rise(cnp.ndarray a, cnp.ndarray x, cnp.ndarray value, cnp.ndarray slope):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(a)
    if is_single(a):
        rise_all(<const float*>data_of(a), <const float*>data_of(x), <float*>data_of(value),
                 <float*>data_of(slope), n)
    else:
        rise_all(<const double*>data_of(a), <const double*>data_of(x), <double*>data_of(value),
                 <double*>data_of(slope), n)


cdef void half_rise_all(const real* restrict a, real* restrict value, real* restrict slope,
                        Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.half_rise(a[i], &value[i], &slope[i])


def half_rise(cnp.ndarray a, cnp.ndarray value, cnp.ndarray slope):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(a)
    if is_single(a):
        half_rise_all(<const float*>data_of(a), <float*>data_of(value), <float*>data_of(slope), n)
    else:
        half_rise_all(<const double*>data_of(a), <double*>data_of(value), <double*>data_of(slope), n)
