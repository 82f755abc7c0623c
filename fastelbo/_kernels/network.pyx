# The passes of a small neural network between its matrix products, which are NumPy's.
#
# h, grad and the like are (B, H) and C-contiguous, a bias and its gradient (H,). Every element is
# computed on its own and columns are summed in blocks of rows that depend on the shape alone, so
# how the work is shared out changes no bit.

cimport numpy as cnp
from libc.stdlib cimport free, malloc

from fastelbo._kernels.operands cimport ceil_div, data_of
cimport fastelbo._kernels.terms.network as network
from fastelbo._kernels.terms.vecmath cimport real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef enum:
    LEAST_ROWS = 32        # rows that are summed at once, or more, but
    MOST_BLOCKS = 64       # in no more blocks than this
    UNIT = 1024            # elements of a flat array that a worker takes at once

cdef enum:
    LINEAR
    RELU
    TANH
    ELU
    SILU
    GELU

ACTIVATIONS = {"relu": RELU, "tanh": TANH, "elu": ELU, "silu": SILU, "gelu": GELU}

cdef struct Layer:
    Py_ssize_t rows, cols
    char* values           # (B, H)
    const char* other      # (H,) the bias; or (B, H) what leads back through an activation; or NULL
    char* slopes           # (B, H) the derivatives of activations; or NULL
    char* copy             # where to copy each row to, rows copy_stride bytes apart; or NULL
    Py_ssize_t copy_stride
    int activation
    Py_ssize_t rows_a_block, blocks
    double* partial        # (blocks, H) sums over the rows of each block

cdef struct Moments:
    Py_ssize_t size
    char* parameters       # (P,), and likewise below
    const char* grad
    char* first
    char* second
    double gain_first, gain_second, step, correction, epsilon, decay


# Bias and activation, in place ------------------------------------------------------------------

