# Terms of likelihoods over counts and pixels, as in likelihoods.pxd.
#
# Log-densities of counts are sums of deviances and of what remains of the gamma functions, see
# gamma.pxd: nothing large cancels, whatever the counts. (Loader, Fast and accurate computation of
# binomial probabilities, 2000.)

from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport INFINITY

from fastelbo._kernels.terms.gamma cimport (
    deviance, is_near, log_factorial_rest, near_log1p_minus, rise_apart,
)
from fastelbo._kernels.terms.likelihoods cimport no_branch_for
from fastelbo._kernels.terms.vecmath cimport (
    exp, exp_minus_one, inverse_of_log, log, logistic, magnitude, real, upper_half,
)

ctypedef struct PoissonTerm:             # a: rate
    char[1] parameters
    char[1] gradients
ctypedef struct PoissonLogTerm:          # a: log rate
    char[1] parameters
    char[1] gradients
ctypedef struct BinomialTerm:            # a: logits, b: total count n, c: log n, d: what is left of log n!
    char[4] parameters
    char[1] gradients
ctypedef struct BetaBinomialTerm:        # a: alpha, b: beta, c: total count, d: its logarithm
    char[4] parameters
    char[2] gradients
ctypedef struct DiscretizedLogisticTerm:     # a: mean, b: 1 / scale, c: top, d: 1 / top
    char[4] parameters
    char[1] gradients
ctypedef struct DiscretizedLogisticLogScaleTerm:     # a: mean, b: log scale, c: top, d: 1 / top
    char[4] parameters
    char[2] gradients

ctypedef fused term:
    PoissonTerm
    PoissonLogTerm
    BinomialTerm
    BetaBinomialTerm
    DiscretizedLogisticTerm
    DiscretizedLogisticLogScaleTerm


cdef inline int parameters_of(const term* tag) noexcept nogil:
    """How many parameters the term reads."""
    return sizeof(tag.parameters)


cdef inline int gradients_of(const term* tag) noexcept nogil:
    """Of how many of them, from the first, it knows the derivative."""
    return sizeof(tag.gradients)


cdef inline bint is_fractional(real x) noexcept nogil:
    """Whether x is no whole number; adding and subtracting a large one rounds."""
    if real is float:
        return ((x + <float>12582912.0) - <float>12582912.0 != x) & (x < <float>4194304.0)
    else:
        return ((x + 6755399441055744.0) - 6755399441055744.0 != x) & (x < 2251799813685248.0)


cdef inline bint is_no_count(real x) noexcept nogil:
    return (x < <real>0.0) | (is_fractional(x) & (x == x))


cdef inline real cross(real x, real b, real a, real y) noexcept nogil:
    """x b - a y, to the last digits where the two cancel: by exact products of halves."""
    cdef real xh = upper_half(x), bh = upper_half(b), ah = upper_half(a), yh = upper_half(y)
    cdef real xl = x - xh, bl = b - bh, al = a - ah, yl = y - yh
    return ((((xh * bh - ah * yh) + xh * bl) - ah * yl) + xl * bh - al * yh) + (xl * bl - al * yl)


cdef inline real rise_from_share(real u, real apart, real rest, real rest_of_all) noexcept nogil:
    """log(1 + u), or `apart` where that is not near 0, and a difference of rests of digamma.

    The rest is infinite where 1 / alpha is, whatever is taken off it.
    """
    cdef real l = u + near_log1p_minus(u) if is_near(u) else apart
    return l + (rest - rest_of_all if rest < <real>INFINITY else rest)


