# Terms of likelihoods over real numbers: log p(x | parameters) of one element, with its derivatives.
#
# A term is a tag type, a branch in `log_prob` (and in `outside`, where x or a parameter has a
# domain) and a line in the table of its family's .pyx. Tags are never made: passes are fused over
# them, and Cython keeps only the branch of the tag it compiles for, so a pass is written once. The
# lengths of a tag's fields say how many parameters the term reads and by how many of them, from the
# first, it has a derivative. Parameters a, b, c, d are what the class of the likelihood lists,
# decoder outputs first; da, db and dc are the derivatives. Unused ones are ignored.

from libc.float cimport DBL_MAX, DBL_MIN, FLT_MAX, FLT_MIN
from libc.math cimport INFINITY

from fastelbo._kernels.terms.gamma cimport half_rise, log1p, near_log1p_minus
from fastelbo._kernels.terms.vecmath cimport (
    exp, exp_finite, exp_minus_one, inverse_of_log, log, log1p_reduced, log_reduce, logistic_odds,
    magnitude, real,
)

ctypedef struct SquaredErrorTerm:        # a: x_recon
    char[1] parameters
    char[1] gradients
ctypedef struct GaussianTerm:            # a: mean, b: scale^(-1/2), c: log(scale) + log(2 pi) / 2
    char[3] parameters
    char[1] gradients
ctypedef struct GaussianLogScaleTerm:    # a: mean, b: log scale
    char[2] parameters
    char[2] gradients
ctypedef struct BernoulliTerm:           # a: logits
    char[1] parameters
    char[1] gradients
ctypedef struct BernoulliProbsTerm:      # a: probability
    char[1] parameters
    char[1] gradients
ctypedef struct BernoulliClampedTerm:    # a: probability
    char[1] parameters
    char[1] gradients
ctypedef struct ContinuousBernoulliTerm:     # a: logits
    char[1] parameters
    char[1] gradients
ctypedef struct LaplaceTerm:             # a: location, b: 1 / scale, c: log(2 scale)
    char[3] parameters
    char[1] gradients
ctypedef struct LaplaceLogScaleTerm:     # a: location, b: log scale
    char[2] parameters
    char[2] gradients
ctypedef struct StudentTTerm:            # a: location, b: scale^(-1/2), c: log(scale) - norm, d: df
    char[4] parameters
    char[1] gradients
ctypedef struct StudentTLogScaleTerm:    # a: location, b: log scale, c: norm, d: df
    char[4] parameters
    char[2] gradients
ctypedef struct StudentTLogDfTerm:       # a: location, b: log df, c: scale^(-1/2), d: log(scale)
    char[4] parameters
    char[2] gradients
ctypedef struct StudentTLearnedTerm:     # a: location, b: log scale, c: log df
    char[3] parameters
    char[3] gradients

ctypedef struct WeibullTerm:             # a: scale, b: concentration, c: whether observed
    char[3] parameters
    char[2] gradients
ctypedef struct WeibullScaleTerm:        # a: scale, b: concentration, c: whether observed
    char[3] parameters
    char[1] gradients
ctypedef struct WeibullConcentrationTerm:    # a: concentration, b: scale, c: whether observed
    char[3] parameters
    char[1] gradients

ctypedef fused term:
    SquaredErrorTerm
    GaussianTerm
    GaussianLogScaleTerm
    BernoulliTerm
    BernoulliProbsTerm
    BernoulliClampedTerm
    ContinuousBernoulliTerm
    LaplaceTerm
    LaplaceLogScaleTerm
    StudentTTerm
    StudentTLogScaleTerm
    StudentTLogDfTerm
    StudentTLearnedTerm
    WeibullTerm
    WeibullScaleTerm
    WeibullConcentrationTerm


# Takes no tag: what gives it one does not compile, and the compiler names the term.
ctypedef struct NoTerm:
    char _

cdef extern from *:
    void no_branch_for(const NoTerm* tag) noexcept nogil


# What a pass computes: a tag like the terms.
ctypedef struct ValueOnly:
    char _
ctypedef struct ValueAndGradient:
    char _

ctypedef fused wanted:
    ValueOnly
    ValueAndGradient


cdef inline int parameters_of(const term* tag) noexcept nogil:
    """How many parameters the term reads."""
    return sizeof(tag.parameters)


cdef inline int gradients_of(const term* tag) noexcept nogil:
    """Of how many of them, from the first, it knows the derivative."""
    return sizeof(tag.gradients)


