# The pass over decoder outputs for likelihoods over counts and pixels.

from fastelbo._kernels.terms.discrete cimport (
    BetaBinomialTerm, BinomialTerm, DiscretizedLogisticLogScaleTerm, DiscretizedLogisticTerm,
    PoissonLogTerm, PoissonTerm, gradients_of, has_factor, log_prob, outside, parameters_of, term,
)

include "elementwise.pxi"


cdef void likelihood_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                           const real* kind) noexcept nogil:
    """The share of a worker, with the term that the job names (`discrete.py` has the codes)."""
    if job.code == 0:
        run_term(<const PoissonTerm*>NULL, job, share, shares, kind)
    elif job.code == 1:
        run_term(<const PoissonLogTerm*>NULL, job, share, shares, kind)
    elif job.code == 2:
        run_term(<const BinomialTerm*>NULL, job, share, shares, kind)
    elif job.code == 3:
        run_term(<const BetaBinomialTerm*>NULL, job, share, shares, kind)
    elif job.code == 4:
        run_term(<const DiscretizedLogisticTerm*>NULL, job, share, shares, kind)
    elif job.code == 5:
        run_term(<const DiscretizedLogisticLogScaleTerm*>NULL, job, share, shares, kind)


include "evaluate.pxi"
