# What the gamma function leaves behind when its large parts are taken out: the pieces of discrete
# log-densities that do not cancel.
#
#   lgamma(a)   = (a - 1/2) log a - a + log(2 pi)/2 + c(a)
#   digamma(a)  = log a - 1/(2a) + e(a)
#
# c and e vanish for large a. A density is then made of differences of c, which are small where
# differences of lgamma would be small differences of large numbers, and of deviances
# x log(x/m) - x + m, which are sums of nothing negative.
#
# Float32: minimax polynomials in a below one, in 1/a above. Float64: the asymptotic series from
# ten on, below that shifted there by a product of ten. Arguments are positive; zero, negative
# ones and NaN give NaN or infinities. Errors are absolute, in units of the largest term in the
# definitions above: tests/test_gamma.py measures them on every build.

from libc.math cimport INFINITY

from fastelbo._kernels.terms.vecmath cimport (
    horner, hornerf, log, log1p_cubic, log1p_reduced, log_reduce, real,
)


# log(1 + u) -------------------------------------------------------------------------------------

cdef inline real atanh_tail(real z) noexcept nogil:
    """(2 atanh(s) - 2 s) / s^3 for z = s^2 <= 0.03."""
    cdef real p
    if real is float:
        p = hornerf(z, 2.125388235e-01, 2.864755094e-01)
        p = hornerf(z, p, 3.999897242e-01)
        return hornerf(z, p, 6.666666865e-01)
    else:
        p = horner(z, 0.1479574048179939, 0.15314076039512223)
        p = horner(z, p, 0.1818356311351531)
        p = horner(z, p, 0.22222198601734802)
        p = horner(z, p, 0.2857142874204294)
        p = horner(z, p, 0.3999999999941664)
        return horner(z, p, 0.6666666666666734)


cdef inline bint is_near(real u) noexcept nogil:
    """Whether 1 + u lies between sqrt(1/2) and sqrt(2)."""
    return (u > <real>-0.29289) & (u < <real>0.41421)


cdef inline real near_log1p_minus(real u) noexcept nogil:
    """log(1 + u) - u where u is near zero, to the last digits of this small difference."""
    cdef real s = u / (<real>2.0 + u)
    return s * ((s * s) * atanh_tail(s * s) - u)


cdef inline real log1p(real u) noexcept nogil:
    """log(1 + u); -inf at -1 and NaN below."""
    cdef real w = <real>1.0 + u, e, f, lost, r
    lost = u - (w - <real>1.0) if u < <real>1.0 else <real>1.0 - (w - u)
    f = log_reduce(w, <real>0.0, &e)
    r = log1p_reduced(f, e, lost / w)
    r = r if u > <real>-1.0 else (<real>-INFINITY if u == <real>-1.0 else (u - u) / (u - u))
    return r if u < <real>INFINITY else u                        # inf and NaN go through


cdef inline void log1p_pair(real u, real* whole, real* minus) noexcept nogil:
    """log(1 + u) and log(1 + u) - u."""
    cdef real l = log1p(u), near = near_log1p_minus(u)
    whole[0] = l
    minus[0] = near if is_near(u) else l - u


cdef inline real deviance(real x, real inverse, real log_x, real m, real log_m) noexcept nogil:
    """x log(x / m) - x + m, never negative, for x >= 0, inverse = 1 / x, and m >= 0.

    Where m / x under- or overflows the logarithms stand in: log m may be finite although m is not.
    """
    cdef real r = m * inverse, u = (m - x) * inverse, e, f, l
    cdef bint normal
    if real is float:
        normal = (r > <float>1e-30) & (r < <float>1e30)
    else:
        normal = (r > 1e-290) & (r < 1e290)
    f = log_reduce(r if normal else <real>1.0, <real>0.0, &e)
    f = u if e == <real>0.0 else f               # u is r - 1 before it was rounded
    l = log1p_cubic(f) - <real>0.5 * (f * f)     # log(1 + f) - f
    l = -x * (l + ((f - u) + e * <real>0.6931471805599453))
    log_m = <real>1e3 if log_m > <real>1e3 else log_m            # m is infinite then, and so is this
    l = l if normal else x * (log_x - log_m) + (m - x)
    return l if x != <real>0.0 else m


