# Elementary functions as terms: one element in, one element out, no branches, no tables, so that
# a lane loop over them becomes SIMD code. Every function takes the whole range of its argument, NaN
# and infinities included, and answers as NumPy does.
#
# Coefficients are minimax fits (Remez exchange weighted for relative error, rounded to the working
# precision lowest order first, the rest refitted after each rounding). Literals reach the
# arithmetic through an argument or a cast of type `real`, never bare: a bare literal is a C
# double and would turn float32 arithmetic into float64.
#
# Worst errors in ulp, float32 over all 2**32 inputs, float64 over dense samples: see
# tests/test_vecmath.py, which measures them on every build.

from libc.math cimport INFINITY, NAN, fabs, fabsf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

ctypedef fused real:
    float
    double

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static CYTHON_INLINE int32_t fe_bits32(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
    static CYTHON_INLINE float fe_float(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
    static CYTHON_INLINE int64_t fe_bits64(double x) { int64_t i; memcpy(&i, &x, 8); return i; }
    static CYTHON_INLINE double fe_double(int64_t i) { double x; memcpy(&x, &i, 8); return x; }
    """
    int32_t bits32 "fe_bits32"(float) noexcept nogil
    float float_of "fe_float"(int32_t) noexcept nogil
    int64_t bits64 "fe_bits64"(double) noexcept nogil
    double double_of "fe_double"(int64_t) noexcept nogil


cdef inline real magnitude(real x) noexcept nogil:
    if real is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline real upper_half(real a) noexcept nogil:
    """The leading half of the bits of a, so that products of halves are exact."""
    if real is float:
        return float_of(bits32(a) & ~<int32_t>0xfff)
    else:
        return double_of(bits64(a) & ~<int64_t>0x7ffffff)


# One step of Horner's rule. Two functions and not a fused one: among fused specialisations a bare
# coefficient, being a C double, would select the double one.
cdef inline float hornerf(float x, float p, float c) noexcept nogil:
    return p * x + c


cdef inline double horner(double x, double p, double c) noexcept nogil:
    return p * x + c


cdef enum:
    FAR = 80               # e^FAR and e^-FAR are normal numbers, and 1 is nothing beside the first


# exp --------------------------------------------------------------------------------------------

cdef inline real nearest_power(real x) noexcept nogil:
    """The k of the 2^k nearest to e^x, in the low bits: x must lie where 2^k has a meaning."""
    if real is float:
        return x * <float>1.44269504 + <float>12582912.0         # rounds to nearest: 1.5 * 2^23 + k
    else:
        return x * 1.4426950408889634 + 6755399441055744.0       # 1.5 * 2^52 + k


cdef inline void exp_rest(real x, real u, real* r, real* q) noexcept nogil:
    """x = k ln 2 + r for the k in u; q = e^r - 1 - r, for |r| <= ln(2)/2.

    Even and odd powers apart: one chain of steps would be twice as long, and all wait for it.
    """
    cdef real k, z, even, odd
    if real is float:
        k = u - <float>12582912.0
        r[0] = x - k * <float>0.693359375                        # ln 2 = hi (10 bits: exact product)
        r[0] = r[0] + k * <float>2.12194440e-4                   # minus lo
        z = r[0] * r[0]
        even = hornerf(z, 1.382061630e-03, 4.166826606e-02)
        even = hornerf(z, even, 4.999999404e-01)
        odd = hornerf(z, 8.368677460e-03, 1.666652113e-01)
    else:
        k = u - 6755399441055744.0
        r[0] = x - k * 6.93147180369123816490e-01
        r[0] = r[0] - k * 1.90821492927058770002e-10
        z = r[0] * r[0]
        even = horner(z, 2.762524633925949e-07, 2.4801508542263278e-05)
        even = horner(z, even, 0.0013888888926899814)
        even = horner(z, even, 0.04166666666660372)
        even = horner(z, even, 0.5)
        odd = horner(z, 2.4978396814463052e-08, 2.7557641175631275e-06)
        odd = horner(z, odd, 0.00019841269465540427)
        odd = horner(z, odd, 0.008333333333500453)
        odd = horner(z, odd, 0.16666666666666433)
    q[0] = (odd * r[0] + even) * z


cdef inline void exp_reduce(real x, real* r, real* q, real* u) noexcept nogil:
    """e^x = 2^k (1 + r + q) for the k in u: see the two above."""
    u[0] = nearest_power(x)
    exp_rest(x, u[0], r, q)


cdef inline real scale_by_power(real p, real u) noexcept nogil:
    """p 2^k for the k in u, in two exact steps, so that overflow and denormals round once.

    Products, not additions to the exponent bits of p: those would lose a NaN.
    """
    cdef int32_t k, h
    cdef uint64_t n, m
    if real is float:
        k = bits32(u) - <int32_t>0x4b400000
        h = k >> 1
        return (p * float_of(<int32_t>(<uint32_t>(h + 127) << 23))
                * float_of(<int32_t>(<uint32_t>(k - h + 127) << 23)))
    else:
        # There is no 64-bit arithmetic shift before AVX-512: bias k by 4096, shift logically.
        n = <uint64_t>bits64(u) - <uint64_t>0x4338000000000000 + 4096
        m = n >> 1
        return (p * double_of(<int64_t>((m - 2048 + 1023) << 52))
                * double_of(<int64_t>((n - m - 2048 + 1023) << 52)))


cdef inline real above_underflow(real x) noexcept nogil:
    """x, but no lower than where e^x is 0 anyway; NaN stays NaN."""
    if real is float:
        return <float>-104.0 if x < <float>-104.0 else x
    else:
        return -746.0 if x < -746.0 else x


cdef inline real clamp_exponent(real x) noexcept nogil:
    """x within the range beyond which e^x is 0 or inf anyway; NaN stays NaN."""
    if real is float:
        return above_underflow(<float>89.0 if x > <float>89.0 else x)
    else:
        return above_underflow(710.0 if x > 710.0 else x)


cdef inline real exp(real x) noexcept nogil:
    cdef real r, q, u
    exp_reduce(clamp_exponent(x), &r, &q, &u)
    return scale_by_power((r + q) + <real>1.0, u)


cdef inline real exp_finite(real x) noexcept nogil:
    """e^x, or nearly the largest number instead of more: an inverse scale that makes 0 of 0."""
    cdef real r, q, u
    if real is float:
        x = <float>88.7 if x > <float>88.7 else x
    else:
        x = 709.7 if x > 709.7 else x
    exp_reduce(above_underflow(x), &r, &q, &u)
    return scale_by_power((r + q) + <real>1.0, u)


cdef inline real inverse_of_log(real log_scale, real* again) noexcept nogil:
    """1 / scale as a product, of which `again` is 1 unless it overflows: what both are multiplied to,
    one after the other, overflows no sooner than it has to, and 0 stays 0."""
    cdef real e, least = <real>(-88.7 if real is float else -709.7)
    cdef bint steep = log_scale < least
    e = exp_finite(<real>-0.5 * log_scale if steep else -log_scale)
    again[0] = e if steep else <real>1.0
    return e


cdef inline real small_power(real u) noexcept nogil:
    """2^k for the k in u, as long as that is a normal number. (The magic number shifts out.)"""
    if real is float:
        return float_of(<int32_t>((<uint32_t>bits32(u) + 127) << 23))
    else:
        return double_of(<int64_t>((<uint64_t>bits64(u) + 1023) << 52))


cdef inline real decay_exponent(real x) noexcept nogil:
    """-|x|, within the range beyond which e^-|x| is 0 anyway; NaN stays NaN."""
    return above_underflow(-magnitude(x))


cdef inline real scale_down(real p, real u) noexcept nogil:
    """p 2^k for the k <= 0 in u: first by an exact 2^(k + 64), so that denormals round once."""
    if real is float:
        p = p * float_of(<int32_t>((<uint32_t>bits32(u) + 127 + 64) << 23))
        return p * <float>5.421010862427522e-20                  # 2^-64
    else:
        p = p * double_of(<int64_t>((<uint64_t>bits64(u) + 1023 + 64) << 52))
        return p * 5.421010862427522e-20


cdef inline real exp_to_add(real x) noexcept nogil:
    """e^x for x <= 0, a smallest normal number at least: for sums in which some e^x is 1."""
    cdef real r, q, u
    if real is float:
        x = <float>-87.0 if x < <float>-87.0 else x
    else:
        x = -708.0 if x < -708.0 else x
    exp_reduce(x, &r, &q, &u)
    return ((r + q) + <real>1.0) * small_power(u)


cdef inline void exp_minus_one(real x, real* e, real* em1, real* em1mx) noexcept nogil:
    """e^x, e^x - 1 and e^x - 1 - x, the last two without cancellation.

    Beyond FAR they come as twice their halves, whose power of two cannot overflow. What is too
    large for any power is left in r, and overflows there.
    """
    cdef real r, q, s, u = nearest_power(clamp_exponent(x))
    cdef real far = <real>1.0 if x > <real>FAR else <real>0.0
    cdef real less = <real>1e4 if x > <real>1e4 else x           # infinity less that is not NaN
    cdef real one = <real>1.0 - <real>0.5 * far, top = <real>1.0 + far
    exp_rest(above_underflow(x), u, &r, &q)
    e[0] = scale_by_power((r + q) + <real>1.0, u)
    s = small_power(u - far) if x > <real>-FAR else <real>0.0
    em1[0] = (q * s + (r * s + (s - one))) * top
    em1mx[0] = (q * s + (r * s + ((s - one) - less * one))) * top


cdef inline void exp_minus_one_near(real x, real* e, real* em1, real* em1mx) noexcept nogil:
    """The same for |x| <= FAR, where every power of two is a normal number: half the steps.

    e^x has the same bits whatever else is wanted: its products are only added to, so that a
    compiler that can makes one operation of both everywhere.
    """
    cdef real r, q, s, u
    exp_reduce(x, &r, &q, &u)
    s = small_power(u)
    e[0] = q * s + (r * s + s)
    em1[0] = q * s + (r * s + (s - <real>1.0))
    em1mx[0] = q * s + (r * s + ((s - <real>1.0) - x))


cdef inline void exp_pair(real x, real* hi, real* lo) noexcept nogil:
    """e^x = hi + lo for x <= 0, lo holding what rounding hi lost (zero where hi is denormal)."""
    cdef real r, q, u, s, p
    exp_reduce(clamp_exponent(x), &r, &q, &u)
    s = r + q
    p = s + <real>1.0
    hi[0] = scale_by_power(p, u)
    lo[0] = scale_by_power((s - (p - <real>1.0)) + ((r - s) + q), u)


# log --------------------------------------------------------------------------------------------

cdef inline real log_reduce(real x, real shift, real* e) noexcept nogil:
    """x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); `shift` is added to e.

    x must be a positive normal number. Returns f.
    """
    cdef int32_t i, k
    cdef uint64_t a
    if real is float:
        i = bits32(x)
        k = (i - <int32_t>0x3f3504f3) & <int32_t>0xff800000
        e[0] = <float>(k >> 23) + shift
        return float_of(i - k) - <float>1.0
    else:
        # The exponent becomes a double by OR under 2^52: no 64-bit conversion before AVX-512.
        a = <uint64_t>bits64(x) - <uint64_t>0x3fe6a09e00000000 + (<uint64_t>1024 << 52)
        e[0] = double_of(<int64_t>(<uint64_t>0x4330000000000000 | (a >> 52))) - 4503599627371520.0 + shift
        return double_of(<int64_t>((a & <uint64_t>0x000fffffffffffff) + <uint64_t>0x3fe6a09e00000000)) - 1.0


cdef inline real log1p_cubic(real f) noexcept nogil:
    """log(1 + f) - f + f^2/2 for the f of log_reduce."""
    cdef real p, s, z
    if real is float:
        p = hornerf(f, -7.861284912e-02, 1.288289726e-01)
        p = hornerf(f, p, -1.312857717e-01)
        p = hornerf(f, p, 1.418094784e-01)
        p = hornerf(f, p, -1.662455350e-01)
        p = hornerf(f, p, 2.000230104e-01)
        p = hornerf(f, p, -2.500081062e-01)
        p = hornerf(f, p, 3.333331645e-01)
        return (p * f) * (f * f)
    else:
        s = f / (2.0 + f)
        z = s * s
        p = horner(z, 0.1479574048179939, 0.15314076039512223)
        p = horner(z, p, 0.1818356311351531)
        p = horner(z, p, 0.22222198601734802)
        p = horner(z, p, 0.2857142874204294)
        p = horner(z, p, 0.3999999999941664)
        p = horner(z, p, 0.6666666666666734)
        return s * (0.5 * f * f + p * z)


cdef inline real log1p_reduced(real f, real e, real tail) noexcept nogil:
    """log(1 + f) + e ln 2 + tail for the f and e of log_reduce and a tail far below one."""
    cdef real y
    if real is float:
        y = log1p_cubic(f) + (e * <float>-2.12194440e-4 + tail)
        y = y - <float>0.5 * (f * f)
        y = f + y
        return y + e * <float>0.693359375
    else:
        y = log1p_cubic(f) + (e * 1.90821492927058770002e-10 + tail)
        y = 0.5 * f * f - y
        y = f - y
        return y + e * 6.93147180369123816490e-01


cdef inline real log(real x) noexcept nogil:
    cdef real e, f, r
    cdef bint tiny
    if real is float:
        tiny = x < <float>1.17549435e-38
        f = log_reduce(x * <float>8388608.0 if tiny else x, <float>-23.0 if tiny else <float>0.0, &e)
    else:
        tiny = x < 2.2250738585072014e-308
        f = log_reduce(x * 4503599627370496.0 if tiny else x, -52.0 if tiny else 0.0, &e)
    r = log1p_reduced(f, e, <real>0.0)
    r = r if x < <real>INFINITY else x                           # inf and NaN go through
    r = r if x > <real>0.0 else <real>NAN
    r = <real>-INFINITY if x == <real>0.0 else r
    return r if x == x else x


# softplus and sigmoid ---------------------------------------------------------------------------

cdef inline void logistic(real x, real* softplus, real* sigmoid) noexcept nogil:
    """softplus(-|x|) = log(1 + e^-|x|) and sigmoid(-|x|), from one exponential.

    softplus(x) is max(x, 0) more than the first; sigmoid(x) is the second or one minus it. Kept
    apart, the small quantities survive where the large ones would swallow them.

    e = e^-|x| is held as hi + lo; lo enters as a first-order correction, which keeps both results
    within 1.5 ulp although each takes several roundings.
    """
    cdef real hi, lo, o, ol, q, inv, f, k
    exp_pair(x if x < <real>0.0 else -x, &hi, &lo)
    o = <real>1.0 + hi
    ol = (hi - (o - <real>1.0)) + lo                             # 1 + e = o + ol
    inv = <real>1.0 / o
    q = hi / o
    sigmoid[0] = q + (lo - q * ol) * inv
    k = <real>1.0 if hi > <real>0.414 else <real>0.0             # 1 + hi = 2^k (1 + f)
    f = (hi - <real>1.0) * <real>0.5 if hi > <real>0.414 else hi
    softplus[0] = log1p_reduced(f, k, lo * inv)


cdef inline real logistic_odds(real x, real* sigmoid) noexcept nogil:
    """e = e^-|x|, and q = sigmoid(-|x|) = e / (1 + e), refined once.

    What `logistic` gives without the logarithm: many factors 1 + e may share one. The refinement
    takes in what rounding p and 1 + e lost, and with 1 - q for 1 / (1 + e) costs no second division.
    """
    cdef real r, t, u, s, p, e, q
    exp_reduce(decay_exponent(x), &r, &t, &u)
    s = r + t
    p = s + <real>1.0
    e = scale_down(p, u)
    q = e / (<real>1.0 + e)
    sigmoid[0] = q + ((e - q) - q * (e - (s - (p - <real>1.0)))) * (<real>1.0 - q)
    return e


cdef inline real log_one_plus(real x) noexcept nogil:
    """log(1 + x) for x > -1."""
    cdef real o = <real>1.0 + x, e, f, r
    f = log_reduce(o, <real>0.0, &e)
    r = log1p_reduced(f, e, (x - (o - <real>1.0)) / o)
    return r if x < <real>INFINITY else x                        # inf and NaN go through


# sine and cosine of a turn ----------------------------------------------------------------------

cdef inline void sincos_eighth(real r, real* s, real* c) noexcept nogil:
    """sin(2 pi r) and cos(2 pi r) for |r| <= 1/8."""
    cdef real z, p, g
    z = r * r
    if real is float:
        p = hornerf(z, 4.053926468e+01, -7.666972351e+01)
        p = hornerf(z, p, 8.160494995e+01)
        p = hornerf(z, p, -4.134170151e+01)
        s[0] = r * <float>6.0 + r * (p * z + <float>0.283185307)     # 6 r: two roundings count little
        g = hornerf(z, 5.856122971e+01, -8.542311859e+01)
        g = hornerf(z, g, 6.493914032e+01)
        g = hornerf(z, g, -1.973920822e+01)
    else:
        p = horner(z, -0.7274419791734664, 3.820624796830508)
        p = horner(z, p, -15.094657961820257)
        p = horner(z, p, 42.05869411192665)
        p = horner(z, p, -76.70585975396276)
        p = horner(z, p, 81.60524927607727)
        p = horner(z, p, -41.34170224039976)
        s[0] = r * 6.0 + r * (p * z + 0.28318530717958648)
        g = horner(z, -1.6872306457034325, 7.902577371758541)
        g = horner(z, g, -26.426240179179953)
        g = horner(z, g, 60.24464121909943)
        g = horner(z, g, -85.45681720595773)
        g = horner(z, g, 64.93939402266663)
        g = horner(z, g, -19.739208802178716)
    c[0] = g * z + <real>1.0
