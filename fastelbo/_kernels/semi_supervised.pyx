# The pass over classes that M2 takes: of each sample a sum over them, or the term of its label.
#
# Read in either dtype, computed in float64. A row is finished alone.

cimport numpy as cnp

from fastelbo._kernels.operands cimport data_of
from fastelbo._kernels.terms.vecmath cimport exp, log_one_plus, real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef struct Rows:
    Py_ssize_t rows, classes
    const char* log_joint                  # (B, C), rows contiguous
    const char* logits
    Py_ssize_t joint_stride, logits_stride  # bytes between rows
    const cnp.int64_t* y                   # (B,), -1 where there is no label
    double alpha
    double weight                          # of a row in the value
    double* value                          # (B,)
    char* d_joint                          # (B, C) contiguous, or NULL
    char* d_logits


cdef inline double below(double logit, double top) noexcept nogil:
    """logit - top; equal ones are level, infinite ones, too."""
    return 0.0 if logit == top else logit - top


cdef void rows_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    cdef const Rows* job = <const Rows*>given
    cdef const real* joint
    cdef const real* logits
    cdef real* d_joint
    cdef real* d_logits
    cdef Py_ssize_t row, c, top, y
    cdef double most, others, except_y, log_total, total, log_q, q, value, term
    for row in range(job.rows * share // shares, job.rows * (share + 1) // shares):
        joint = <const real*>(job.log_joint + row * job.joint_stride)
        logits = <const real*>(job.logits + row * job.logits_stride)
        y = job.y[row]
        top = 0
        for c in range(job.classes):
            if logits[c] > logits[top]:
                top = c
        most = logits[top]
        others = except_y = value = 0
        for c in range(job.classes):
            q = exp(below(logits[c], most))
            others += 0.0 if c == top else q
            except_y += 0.0 if c == y else q
        total = 1 + others
        log_total = log_one_plus(others)
        if y >= 0:
            log_q = below(logits[y], most) - log_total
            value = joint[y] + (0.0 if job.alpha == 0 else job.alpha * log_q)
        else:
            for c in range(job.classes):
                log_q = below(logits[c], most) - log_total
                q = exp(log_q)
                value += 0.0 if q == 0 else q * (joint[c] - log_q)
        job.value[row] = value
        if job.d_joint == NULL:
            continue
        d_joint = <real*>job.d_joint + row * job.classes
        d_logits = <real*>job.d_logits + row * job.classes
        for c in range(job.classes):
            log_q = below(logits[c], most) - log_total
            q = exp(log_q)
            if y >= 0:
                term = except_y / total if c == y else -q
                d_joint[c] = <real>(job.weight if c == y else 0.0)
                d_logits[c] = <real>(job.weight * job.alpha * term)
            else:
                term = 0.0 if q == 0 else q * (joint[c] - log_q - value)
                d_joint[c] = <real>(job.weight * q)
                d_logits[c] = <real>(job.weight * term)


def class_marginal(cnp.ndarray log_joint, cnp.ndarray logits, cnp.ndarray y, double alpha,
                   double weight, cnp.ndarray value, cnp.ndarray d_joint, cnp.ndarray d_logits,
                   int threads):
    """M2 of each sample into value (B,), and unless None its gradients, (B, C), times `weight`.

    log_joint and logits are (B, C) of one dtype, their rows contiguous; y (B,) is int64, below C.
    """
    cdef Rows job
    job.rows = cnp.PyArray_DIM(logits, 0)
    job.classes = cnp.PyArray_DIM(logits, 1)
    job.log_joint = data_of(log_joint)
    job.logits = data_of(logits)
    job.joint_stride = cnp.PyArray_STRIDE(log_joint, 0)
    job.logits_stride = cnp.PyArray_STRIDE(logits, 0)
    job.y = <const cnp.int64_t*>data_of(y)
    job.alpha = alpha
    job.weight = weight
    job.value = <double*>data_of(value)
    job.d_joint = data_of(d_joint)
    job.d_logits = data_of(d_logits)
    with nogil:
        if cnp.PyArray_TYPE(logits) == cnp.NPY_FLOAT:
            in_parallel[float](rows_share, &job, threads)
        else:
            in_parallel[double](rows_share, &job, threads)
