# Terms of the likelihoods: log p(x | parameters) of one element, with its derivatives.
#
# A likelihood is a tag type and a branch in `log_prob`. Tags carry nothing: passes are fused over
# them, and Cython keeps only the branch of the tag it compiles for, so a pass is written once.
# Parameters a, b, c and their derivatives da, db, dc are what `fastelbo/likelihoods.py` lists
# for the likelihood, in that order; unused ones are ignored.

from fastelbo._kernels.terms.vecmath cimport exp, logistic, real

ctypedef struct SquaredErrorTerm:        # a: x_recon
    char _
ctypedef struct GaussianTerm:            # a: mean, b: 1 / scale, c: log(scale) + log(2 pi) / 2
    char _
ctypedef struct GaussianLogScaleTerm:    # a: mean, b: log scale
    char _
ctypedef struct BernoulliTerm:           # a: logits
    char _

ctypedef fused term:
    SquaredErrorTerm
    GaussianTerm
    GaussianLogScaleTerm
    BernoulliTerm


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
    if term is GaussianTerm:
        return 3
    elif term is GaussianLogScaleTerm:
        return 2
    else:
        return 1


cdef inline int gradients_of(const term* tag) noexcept nogil:
    """Of how many of them, from the first, it knows the derivative."""
    if term is GaussianLogScaleTerm:
        return 2
    else:
        return 1


cdef inline real log_prob(const term* tag, real x, real a, real b, real c,
                          real* da, real* db, real* dc) noexcept nogil:
    cdef real d, e, s, p, up
    if term is SquaredErrorTerm:
        d = x - a
        da[0] = <real>2.0 * d
        return -(d * d)
    elif term is GaussianTerm:
        d = (x - a) * b
        da[0] = d * b
        return <real>-0.5 * (d * d) - c
    elif term is GaussianLogScaleTerm:
        e = exp(-b)
        d = (x - a) * e
        da[0] = d * e
        db[0] = d * d - <real>1.0
        return <real>-0.5 * (d * d) - b - <real>0.9189385332046727
    elif term is BernoulliTerm:
        # x a - softplus(a), with the large parts of both removed: x = 1, a = 20 keeps its digits
        logistic(a, &s, &p)
        up = <real>1.0 if a > <real>0.0 else <real>0.0
        da[0] = (x - up) + (p if a > <real>0.0 else -p)
        return (x - up) * a - s


cdef inline bint outside(const term* tag, real x) noexcept nogil:
    """Whether x lies outside the domain of the likelihood; NaN does not count."""
    if term is BernoulliTerm:
        return (x < <real>0.0) | (x > <real>1.0)
    else:
        return False
