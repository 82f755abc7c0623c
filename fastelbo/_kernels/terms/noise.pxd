# Counter-based standard normals: Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller.
#
# Normal number i of a key is a pure function of (key, i), whoever draws it and in whatever order.
# The unit of work is a block of 64 normals, drawn by GROUP = 16 consecutive counters at once:
#
#   float32   block b uses counters 16 b .. 16 b + 15; each gives four normals, and normal
#             64 b + 16 w + l is number w of counter 16 b + l
#   float64   block b uses counters 32 b .. 32 b + 31, in two groups; each counter gives two,
#             and normal 64 b + 32 h + 16 w + l is number w of counter 32 b + 16 h + l
#
# Float32 radii are at most 6.66 (31 bits of uniform), float64 ones 9.49 (64 bits).

from libc.math cimport sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastelbo._kernels.terms.vecmath cimport (
    bits32, bits64, double_of, float_of, horner, hornerf, log_reduce, real, sincos_eighth,
)

cdef enum:
    BLOCK = 64
    GROUP = 16

cdef extern from *:
    """
    /* The 64-bit lanes of a vector. The product of their low halves is one instruction, which gcc
       does not find by itself: it takes three, or for 32-bit lanes two and six shuffles. */
    #if defined(__GNUC__) && defined(__SSE2__)
        #include <immintrin.h>
        #if defined(__AVX512F__)
            #define FE_VECTOR(name) _mm512_##name
            typedef __m512i fe_vector;
        #elif defined(__AVX2__)
            #define FE_VECTOR(name) _mm256_##name
            typedef __m256i fe_vector;
        #else
            #define FE_VECTOR(name) _mm_##name
            typedef __m128i fe_vector;
        #endif
        typedef uint64_t fe_lanes __attribute__((vector_size(sizeof(fe_vector))));
        static CYTHON_INLINE fe_lanes fe_low_product(fe_lanes a, fe_lanes b) {
            return (fe_lanes)FE_VECTOR(mul_epu32)((fe_vector)a, (fe_vector)b);
        }
        static CYTHON_INLINE fe_lanes fe_all(uint64_t a) { return a - (fe_lanes){0}; }
    #else
        typedef uint64_t fe_lanes;
        static CYTHON_INLINE fe_lanes fe_low_product(fe_lanes a, fe_lanes b) {
            return (uint64_t)(uint32_t)a * (uint32_t)b;
        }
        static CYTHON_INLINE fe_lanes fe_all(uint64_t a) { return a; }
    #endif
    """
    ctypedef uint64_t lanes "fe_lanes"       # to Cython a number, whose operators they share
    lanes low_product "fe_low_product" (lanes, lanes) noexcept nogil
    lanes in_all_lanes "fe_all" (uint64_t) noexcept nogil


cdef inline void philox_round(lanes* a, lanes* b, lanes* c, lanes* d,
                              uint32_t* k0, uint32_t* k1) noexcept nogil:
    """Of words in the low halves of lanes; what the high ones hold is never read."""
    cdef lanes p0 = low_product(a[0], in_all_lanes(0xD2511F53U))
    cdef lanes p1 = low_product(c[0], in_all_lanes(0xCD9E8D57U))
    a[0] = (p1 >> 32) ^ b[0] ^ in_all_lanes(k0[0])
    c[0] = (p0 >> 32) ^ d[0] ^ in_all_lanes(k1[0])
    b[0] = p1
    d[0] = p0
    k0[0] = k0[0] + 0x9E3779B9U
    k1[0] = k1[0] + 0xBB67AE85U


cdef inline void ten_rounds(lanes* a, lanes* b, lanes* c, lanes* d, uint64_t key) noexcept nogil:
    """Written out: a loop would stay one, and wait for each product."""
    cdef uint32_t k0 = <uint32_t>key, k1 = <uint32_t>(key >> 32)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)
    philox_round(a, b, c, d, &k0, &k1)


