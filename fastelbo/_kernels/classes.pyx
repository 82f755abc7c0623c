# The passes over decoder outputs with an axis of classes or of mixture components, which a log-sum-exp
# removes: the categorical likelihood, and mixtures of discretized logistics.
#
# Positions are the elements of x. A unit of work is a chunk of the positions of a row, or several
# short rows; a tile is LANES positions or, where there are many classes, one.

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._kernels.call cimport HANDLE, Call, Handle, bind_dense, bind_output, lay_out
from fastelbo._kernels.operands cimport (
    FLOAT32, FLOAT64, LANES, MAX_OPERANDS, MAX_OUTER, NATIVE, Operand, Shape, add_up, attach, ceil_div,
    data_of, round_up, size_of, vectors_of,
)
from fastelbo._kernels.terms.vecmath cimport real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef enum:
    CHUNK = 4096           # decoder outputs of one kind that a unit reads, about
    MAX_OUTPUTS = 3

cdef struct Job:
    bint mixture           # of logistics, or else categorical
    Shape shape            # its outer axes: positions (categorical) or samples (mixtures)
    Operand x
    Operand keep           # 0 where x is missing; read if `masked`
    Operand output[MAX_OUTPUTS]        # what the decoder gives
    Operand gradient[MAX_OUTPUTS]
    Py_ssize_t across[MAX_OUTPUTS]     # bytes from a component to the next
    Py_ssize_t across_gradient         # the same of the gradients, which are contiguous
    int outputs
    bint masked, nan_missing, with_gradient
    double top             # the last bin
    double weight          # what the gradients are multiplied by
    Py_ssize_t classes     # or components
    Py_ssize_t rows        # that get a sum of their own, or 1
    Py_ssize_t positions   # a row
    Py_ssize_t chunk       # positions of a row a unit
    Py_ssize_t chunks      # a row
    Py_ssize_t rows_a_unit
    Py_ssize_t units
    double* partial        # (rows, chunks)
    void* elements         # log p of each element of x, in the dtype of the pass; or NULL
    char* room             # for each worker
    Py_ssize_t room_size
    bint* found_outside


cdef int arrange_outer(Shape* shape, Operand** ops, PyObject** arrays, int n, int axes) except -1:
    """Make the first `axes` axes of the arrays outer, neighbours joined where strides allow."""
    cdef cnp.ndarray first = <cnp.ndarray>arrays[0]
    cdef int d, k, last
    cdef Py_ssize_t extent
    cdef bint joins
    shape.outer = 0
    for d in range(axes):
        extent = cnp.PyArray_DIM(first, d)
        if extent == 1:
            continue
        last = shape.outer - 1
        joins = shape.outer > 0
        for k in range(n):
            joins = joins and (ops[k].strides[last]
                               == cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], d) * extent)
        if joins:
            shape.extent[last] *= extent
        else:
            if shape.outer == MAX_OUTER:
                raise ValueError("arrays of more than 8 strided axes are not supported")
            last = shape.outer
            shape.extent[last] = extent
            shape.outer += 1
        for k in range(n):
            ops[k].strides[last] = cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], d)
    return 0


cdef inline real lowest(const real* kind) noexcept nogil:
    """Below every finite number's exponential, and yet finite."""
    if real is float:
        return <float>-3.4028234e38
    else:
        return -1.7976931348623157e308


include "categorical.pxi"
include "logistic_mixture.pxi"