cdef void bias_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    cdef const Layer* job = <const Layer*>given
    cdef const real* restrict b = <const real*>job.other
    cdef real* restrict h
    cdef real* restrict s
    cdef Py_ssize_t row, i
    for row in range(job.rows * share // shares, job.rows * (share + 1) // shares):
        h = <real*>job.values + row * job.cols
        s = <real*>job.slopes + row * job.cols
        if job.activation == LINEAR:
            for i in range(job.cols):
                h[i] = h[i] + b[i]
        elif job.activation == RELU:
            for i in range(job.cols):
                h[i] = network.relu(h[i] + b[i])
        elif job.activation == TANH:
            for i in range(job.cols):
                network.tanh(h[i] + b[i], &h[i], &s[i])
        elif job.activation == ELU:
            for i in range(job.cols):
                network.elu(h[i] + b[i], &h[i], &s[i])
        elif job.activation == SILU:
            for i in range(job.cols):
                network.silu(h[i] + b[i], &h[i], &s[i])
        else:
            for i in range(job.cols):
                network.gelu(h[i] + b[i], &h[i], &s[i])


def add_bias(cnp.ndarray h, cnp.ndarray bias, str activation, cnp.ndarray slopes, int threads):
    """h + bias, or an activation of it, in place; `slopes` (B, H) receives its derivatives.

    None stands for no activation. The ReLU writes no slopes, which its result tells.
    """
    cdef Layer job
    cdef bint single = cnp.PyArray_TYPE(h) == cnp.NPY_FLOAT
    job.rows = cnp.PyArray_DIM(h, 0)
    job.cols = cnp.PyArray_DIM(h, 1)
    job.values = data_of(h)
    job.other = data_of(bias)
    job.slopes = data_of(slopes)
    job.activation = LINEAR if activation is None else ACTIVATIONS[activation]
    with nogil:
        if single:
            in_parallel[float](bias_share, &job, threads)
        else:
            in_parallel[double](bias_share, &job, threads)


cdef void sigmoid_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Layer* job = <const Layer*>given
    cdef real* x = <real*>job.values
    cdef Py_ssize_t size = job.rows * job.cols, i
    for i in range(size * share // shares, size * (share + 1) // shares):
        x[i] = network.sigmoid(x[i])


def sigmoid(cnp.ndarray x, int threads):
    """1 / (1 + e^-x), in place."""
    cdef Layer job
    job.values = data_of(x)
    job.rows = 1
    job.cols = cnp.PyArray_SIZE(x)
    with nogil:
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT:
            in_parallel[float](sigmoid_share, &job, threads)
        else:
            in_parallel[double](sigmoid_share, &job, threads)


# And back ---------------------------------------------------------------------------------------

cdef void back_block(const Layer* job, Py_ssize_t block, const real* kind) noexcept nogil:
    """One block of rows."""
    cdef double* restrict sums = job.partial + block * job.cols
    cdef real* restrict g
    cdef const real* restrict h
    cdef real* restrict to
    cdef Py_ssize_t row, i
    for i in range(job.cols):
        sums[i] = 0
    for row in range(block * job.rows_a_block, min(job.rows, (block + 1) * job.rows_a_block)):
        g = <real*>job.values + row * job.cols
        if job.other != NULL:
            h = <const real*>job.other + row * job.cols
            if job.activation == RELU:
                for i in range(job.cols):
                    g[i] = network.relu_backward(h[i], g[i])
            else:
                for i in range(job.cols):
                    g[i] = g[i] * h[i]
        for i in range(job.cols):
            sums[i] += g[i]
        if job.copy != NULL:
            to = <real*>(job.copy + row * job.copy_stride)
            for i in range(job.cols):
                to[i] = g[i]


cdef void back_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    cdef const Layer* job = <const Layer*>given
    cdef Py_ssize_t block
    for block in range(job.blocks * share // shares, job.blocks * (share + 1) // shares):
        back_block(job, block, kind)


cdef void add_blocks(const Layer* job, real* sums) noexcept nogil:
    cdef Py_ssize_t block, i
    for block in range(1, job.blocks):
        for i in range(job.cols):
            job.partial[i] += job.partial[block * job.cols + i]
    for i in range(job.cols):
        sums[i] = <real>job.partial[i]


def bias_backward(cnp.ndarray grad, cnp.ndarray rectified, cnp.ndarray slopes, cnp.ndarray copy,
                  cnp.ndarray sums, int threads):
    """The gradient of a bias, `sums` (H,), from that of its layer's output, summed in float64.

    What was behind it comes first, in place: a ReLU of result `rectified` (B, H), where that was
    off grad is zeroed, or an activation of these slopes (B, H). `copy` (B, H), whose rows may lie
    apart, receives grad as well. All three may be None.
    """
    cdef Layer job
    cdef char* result = data_of(sums)
    cdef bint single = cnp.PyArray_TYPE(grad) == cnp.NPY_FLOAT
    job.rows = cnp.PyArray_DIM(grad, 0)
    job.cols = cnp.PyArray_DIM(grad, 1)
    job.values = data_of(grad)
    job.other = data_of(rectified if slopes is None else slopes)
    job.activation = RELU if slopes is None else LINEAR
    job.copy = data_of(copy)
    job.copy_stride = 0 if copy is None else cnp.PyArray_STRIDE(copy, 0)
    job.rows_a_block = max(<Py_ssize_t>LEAST_ROWS, ceil_div(job.rows, MOST_BLOCKS))
    job.blocks = max(<Py_ssize_t>1, ceil_div(job.rows, job.rows_a_block))
    job.partial = <double*>malloc(max(<Py_ssize_t>1, job.blocks * job.cols) * sizeof(double))
    if job.partial == NULL:
        raise MemoryError()
    with nogil:
        if single:
            in_parallel[float](back_share, &job, threads)
        else:
            in_parallel[double](back_share, &job, threads)
        if single:
            add_blocks(&job, <float*>result)
        else:
            add_blocks(&job, <double*>result)
        free(job.partial)


# Adam -------------------------------------------------------------------------------------------

cdef void adam_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                     const real* kind) noexcept nogil:
    cdef const Moments* job = <const Moments*>given
    cdef Py_ssize_t units = ceil_div(job.size, UNIT)
    cdef Py_ssize_t start = units * share // shares * UNIT
    cdef Py_ssize_t n = min(job.size, units * (share + 1) // shares * UNIT) - start
    cdef real* restrict p = <real*>job.parameters + start
    cdef const real* restrict g = <const real*>job.grad + start
    cdef real* restrict m = <real*>job.first + start
    cdef real* restrict v = <real*>job.second + start
    cdef real gain_first = <real>job.gain_first, gain_second = <real>job.gain_second
    cdef real step = <real>job.step, correction = <real>job.correction
    cdef real epsilon = <real>job.epsilon, decay = <real>job.decay
    cdef Py_ssize_t i
    for i in range(n):
        network.adam(
            &p[i], g[i], &m[i], &v[i], gain_first, gain_second, step, correction, epsilon, decay
        )


def adam(cnp.ndarray parameters, cnp.ndarray grad, cnp.ndarray first, cnp.ndarray second,
         Py_ssize_t t, double learning_rate, double beta1, double beta2, double epsilon,
         double weight_decay, int threads):
    """Ascent step number t >= 1 of AdamW over flat arrays: parameters and both moments in place."""
    cdef Moments job
    cdef bint single = cnp.PyArray_TYPE(parameters) == cnp.NPY_FLOAT
    job.size = cnp.PyArray_SIZE(parameters)
    job.parameters = data_of(parameters)
    job.grad = data_of(grad)
    job.first = data_of(first)
    job.second = data_of(second)
    job.gain_first = 1 - beta1
    job.gain_second = 1 - beta2
    job.step = learning_rate / (1 - beta1 ** t)
    job.correction = (1 - beta2 ** t) ** -0.5
    job.epsilon = epsilon
    job.decay = learning_rate * weight_decay
    with nogil:
        if single:
            in_parallel[float](adam_share, &job, threads)
        else:
            in_parallel[double](adam_share, &job, threads)
