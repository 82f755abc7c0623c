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

from fastelbo._kernels.terms.vecmath cimport (
    bits32, bits64, double_of, float_of, horner, hornerf, log_reduce, real, sincos_eighth,
)

ctypedef fused word:
    uint32_t
    uint64_t

cdef enum:
    BLOCK = 64
    GROUP = 16

cdef extern from *:
    """
    #ifdef __AVX512DQ__   /* a 64-bit vector product exists */
    #define FE_WIDE_PRODUCT 1
    #else
    #define FE_WIDE_PRODUCT 0
    #endif
    """
    const bint WIDE_PRODUCT "FE_WIDE_PRODUCT"


cdef inline void philox_round(word* a, word* b, word* c, word* d,
                              uint32_t* k0, uint32_t* k1) noexcept nogil:
    cdef uint64_t p0, p1
    if word is uint64_t:
        # 64-bit lanes: the low half of a product needs no work, since whatever sits above bit 31
        # is masked when it is next multiplied.
        p0 = <uint64_t>0xD2511F53U * (a[0] & 0xffffffffU)
        p1 = <uint64_t>0xCD9E8D57U * (c[0] & 0xffffffffU)
    else:
        p0 = <uint64_t>0xD2511F53U * a[0]
        p1 = <uint64_t>0xCD9E8D57U * c[0]
    a[0] = <word>(p1 >> 32) ^ b[0] ^ k0[0]
    c[0] = <word>(p0 >> 32) ^ d[0] ^ k1[0]
    b[0] = <word>p1
    d[0] = <word>p0
    k0[0] = k0[0] + 0x9E3779B9U
    k1[0] = k1[0] + 0xBB67AE85U


cdef inline void ten_rounds(word* a, word* b, word* c, word* d, uint64_t key) noexcept nogil:
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


cdef inline void philox(uint64_t counter, uint64_t key, word* words) noexcept nogil:
    """Philox4x32-10 of counters counter .. counter + 15 (high half of the counter zero).

    words is (4, GROUP): word w of counter l at words[w * GROUP + l].
    """
    cdef uint64_t n, a, b, c, d
    cdef uint32_t a32, b32, c32, d32
    cdef int l
    for l in range(GROUP):
        n = counter + <uint64_t>l
        if WIDE_PRODUCT:
            a = n & 0xffffffffU
            b = n >> 32
            c = 0
            d = 0
            ten_rounds(&a, &b, &c, &d, key)
            words[l] = <word>(a & 0xffffffffU)
            words[GROUP + l] = <word>(b & 0xffffffffU)
            words[2 * GROUP + l] = <word>(c & 0xffffffffU)
            words[3 * GROUP + l] = <word>(d & 0xffffffffU)
        else:
            a32 = <uint32_t>n
            b32 = <uint32_t>(n >> 32)
            c32 = 0
            d32 = 0
            ten_rounds(&a32, &b32, &c32, &d32, key)
            words[l] = a32
            words[GROUP + l] = b32
            words[2 * GROUP + l] = c32
            words[3 * GROUP + l] = d32


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
    cdef uint32_t words[4 * GROUP]
    cdef uint64_t wide[4 * GROUP]
    cdef int l, h
    if real is float:
        philox(block * GROUP, key, words)
        for l in range(GROUP):
            box_muller_float(words[l], words[GROUP + l], &z[l], &z[GROUP + l])
        for l in range(GROUP):
            box_muller_float(words[2 * GROUP + l], words[3 * GROUP + l],
                             &z[2 * GROUP + l], &z[3 * GROUP + l])
    else:
        for h in range(2):
            philox((2 * block + h) * GROUP, key, wide)
            for l in range(GROUP):
                box_muller_double(
                    (wide[l] << 32) | wide[GROUP + l],
                    (wide[2 * GROUP + l] << 32) | wide[3 * GROUP + l],
                    &z[32 * h + l], &z[32 * h + GROUP + l])
