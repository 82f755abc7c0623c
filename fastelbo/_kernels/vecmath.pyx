# The vector maths and the noise over whole arrays: what the accuracy tests and `info` read.

from libc.stdint cimport uint32_t, uint64_t

cimport fastelbo._kernels.terms.noise as noise
cimport fastelbo._kernels.terms.vecmath as vecmath
from fastelbo._kernels.terms.vecmath cimport real


def exp(const real[::1] x, real[::1] out):
    cdef Py_ssize_t i, n = min(x.shape[0], out.shape[0])
    cdef const real* px = &x[0]
    cdef real* po = &out[0]
    with nogil:
        for i in range(n):
            po[i] = vecmath.exp(px[i])


def log(const real[::1] x, real[::1] out):
    cdef Py_ssize_t i, n = min(x.shape[0], out.shape[0])
    cdef const real* px = &x[0]
    cdef real* po = &out[0]
    with nogil:
        for i in range(n):
            po[i] = vecmath.log(px[i])


def exp_minus_one(const real[::1] x, real[::1] e, real[::1] em1, real[::1] em1mx, bint near=False):
    cdef Py_ssize_t i, n = min(x.shape[0], e.shape[0], em1.shape[0], em1mx.shape[0])
    cdef const real* px = &x[0]
    cdef real* p0 = &e[0]
    cdef real* p1 = &em1[0]
    cdef real* p2 = &em1mx[0]
    with nogil:
        for i in range(n):
            if near:
                vecmath.exp_minus_one_near(px[i], &p0[i], &p1[i], &p2[i])
            else:
                vecmath.exp_minus_one(px[i], &p0[i], &p1[i], &p2[i])


def logistic(const real[::1] x, real[::1] softplus, real[::1] sigmoid):
    cdef Py_ssize_t i, n = min(x.shape[0], softplus.shape[0], sigmoid.shape[0])
    cdef const real* px = &x[0]
    cdef real* p1 = &softplus[0]
    cdef real* p2 = &sigmoid[0]
    with nogil:
        for i in range(n):
            vecmath.logistic(px[i], &p1[i], &p2[i])


def logistic_odds(const real[::1] x, real[::1] odds, real[::1] sigmoid):
    cdef Py_ssize_t i, n = min(x.shape[0], odds.shape[0], sigmoid.shape[0])
    cdef const real* px = &x[0]
    cdef real* p1 = &odds[0]
    cdef real* p2 = &sigmoid[0]
    with nogil:
        for i in range(n):
            p1[i] = vecmath.logistic_odds(px[i], &p2[i])


def log_one_plus(const real[::1] x, real[::1] out):
    cdef Py_ssize_t i, n = min(x.shape[0], out.shape[0])
    cdef const real* px = &x[0]
    cdef real* po = &out[0]
    with nogil:
        for i in range(n):
            po[i] = vecmath.log_one_plus(px[i])


def sincos_eighth(const real[::1] x, real[::1] sine, real[::1] cosine):
    cdef Py_ssize_t i, n = min(x.shape[0], sine.shape[0], cosine.shape[0])
    cdef const real* px = &x[0]
    cdef real* p1 = &sine[0]
    cdef real* p2 = &cosine[0]
    with nogil:
        for i in range(n):
            vecmath.sincos_eighth(px[i], &p1[i], &p2[i])


def normals(uint64_t key, uint64_t first_block, real[::1] out):
    cdef Py_ssize_t i, n = out.shape[0] // noise.BLOCK
    cdef real* po = &out[0]
    with nogil:
        for i in range(n):
            noise.normal_block(key, first_block + <uint64_t>i, &po[noise.BLOCK * i])


def philox(uint64_t counter, uint64_t key):
    """The 4 x 16 words of counters counter .. counter + 15."""
    cdef uint64_t words[4 * noise.GROUP]
    noise.philox(counter, key, words)
    return [[<uint32_t>words[w * noise.GROUP + l] for w in range(4)] for l in range(noise.GROUP)]
