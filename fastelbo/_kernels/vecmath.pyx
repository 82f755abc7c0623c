# The vector maths, the gamma functions and the noise over whole arrays, contiguous, of one dtype and
# one length: for the constants of likelihoods, and for the accuracy tests.

cimport numpy as cnp
from libc.stdint cimport uint32_t, uint64_t

cimport fastelbo._kernels.terms.gamma as gamma
cimport fastelbo._kernels.terms.noise as noise
cimport fastelbo._kernels.terms.power as power
cimport fastelbo._kernels.terms.vecmath as vecmath
from fastelbo._kernels.operands cimport data_of
from fastelbo._kernels.terms.vecmath cimport real

cnp.import_array()

# No memoryviews: their code would be most of what is compiled.

# What a function reads and writes, in its order; NULL is what it does not have.
ctypedef void (*Whole)(const void* a, void* b, void* c, void* d, Py_ssize_t n) noexcept nogil


cdef run(Whole of_float, Whole of_double, cnp.ndarray a, cnp.ndarray b, cnp.ndarray c=None,
         cnp.ndarray d=None):
    cdef Whole whole = of_float if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else of_double
    whole(data_of(a), data_of(b), data_of(c), data_of(d), cnp.PyArray_SIZE(a))


cdef void exp_all(const real* restrict x, real* restrict out, real* restrict _0, real* restrict _1,
                  Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.exp(x[i])


def exp(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>exp_all[float], <Whole>exp_all[double], x, out)


cdef void log_all(const real* restrict x, real* restrict out, real* restrict _0, real* restrict _1,
                  Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.log(x[i])


def log(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>log_all[float], <Whole>log_all[double], x, out)


cdef void exp_minus_one_all(const real* restrict x, real* restrict e, real* restrict em1,
                            real* restrict em1mx, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.exp_minus_one(x[i], &e[i], &em1[i], &em1mx[i])


def exp_minus_one(cnp.ndarray x, cnp.ndarray e, cnp.ndarray em1, cnp.ndarray em1mx):
    run(<Whole>exp_minus_one_all[float], <Whole>exp_minus_one_all[double], x, e, em1, em1mx)


cdef void exp_minus_one_near_all(const real* restrict x, real* restrict e, real* restrict em1,
                                 real* restrict em1mx, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.exp_minus_one_near(x[i], &e[i], &em1[i], &em1mx[i])


def exp_minus_one_near(cnp.ndarray x, cnp.ndarray e, cnp.ndarray em1, cnp.ndarray em1mx):
    run(<Whole>exp_minus_one_near_all[float], <Whole>exp_minus_one_near_all[double], x, e, em1, em1mx)


cdef void logistic_all(const real* restrict x, real* restrict softplus, real* restrict sigmoid,
                       real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.logistic(x[i], &softplus[i], &sigmoid[i])


def logistic(cnp.ndarray x, cnp.ndarray softplus, cnp.ndarray sigmoid):
    run(<Whole>logistic_all[float], <Whole>logistic_all[double], x, softplus, sigmoid)


cdef void logistic_odds_all(const real* restrict x, real* restrict odds, real* restrict sigmoid,
                            real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        odds[i] = vecmath.logistic_odds(x[i], &sigmoid[i])


def logistic_odds(cnp.ndarray x, cnp.ndarray odds, cnp.ndarray sigmoid):
    run(<Whole>logistic_odds_all[float], <Whole>logistic_odds_all[double], x, odds, sigmoid)


cdef void log_one_plus_all(const real* restrict x, real* restrict out, real* restrict _0,
                           real* restrict _1, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.log_one_plus(x[i])


def log_one_plus(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>log_one_plus_all[float], <Whole>log_one_plus_all[double], x, out)


cdef void sincos_eighth_all(const real* restrict x, real* restrict sine, real* restrict cosine,
                            real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.sincos_eighth(x[i], &sine[i], &cosine[i])


def sincos_eighth(cnp.ndarray x, cnp.ndarray sine, cnp.ndarray cosine):
    run(<Whole>sincos_eighth_all[float], <Whole>sincos_eighth_all[double], x, sine, cosine)


cdef void power_of_two_all(const real* restrict x, real* restrict out, real* restrict _0,
                           real* restrict _1, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = power.raised_power(x[i]) * <real>power.raised(x)


def power_of_two(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>power_of_two_all[float], <Whole>power_of_two_all[double], x, out)


cdef void power_to_underflow_all(const real* restrict x, real* restrict out, real* restrict _0,
                                 real* restrict _1, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = power.power_to_underflow(x[i])


def power_to_underflow(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>power_to_underflow_all[float], <Whole>power_to_underflow_all[double], x, out)


# What remains of the gamma functions -----------------------------------------------------------

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
        out[i] = gamma.deviance(x[i], <real>1.0 / x[i], vecmath.log(x[i]), m[i], vecmath.log(m[i]))


def deviance(cnp.ndarray x, cnp.ndarray m, cnp.ndarray out):
    run(<Whole>deviance_all[float], <Whole>deviance_all[double], x, m, out)


cdef void corrections_all(const real* restrict a, real* restrict c, real* restrict e,
                          real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.corrections(a[i], <real>1.0 / a[i], vecmath.log(a[i]), &c[i], &e[i])


def corrections(cnp.ndarray a, cnp.ndarray c, cnp.ndarray e):
    run(<Whole>corrections_all[float], <Whole>corrections_all[double], a, c, e)


cdef void log_factorial_rest_all(const real* restrict x, real* restrict out, real* restrict _0,
                                 real* restrict _1, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = gamma.log_factorial_rest(x[i], <real>1.0 / x[i], vecmath.log(x[i]))


def log_factorial_rest(cnp.ndarray x, cnp.ndarray out):
    run(<Whole>log_factorial_rest_all[float], <Whole>log_factorial_rest_all[double], x, out)


cdef void rise_all(const real* restrict a, real* restrict x, real* restrict value,
                   real* restrict slope, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real b
    for i in range(n):
        b = a[i] + x[i]
        gamma.rise(a[i], <real>1.0 / a[i], vecmath.log(a[i]), x[i], b, <real>1.0 / b,
                   vecmath.log(b), &value[i], &slope[i])


def rise(cnp.ndarray a, cnp.ndarray x, cnp.ndarray value, cnp.ndarray slope):
    run(<Whole>rise_all[float], <Whole>rise_all[double], a, x, value, slope)


cdef void half_rise_all(const real* restrict a, real* restrict value, real* restrict slope,
                        real* restrict _0, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gamma.half_rise(a[i], &value[i], &slope[i])


def half_rise(cnp.ndarray a, cnp.ndarray value, cnp.ndarray slope):
    run(<Whole>half_rise_all[float], <Whole>half_rise_all[double], a, value, slope)


# Noise ------------------------------------------------------------------------------------------

cdef void normals_all(uint64_t key, uint64_t first_block, real* out, Py_ssize_t blocks) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(blocks):
        noise.normal_block(key, first_block + <uint64_t>i, &out[noise.BLOCK * i])


def normals(uint64_t key, uint64_t first_block, cnp.ndarray out):
    cdef Py_ssize_t blocks = cnp.PyArray_SIZE(out) // noise.BLOCK
    if cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT:
        normals_all(key, first_block, <float*>data_of(out), blocks)
    else:
        normals_all(key, first_block, <double*>data_of(out), blocks)


def philox(uint64_t counter, uint64_t key):
    """The 4 x 16 words of counters counter .. counter + 15."""
    cdef uint64_t words[4 * noise.GROUP]
    noise.philox(counter, key, words)
    return [[<uint32_t>words[w * noise.GROUP + l] for w in range(4)] for l in range(noise.GROUP)]
