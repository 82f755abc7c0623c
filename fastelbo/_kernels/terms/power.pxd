# Powers of two as a term: what sums of densities are made of once their logarithms are to base 2.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from fastelbo._kernels.terms.vecmath cimport bits32, bits64, double_of, float_of, horner, hornerf, real


cdef inline real split_power(real y, real magic, real* scale) noexcept nogil:
    """2^y = 2^f * scale with |f| <= 1/2: a minimax polynomial of f with constant term one.

    `magic` is 1.5 * 2^23 (float32) or 1.5 * 2^52 and the bias that makes k = y - f an exponent: in
    the low bits of y + magic. A greater bias makes the scale a greater power of two.
    """
    cdef real t = y + magic, f = y - (t - magic), p
    if real is float:
        scale[0] = float_of(<int32_t>(<uint32_t>bits32(t) << 23))
        p = hornerf(f, 1.3269407e-03, 9.671294e-03)
        p = hornerf(f, p, 5.5507112e-02)
        p = hornerf(f, p, 2.4022247e-01)
        p = hornerf(f, p, 6.93147e-01)
        return hornerf(f, p, 1.0)
    else:
        scale[0] = double_of(<int64_t>(<uint64_t>bits64(t) << 52))
        p = horner(f, 7.022443765307301e-09, 1.0204177639419736e-07)
        p = horner(f, p, 1.321573152302599e-06)
        p = horner(f, p, 1.5252683905434313e-05)
        p = horner(f, p, 0.00015403529882209487)
        p = horner(f, p, 0.0013333558176652845)
        p = horner(f, p, 0.009618129108013245)
        p = horner(f, p, 0.05550410866486075)
        p = horner(f, p, 0.24022650695909287)
        p = horner(f, p, 0.6931471805599406)
        return horner(f, p, 1.0)


cdef inline real raised_power(real y) noexcept nogil:
    """2^y for y <= 0 over `raised`: within 2e-7 in float32 and 1e-15 in float64, relative; NaN stays NaN.

    So much more is there to hold it: zero below -189 (float32) or -1533 (float64), where its share in
    a sum that is no less than 2^-40 is less than the least number there is.
    """
    cdef real p, scale
    if real is float:
        p = split_power(y, <float>12583103.0, &scale)            # 1.5 * 2^23 + 127 + 64
        return <float>0.0 if y < <float>-189.0 else p * scale
    else:
        p = split_power(y, <double>6755399441057279.0, &scale)   # 1.5 * 2^52 + 1023 + 512
        return 0.0 if y < -1533.0 else p * scale


cdef inline double raised(const real* kind) noexcept nogil:
    """What the powers are to be multiplied by: 2^-64 (float32) or 2^-512 (float64)."""
    if real is float:
        return 5.421010862427522e-20
    else:
        return 7.458340731200207e-155


cdef inline real power_to_underflow(real y) noexcept nogil:
    """2^y for y <= 0, as exact as raised_power, as far as there are denormal numbers to hold it."""
    cdef real p, scale
    if real is float:
        p = split_power(y, <float>12583063.0, &scale) * scale    # 2^24 times as much
        return <float>0.0 if y < <float>-150.0 else p * <float>5.9604644775390625e-08
    else:
        p = split_power(y, <double>6755399441056820.0, &scale) * scale   # 2^53 times
        return 0.0 if y < -1075.0 else p * <double>1.1102230246251565e-16