cdef void units_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                      const real* kind) noexcept nogil:
    cdef const Job* job = <const Job*>given
    cdef Py_ssize_t unit
    cdef bint bad = False
    cdef char* room = job.room + share * job.room_size
    for unit in range(job.units * share // shares, job.units * (share + 1) // shares):
        if job.mixture:
            mixture_unit(job, unit, room, &bad, kind)
        else:
            categorical_unit(job, unit, room, &bad, kind)
    if bad:
        job.found_outside[0] = True


cdef int32_t run_units(Job* job, bint single, int threads, double* row_values,
                       double* total) noexcept nogil:
    """The units of a planned job: a value per row, or else their total. -1 where memory ran out."""
    cdef Py_ssize_t row, sums = job.rows * job.chunks
    job.partial = <double*>malloc(sums * sizeof(double) + threads * job.room_size)
    if job.partial == NULL:
        return -1
    memset(job.partial, 0, sums * sizeof(double))
    job.room = <char*>(job.partial + sums)
    if single:
        in_parallel[float](units_share, job, threads)
    else:
        in_parallel[double](units_share, job, threads)
    if row_values == NULL:
        total[0] = add_up(job.partial, sums)
    else:
        for row in range(job.rows):
            row_values[row] = add_up(job.partial + row * job.chunks, job.chunks)
    free(job.partial)
    return 0


cdef object run_job(Job* job, bint single, cnp.ndarray row_values, int threads):
    """(total, whether something was outside the domain)."""
    cdef bint found = False
    cdef double* rows = <double*>data_of(row_values)
    cdef double total = 0
    cdef int failed
    job.found_outside = &found
    with nogil:
        failed = run_units(job, single, threads, rows, &total)
    if failed:
        raise MemoryError()
    return total, found


cdef void plan_categorical(Job* job) noexcept nogil:
    """Cut rows and positions into units."""
    job.chunk = max(<Py_ssize_t>1, CHUNK // job.classes)
    if job.classes < LANES:
        job.chunk = round_up(job.chunk)
    job.chunks = max(<Py_ssize_t>1, ceil_div(job.positions, job.chunk))
    job.rows_a_unit = max(<Py_ssize_t>1, job.chunk // max(<Py_ssize_t>1, job.positions))
    job.units = job.rows * job.chunks
    if job.chunks == 1:
        job.units = ceil_div(job.rows, job.rows_a_unit)
    job.room_size = LANES * LANES * sizeof(double)


def categorical(cnp.ndarray x, cnp.ndarray mask, bint nan_missing, cnp.ndarray logits,
                cnp.ndarray gradient, double weight, int batch_axes, cnp.ndarray row_values,
                cnp.ndarray elements, int threads):
    """log softmax(logits)[x], summed: x (B, ...), logits (B, ..., C) with a contiguous last axis.

    Arrays come checked. With row_values a value per row of the first batch_axes axes is written
    there, with elements (C-contiguous, like x) one per element. Returns (total, whether some x was no class).
    """
    cdef Job job
    cdef Operand* ops[MAX_OPERANDS]
    cdef PyObject* arrays[MAX_OPERANDS]
    cdef bint single = cnp.PyArray_TYPE(logits) == cnp.NPY_FLOAT
    cdef int d, n = 0, axes = cnp.PyArray_NDIM(x)
    job.mixture = False
    job.elements = data_of(elements)
    job.masked = mask is not None
    job.with_gradient = gradient is not None
    job.nan_missing = nan_missing
    attach(ops, arrays, &n, &job.output[0], logits, single)
    attach(ops, arrays, &n, &job.x, x, False)
    attach(ops, arrays, &n, &job.keep, mask, False)
    attach(ops, arrays, &n, &job.gradient[0], gradient, single)
    arrange_outer(&job.shape, ops, arrays, n, axes)
    job.weight = weight
    job.classes = cnp.PyArray_DIM(logits, axes)
    job.rows = 1
    if row_values is not None:
        for d in range(batch_axes):
            job.rows *= cnp.PyArray_DIM(x, d)
    job.positions = cnp.PyArray_SIZE(x) // job.rows
    plan_categorical(&job)
    return run_job(&job, single, row_values, threads)


cdef void plan_mixture(Job* job) noexcept nogil:
    """Cut samples into units."""
    job.chunk = max(<Py_ssize_t>LANES, CHUNK // job.classes // LANES * LANES)
    job.chunks = max(<Py_ssize_t>1, ceil_div(job.positions, job.chunk))
    job.units = job.rows * job.chunks
    job.room_size = 4 * job.classes * LANES * sizeof(double)


def mixture(cnp.ndarray x, cnp.ndarray mask, bint nan_missing, tuple parameters, tuple gradients,
            double top, double weight, int batch_axes, cnp.ndarray row_values, cnp.ndarray elements,
            int threads):
    """Mixtures of discretized logistics over bins 0 .. top, summed.

    x is (B, event), or (K, B, event), and parameters (logits, means, log scales) have a component
    axis before the event, which is contiguous or broadcast; gradients are contiguous. Values go to
    row_values and elements as those of `categorical`. Returns
    (total, whether some x was no bin).
    """
    cdef Job job
    cdef Operand* ops[MAX_OPERANDS]
    cdef PyObject* arrays[MAX_OPERANDS]
    cdef cnp.ndarray first = parameters[0]
    cdef bint single = cnp.PyArray_TYPE(first) == cnp.NPY_FLOAT
    cdef int i, d, n = 0
    job.mixture = True
    job.elements = data_of(elements)
    job.masked = mask is not None
    job.with_gradient = gradients is not None
    job.nan_missing = nan_missing
    attach(ops, arrays, &n, &job.x, x, single)
    attach(ops, arrays, &n, &job.keep, mask, single)
    job.x.spread = cnp.PyArray_STRIDE(x, batch_axes) == 0
    if job.masked:
        job.keep.spread = cnp.PyArray_STRIDE(mask, batch_axes) == 0
    for i in range(MAX_OUTPUTS):
        attach(ops, arrays, &n, &job.output[i], parameters[i], single)
        job.output[i].spread = cnp.PyArray_STRIDE(<cnp.ndarray>parameters[i], batch_axes + 1) == 0
        job.across[i] = cnp.PyArray_STRIDE(<cnp.ndarray>parameters[i], batch_axes)
    if job.with_gradient:
        for i in range(MAX_OUTPUTS):
            attach(ops, arrays, &n, &job.gradient[i], gradients[i], single)
        job.across_gradient = job.gradient[0].itemsize * cnp.PyArray_DIM(first, batch_axes + 1)
    arrange_outer(&job.shape, ops, arrays, n, batch_axes)
    job.top = top
    job.weight = weight
    job.classes = cnp.PyArray_DIM(first, batch_axes)
    job.positions = cnp.PyArray_DIM(first, batch_axes + 1)
    job.rows = 1
    for d in range(batch_axes):
        job.rows *= cnp.PyArray_DIM(first, d)
    plan_mixture(&job)
    return run_job(&job, single, row_values, threads)


# Dense arrays, from C and by the short way from Python -------------------------------------------

cdef int32_t dense(const Handle* likelihood, Call* call) noexcept nogil:
    """The categorical pass over dense arrays. Returns -1 where memory ran out."""
    cdef Job job
    cdef bint single = call.dtype == FLOAT32, found = False
    cdef Py_ssize_t samples = max(<int64_t>1, call.samples), elements = call.batch * call.event
    cdef Operand* ops[3]
    cdef int k, axis = 0
    memset(&job, 0, sizeof(Job))
    job.with_gradient = call.d_outputs[0] != NULL
    job.nan_missing = likelihood.nan_missing
    job.weight = call.weight
    job.classes = call.classes
    job.rows = 1 if call.row_log_prob == NULL else samples * call.batch
    job.positions = samples * elements // job.rows
    job.found_outside = &found
    job.x.data = <char*>call.x
    job.x.storage = call.x_dtype if call.x_dtype != FLOAT64 else NATIVE      # it is read in float64
    job.x.itemsize = size_of(call.x_dtype)
    job.output[0].data = <char*>call.outputs[0]
    job.gradient[0].data = <char*>call.d_outputs[0]
    ops = [&job.x, &job.output[0], &job.gradient[0]]
    for k in range(1, 3):
        ops[k].itemsize = size_of(call.dtype)
    for k in range(3):
        axis = 0
        if samples > 1:
            ops[k].strides[0] = 0 if k == 0 else elements * call.classes * ops[k].itemsize
            axis = 1
        if elements > 1:
            ops[k].strides[axis] = (1 if k == 0 else call.classes) * ops[k].itemsize
            axis += 1
    job.shape.outer = axis
    job.shape.extent[0] = samples if samples > 1 else elements
    job.shape.extent[1] = elements
    plan_categorical(&job)
    if run_units(&job, single, call.threads, call.row_log_prob, &call.log_prob):
        return -1
    call.outside = found
    return 0


cdef int32_t dense_mixture(const Handle* likelihood, Call* call) noexcept nogil:
    """The pass of mixtures over dense arrays; what the likelihood has is the last bin."""
    cdef Job job
    cdef bint single = call.dtype == FLOAT32, found = False
    cdef int i, axis
    memset(&job, 0, sizeof(Job))
    job.mixture = True
    job.with_gradient = call.d_outputs[0] != NULL
    job.nan_missing = likelihood.nan_missing
    job.weight = call.weight
    job.classes = call.classes
    job.top = (<const float*>likelihood.own[0].data[1])[0] if single else (
        <const double*>likelihood.own[0].data[0])[0]
    job.found_outside = &found
    lay_out(&job.shape, call, False)
    job.rows, job.positions = job.shape.rows, job.shape.run
    bind_dense(&job.x, call.x, call.x_dtype, call, False, True, True)
    job.across_gradient = job.positions * size_of(call.dtype)
    for i in range(MAX_OUTPUTS):
        bind_output(&job.output[i], call.outputs[i], call)
        bind_output(&job.gradient[i], call.d_outputs[i], call)
        job.across[i] = job.across_gradient
        for axis in range(job.shape.outer):
            job.output[i].strides[axis] *= call.classes
            job.gradient[i].strides[axis] *= call.classes
    plan_mixture(&job)
    if run_units(&job, single, call.threads, call.row_log_prob, &call.log_prob):
        return -1
    call.outside = found
    return 0


def fill(handle, str name):
    """Make a capsule's Handle that of the categorical likelihood, or of mixtures."""
    cdef Handle* likelihood = <Handle*>PyCapsule_GetPointer(handle, HANDLE)
    likelihood.run = dense if name == "Categorical" else dense_mixture
    likelihood.outputs = likelihood.gradients = 1 if name == "Categorical" else MAX_OUTPUTS
