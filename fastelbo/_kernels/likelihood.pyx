# The pass over decoder outputs for likelihoods over real numbers.

from fastelbo._kernels.terms.likelihoods cimport (
    BernoulliTerm, ContinuousBernoulliTerm, GaussianLogScaleTerm, GaussianTerm, LaplaceLogScaleTerm,
    LaplaceTerm, SquaredErrorTerm, StudentTLearnedTerm, StudentTLogDfTerm, StudentTLogScaleTerm,
    StudentTTerm, gradients_of, has_factor, log_prob, outside, parameters_of, term,
)

include "elementwise.pxi"


cdef void likelihood_share(const Job* job, Py_ssize_t share, Py_ssize_t shares,
                           const real* kind) noexcept nogil:
    """The share of a worker, with the term that the job names (`likelihoods.py` has the codes)."""
    if job.code == 0:
        run_term(<const SquaredErrorTerm*>NULL, job, share, shares, kind)
    elif job.code == 1:
        run_term(<const GaussianTerm*>NULL, job, share, shares, kind)
    elif job.code == 2:
        run_term(<const GaussianLogScaleTerm*>NULL, job, share, shares, kind)
    elif job.code == 3:
        run_term(<const BernoulliTerm*>NULL, job, share, shares, kind)
    elif job.code == 4:
        run_term(<const ContinuousBernoulliTerm*>NULL, job, share, shares, kind)
    elif job.code == 5:
        run_term(<const LaplaceTerm*>NULL, job, share, shares, kind)
    elif job.code == 6:
        run_term(<const LaplaceLogScaleTerm*>NULL, job, share, shares, kind)
    elif job.code == 7:
        run_term(<const StudentTTerm*>NULL, job, share, shares, kind)
    elif job.code == 8:
        run_term(<const StudentTLogScaleTerm*>NULL, job, share, shares, kind)
    elif job.code == 9:
        run_term(<const StudentTLogDfTerm*>NULL, job, share, shares, kind)
    elif job.code == 10:
        run_term(<const StudentTLearnedTerm*>NULL, job, share, shares, kind)


include "evaluate.pxi"