cdef inline bint has_factor(const term* tag) noexcept nogil:
    """Whether log_prob leaves out the logarithm of 1 + factor, to be subtracted."""
    return term is BernoulliTerm


cdef inline bint reads_sparse(const term* tag) noexcept nogil:
    """None of these does (see terms/discrete.pxd)."""
    return False


cdef inline bint is_cheap(const term* tag) noexcept nogil:
    """Whether it shows when values are stored before they are added up, so that whole tiles without
    missing elements have a loop of their own. Others are compiled once: see `run_tile`."""
    return (term is SquaredErrorTerm or term is GaussianTerm or term is GaussianLogScaleTerm
            or term is BernoulliTerm or term is LaplaceTerm or term is LaplaceLogScaleTerm
            or term is StudentTTerm)


cdef inline bint is_light(const term* tag) noexcept nogil:
    """Whether a pass takes as long as its memory does, of one parameter."""
    return term is SquaredErrorTerm


cdef inline void log_expc(real t, real* g, real* mean) noexcept nogil:
    """log((1 - e^-t) / t) for t >= 0, and 1/t - 1/(e^t - 1), the mean of the density that it makes."""
    cdef real e, em1, q, u, r, near, far, top
    cdef bint small = t < <real>1.0, tiny
    exp_minus_one(-t, &e, &em1, &q)              # q = e^-t - 1 + t
    if real is float:
        tiny = t < <float>1e-3
    else:
        tiny = t < 1e-5
    u = t * (t * (<real>1.0 - <real>0.25 * t) / <real>6.0 - <real>0.5)
    near = log1p(u if tiny else -q / t)
    far = log(-em1 / t)
    g[0] = near if small else far
    top = <real>(FLT_MAX if real is float else DBL_MAX)
    top = t if t < top else top                  # an infinite t times e is 0
    top = -q - t * em1 if small else -em1 - top * e
    r = top / (-t * em1)
    mean[0] = <real>0.5 - t / <real>12.0 if tiny else r


cdef inline real smallest_normal(real x) noexcept nogil:
    return <real>(FLT_MIN if real is float else DBL_MIN)


cdef inline real student_t(const term* tag, real error, real root, real again, real df, real log_rest,
                           real* pull, real* by_log_scale, real* by_log_df) noexcept nogil:
    """-(df + 1)/2 log(1 + z^2 / df) for z = error root again, its derivatives by -error, by the log of
    the scale, with the one that a density loses to its scale, and by log df.

    Where u = z^2 / df may overflow, its logarithm is that of a part of it, and of the rest, in the
    logarithms that are learned: log_rest. Where it is near 0, that and u less u^2 / (1 + u) are so
    little apart that they need a series. A df beyond the bound, where u would lose its digits, is as
    good as infinite.
    """
    cdef real z = (error * root) * again, u, p, one, inverse, shrunk, share, arg, f, e, l, lost, few
    cdef real over, bound, limit, part, shift
    cdef bint far, beyond, large
    if real is float:
        bound, limit, part, shift = <float>1e30, <float>1e30, <float>5.421010862427522e-20, <float>128.0
    else:
        bound, limit, part, shift = 1e200, 1e290, 7.458340731200207e-155, 1024.0
    df = bound if df > bound else df
    if term is StudentTLogScaleTerm:
        over = error / df
        p = over * root
    else:
        p = z / df
        over = p
    if term is StudentTLogDfTerm or term is StudentTLearnedTerm:
        p = z if z == <real>0.0 else p           # df may be 0, too
    u = z * p
    one = <real>1.0 + u
    far = u > <real>0.41421
    beyond = u > limit
    inverse = <real>1.0 / (error if beyond else one)
    pull[0] = (df + <real>1.0) * (inverse if beyond else ((p * inverse) * root) * again)
    shrunk = <real>0.0 if beyond else inverse                    # 1 / (1 + u)
    share = <real>1.0 - shrunk if far else u * shrunk            # u / (1 + u)
    lost = u - (one - <real>1.0) if u < <real>1.0 else <real>1.0 - (one - u)
    z = magnitude(z if term is StudentTTerm else error)
    if term is StudentTTerm or term is StudentTLogScaleTerm:
        large = beyond if term is StudentTTerm else beyond & (z > <real>1e10)
        part = part if large else <real>1.0      # before the product: no denormal ones elsewhere
        shift = shift if large else <real>0.0
        z = (z * part) * (magnitude(over) * part)
    else:
        shift = <real>0.0
    arg = z if beyond else one
    f = log_reduce(arg, shift, &e)
    l = log1p_reduced(f, e, <real>0.0 if beyond else lost * shrunk)
    if term is StudentTLogScaleTerm:
        l = l + log_rest if beyond else l
    elif term is not StudentTTerm:
        l = <real>2.0 * l + log_rest if beyond else l
        l = <real>0.0 if l < <real>0.0 else l
    l = l if arg < <real>INFINITY else arg                       # inf and NaN go through
    by_log_scale[0] = df * share - shrunk
    few = near_log1p_minus(u) + u * share
    lost = df * (l - share if far else few)
    by_log_df[0] = <real>0.5 * (share - (lost if df > <real>0.0 else df))
    return <real>-0.5 * ((df + <real>1.0) * l)


