# Terms of the negative binomial, in (mean mu, inverse dispersion theta), and of its zero inflation.
#
# With n = x + theta and S(y) = lgamma(y + 1) - (y + 1/2) log y + y - log(2 pi)/2, the error of
# Stirling's formula, the log-density is taken in the saddle-point form (Loader 2000)
#
#     log p = S(n) - S(x) - S(theta) + log(theta / (2 pi n x)) / 2
#             - D(x, n mu / (theta + mu)) - D(theta, n theta / (theta + mu)),
#     D(a, b) = a log(a / b) - (a - b) >= 0.
#
# Nothing large cancels in it, whatever x >= 1, mu and theta are: D is formed from a - b, known
# without cancellation, where a and b are close. So a few ulp of log p is the error in float32, too.
#
# The terms that vectors run take `ordinary` arguments for granted, for which every intermediate
# quantity is a normal number. `log_prob_of_any` takes all others.

from libc.float cimport DBL_MAX
from libc.math cimport (
    INFINITY, NAN, exp as exp_c, expm1 as expm1_c, fabs, log as log_c, log1p as log1p_c,
)
from libc.stdint cimport int32_t, int64_t, uint64_t

from fastelbo._kernels.terms.gamma cimport is_near, near_log1p_minus
from fastelbo._kernels.terms.vecmath cimport (
    bits32, bits64, clamp_exponent, double_of, exp, exp_reduce, float_of, horner, hornerf, log1p_cubic,
    log1p_reduced, log_reduce, real, scale_by_power, upper_half,
)


cdef inline real most_theta(real theta) noexcept nogil:
    """What stands for infinity in vector terms: Poisson to the last digit, without inf - inf, and its
    inverse and what that is multiplied by are no denormal numbers, which cost Intel's processors a
    hundred times as much. It is a number that nobody gives."""
    return <real>(1.2839417e30 if real is float else 1.2839417052963147e180)


cdef inline real within_limit(real theta) noexcept nogil:
    return most_theta(theta) if theta == <real>INFINITY else theta


cdef inline real beyond_limit(real theta) noexcept nogil:
    """The inverse of `within_limit`."""
    return <real>INFINITY if theta == most_theta(theta) else theta


cdef inline bint ordinary(real x, real mu, real theta) noexcept nogil:
    """Whether the vector terms hold: in the domain, far from overflow and underflow. NaN is not."""
    cdef bint none = (x == <real>0.0) & (mu >= <real>0.0)
    cdef bint some = (x >= <real>1.0) & (x < <real>1e12) & (mu >= <real>1e-18)
    return (none | some) & (mu < <real>1e18) & (theta > <real>1e-12)


cdef inline real oddity(real x, real mu, real theta) noexcept nogil:
    """0 where arguments are ordinary and x is whole, else more; a sum, which stays in vectors."""
    cdef real integers = <real>8388608.0 if real is float else <real>4503599627370496.0
    cdef real y = integers if x > integers else x                # beyond it all are whole
    cdef real least = <real>0.0 if x == <real>0.0 else <real>1e-18
    cdef real fractional = <real>0.0 if (y + integers) - integers == y else <real>1.0
    cdef real below = <real>0.0 if x >= <real>0.0 else <real>1.0
    cdef real above = <real>0.0 if x < <real>1e12 else <real>1.0
    cdef real small = <real>0.0 if mu >= least else <real>1.0
    cdef real large = <real>0.0 if mu < <real>1e18 else <real>1.0
    cdef real tiny = <real>0.0 if theta > <real>1e-12 else <real>1.0
    return ((fractional + below) + (above + small)) + (large + tiny)


cdef inline bint whole(real x) noexcept nogil:
    """Whether x >= 0 is an integer."""
    cdef real least = <real>8388608.0 if real is float else <real>4503599627370496.0
    return ((x + least) - least == x) | (x > least)


cdef inline bint in_domain(real x, real mu, real theta) noexcept nogil:
    """Whether x is a count, or NaN; mu not negative, or NaN; theta positive."""
    cdef bint count = (x >= <real>0.0) & (x < <real>INFINITY) & whole(x)
    return (count | (x != x)) & (not mu < <real>0.0) & (theta > <real>0.0)


# Stirling's formula -----------------------------------------------------------------------------