cdef inline void philox(uint64_t counter, uint64_t key, uint64_t* words) noexcept nogil:
    """Philox4x32-10 of counters counter .. counter + 15 (high half of the counter zero).

    words is (4, GROUP): word w of counter l is the low half of words[w * GROUP + l].
    """
    cdef uint64_t counters[GROUP]
    cdef lanes a, b, c, d
    cdef int l, v, in_one = sizeof(lanes) // sizeof(uint64_t)
    for l in range(GROUP):
        counters[l] = counter + <uint64_t>l
    for v in range(GROUP // in_one):
        l = v * in_one
        memcpy(&a, &counters[l], sizeof(lanes))
        b = a >> 32
        c = in_all_lanes(0)
        d = c
        ten_rounds(&a, &b, &c, &d, key)
        memcpy(&words[l], &a, sizeof(lanes))
        memcpy(&words[GROUP + l], &b, sizeof(lanes))
        memcpy(&words[2 * GROUP + l], &c, sizeof(lanes))
        memcpy(&words[3 * GROUP + l], &d, sizeof(lanes))


cdef inline void box_muller_float(uint32_t v, uint32_t w, float* z0, float* z1) noexcept nogil:
    """Radius from v, direction from w: 30 bits for the eighth of a turn either side of an axis,
    one bit for the sign of the cosine, one to swap the two."""
    cdef float u, f, e, p, y, radius, s, c
    u = (<float><int32_t>(v >> 1) + <float>0.5) * <float>4.656612873e-10
    f = log_reduce(u, <float>0.0, &e)
    p = hornerf(f, 8.915509284e-02, -1.434955448e-01)            # log u to 2^-24, fewer terms than log
    p = hornerf(f, p, 1.487744749e-01)
    p = hornerf(f, p, -1.656572223e-01)
    p = hornerf(f, p, 1.996536106e-01)
    p = hornerf(f, p, -2.500174344e-01)
    p = hornerf(f, p, 3.333385885e-01)
    y = (p * f - <float>0.5) * (f * f) + f
    y = <float>-2.0 * (y + e * <float>0.6931471806)
    radius = sqrtf(y if y > <float>0.0 else <float>0.0)
    sincos_eighth(<float><int32_t>(w << 2) * <float>5.820766091e-11, &s, &c)
    s = s * radius
    c = float_of(bits32(c * radius) ^ <int32_t>(w & <uint32_t>0x80000000))
    z0[0] = s if w & <uint32_t>0x40000000 else c
    z1[0] = c if w & <uint32_t>0x40000000 else s


cdef inline void box_muller_double(uint64_t v, uint64_t w,
                                   double* z0, double* z1) noexcept nogil:
    """As above from 64-bit words; u = (v + 1/2) / 2^64 with fine steps towards 0."""
    cdef double u, f, e, g, z, p, y, radius, t, s, c
    cdef int64_t cosine, differ
    u = ((double_of(<int64_t>(<uint64_t>0x3ff0000000000000 | (v >> 12))) - 1.0)
         + (double_of(<int64_t>(<uint64_t>0x3f30000000000000 | (v & 0xfff)))
            - (0.000244140625 - 2.710505431213761e-20)))         # 2^-12 - 2^-65
    f = log_reduce(u, 0.0, &e)
    g = f / (2.0 + f)
    z = g * g
    p = horner(z, 0.1479574048179939, 0.15314076039512223)
    p = horner(z, p, 0.1818356311351531)
    p = horner(z, p, 0.22222198601734802)
    p = horner(z, p, 0.2857142874204294)
    p = horner(z, p, 0.3999999999941664)
    p = horner(z, p, 0.6666666666666734)
    y = -2.0 * ((f - g * (f - p * z)) + e * 0.6931471805599453)
    radius = sqrt(y if y > 0.0 else 0.0)
    t = (double_of(<int64_t>(<uint64_t>0x4330000000000000 | ((w >> 10) & <uint64_t>0x000fffffffffffff)))
         - 6755399441055744.0) * 5.551115123125783e-17           # 52 bits, signed; 2^-54
    sincos_eighth(t, &s, &c)
    s = s * radius
    cosine = bits64(c * radius) ^ <int64_t>(w & <uint64_t>0x8000000000000000)
    differ = (bits64(s) ^ cosine) & -<int64_t>((w >> 62) & 1)    # masks: no 64-bit blend before AVX-512
    z0[0] = double_of(cosine ^ differ)
    z1[0] = double_of(bits64(s) ^ differ)


cdef inline void normal_block(uint64_t key, uint64_t block, real* z) noexcept nogil:
    """Normals 64 block .. 64 block + 63 of the key."""
    cdef uint64_t words[4 * GROUP]
    cdef int l, h
    if real is float:
        philox(block * GROUP, key, words)
        for l in range(GROUP):
            box_muller_float(<uint32_t>words[l], <uint32_t>words[GROUP + l], &z[l], &z[GROUP + l])
        for l in range(GROUP):
            box_muller_float(<uint32_t>words[2 * GROUP + l], <uint32_t>words[3 * GROUP + l],
                             &z[2 * GROUP + l], &z[3 * GROUP + l])
    else:
        for h in range(2):
            philox((2 * block + h) * GROUP, key, words)
            for l in range(GROUP):
                box_muller_double(
                    (words[l] << 32) | <uint32_t>words[GROUP + l],
                    (words[2 * GROUP + l] << 32) | <uint32_t>words[3 * GROUP + l],
                    &z[32 * h + l], &z[32 * h + GROUP + l])