# The corrections --------------------------------------------------------------------------------

cdef inline float lgamma1p_below_one(float a) noexcept nogil:
    """lgamma(1 + a) for 0 <= a <= 1."""
    cdef float p
    p = hornerf(a, -1.719441498e-03, 1.181580499e-02)
    p = hornerf(a, p, -3.804409504e-02)
    p = hornerf(a, p, 7.850716263e-02)
    p = hornerf(a, p, -1.220928133e-01)
    p = hornerf(a, p, 1.624423563e-01)
    p = hornerf(a, p, -2.058757842e-01)
    p = hornerf(a, p, 2.703891993e-01)
    p = hornerf(a, p, -4.006735682e-01)
    p = hornerf(a, p, 8.224668503e-01)
    p = hornerf(a, p, -5.772156715e-01)
    return p * a


cdef inline float digamma1p_below_one(float a) noexcept nogil:
    """digamma(1 + a) for 0 <= a <= 1."""
    cdef float p
    p = hornerf(a, -1.810611039e-02, 1.147532836e-01)
    p = hornerf(a, p, -3.365271389e-01)
    p = hornerf(a, p, 6.227825284e-01)
    p = hornerf(a, p, -8.520780802e-01)
    p = hornerf(a, p, 9.740495086e-01)
    p = hornerf(a, p, -1.029359698e+00)
    p = hornerf(a, p, 1.081575632e+00)
    p = hornerf(a, p, -1.202023745e+00)
    p = hornerf(a, p, 1.644933820e+00)
    return hornerf(a, p, -5.772156715e-01)


cdef inline real lgamma_series(real w) noexcept nogil:
    """c(1 / w): float32 for w <= 1, float64 for w <= 1/10."""
    cdef real p, z
    if real is float:
        p = hornerf(w, 1.281898003e-04, -5.993444356e-04)
        p = hornerf(w, p, 1.004321850e-03)
        p = hornerf(w, p, -2.419021257e-05)
        p = hornerf(w, p, -2.781979507e-03)
        p = hornerf(w, p, 1.201926125e-06)
        p = hornerf(w, p, 8.333326876e-02)
    else:
        z = w * w
        p = horner(z, -0.0295506535947712418, 0.00641025641025641026)
        p = horner(z, p, -0.00191752691752691753)
        p = horner(z, p, 0.000841750841750841751)
        p = horner(z, p, -0.000595238095238095238)
        p = horner(z, p, 0.000793650793650793651)
        p = horner(z, p, -0.00277777777777777778)
        p = horner(z, p, 0.0833333333333333333)
    return p * w


cdef inline real digamma_series(real w) noexcept nogil:
    """e(1 / w), for the same w."""
    cdef real p, z
    if real is float:
        p = hornerf(w, -6.810711347e-04, 2.893714700e-03)
        p = hornerf(w, p, -4.137154669e-03)
        p = hornerf(w, p, -4.433935683e-04)
        p = hornerf(w, p, 8.508066647e-03)
        p = hornerf(w, p, -2.324343222e-05)
        p = hornerf(w, p, -8.333259076e-02)
        return (p * w) * w
    else:
        z = w * w
        p = horner(z, 0.443259803921568627, -0.0833333333333333333)
        p = horner(z, p, 0.0210927960927960928)
        p = horner(z, p, -0.00757575757575757576)
        p = horner(z, p, 0.00416666666666666667)
        p = horner(z, p, -0.00396825396825396825)
        p = horner(z, p, 0.00833333333333333333)
        p = horner(z, p, -0.0833333333333333333)
        return p * z