cdef inline real stirling_error(real z) noexcept nogil:
    """S(1 / z) for 0 < z <= 1."""
    cdef real s = z * z, p, q
    if real is float:
        p = hornerf(s, -5.498707833e-05, 2.146056067e-04)
        p = hornerf(s, p, -4.206907470e-04)
        p = hornerf(s, p, 7.650852785e-04)
        p = hornerf(s, p, -2.775881672e-03)
        p = hornerf(s, p, 8.333331347e-02)
        return p * z
    else:
        p = horner(s, -6.0002615527267935e-05, 0.017993814680574885)
        p = horner(s, p, 0.5817114552578111)
        p = horner(s, p, 4.135338111526047)
        p = horner(s, p, 10.585181717410535)
        p = horner(s, p, 11.542432475848047)
        p = horner(s, p, 5.637793590631036)
        p = horner(s, p, 1.1792663678224562)
        p = horner(s, p, 0.08333333333333104)
        q = horner(s, 0.3165991812107038, 8.065644515237016)
        q = horner(s, q, 53.022524437159184)
        q = horner(s, q, 131.15306150695687)
        q = horner(s, q, 140.65180230185274)
        q = horner(s, q, 68.11681693779612)
        q = horner(s, q, 14.184529747188144)
        q = horner(s, q, 1.0)
        return p / q * z


cdef inline real digamma_tail(real z) noexcept nogil:
    """log y - digamma(y) - 1 / (2 y) at y = 1 / z for 0 < z <= 1."""
    cdef real s = z * z, p, q
    if real is float:
        p = hornerf(s, -3.720712557e-04, 1.639117836e-03)
        p = hornerf(s, p, -3.174951067e-03)
        p = hornerf(s, p, 3.775018500e-03)
        p = hornerf(s, p, -3.567347303e-03)
        p = hornerf(s, p, 3.913877066e-03)
        p = hornerf(s, p, -8.331312798e-03)
        p = hornerf(s, p, 8.333332092e-02)
        return p * s
    else:
        p = horner(s, 0.0041318650952841375, 0.37267195620474375)
        p = horner(s, p, 4.730576455088296)
        p = horner(s, p, 19.23293885538767)
        p = horner(s, p, 32.383553677763544)
        p = horner(s, p, 25.076825155017357)
        p = horner(s, p, 9.145023574097486)
        p = horner(s, p, 1.4809945348709983)
        p = horner(s, p, 0.08333333333332468)
        q = horner(s, 0.16658296656497945, 7.2424192128624165)
        q = horner(s, q, 72.12292566800548)
        q = horner(s, q, 261.6973701924722)
        q = horner(s, q, 415.2236647331031)
        q = horner(s, q, 311.2688426930659)
        q = horner(s, q, 111.47985729078368)
        q = horner(s, q, 17.871934418389237)
        q = horner(s, q, 1.0)
        return p / q * s


cdef inline real log_ratio(real r, real u, real* excess, real* rest, real* e) noexcept nogil:
    """log r = rest + e ln 2 for a normal r = 1 + u.

    Where e is -1, 0 or 1, r being near 1, the result comes from u, which may have digits that r has
    lost, and `excess` is log(1 + u) - u.
    """
    cdef real f = log_reduce(r, <real>0.0, e), l
    f = u if e[0] == <real>0.0 else f
    f = (u - <real>1.0) * <real>0.5 if e[0] == <real>1.0 else f
    f = <real>2.0 * u + <real>1.0 if e[0] == <real>-1.0 else f
    excess[0] = log1p_cubic(f) - <real>0.5 * (f * f)
    rest[0] = f + excess[0]
    l = rest[0] + e[0] * <real>0.6931471805599453
    excess[0] = excess[0] if e[0] == <real>0.0 else l - u
    return l


cdef inline real residue(real a, real b, real c) noexcept nogil:
    """a - b (c - a) to the last digits even where the two cancel."""
    cdef real g = c - a, t = g - c, lost = (c - (g - t)) - (a + t)         # g + lost = c - a
    cdef real bh = upper_half(b), gh = upper_half(g), bl = b - bh, gl = g - gh
    return ((((a - bh * gh) - bh * gl) - bl * gh) - bl * gl) - b * lost


# x = 0 ------------------------------------------------------------------------------------------

