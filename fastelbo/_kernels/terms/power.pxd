# Powers of two as a term: what sums of densities are made of once their logarithms are to base 2.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from fastelbo._kernels.terms.vecmath cimport bits32, bits64, double_of, float_of, horner, hornerf, real


cdef inline real power_of_two(real y) noexcept nogil:
    """2^y for y <= 0: within 2e-7 in float32 and 1e-15 in float64, relative; NaN stays NaN.

    Zero below -100 (float32) or -1000 (float64). y = k + f with |f| <= 1/2, and a minimax polynomial
    of f with constant term one; k comes out of the low bits of y + magic, biased like an exponent.
    """
    cdef real t, f, p
    if real is float:
        t = y + <float>12583039.0                                # 1.5 * 2^23 + 127
        f = y - (t - <float>12583039.0)
        p = hornerf(f, 1.3269407e-03, 9.671294e-03)
        p = hornerf(f, p, 5.5507112e-02)
        p = hornerf(f, p, 2.4022247e-01)
        p = hornerf(f, p, 6.93147e-01)
        p = hornerf(f, p, 1.0)
        p = p * float_of(<int32_t>(<uint32_t>bits32(t) << 23))
        return <float>0.0 if y < <float>-100.0 else p
    else:
        t = y + 6755399441056767.0                               # 1.5 * 2^52 + 1023
        f = y - (t - 6755399441056767.0)
        p = horner(f, 7.022443765307301e-09, 1.0204177639419736e-07)
        p = horner(f, p, 1.321573152302599e-06)
        p = horner(f, p, 1.5252683905434313e-05)
        p = horner(f, p, 0.00015403529882209487)
        p = horner(f, p, 0.0013333558176652845)
        p = horner(f, p, 0.009618129108013245)
        p = horner(f, p, 0.05550410866486075)
        p = horner(f, p, 0.24022650695909287)
        p = horner(f, p, 0.6931471805599406)
        p = horner(f, p, 1.0)
        p = p * double_of(<int64_t>(<uint64_t>bits64(t) << 52))
        return 0.0 if y < -1000.0 else p