cdef inline double product_of_ten(double a, double* slope) noexcept nogil:
    """a (a + 1) ... (a + 9), and its derivative over it: the sum of 1 / (a + i)."""
    cdef double t = a * (a + 9.0), p = t, q                      # (a + i) (a + 9 - i) = t + i (9 - i)
    q = (t + 8.0) + p
    p = p * (t + 8.0)
    q = q * (t + 14.0) + p
    p = p * (t + 14.0)
    q = q * (t + 18.0) + p
    p = p * (t + 18.0)
    q = q * (t + 20.0) + p
    p = p * (t + 20.0)
    slope[0] = (a + a + 9.0) * (q / p)
    return p


cdef inline void corrections(real a, real inverse, real log_a, real* c, real* e) noexcept nogil:
    """c(a) and e(a), a > 0, inverse = 1 / a."""
    cdef real inside, shifted, product, slope, power, ratio, c_small, e_small, w
    cdef bint small, tiny
    if real is float:
        small = a < <float>1.0
        inside = a if small else <float>1.0
        w = <float>1.0 if small else inverse
        c_small = lgamma1p_below_one(inside) + (a - <float>0.9189385332) - (a + <float>0.5) * log_a
        e_small = (digamma1p_below_one(inside) - <float>0.5 * inverse) - log_a
        c[0] = c_small if small else lgamma_series(w)
        e[0] = e_small if small else digamma_series(w)
    else:
        small = a < 10.0
        tiny = a < 1e-290                        # where 1 / a and the product may leave the range
        inside = a if small & (not tiny) else 1.0
        shifted = inside + 10.0
        product = product_of_ten(inside, &slope)
        power = (shifted * shifted) * (shifted * shifted) * shifted
        ratio = log(shifted / inside)
        power = log(power * (power / product)) - 10.0            # lgamma of shifted, less the series
        w = 1.0 / (shifted if small else a)
        c[0] = lgamma_series(w)
        e[0] = digamma_series(w)
        c_small = ((inside - 0.5) * ratio + power) + c[0]
        e_small = (ratio - slope) + (0.5 / inside - 0.5 * w) + e[0]
        c_small = -0.9189385332046727 - 0.5 * log_a if tiny else c_small
        e_small = -0.5 * inverse - log_a if tiny else e_small
        c[0] = c_small if small else c[0]
        e[0] = e_small if small else e[0]


cdef inline real log_factorial_rest(real x, real inverse, real log_x) noexcept nogil:
    """lgamma(x + 1) - (x log x - x), for x >= 0; 0 at 0."""
    cdef real c, e, r, inside
    corrections(x, inverse, log_x, &c, &e)
    r = <real>0.5 * log_x + (c + <real>0.9189385332046727)
    if real is float:                            # without the parts that cancel for x far below 1
        inside = x if x < <float>1.0 else <float>1.0
        c = x * (<float>1.0 - log_x) + lgamma1p_below_one(inside)
        r = c if x < <float>1.0 else r
    return r if x != <real>0.0 else <real>0.0


cdef inline void rise_apart(real a, real inverse_a, real log_a, real x, real b, real inverse_b,
                            real log_b, real* value, real* log_ratio, real* slope) noexcept nogil:
    """What x does to the gamma function at a, without the part that a deviance holds; b = a + x.

    lgamma(b) - lgamma(a) - (b log b - b) + (a log a - a); log(b / a); and digamma(b) - digamma(a)
    less that. Where x is 0 all are, whatever 1 / a.
    """
    cdef real t = x * inverse_a if x != <real>0.0 else <real>0.0, ca, ea, cb, eb, l = log1p(t)
    cdef bint within
    if real is float:
        within = t < <float>1e30
    else:
        within = t < 1e290
    corrections(a, inverse_a, log_a, &ca, &ea)
    corrections(b, inverse_b, log_b, &cb, &eb)
    l = l if within else log_b - log_a
    value[0] = (cb - ca) - <real>0.5 * l
    log_ratio[0] = l
    slope[0] = <real>0.5 * (x * inverse_b) * inverse_a + (eb - ea) if x != <real>0.0 else <real>0.0