cdef inline real log1p_reduce(real t, real* e) noexcept nogil:
    """1 + t = 2^e (1 + f) as by log_reduce, for t >= 0. Returns f, with all digits of t."""
    cdef int32_t k
    cdef uint64_t a
    cdef real scale
    if real is float:
        k = (bits32(<float>1.0 + t) - <int32_t>0x3f3504f3) & <int32_t>0xff800000
        e[0] = <float>(k >> 23)
        scale = float_of(<int32_t>0x3f800000 - k)
    else:
        a = <uint64_t>bits64(1.0 + t) - <uint64_t>0x3fe6a09e00000000
        e[0] = double_of(<int64_t>(<uint64_t>0x4330000000000000 | (a >> 52))) - 4503599627370496.0
        scale = double_of(<int64_t>(<uint64_t>0x3ff0000000000000 - (a & <uint64_t>0xfff0000000000000)))
    return t * scale + (scale - <real>1.0)


cdef inline real log_prob_of_zero(real mu, real theta, real inv_theta,
                                  real* dmu, real* dtheta) noexcept nogil:
    """-theta log(1 + mu / theta)."""
    cdef real e, t = mu * inv_theta, f = log1p_reduce(t, &e)
    cdef real inv = <real>1.0 / (<real>1.0 + t), part = t * inv
    cdef real excess = log1p_cubic(f) - <real>0.5 * (f * f)      # log(1 + f) - f
    cdef real l = (f + excess) + e * <real>0.6931471805599453
    cdef bint near = e == <real>0.0                              # f = t
    dmu[0] = -inv
    dtheta[0] = -(excess + t * part) if near else part - l
    return -(mu + theta * excess) if near else -(theta * l)


# x >= 1 -----------------------------------------------------------------------------------------

cdef inline void of_theta(real theta, real* value, real* slope) noexcept nogil:
    """What log p and its derivative by theta take from theta alone, for log_prob_of_count.

    With y = theta, or theta + 1 below 1, where S and digamma have their poles at 0 split off.
    """
    cdef bint small = theta < <real>1.0
    cdef real y = theta + <real>1.0 if small else theta
    cdef real z = <real>1.0 / y
    cdef real excess, rest, e, tail = digamma_tail(z), s = stirling_error(z)
    cdef real below = theta if small else <real>1.0
    cdef real log1p_theta = log_ratio(y if small else <real>1.0, theta if small else <real>0.0,
                                      &excess, &rest, &e)
    cdef real log_theta = log_ratio(below, below - <real>1.0, &excess, &rest, &e)
    slope[0] = (tail + <real>0.5 * z) - log1p_theta if small else tail
    value[0] = (-<real>0.9189385332046727 - s
                + ((<real>0.5 * log_theta - (theta + <real>0.5) * log1p_theta) + <real>1.0
                   if small else <real>0.0))


cdef inline real log_prob_of_count(real x, real mu, real theta, real of_value, real of_slope,
                                   real stirling, real tail, real* dmu, real* dtheta) noexcept nogil:
    """Given S(n) - S(x) as `stirling`, digamma_tail of n, and what `of_theta` gives.

    Below theta = 1 the terms in log theta and 1 / theta, which would cancel, are left out of what
    contains them; what they leave of the derivative, whose size need not be theirs, is one fraction.
    At x = 1 the difference of the digammas is 1 / theta, of which a small mean leaves little.
    """
    cdef bint small = theta < <real>1.0
    cdef real n = x + theta, total = theta + mu, w = x - mu
    cdef real inv_n = <real>1.0 / n, inv_mu = <real>1.0 / mu, inv_theta = <real>1.0 / theta
    cdef real inv_total = <real>1.0 / total, inv_x = <real>1.0 / x
    cdef real pull = w * inv_total, d = theta * pull, ratio = total * inv_n
    cdef real u = ((theta * inv_n) * w) * inv_mu, v = -(w * inv_n)
    cdef real excess, rest, e, l, divergence, divergence_x, slope, poles, scaled, unused
    cdef bint near
    scaled = ratio * inv_theta if small else ratio
    l = log_ratio(scaled, scaled - <real>1.0 if small else v, &excess, &rest, &e)
    near = (e * e <= <real>1.0) & (not small)                    # theta / b = 1 + v
    divergence = theta * excess - v * d if near else theta * l + d
    slope = v * pull - excess if near else -l - pull
    slope = slope + ((of_slope - tail) + <real>0.5 * ((x * inv_n) * inv_theta))
    poles = (residue(mu, theta, x - <real>1.0) * inv_total) * inv_theta
    poles = (poles - l) + (of_slope - (tail + <real>0.5 * inv_n))
    dmu[0] = d * inv_mu
    slope = poles if small else slope
    pull = mu * inv_total
    l = log1p_reduce(mu * inv_theta, &e)
    excess = log1p_cubic(l) - <real>0.5 * (l * l)
    poles = pull - ((l + excess) + e * <real>0.6931471805599453)
    poles = -(excess + (mu * inv_theta) * pull) if e == <real>0.0 else poles
    dtheta[0] = pull * inv_theta + poles if x == <real>1.0 else slope
    l = log_ratio((ratio * x) * inv_mu, u, &excess, &unused, &e)
    near = e * e <= <real>1.0                                    # x / b = 1 + u
    divergence_x = x * excess + u * d if near else x * l - d
    scaled = (theta * inv_n) * inv_x
    l = log_ratio(scaled, scaled - <real>1.0, &excess, &unused, &e)
    return (of_value + stirling + <real>0.5 * l) - (divergence + divergence_x)