cdef inline void beta_binomial(real x, real n, real log_n, real rest_n, real a, real b, real* value,
                               real* by_a, real* by_b) noexcept nogil:
    """The beta binomial's log-mass and derivatives.

    Of the gamma functions remain rises and, with s = a + b, deviances of x and a from the shares
    n / (n + s) and s / (n + s) of x + a, and likewise for n - x and b. Of the digammas the logarithms
    log((1 + x / a) / (1 + n / s)) are taken of one number, which near the mode is near one.
    """
    cdef real most = <real>(FLT_MAX if real is float else DBL_MAX)
    cdef real k = <real>0.25 if a + b > most else <real>1.0      # n is nothing beside either then
    cdef real y = n - x
    a = a * k
    b = b * k
    cdef real s = a + b, xa = x + a, yb = y + b, ns = n + s, v, ga, gb, gs, ea, eb, es
    cdef real ix = <real>1.0 / x, iy = <real>1.0 / y, ia = <real>1.0 / a, ib = <real>1.0 / b
    cdef real ixa = <real>1.0 / xa, iyb = <real>1.0 / yb, ins = <real>1.0 / ns
    cdef real lx = log(x), ly = log(y), la = log(a), lb = log(b), ls = log(s)
    cdef real lxa = log(xa), lyb = log(yb), lns = log(ns), p = n / ns, q = s / ns
    cdef real ra, rb, rs, down, up, w
    cdef bint large
    rise_apart(a, ia, la, x, xa, ixa, lxa, &ga, &ra, &ea)
    rise_apart(b, ib, lb, y, yb, iyb, lyb, &gb, &rb, &eb)
    rise_apart(s, <real>1.0 / s, ls, n, ns, ins, lns, &gs, &rs, &es)
    if real is float:
        large = s > <float>1e18
        down, up = <float>5.421010862427522e-20, <float>1.8446744073709552e19    # 2^-64 and 2^64
    else:
        large = s > 1e150
        down, up = 7.458340731200207e-155, 1.3407807929942597e154                # 2^-512, 2^512
    down = down if large else <real>1.0
    up = up if large else <real>1.0
    w = (cross(x, b * down, a * down, y) * ins) * up
    by_a[0] = rise_from_share(w * ia if x != <real>0.0 else -(y * ins), ra - rs, ea, es) * k
    by_b[0] = rise_from_share(-(w * ib) if y != <real>0.0 else -(x * ins), rb - rs, eb, es) * k
    v = (deviance(x, ix, lx, xa * p, lxa + (log_n - lns))
         + deviance(y, iy, ly, yb * p, lyb + (log_n - lns)))
    v = v + (deviance(a, ia, la, xa * q, lxa + (ls - lns))
             + deviance(b, ib, lb, yb * q, lyb + (ls - lns)))
    p = rest_n - (log_factorial_rest(x, ix, lx) + log_factorial_rest(y, iy, ly))
    value[0] = (p + (ga + gb - gs)) - v


cdef inline real logistic_bin(real x, real mean, real inverse, real again, real top, real step,
                              real* by_mean, real* by_log_scale) noexcept nogil:
    """log of the logistic's mass in bin x of 0 .. top, the outer two being open; inverse again = 1 / scale.

    Bins lie on [-1, 1] and are 2 step = 2 / top wide. In the mirror if need be, the bin lies around
    or above the mean: of its scaled edges lo < hi, hi is positive. The mass sigmoid(hi) - sigmoid(lo)
    is sigmoid(hi) sigmoid(-lo) (1 - e^(lo - hi)), of which one logarithm is taken: of the mass where
    it is small, of one minus the rest where it is not.
    """
    cdef real centre = (<real>2.0 * x - top) / top - mean, width = (<real>2.0 * (inverse * step)) * again
    cdef bint mirrored = centre < <real>0.0, first = x < <real>0.5, last = x > top - <real>0.5
    cdef bint low = (first & (not mirrored)) | (last & mirrored)         # open below
    cdef bint high = (last & (not mirrored)) | (first & mirrored)        # open above
    cdef real far = -centre if mirrored else centre
    cdef real hi = ((far + step) * inverse) * again, lo = ((far - step) * inverse) * again
    cdef real above = lo if lo > <real>0.0 else <real>0.0
    cdef real a, b, e, em1, q, r, w, z, lost, rest, inside, p_hi, p_lo, ratio
    exp_minus_one(-width, &e, &em1, &q)
    b = exp(-magnitude(lo))
    q = e / b if b > <real>0.0 else <real>0.0
    a = b * e if lo > <real>0.0 else q                       # e^-hi
    p_lo = <real>1.0 if lo > <real>0.0 else b
    p_lo = <real>0.0 if low else p_lo
    above = <real>0.0 if low else above
    b = <real>0.0 if low else b
    a = <real>0.0 if high else a
    inside = <real>1.0 if first | last else -em1
    e = <real>0.0 if first | last else e
    r = <real>1.0 / ((<real>1.0 + a) * (<real>1.0 + b))
    w = inside * r
    z = -((a + b + a * b) + e) * r                           # w - 1
    rest = <real>1.0 + z
    lost = z - (rest - <real>1.0)
    lost = lost if w > <real>0.5 else <real>0.0
    w = rest if w > <real>0.5 else w
    p_hi = (a * (<real>1.0 + b)) * r                         # sigmoid(-hi)
    p_lo = (p_lo * (<real>1.0 + a)) * r                      # sigmoid(lo)
    z = ((p_lo - p_hi) * inverse) * again
    by_mean[0] = -z if mirrored else z
    ratio = (width * e) / em1
    ratio = <real>-1.0 if width == <real>0.0 else ratio
    ratio = <real>0.0 if e == <real>0.0 else ratio
    z = lo * p_lo
    q = hi * p_hi
    z = <real>0.0 if p_lo == <real>0.0 else z
    q = <real>0.0 if p_hi == <real>0.0 else q
    by_log_scale[0] = (z - q) + ratio
    return (log(w) + lost * (<real>2.0 - w)) - above         # 2 - w is 1 / w, near enough


