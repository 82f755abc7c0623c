# A tile of counts, as if all were zero, then those that are not, then what is odd: log p and its
# derivatives. Included by counts.pyx.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from fastelbo._kernels.operands cimport TILE, VECTOR, ceil_div, padded_to
from fastelbo._kernels.sparse cimport spread_out
from fastelbo._kernels.terms.likelihoods cimport ValueAndGradient, wanted
from fastelbo._kernels.terms.negative_binomial cimport (
    beyond_limit, digamma_tail, in_domain, inflate, inflate_any, log_prob_of_any, log_prob_of_count,
    log_prob_of_zero, oddity, of_theta, ordinary, stirling_error,
)
from fastelbo._kernels.terms.vecmath cimport real

cdef enum:
    WORD = 64              # bits

ctypedef struct Plain:
    char _
ctypedef struct Inflated:
    char _

ctypedef fused model:
    Plain
    Inflated

ctypedef struct Mixed:
    char _
ctypedef struct Zeros:     # of x that is zero: there is no array
    char _

ctypedef fused content:
    Mixed
    Zeros

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fe_trailing_zeros(m) __builtin_ctzll(m)
    #else
    static int fe_trailing_zeros(unsigned long long m) {
        int n = 0;
        while (!(m & 1)) { m >>= 1; n++; }
        return n;
    }
    #endif
    """
    int trailing_zeros "fe_trailing_zeros"(uint64_t) noexcept nogil


cdef void survey(const content* all_of, const real* restrict x, const real* restrict mu,
                 const real* restrict theta, Py_ssize_t n, real* restrict odd) noexcept nogil:
    """odd (VECTOR,) notes where step 3 is needed, of n elements, whole vectors."""
    cdef Py_ssize_t j, i
    cdef int l
    for j in range(n // VECTOR):
        for l in range(VECTOR):
            i = j * VECTOR + l
            odd[l] += oddity(x[i] if content is Mixed else <real>0.0, mu[i], theta[i])


cdef void zeros_of(const model* tag, const wanted* want, const content* all_of,
                   const real* restrict x, const real* restrict mu, const real* restrict theta,
                   const real* restrict inv_theta, const real* restrict logits,
                   real* restrict value, real* restrict dmu, real* restrict dtheta,
                   real* restrict dlogits, Py_ssize_t n, real weight,
                   real* restrict odd) noexcept nogil:
    """Step 1."""
    cdef Py_ssize_t j, i
    cdef real log_p, dm, dt, dl, share
    cdef bint none
    cdef int l
    for j in range(n // VECTOR):
        for l in range(VECTOR):
            i = j * VECTOR + l
            none = x[i] == <real>0.0 if content is Mixed else True
            log_p = log_prob_of_zero(mu[i], theta[i], inv_theta[i], &dm, &dt)
            share = <real>1.0
            if model is Inflated:
                value[i] = inflate(none, log_p, logits[i], &share, &dl, &odd[l])
            else:
                value[i] = log_p if none else <real>0.0
            if wanted is ValueAndGradient:
                dmu[i] = share * dm * weight
                dtheta[i] = share * dt * weight
                if model is Inflated:
                    dlogits[i] = dl * weight


cdef void counts_of(const wanted* want, const real* restrict x, const real* restrict mu,
                    const real* restrict theta, const real* restrict of_value,
                    const real* restrict of_slope, real* restrict value, real* restrict dmu,
                    real* restrict dtheta, Py_ssize_t n, real weight) noexcept nogil:
    """log p of counts, where x is at least 1."""
    cdef Py_ssize_t i
    cdef real inv_n, c, dm, dt
    for i in range(n):
        c = x[i] if x[i] > <real>1.0 else <real>1.0
        inv_n = <real>1.0 / (c + theta[i])
        value[i] = log_prob_of_count(
            c, mu[i], theta[i], of_value[i], of_slope[i],
            stirling_error(inv_n) - stirling_error(<real>1.0 / c), digamma_tail(inv_n), &dm, &dt)
        if wanted is ValueAndGradient:
            dmu[i] = dm * weight
            dtheta[i] = dt * weight


cdef void thetas_of(const real* restrict theta, real* restrict of_value, real* restrict of_slope,
                    Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        of_theta(theta[i], &of_value[i], &of_slope[i])


cdef void invert(const real* restrict theta, real* restrict inv_theta, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        inv_theta[i] = <real>1.0 / theta[i]


cdef Py_ssize_t find_counts(const real* restrict x, int* restrict index, Py_ssize_t n) noexcept nogil:
    """Where x is not zero, of n elements, whole vectors."""
    cdef unsigned char flags[TILE]
    cdef uint64_t eight, bits
    cdef Py_ssize_t j, word, found = 0
    cdef int l
    for j in range(n // VECTOR):
        for l in range(VECTOR):
            flags[j * VECTOR + l] = x[j * VECTOR + l] != <real>0.0
    memset(flags + n, 0, ceil_div(n, WORD) * WORD - n)
    for word in range(ceil_div(n, WORD)):
        bits = 0
        for l in range(WORD // 8):                               # eight bytes to eight bits
            memcpy(&eight, flags + word * WORD + 8 * l, 8)
            bits |= ((eight * <uint64_t>0x0102040810204080) >> 56) << (8 * l)
        while bits:
            index[found] = <int>(word * WORD) + trailing_zeros(bits)
            found += 1
            bits &= bits - 1
    return found


cdef void blend(const real* restrict x, const real* restrict added, const real* restrict dmu_of,
                const real* restrict dtheta_of, real* restrict value, real* restrict dmu,
                real* restrict dtheta, Py_ssize_t n) noexcept nogil:
    """What counts_of found for every element, where x is not zero."""
    cdef Py_ssize_t i
    for i in range(n):
        value[i] = value[i] if x[i] == <real>0.0 else value[i] + added[i]
        dmu[i] = dmu[i] if x[i] == <real>0.0 else dmu_of[i]
        dtheta[i] = dtheta[i] if x[i] == <real>0.0 else dtheta_of[i]


cdef bint odd_ones(const model* tag, const real* x, const real* mu, const real* theta,
                   const real* logits, const real* present, real* value, real* dmu, real* dtheta,
                   real* dlogits, Py_ssize_t n, double weight) noexcept nogil:
    """Step 3; whether something lies outside the domain."""
    cdef Py_ssize_t i
    cdef bint outside = False, is_ordinary, is_likely
    cdef double log_p, v, dm, dt, dl, share
    for i in range(n):
        if present != NULL and present[i] == 0:
            continue
        outside |= not in_domain(x[i], mu[i], theta[i])
        is_ordinary = ordinary(x[i], mu[i], theta[i])            # also a fraction above 1
        if model is Plain:
            if is_ordinary:
                continue
        log_p = log_prob_of_any(x[i], mu[i], beyond_limit(theta[i]), &dm, &dt)
        v = log_p
        if model is Inflated:
            is_likely = x[i] != 0 or log_p > -60.0 or logits[i] > <real>-60.0
            if is_ordinary and is_likely and logits[i] == logits[i]:
                continue
            v = inflate_any(x[i] == 0, log_p, logits[i], &share, &dl)
            dlogits[i] = <real>(dl * weight)
            if x[i] != 0:
                v += log_p
            else:
                dm = share * dm if share != 0 else 0.0
                dt = share * dt if share != 0 else 0.0
        value[i] = <real>v
        dmu[i] = <real>(dm * weight)
        dtheta[i] = <real>(dt * weight)
    return outside


cdef void forget(const real* restrict present, real* restrict value, real* restrict dmu,
                 real* restrict dtheta, Py_ssize_t n) noexcept nogil:
    """Nothing comes of what is missing."""
    cdef Py_ssize_t i
    for i in range(n):
        value[i] = value[i] if present[i] != <real>0.0 else <real>0.0
        dmu[i] = dmu[i] if present[i] != <real>0.0 else <real>0.0
        dtheta[i] = dtheta[i] if present[i] != <real>0.0 else <real>0.0


cdef bint run_tile(const model* tag, const wanted* want, const real* x, const real* mu,
                   const real* theta, const real* inv_theta, const real* of_value,
                   const real* of_slope, const real* logits, const real* present, real* x_c, int* index,
                   Py_ssize_t found, real* value, real* dmu, real* dtheta, real* dlogits, Py_ssize_t n,
                   double weight) noexcept nogil:
    """n elements; arrays have room up to padded_to(n), with zeros in x.

    Returns whether some are outside the domain. Where x is NULL, it is sparse: x_c and index (TILE,)
    are its counts and where they are, `found` of them; else they are room.
    of_value and of_slope are NULL where theta belongs to the elements, present where none is missing.
    """
    cdef real mu_c[TILE]
    cdef real theta_c[TILE]
    cdef real of_value_c[TILE]
    cdef real of_slope_c[TILE]
    cdef real value_c[TILE]
    cdef real dmu_c[TILE]
    cdef real dtheta_c[TILE]
    cdef real x_room[TILE]
    cdef real odd[VECTOR]
    cdef Py_ssize_t padded = padded_to(n), k, j, padded_found
    cdef int l
    cdef bint any_odd = False, outside = False, sparse = x == NULL
    for l in range(VECTOR):
        odd[l] = 0
    if sparse:
        survey(<const Zeros*>NULL, x, mu, theta, padded, odd)
        if model is Inflated:                        # an excess of zeros has its part in every count
            x = spread_out(x_c, index, found, padded, x_room)
    else:
        survey(<const Mixed*>NULL, x, mu, theta, padded, odd)
        found = find_counts(x, index, padded)
    if x == NULL:
        zeros_of(tag, want, <const Zeros*>NULL, x, mu, theta, inv_theta, logits, value, dmu, dtheta,
                 dlogits, padded, <real>weight, odd)
    else:
        if model is Plain and found == n:
            if of_value == NULL:
                thetas_of(theta, of_value_c, of_slope_c, padded)
                of_value = of_value_c
                of_slope = of_slope_c
            counts_of(want, x, mu, theta, of_value, of_slope, value, dmu, dtheta, padded, <real>weight)
            found = 0
        else:
            zeros_of(tag, want, <const Mixed*>NULL, x, mu, theta, inv_theta, logits, value, dmu, dtheta,
                     dlogits, padded, <real>weight, odd)
    if 2 * found > n and not sparse:
        if of_value == NULL:
            thetas_of(theta, of_value_c, of_slope_c, padded)
            of_value = of_value_c
            of_slope = of_slope_c
        counts_of(want, x, mu, theta, of_value, of_slope, value_c, dmu_c, dtheta_c, padded, <real>weight)
        blend(x, value_c, dmu_c, dtheta_c, value, dmu, dtheta, padded)
    elif found > 0:
        padded_found = padded_to(found)
        for k in range(found):
            j = index[k]
            if not sparse:
                x_c[k] = x[j]
            mu_c[k] = mu[j]
            theta_c[k] = theta[j]
        for k in range(found, padded_found):
            x_c[k] = mu_c[k] = theta_c[k] = 1
        if sparse:
            survey(<const Mixed*>NULL, x_c, mu_c, theta_c, padded_found, odd)
        if of_value == NULL:
            thetas_of(theta_c, of_value_c, of_slope_c, padded_found)
        else:
            for k in range(found):
                of_value_c[k] = of_value[index[k]]
                of_slope_c[k] = of_slope[index[k]]
            for k in range(found, padded_found):
                of_value_c[k] = of_slope_c[k] = 0
        counts_of(want, x_c, mu_c, theta_c, of_value_c, of_slope_c, value_c, dmu_c, dtheta_c,
                  padded_found, <real>weight)
        for k in range(found):
            j = index[k]
            value[j] = value_c[k] if x == NULL else value[j] + value_c[k]
            if wanted is ValueAndGradient:
                dmu[j] = dmu_c[k]
                dtheta[j] = dtheta_c[k]
    for l in range(VECTOR):
        any_odd |= odd[l] != 0
    if any_odd:
        if x == NULL:
            x = spread_out(x_c, index, found, padded, x_room)
        outside = odd_ones(
            tag, x, mu, theta, logits, present, value, dmu, dtheta, dlogits, n, weight)
    if present != NULL:
        forget(present, value, dmu, dtheta, padded)
        if model is Inflated:
            for k in range(padded):
                dlogits[k] = dlogits[k] if present[k] != <real>0.0 else <real>0.0
    return outside