# Zero inflation ---------------------------------------------------------------------------------

cdef inline real inflate(bint none, real log_p, real zero_logit, real* share, real* dlogit,
                         real* odd) noexcept nogil:
    """Of an excess of zeros of probability sigmoid(zero_logit).

    For x = 0 the log-density, given that of the negative binomial, which must not be positive; for
    x > 0, where it is to be added to that, the rest. `share` is the derivative by log_p. Sets `odd`
    where the density of 0 is too small for this, or NaN.
    """
    cdef real e = exp(-zero_logit if zero_logit > <real>0.0 else zero_logit)
    cdef real q = <real>1.0 / (<real>1.0 + e)
    cdef real inflated = q if zero_logit > <real>0.0 else e * q
    cdef real counted = e * q if zero_logit > <real>0.0 else q
    cdef real r, s, u, p, inv, f, g, of_zero, lead
    exp_reduce(clamp_exponent(log_p), &r, &s, &u)
    r = r + s
    p = scale_by_power(r + <real>1.0, u)
    f = counted * (r if log_p > <real>-0.34 else p - <real>1.0)  # of_zero = 1 + f
    of_zero = inflated + counted * p
    inv = <real>1.0 / of_zero
    share[0] = counted * (p * inv) if none else <real>1.0
    dlogit[0] = -(inflated * f) * inv if none else -inflated
    odd[0] = odd[0] if (of_zero > <real>1e-30) | (not none) else <real>1.0
    lead = <real>0.0 if none | (zero_logit < <real>0.0) else -zero_logit
    g = log_reduce(of_zero if none else q, <real>0.0, &u)
    f = f if none else -(e * q)
    return lead + log1p_reduced(f if u == <real>0.0 else g, u, <real>0.0)


cdef inline double inflate_any(bint none, double log_p, double zero_logit,
                               double* share, double* dlogit) noexcept nogil:
    """The same of anything, the density of 0 taken by its logarithm."""
    cdef double l = -fabs(zero_logit), tail = log1p_c(exp_c(l)), value
    cdef double log_inflated = (l if zero_logit < 0.0 else 0.0) - tail
    cdef double log_counted = (0.0 if zero_logit < 0.0 else l) - tail
    share[0] = 1.0
    dlogit[0] = -exp_c(log_inflated)
    if not none:
        return log_counted
    value = log_counted + log_p
    if log_p > -1.0:
        value = log1p_c(exp_c(log_counted) * expm1_c(log_p))
    elif value == -INFINITY:
        value = log_inflated
    elif value > log_inflated:
        value += log1p_c(exp_c(log_inflated - value))
    else:
        value = log_inflated + log1p_c(exp_c(value - log_inflated))
    if value == -INFINITY:                       # neither can be, and the excess can more easily
        share[0] = dlogit[0] = 1.0
        return value
    share[0] = exp_c(log_counted + log_p - value)
    dlogit[0] = -exp_c(log_inflated + log_counted - value) * expm1_c(log_p)
    return value


# Everything else, one by one in float64 ---------------------------------------------------------

cdef inline double stirling_error_of(double y) noexcept nogil:
    """S(y) for any y > 0."""
    if y >= 1.0:
        return stirling_error(1.0 / y)
    return stirling_error(1.0 / (y + 1.0)) + (y + 0.5) * (log1p_c(y) - log_c(y)) - 1.0


