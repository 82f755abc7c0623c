# What remains of the gamma functions, over whole arrays: for the constants of likelihoods, and for
# the accuracy tests.

cimport numpy as cnp

from fastelbo._kernels.operands cimport data_of
cimport fastelbo._kernels.terms.gamma as gamma
from fastelbo._kernels.terms.vecmath cimport log, real

cnp.import_array()

include "whole.pxi"


cdef void log1p_all(const real* restrict u, real* restrict whole, real* restrict minus,
                    real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.log1p_pair(u[i], &whole[i], &minus[i])


def log1p(cnp.ndarray u, cnp.ndarray whole, cnp.ndarray minus):
    run(<Whole>log1p_all[float], <Whole>log1p_all[double], u, whole, minus)


cdef void deviance_all(const real* restrict x, real* restrict m, real* restrict out,
                       real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = gamma.deviance(x[i], <real>1.0 / x[i], log(x[i]), m[i], log(m[i]))


def deviance(cnp.ndarray x, cnp.ndarray m, cnp.ndarray out):
    run(<Whole>deviance_all[float], <Whole>deviance_all[double], x, m, out)


cdef void corrections_all(const real* restrict a, real* restrict c, real* restrict e,
                          real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.corrections(a[i], <real>1.0 / a[i], log(a[i]), &c[i], &e[i])


def corrections(cnp.ndarray a, cnp.ndarray c, cnp.ndarray e):
    run(<Whole>corrections_all[float], <Whole>corrections_all[double], a, c, e)


cdef void log_factorial_rest_all(const real* restrict x, real* restrict out, real* restrict _0,
                                 real* restrict _1, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = gamma.log_factorial_rest(x[i], <real>1.0 / x[i], log(x[i]))


def log_factorial_rest(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>log_factorial_rest_all[float], <Whole>log_factorial_rest_all[double], x, out)


cdef void rise_all(const real* restrict a, real* restrict x, real* restrict value,
                   real* restrict slope, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real b
    for i in range(n):
        b = a[i] + x[i]
        gamma.rise(a[i], <real>1.0 / a[i], log(a[i]), x[i], b, <real>1.0 / b, log(b), &value[i],
                   &slope[i])


def rise(cnp.ndarray a, cnp.ndarray x, cnp.ndarray value, cnp.ndarray slope):
    run(<Whole>rise_all[float], <Whole>rise_all[double], a, x, value, slope)


cdef void half_rise_all(const real* restrict a, real* restrict value, real* restrict slope,
                        real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.half_rise(a[i], &value[i], &slope[i])


def half_rise(cnp.ndarray a, cnp.ndarray value, cnp.ndarray slope):
    run(<Whole>half_rise_all[float], <Whole>half_rise_all[double], a, value, slope)