cdef inline void half_rise_of_log(real log_a, real a, real* value, real* slope) noexcept nogil:
    """half_rise of a, where a may have underflown: half of its logarithm and a constant then."""
    cdef real least = smallest_normal(a), below
    below = log_a - <real>(-87.33654475055310 if real is float else -708.3964185322641)
    half_rise(least if a < least else a, value, slope)
    value[0] = value[0] + (<real>0.5 * below if a < least else <real>0.0)


cdef inline bint is_away(real error, real log_scale) noexcept nogil:
    """Whether a scale of 0 leaves no density: at the location alone it is infinite."""
    return (log_scale == -<real>INFINITY) & (magnitude(error) > <real>0.0)


cdef inline real weibull(real x, real scale, real k, real observed, real* by_scale,
                         real* by_k) noexcept nogil:
    """log p of an event at x, or, where it was not observed, the logarithm of the survival to x.

    Near the scale log(x / scale) is taken of the difference, which is exact; where the ratio is no
    number of the dtype, of both. The bounds of e^z and of e^z - 1 hide from the compiler which
    products they are: it would contract them with sums where no derivative is wanted, and round
    the value in another way.
    """
    cdef real ratio = x / scale, l, z, e, em1, rest, power, pull, slope, v
    cdef bint near = (ratio > <real>0.5) & (ratio < <real>2.0), event = observed != <real>0.0
    cdef real log_scale = log(scale), far = log(ratio), apart = log(x) - log_scale
    far = far if (ratio > <real>1e-30) & (ratio < <real>1e30) else apart
    l = log1p((x - scale) / scale if near else <real>0.0)
    l = l if near else far
    z = k * l
    exp_minus_one(z, &e, &em1, &rest)
    e = <real>0.0 if e < <real>0.0 else e
    em1 = <real>-1.0 if em1 < <real>-1.0 else em1
    power = <real>0.0 if k == <real>1.0 else (k - <real>1.0) * l
    pull = em1 if event else e
    slope = <real>0.0 if pull == <real>0.0 else l * pull         # l may be infinite there
    by_scale[0] = (k / scale) * pull
    by_k[0] = (<real>1.0 / k if event else <real>0.0) - slope
    v = (log(k) - log_scale) + ((power - em1) - <real>1.0)
    return v if event else -e


cdef inline real less_log_scale(real v, real z, real log_scale) noexcept nogil:
    """v - log_scale, where v falls with the error z: -inf where the scale is zero and z is not."""
    cdef bint nowhere = (log_scale == <real>-INFINITY) & ((z > <real>0.0) | (z < <real>0.0))
    return <real>-INFINITY if nowhere else v - log_scale