cdef inline double digamma_tail_of(double y) noexcept nogil:
    """log y - digamma(y) - 1 / (2 y) for any y > 0 whose inverse is finite."""
    if y >= 1.0:
        return digamma_tail(1.0 / y)
    return digamma_tail(1.0 / (y + 1.0)) + 0.5 / (y + 1.0) - log1p_c(1.0 / y) + 0.5 / y


cdef inline double log1p_minus_of(double u) noexcept nogil:
    """log(1 + u) - u."""
    return near_log1p_minus(u) if is_near(u) else log1p_c(u) - u


cdef inline double log_one_plus_ratio(double x, double a) noexcept nogil:
    """log(1 + x / a) for any ratio."""
    cdef double ratio = x / a
    return log1p_c(ratio) if ratio < 1e290 else log_c(x) - log_c(a)


cdef inline double divergence_of(double a, double b, double difference, double log_b) noexcept nogil:
    """D(a, b), given a - b, and log b for a b that is out of reach."""
    cdef double u = difference / b, ratio = a / b
    if fabs(u) < 0.5:
        return a * log1p_minus_of(u) + u * difference
    if b > 1e-290 and 1e-290 < ratio < 1e290:
        return a * log_c(ratio) - difference
    return a * (log_c(a) - log_b) - difference


cdef inline double log_prob_of_any(double x, double mu, double theta,
                                   double* dmu, double* dtheta) noexcept nogil:
    """The log-density of fractions, and its limits; NaN outside the domain.

    As log_prob_of_count, without its range; `scale`, where a sum would overflow, is gone from ratios.
    """
    cdef double n, n_p, total, p, q, share, pull, whole, apart, rest, log_n, log_total, scale
    cdef double ratio
    dmu[0] = dtheta[0] = NAN
    if not (x >= 0.0 and mu >= 0.0 and theta > 0.0):
        return NAN
    mu = fabs(mu)                                # no -0.0
    if x == INFINITY or mu == INFINITY:
        if x == mu:
            return NAN
        dmu[0] = -1.0 if theta == INFINITY else 0.0
        dtheta[0] = 0.0 if theta == INFINITY else -INFINITY
        return -INFINITY
    if theta == INFINITY:                        # Poisson
        dtheta[0] = 0.0
        dmu[0] = (x - mu) / mu if x != 0.0 else -1.0
        if x == 0.0:
            return -mu
        rest = stirling_error_of(x) + 0.5 * log_c(x) + 0.9189385332046727
        return -(divergence_of(x, mu, x - mu, log_c(mu)) + rest)
    scale = 0.25 if mu + theta > DBL_MAX else 1.0
    total = mu * scale + theta * scale
    n = x * scale + theta * scale
    p = (mu * scale) / total
    q = (theta * scale) / total
    whole = log_one_plus_ratio(mu, theta)
    ratio = mu / theta
    if x == 0.0:
        dmu[0] = -q
        dtheta[0] = -(log1p_minus_of(ratio) + ratio * p) if ratio < 0.5 else p - whole
        return -mu if ratio < 1e-16 else -theta * whole
    dmu[0] = (q / mu) * (x - mu) if mu < 1.0 else q * ((x - mu) / mu)
    pull = q * (x - mu)
    share = (x * scale - mu * scale) / total
    if theta < 1e-300:
        dtheta[0] = (1.0 - pull) / theta
    else:
        rest = (digamma_tail_of(theta) - digamma_tail_of(x + theta)) + 0.5 * (x / (x + theta)) / theta
        apart = log_one_plus_ratio(x, theta) - whole - share
        dtheta[0] = rest + (log1p_minus_of(share) if fabs(share) < 0.5 else apart)
    if x == 1.0:
        apart = -(log1p_minus_of(ratio) + ratio * p) if ratio < 0.5 else p - whole
        dtheta[0] = p / theta + apart
    if mu == 0.0:
        return -INFINITY
    log_total = log_c(total) - log_c(scale)
    log_n = log_c(n) - log_c(scale)
    n_p = n / total * mu if total > 1.0 else n * p / scale
    rest = stirling_error_of(x) + 0.5 * log_c(x) + 0.9189385332046727
    rest = (stirling_error_of(x + theta) - stirling_error_of(theta)) - rest
    rest = rest + 0.5 * (log_c(theta) - log_n)
    rest = rest - divergence_of(x, n_p, pull, log_n + log_c(mu) - log_total)
    return rest - divergence_of(theta, n / scale * q, -pull, log_n + log_c(theta) - log_total)