cdef inline void rise(real a, real inverse_a, real log_a, real x, real b, real inverse_b, real log_b,
                      real* value, real* slope) noexcept nogil:
    """The first of these, and digamma(b) - digamma(a)."""
    cdef real l
    rise_apart(a, inverse_a, log_a, x, b, inverse_b, log_b, value, &l, slope)
    slope[0] = l + slope[0]


cdef inline void half_rise(real a, real* value, real* slope) noexcept nogil:
    """h(a) = lgamma(a + 1/2) - lgamma(a) - log(a) / 2, and a times its derivative; 0 for large a."""
    cdef real w, z, p, q, product, total, u, inside, shifted
    cdef double ignored
    cdef bint small
    cdef int i
    if real is float:
        small = a < <float>1.0
        inside = a if small else <float>1.0
        shifted = a + <float>1.0 if small else a
        w = <float>1.0 / shifted
        p = hornerf(w, -2.556015097e-04, 1.189642004e-03)
        p = hornerf(w, p, -1.976573840e-03)
        p = hornerf(w, p, 4.510923100e-05)
        p = hornerf(w, p, 5.217557307e-03)
        p = hornerf(w, p, -2.507749514e-06)
        p = hornerf(w, p, -1.249998659e-01)
        q = hornerf(w, -5.110079073e-04, 3.537205746e-03)
        q = hornerf(w, q, -9.508546442e-03)
        q = hornerf(w, q, 1.150186546e-02)
        q = hornerf(w, q, -7.633810164e-04)
        q = hornerf(w, q, -1.554755215e-02)
        q = hornerf(w, q, -2.938877060e-06)
        q = hornerf(w, q, 1.250000149e-01)
        u = inside + <float>0.5
        product = (inside * (inside + <float>1.0)) / (u * u)
        total = <float>0.25 / ((inside + <float>1.0) * u)         # times inside
        product = w * p + <float>0.5 * log(product)
        total = (w * q) * (w * inside) + total
        value[0] = product if small else w * p
        slope[0] = total if small else w * q
    else:
        small = a < 10.0
        inside = a if small else 1.0
        shifted = a + 10.0 if small else a
        w = 1.0 / shifted
        z = w * w
        p = horner(z, 0.0591004053751627604, -0.0128197303185096154)
        p = horner(z, p, 0.00383411754261363636)
        p = horner(z, p, -0.00168185763888888889)
        p = horner(z, p, 0.00118582589285714286)
        p = horner(z, p, -0.0015625)
        p = horner(z, p, 0.00520833333333333333)
        p = horner(z, p, -0.125)
        q = horner(z, -0.886506080627441406, 0.166656494140625)
        q = horner(z, q, -0.04217529296875)
        q = horner(z, q, 0.01513671875)
        q = horner(z, q, -0.00830078125)
        q = horner(z, q, 0.0078125)
        q = horner(z, q, -0.015625)
        q = horner(z, q, 0.125)
        total = 0.25 / ((inside + 1.0) * (inside + 0.5))          # times inside
        for i in range(1, 6):                    # two short loops: a long one is not unrolled
            u = inside + i
            total = total + inside * (0.25 / (u * (u + 1.0) * (u + 0.5)))
        for i in range(6, 10):
            u = inside + i
            total = total + inside * (0.25 / (u * (u + 1.0) * (u + 0.5)))
        u = product_of_ten(inside + 0.5, &ignored)
        product = ((product_of_ten(inside, &ignored) / u)
                   * (product_of_ten(inside + 1.0, &ignored) / u))
        product = w * p + 0.5 * log(product)
        total = (w * q) * (w * inside) + total
        value[0] = product if small else w * p
        slope[0] = total if small else w * q