cdef inline real log_prob(const term* tag, real x, real a, real b, real c, real d,
                          real* da, real* db, real* dc, real* factor) noexcept nogil:
    cdef real e, s, p, up, by_df, df, h, dh, v, z, y
    if term is SquaredErrorTerm:
        z = x - a
        da[0] = <real>2.0 * z
        return -(z * z)
    elif term is GaussianTerm:
        z = ((x - a) * b) * b
        da[0] = (z * b) * b
        return <real>-0.5 * (z * z) - c
    elif term is GaussianLogScaleTerm:
        e = inverse_of_log(b, &y)
        z = ((x - a) * e) * y
        da[0] = (z * e) * y
        db[0] = z * z - <real>1.0
        return less_log_scale(<real>-0.5 * (z * z), z, b) - <real>0.9189385332046727
    elif term is BernoulliTerm:
        # x a - softplus(a), with the large parts of both removed: x = 1, a = 20 keeps its digits
        factor[0] = logistic_odds(a, &p)
        z = x - (<real>1.0 if a > <real>0.0 else <real>0.0)
        da[0] = z + p if a > <real>0.0 else z - p
        return z * a if z != <real>0.0 else z                    # a may be infinite there
    elif term is BernoulliProbsTerm:
        # x log a + (1 - x) log(1 - a), where 0 log 0 is 0; 255 times 1 / 255 may round to above 1
        x = <real>1.0 if (x > <real>1.0) & (x < <real>1.0000003) else x
        y = <real>1.0 - x
        p = <real>1.0 - a
        z = (x - a) / (a * p)
        z = <real>-1.0 / p if x == <real>0.0 else z
        da[0] = <real>1.0 / a if y == <real>0.0 else z
        v = x * log(a)
        s = y * log1p(-a)
        return (v if x != <real>0.0 else x) + (s if y != <real>0.0 else y)
    elif term is BernoulliClampedTerm:
        # the same as torch.nn.functional.binary_cross_entropy has it, whose 1e-12 is a float32
        p = a * (<real>1.0 - a)
        y = <real><float>1e-12
        da[0] = (x - a) / (y if p < y else p)
        v = log(a)
        s = log1p(-a)
        v = <real>-100.0 if v < <real>-100.0 else v
        s = <real>-100.0 if s < <real>-100.0 else s
        return x * v + (<real>1.0 - x) * s
    elif term is ContinuousBernoulliTerm:
        # x a - log((e^a - 1) / a), in the same manner
        log_expc(a if a > <real>0.0 else -a, &s, &p)
        up = <real>1.0 if a > <real>0.0 else <real>0.0
        z = x - up
        da[0] = z + (p if a > <real>0.0 else -p)
        v = z * a if z != <real>0.0 else z
        return v - s if v > <real>-INFINITY else v
    elif term is LaplaceTerm:
        s = x - a                                # has a sign where z underflows
        z = s * b
        da[0] = b if s > <real>0.0 else (-b if s < <real>0.0 else s)
        return -(z if z > <real>0.0 else -z) - c
    elif term is LaplaceLogScaleTerm:
        e = exp_finite(<real>-0.5 * b)
        s = x - a
        z = (s * e) * e
        e = e * e
        da[0] = e if s > <real>0.0 else (-e if s < <real>0.0 else s)
        s = z if z > <real>0.0 else -z
        db[0] = s - <real>1.0
        return less_log_scale(-s, z, b) - <real>0.6931471805599453
    elif term is StudentTTerm:
        v = student_t(tag, x - a, b, b, d, <real>0.0, da, &s, &by_df)
        return v - c
    elif term is StudentTLogScaleTerm:
        z = x - a
        e = exp_finite(-b)
        v = student_t(tag, z, e, <real>1.0, d, <real>-2.0 * b, da, db, &by_df)
        return b if is_away(z, b) else v - b + c
    elif term is StudentTLogDfTerm:
        z = x - a
        df = exp(b)
        half_rise_of_log(b - <real>0.6931471805599453, <real>0.5 * df, &h, &dh)
        v = student_t(tag, z, c, c, df, <real>-2.0 * d - b, da, &s, &by_df)
        db[0] = by_df + dh
        return v + (h - <real>0.9189385332046727) - d
    elif term is StudentTLearnedTerm:
        z = x - a
        e = exp_finite(-b)
        df = exp(c)
        half_rise_of_log(c - <real>0.6931471805599453, <real>0.5 * df, &h, &dh)
        v = student_t(tag, z, e, <real>1.0, df, <real>-2.0 * b - c, da, db, &by_df)
        dc[0] = by_df + dh
        return b if is_away(z, b) else v + (h - <real>0.9189385332046727) - b
    elif term is WeibullTerm:
        return weibull(x, a, b, c, da, db)
    elif term is WeibullScaleTerm:
        return weibull(x, a, b, c, da, &s)
    elif term is WeibullConcentrationTerm:
        return weibull(x, b, a, c, &s, da)
    else:
        no_branch_for(tag)


cdef inline bint outside(const term* tag, real x, real a, real b, real c, real d) noexcept nogil:
    """Whether x or a parameter lies outside the domain of the likelihood; NaN does not count."""
    if term is BernoulliTerm or term is ContinuousBernoulliTerm:
        return (x < <real>0.0) | (x > <real>1.0)
    elif term is BernoulliProbsTerm or term is BernoulliClampedTerm:
        return (x < <real>0.0) | (x > <real>1.0) | (a < <real>0.0) | (a > <real>1.0)
    elif term is WeibullTerm or term is WeibullScaleTerm or term is WeibullConcentrationTerm:
        return (x < <real>0.0) | (a <= <real>0.0) | (b <= <real>0.0)
    else:
        return False