cdef inline real logistic_bin_of_log(real x, real mean, real log_scale, real top, real step,
                                     real* by_mean, real* by_log_scale) noexcept nogil:
    """The same of the scale's logarithm. Scales are kept where 1 / scale is a normal number: what is
    wider than that only makes the mass between edges less."""
    cdef real most = <real>(60.0 if real is float else 600.0), again
    cdef real inverse = inverse_of_log(log_scale, &again)
    cdef real kept = <real>(8.7565107627e-27 if real is float else 2.650396553004310817e-261)
    cdef bint wide = log_scale > most, between = (x > <real>0.5) & (x < top - <real>0.5)
    cdef real v = logistic_bin(x, mean, kept if wide else inverse, again, top, step, by_mean, by_log_scale)
    by_mean[0] = by_mean[0] * (inverse / kept if wide else <real>1.0)
    return v - (log_scale - most) if wide & between else v


cdef inline real log_distance(real x, real mean, real log_scale, real top, real step) noexcept nogil:
    """log of how many scales a bin lies from the mean: what tells masses apart that are no numbers."""
    cdef real centre = (<real>2.0 * x - top) / top - mean
    return log(magnitude(centre) - step) - log_scale


cdef inline bint has_factor(const term* tag) noexcept nogil:
    """None of these leaves a logarithm to the pass (see terms/likelihoods.pxd)."""
    return False


cdef inline bint reads_sparse(const term* tag) noexcept nogil:
    """Whether x may be sparse; what is zero everywhere then costs little."""
    return term is PoissonTerm or term is PoissonLogTerm


cdef inline bint is_cheap(const term* tag) noexcept nogil:
    """None of these is (see terms/likelihoods.pxd)."""
    return False


cdef inline bint is_light(const term* tag) noexcept nogil:
    """None of these is, either."""
    return False


cdef inline real log_prob(const term* tag, real x, real a, real b, real c, real d,
                          real* da, real* db, real* dc, real* factor) noexcept nogil:
    cdef real m, s, p, small, y, v, ix, iy, lx, ly
    cdef real most = <real>(FLT_MAX if real is float else DBL_MAX)
    if term is PoissonTerm or term is PoissonLogTerm:
        m = a if term is PoissonTerm else exp(a)
        v = log(a) if term is PoissonTerm else a
        ix = <real>1.0 / x
        lx = log(x)
        if term is PoissonTerm:
            y = most if a > most else a
            da[0] = (x - y) / y if x != <real>0.0 else <real>-1.0
        else:
            da[0] = x - m
        return -(deviance(x, ix, lx, m, v) + log_factorial_rest(x, ix, lx))
    elif term is BinomialTerm:
        y = b - x
        ix = <real>1.0 / x
        iy = <real>1.0 / y
        lx = log(x)
        ly = log(y)
        logistic(a, &s, &p)                      # log of the larger probability, and the smaller
        small = c - (s - a if a < <real>0.0 else s + a)
        s = c - s
        da[0] = p * b - y if a > <real>0.0 else x - p * b
        v = deviance(x, ix, lx, b * (p if a <= <real>0.0 else <real>1.0 - p),
                     small if a <= <real>0.0 else s)
        v = v + deviance(y, iy, ly, b * (<real>1.0 - p if a <= <real>0.0 else p),
                         s if a <= <real>0.0 else small)
        return (d - (log_factorial_rest(x, ix, lx) + log_factorial_rest(y, iy, ly))) - v
    elif term is BetaBinomialTerm:
        beta_binomial(x, c, d, log_factorial_rest(c, <real>1.0 / c, d), a, b, &v, da, db)
        return v
    elif term is DiscretizedLogisticTerm:
        return logistic_bin(x, a, b, <real>1.0, c, d, da, db)
    elif term is DiscretizedLogisticLogScaleTerm:
        return logistic_bin_of_log(x, a, b, c, d, da, db)
    else:
        no_branch_for(tag)


cdef inline bint outside(const term* tag, real x, real a, real b, real c, real d) noexcept nogil:
    """Whether x or a parameter lies outside the domain of the likelihood; NaN does not count."""
    if term is PoissonTerm:
        return is_no_count(x) | (a < <real>0.0)
    elif term is PoissonLogTerm:
        return is_no_count(x)
    elif term is BinomialTerm:
        return is_no_count(x) | (x > b)
    elif term is BetaBinomialTerm:
        return is_no_count(x) | (x > c) | (a <= <real>0.0) | (b <= <real>0.0)
    elif term is DiscretizedLogisticTerm or term is DiscretizedLogisticLogScaleTerm:
        return is_no_count(x) | (x > c)
    else:
        no_branch_for(tag)
