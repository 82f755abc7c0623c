# Terms of diagonal Gaussians: one latent dimension of one sample.

from fastelbo._kernels.terms.vecmath cimport (
    FAR, exp, exp_minus_one, exp_minus_one_near, magnitude, real,
)


cdef inline real kl_standard(real mu, real logvar, bint near, real* sigma, real* dmu,
                             real* dlogvar) noexcept nogil:
    """KL(N(mu, e^logvar) || N(0, 1)) = (mu^2 + e^logvar - 1 - logvar) / 2, and sigma.

    From one exponential, that of h = logvar / 2: with s = e^h - 1 and q = e^h - 1 - h,
    e^logvar - 1 = s (s + 2) and e^logvar - 1 - logvar = s^2 + 2 q, both free of cancellation.
    `near` (a constant): right only where is_near(logvar), at half the price.
    """
    cdef real s, q
    if near:
        exp_minus_one_near(logvar * <real>0.5, sigma, &s, &q)
    else:
        exp_minus_one(logvar * <real>0.5, sigma, &s, &q)
    dmu[0] = mu
    dlogvar[0] = <real>0.5 * (s * (s + <real>2.0))
    return <real>0.5 * (mu * mu + (s * s + <real>2.0 * q))


cdef inline bint is_near(real logvar) noexcept nogil:
    """Whether e^(logvar / 2) is within easy reach; so is NaN."""
    return not magnitude(logvar) > <real>(2 * FAR)


cdef inline real kl_between(real mu_q, real logvar_q, real mu_p, real logvar_p,
                            real* dmu_q, real* dlogvar_q, real* dmu_p, real* dlogvar_p) noexcept nogil:
    """KL(N(mu_q, e^logvar_q) || N(mu_p, e^logvar_p)), as above with the ratio of variances.

    What rounding takes from logvar_q - logvar_p (Knuth's TwoDiff) is put back to first order: at a
    difference of 40 the exponential would make 2e-6 of it in float32.
    """
    cdef real ratio, s, q, d, root, gap, back, lost
    cdef bint none
    gap = logvar_q - logvar_p
    back = gap - logvar_q
    lost = <real>0.5 * ((logvar_q - (gap - back)) - (logvar_p + back))
    exp_minus_one(gap * <real>0.5, &ratio, &s, &q)
    s = s + ratio * lost if gap * gap < <real>3e4 else s         # farther off all overflows
    root = exp(<real>-0.5 * logvar_p)
    d = mu_q - mu_p                              # 0 stays 0, whatever the precision
    none = d == <real>0.0
    d = d if none else d * root
    dmu_q[0] = d if none else d * root
    dmu_p[0] = -dmu_q[0]
    dlogvar_q[0] = <real>0.5 * (s * (s + <real>2.0))
    dlogvar_p[0] = -(dlogvar_q[0] + <real>0.5 * (d * d))
    return <real>0.5 * (d * d + (s * s + <real>2.0 * q))
