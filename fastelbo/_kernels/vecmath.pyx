# The vector maths and the noise over whole arrays: what the accuracy tests read.
#
# Arrays are contiguous, of one dtype and one length. No memoryviews: their code would be most of
# what is compiled here.

cimport numpy as cnp
from libc.stdint cimport uint32_t, uint64_t

cimport fastelbo._kernels.terms.noise as noise
cimport fastelbo._kernels.terms.vecmath as vecmath
from fastelbo._kernels.terms.vecmath cimport real

cnp.import_array()


cdef inline bint is_single(cnp.ndarray a) noexcept:
    return cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return cnp.PyArray_DATA(a)


cdef void exp_all(const real* restrict x, real* restrict out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.exp(x[i])


def exp(cnp.ndarray x, cnp.ndarray out):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        exp_all(<const float*>data_of(x), <float*>data_of(out), n)
    else:
        exp_all(<const double*>data_of(x), <double*>data_of(out), n)


cdef void log_all(const real* restrict x, real* restrict out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.log(x[i])


def log(cnp.ndarray x, cnp.ndarray out):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        log_all(<const float*>data_of(x), <float*>data_of(out), n)
    else:
        log_all(<const double*>data_of(x), <double*>data_of(out), n)


cdef void exp_minus_one_all(const real* restrict x, real* restrict e, real* restrict em1,
                            real* restrict em1mx, Py_ssize_t n, bint near) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if near:
            vecmath.exp_minus_one_near(x[i], &e[i], &em1[i], &em1mx[i])
        else:
            vecmath.exp_minus_one(x[i], &e[i], &em1[i], &em1mx[i])


def exp_minus_one(cnp.ndarray x, cnp.ndarray e, cnp.ndarray em1, cnp.ndarray em1mx, bint near=False):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        exp_minus_one_all(<const float*>data_of(x), <float*>data_of(e), <float*>data_of(em1),
                          <float*>data_of(em1mx), n, near)
    else:
        exp_minus_one_all(<const double*>data_of(x), <double*>data_of(e), <double*>data_of(em1),
                          <double*>data_of(em1mx), n, near)


cdef void logistic_all(const real* restrict x, real* restrict softplus, real* restrict sigmoid,
                       Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.logistic(x[i], &softplus[i], &sigmoid[i])


def logistic(cnp.ndarray x, cnp.ndarray softplus, cnp.ndarray sigmoid):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        logistic_all(<const float*>data_of(x), <float*>data_of(softplus), <float*>data_of(sigmoid), n)
    else:
        logistic_all(<const double*>data_of(x), <double*>data_of(softplus), <double*>data_of(sigmoid), n)


cdef void logistic_odds_all(const real* restrict x, real* restrict odds, real* restrict sigmoid,
                            Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        odds[i] = vecmath.logistic_odds(x[i], &sigmoid[i])


def logistic_odds(cnp.ndarray x, cnp.ndarray odds, cnp.ndarray sigmoid):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        logistic_odds_all(<const float*>data_of(x), <float*>data_of(odds), <float*>data_of(sigmoid), n)
    else:
        logistic_odds_all(<const double*>data_of(x), <double*>data_of(odds), <double*>data_of(sigmoid),
                          n)


cdef void log_one_plus_all(const real* restrict x, real* restrict out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = vecmath.log_one_plus(x[i])


def log_one_plus(cnp.ndarray x, cnp.ndarray out):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        log_one_plus_all(<const float*>data_of(x), <float*>data_of(out), n)
    else:
        log_one_plus_all(<const double*>data_of(x), <double*>data_of(out), n)


cdef void sincos_eighth_all(const real* restrict x, real* restrict sine, real* restrict cosine,
                            Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        vecmath.sincos_eighth(x[i], &sine[i], &cosine[i])


def sincos_eighth(cnp.ndarray x, cnp.ndarray sine, cnp.ndarray cosine):
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if is_single(x):
        sincos_eighth_all(<const float*>data_of(x), <float*>data_of(sine), <float*>data_of(cosine), n)
    else:
        sincos_eighth_all(<const double*>data_of(x), <double*>data_of(sine), <double*>data_of(cosine), n)


cdef void normals_all(uint64_t key, uint64_t first_block, real* out, Py_ssize_t blocks) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(blocks):
        noise.normal_block(key, first_block + <uint64_t>i, &out[noise.BLOCK * i])


def normals(uint64_t key, uint64_t first_block, cnp.ndarray out):
    cdef Py_ssize_t blocks = cnp.PyArray_SIZE(out) // noise.BLOCK
    if is_single(out):
        normals_all(key, first_block, <float*>data_of(out), blocks)
    else:
        normals_all(key, first_block, <double*>data_of(out), blocks)


def philox(uint64_t counter, uint64_t key):
    """The 4 x 16 words of counters counter .. counter + 15."""
    cdef uint64_t words[4 * noise.GROUP]
    noise.philox(counter, key, words)
    return [[<uint32_t>words[w * noise.GROUP + l] for w in range(4)] for l in range(noise.GROUP)]
