# The short way: calls whose arrays are dense and of one dtype go from Python to the pass with nothing
# between. There are no checks here: what is not plainly fit is left to the ordinary way, which has
# them, and raises all errors.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.math cimport log, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from fastelbo._arrays cimport LATENT_COST
from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.operands cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, NPY_HALF, NPY_USERDEF, storage_of,
)

import math

import numpy as np

from fastelbo import _builds, _scales
from fastelbo._arrays import is_half
from fastelbo._threads import WORTH_TWO, threads_for

cnp.import_array()

cdef extern from *:
    """
    static PyObject *fe_new_tuple(PyObject *kind, Py_ssize_t n) {
        PyObject *made = ((PyTypeObject *)kind)->tp_alloc((PyTypeObject *)kind, n);
    #if PY_VERSION_HEX >= 0x030E0000
        if (made != NULL) ((PyTupleObject *)made)->ob_hash = -1;
    #endif
        return made;
    }
    """
    object new_tuple "fe_new_tuple"(object kind, Py_ssize_t n)

cdef Py_ssize_t worth_two = WORTH_TWO

cdef enum:
    BRIEF = 512            # elements for which to let go of the interpreter's lock is not worth it


#: Of a scale that is found, as `Gaussian` has them.
cdef double LEAST_SCALE, MOST_SCALE, HALF_LOG_2PI
LEAST_SCALE, MOST_SCALE = _scales.LEAST, _scales.MOST
HALF_LOG_2PI = _scales.HALF_LOG_2PI


cdef class Dense:
    """What a pass needs besides arrays."""

    def __init__(self, kernels=None, name=None):
        memset(&self.handle, 0, sizeof(Handle))
        self.kernels, self.name = kernels, name

    @property
    def address(self):
        """Of the fastelbo_likelihood, valid as long as this object is kept."""
        return <size_t>&self.handle

    cdef int load(self) except -1:
        self.kernels.fill(PyCapsule_New(&self.handle, HANDLE, NULL), self.name)
        return 0


cdef int32_t (*squared_error)(const Handle*, Call*) noexcept nogil
squared_error = NULL


cdef int32_t optimal(const Handle* likelihood, Call* call) noexcept nogil:
    """The squared error's pass for the scale of a minibatch, then with it; something lies outside where
    there is none."""
    cdef Handle scaled = likelihood[0]
    cdef Call error = call[0]
    cdef double variance, scale
    error.mu = error.follower = NULL
    error.row_log_prob = NULL
    error.d_outputs[0] = NULL
    scaled.factor, scaled.constant = 1, 0
    if squared_error(&scaled, &error):
        return -1
    variance = -error.log_prob / (max(<int64_t>1, call.samples) * call.batch * call.event)
    call.outside = not LEAST_SCALE * LEAST_SCALE <= variance <= MOST_SCALE * MOST_SCALE
    scale = sqrt(variance)
    scaled.factor = 0.5 / (scale * scale)
    scaled.constant = -log(scale) - HALF_LOG_2PI
    return squared_error(&scaled, call) if not call.outside else 0


cdef Dense bound(object likelihood, tuple event):
    """Of a likelihood over such events; `handle.run` is NULL where it has no pass over dense arrays.

    Nobody changes it afterwards: a pass may be running by it.
    """
    cdef Dense made = Dense(likelihood._kernels, likelihood._term)
    cdef Handle* handle = &made.handle
    cdef cnp.ndarray a
    cdef int single, i
    cdef bint couples = likelihood._couples_rows()
    global squared_error
    made.bound = True
    if made.name is None or couples and likelihood._missing_nan:
        return made
    made.axis = likelihood._layout.axis
    handle.classes = 0 if not likelihood._layout.more_axes else likelihood._outputs_each or -1
    handle.nan_missing = likelihood._missing_nan
    handle.x_scale = likelihood._x_scale
    handle.factor = likelihood._factor
    handle.constant = likelihood._constant
    try:
        made.own = tuple([
            likelihood._own_parameters((1, *event), 1, np.dtype(dtype))
            for dtype in (np.float64, np.float32)])
    except ValueError:
        made.event = event
        return made
    handle.owns = <int>len(made.own[0])
    if handle.owns > 0:
        made.event = event
    for single in range(2):
        for i in range(handle.owns):
            a = made.own[single][i]
            handle.own[i].data[single] = cnp.PyArray_DATA(a)
            handle.own[i].storage = storage_of(a, single)
            handle.own[i].spread = is_one_number(a)
            if not handle.own[i].spread and not (
                    cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_SIZE(a) == math.prod(event)):
                return made
            if not handle.own[i].spread:
                handle.event = cnp.PyArray_SIZE(a)
    made.load()
    if couples:
        squared_error = handle.run
        handle.run = optimal
    return made


cdef Dense dense_of(object likelihood, object x):
    """What is known of a likelihood, found out now unless it is known for events like those of x."""
    cdef Dense dense = likelihood._dense
    if is_dense(x) and cnp.PyArray_NDIM(<cnp.ndarray>x) > 0 and (
            not dense.bound or dense.event is not None and not is_event_of(dense.event, <cnp.ndarray>x)):
        dense = likelihood._dense = bound(likelihood, x.shape[1:])
    return dense


#: The KL of latents, from N(0, I) or another.
KL = Dense(_builds.kernels("latent"), "kl")
#: Those of Gaussians of full covariance and of discrete latents.
cdef Dense FULL = Dense(_builds.kernels("divergences"), "full")
cdef Dense CLASSES = Dense(_builds.kernels("divergences"), "classes")
cdef Dense BITS = Dense(_builds.kernels("divergences"), "bits")


cdef inline bint is_one_number(cnp.ndarray a) noexcept:
    cdef int d
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) > 1 and cnp.PyArray_STRIDE(a, d) != 0:
            return False
    return True


cdef inline bint is_dense(object a) noexcept:
    return type(a) is cnp.ndarray and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a)


cdef inline bint begins_like(cnp.ndarray a, cnp.ndarray x) noexcept:
    """Whether the first axes of a are those of x."""
    cdef int d
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(x, d):
            return False
    return True


cdef inline bint is_event_of(tuple event, cnp.ndarray x) except -1:
    cdef int d
    if len(event) != cnp.PyArray_NDIM(x) - 1:
        return False
    for d in range(<int>len(event)):
        if <Py_ssize_t>event[d] != cnp.PyArray_DIM(x, d + 1):
            return False
    return True


cdef bint lies_over(Call* call, Dense dense, cnp.ndarray a, cnp.ndarray x) noexcept:
    """Whether a has the axes of x, and that of classes or components if there is one."""
    cdef int d, axes = cnp.PyArray_NDIM(x), at = axes if dense.axis == -1 else dense.axis
    cdef Py_ssize_t classes
    if dense.handle.classes == 0:
        return cnp.PyArray_NDIM(a) == axes and begins_like(a, x)
    if cnp.PyArray_NDIM(a) != axes + 1:
        return False
    for d in range(axes):
        if cnp.PyArray_DIM(a, d + (d >= at)) != cnp.PyArray_DIM(x, d):
            return False
    classes = cnp.PyArray_DIM(a, at)
    if classes == 0 or call.classes not in (0, classes) or dense.handle.classes not in (-1, classes):
        return False
    call.classes = classes
    return True


cdef bint bind_columns(Call* call, int i, cnp.ndarray data, object output) except -1:
    """Whether output number i is the same for all rows of x: one row, or broadcast to all."""
    cdef cnp.ndarray a
    cdef int d, more
    cdef Py_ssize_t stride
    if type(output) is not cnp.ndarray or not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>output):
        return False
    a = <cnp.ndarray>output
    more = cnp.PyArray_NDIM(data) - cnp.PyArray_NDIM(a)
    if more > 1 or more < 0 or more == 0 and (
            cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(data, 0) or cnp.PyArray_STRIDE(a, 0) != 0):
        return False
    stride = cnp.PyArray_ITEMSIZE(a)
    for d in range(cnp.PyArray_NDIM(data) - 1, 0, -1):
        if cnp.PyArray_DIM(a, d - more) != cnp.PyArray_DIM(data, d):
            return False
        if cnp.PyArray_DIM(data, d) > 1 and cnp.PyArray_STRIDE(a, d - more) != stride:
            return False
        stride *= cnp.PyArray_DIM(data, d)
    call.columns |= 1 << i
    if more == 1:
        call.summed |= 1 << i
    return True


#: NumPy's number of bfloat16, once that has been met.
cdef int of_brain = -1


cdef int half_in(cnp.ndarray a, int half) except -1:
    """The storage of an array in half precision, 0 of another. `half` is what those of float16 hold: FLOAT16,
    or BFLOAT16, where that came without a dtype of NumPy's."""
    global of_brain
    cdef int type_ = cnp.PyArray_TYPE(a)
    if type_ == NPY_HALF:
        return half
    if type_ >= NPY_USERDEF and type_ != of_brain and is_half(a.dtype):
        of_brain = type_
    return BFLOAT16 if type_ == of_brain else 0


cdef bint bind_event(Call* call, Dense dense, object x, tuple outputs, int half) except -1:
    """Whether x and the decoder's outputs are fit; then the call, all zero before, has them. For `half` see
    `half_in`."""
    cdef cnp.ndarray data, a
    cdef int i, type_ = -1
    if not is_dense(x):
        return False
    data = <cnp.ndarray>x
    if cnp.PyArray_NDIM(data) == 0 or cnp.PyArray_SIZE(data) == 0:
        return False
    if dense.handle.run == NULL or len(outputs) != dense.handle.outputs:
        return False
    for i in range(dense.handle.outputs):
        if not is_dense(outputs[i]) or not lies_over(call, dense, <cnp.ndarray>outputs[i], data):
            if not (dense.handle.columns & 1 << i and bind_columns(call, i, data, outputs[i])):
                return False
        a = <cnp.ndarray>outputs[i]
        if type_ == -1:
            type_ = cnp.PyArray_TYPE(a)
        if cnp.PyArray_TYPE(a) != type_:
            return False
        call.outputs[i] = cnp.PyArray_DATA(a)
    if type_ == cnp.NPY_FLOAT and cnp.PyArray_TYPE(data) != cnp.NPY_DOUBLE:
        call.dtype = FLOAT32
    elif type_ == cnp.NPY_DOUBLE:
        call.dtype = FLOAT64
    else:
        call.dtype, call.output_dtype = FLOAT32, half_in(a, half)
        if call.output_dtype == 0 or not dense.handle.follows or cnp.PyArray_TYPE(data) == cnp.NPY_DOUBLE:
            return False
    call.x_dtype = half_in(data, half)
    if call.x_dtype == 0:
        if cnp.PyArray_TYPE(data) > cnp.NPY_DOUBLE:          # before it come integers and float32
            return False
        call.x_dtype = storage_of(data, call.dtype == FLOAT32) or call.dtype
    call.x = cnp.PyArray_DATA(data)
    call.batch = cnp.PyArray_DIM(data, 0)
    call.event = cnp.PyArray_SIZE(data) // call.batch
    return True


cdef bint bind_latents(Call* call, object mu, object logvar, int half) except -1:
    """Whether mu and logvar are fit, beside what the call has. For `half` see `half_in`; 0: half precision
    is not fit."""
    cdef cnp.ndarray m, v
    cdef int type_
    cdef bint single
    if not is_dense(mu) or not is_dense(logvar):
        return False
    m, v = <cnp.ndarray>mu, <cnp.ndarray>logvar
    type_ = cnp.PyArray_TYPE(m)
    single = type_ != cnp.NPY_DOUBLE
    if single and type_ != cnp.NPY_FLOAT:
        call.latent_dtype = half_in(m, half) if half else 0
        if call.latent_dtype == 0:
            return False
    if (cnp.PyArray_NDIM(m) != 2 or cnp.PyArray_NDIM(v) != 2 or type_ != cnp.PyArray_TYPE(v)
            or not begins_like(m, v)):
        return False
    if call.x == NULL:
        call.dtype = FLOAT32 if single else FLOAT64
        call.batch = cnp.PyArray_DIM(m, 0)
    elif single != (call.dtype == FLOAT32) or cnp.PyArray_DIM(m, 0) != call.batch:
        return False
    call.latent = cnp.PyArray_DIM(m, 1)
    call.mu, call.logvar = cnp.PyArray_DATA(m), cnp.PyArray_DATA(v)
    return call.batch > 0 and call.latent > 0


cdef bint is_word(object reduction, str word):
    return reduction is word or isinstance(reduction, str) and reduction == word


cdef bint bind_reduction(Call* call, object reduction) except -1:
    """Whether it is one of those over the batch; then gradients are weighed by it."""
    cdef bint mean = is_word(reduction, "mean")
    call.weight = 1.0 / call.batch if mean else 1.0
    return mean or is_word(reduction, "sum") or is_word(reduction, "none")


cdef cnp.ndarray new_rows(Call* call):
    cdef cnp.npy_intp batch = call.batch
    return cnp.PyArray_EMPTY(1, &batch, cnp.NPY_DOUBLE, 0)


cdef cnp.ndarray new_like(cnp.ndarray a):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)


cdef inline bint is_apart(cnp.ndarray a, tuple others) except -1:
    """Whether dense arrays lie before or behind a."""
    cdef char* low = <char*>cnp.PyArray_DATA(a)
    cdef char* high = low + cnp.PyArray_NBYTES(a)
    cdef char* start
    cdef object other
    for other in others:
        start = <char*>cnp.PyArray_DATA(<cnp.ndarray>other)
        if start < high and low < start + cnp.PyArray_NBYTES(<cnp.ndarray>other):
            return False
    return True


cdef bint may_write(tuple out, tuple like, tuple others) except -1:
    """Whether these are arrays for gradients like some dense ones; `others` are read, too."""
    cdef cnp.ndarray a, b
    cdef int i
    if len(out) != len(like):
        return False
    for i in range(<int>len(out)):
        if type(out[i]) is not cnp.ndarray or not cnp.PyArray_ISCARRAY(<cnp.ndarray>out[i]):
            return False
        a, b = out[i], like[i]
        if (cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b)
                or not begins_like(a, b) or not is_apart(a, like) or not is_apart(a, others)
                or not is_apart(a, out[:i])):
            return False
    return True


cdef tuple new_arrays(tuple like):
    if len(like) == 1:
        return (new_like(<cnp.ndarray>like[0]),)
    return tuple([new_like(<cnp.ndarray>a) for a in like])


cdef tuple gradients_for(object out, tuple like, tuple others):
    """Arrays for gradients like these: new ones, or those of `out` if a pass may write to them, or None."""
    cdef tuple given
    if out is None:
        return new_arrays(like)
    given = tuple(out) if isinstance(out, tuple) else ()      # what gave gradients names them
    return given if may_write(given, like, others) else None


cdef int bind_gradients(Call* call, tuple gradients) except -1:
    """By the decoder's outputs."""
    cdef int i
    for i in range(<int>len(gradients) if gradients is not None else 0):
        call.d_outputs[i] = cnp.PyArray_DATA(<cnp.ndarray>gradients[i])
    return 0


cdef int run(Dense dense, Call* call, object num_threads) except -1:
    cdef Py_ssize_t work = call.batch * (call.event + LATENT_COST * call.latent)
    cdef int failed
    if dense.handle.run == NULL:
        dense.load()
    call.threads = 1
    if num_threads is not None or work >= worth_two:
        call.threads = threads_for(work, num_threads)
    if work < BRIEF:
        failed = dense.handle.run(&dense.handle, call)
    else:
        with nogil:
            failed = dense.handle.run(&dense.handle, call)
    if failed:
        raise MemoryError()
    return 0


cpdef object named(type kind, tuple values):
    """A NamedTuple: what its own constructor ends in, at a fraction of the cost."""
    cdef object made = new_tuple(kind, len(values))
    cdef Py_ssize_t i
    for i in range(len(values)):
        Py_INCREF(values[i])
        PyTuple_SET_ITEM(made, i, values[i])
    return made


def log_density(likelihood, x, tuple outputs, mask, reduction, num_threads, out, bint with_gradient):
    """What `Likelihood.log_prob` and `log_prob_and_grad` return."""
    cdef Call call
    cdef Dense dense
    cdef tuple gradients = None
    cdef object value
    if mask is None:
        memset(&call, 0, sizeof(Call))
        dense = dense_of(likelihood, x)
        if bind_event(&call, dense, x, outputs, FLOAT16) and bind_reduction(&call, reduction):
            if with_gradient:
                gradients = gradients_for(out, outputs, (x,))
                bind_gradients(&call, gradients)
            if gradients is not None or not with_gradient:
                value = None
                if is_word(reduction, "none"):
                    value = new_rows(&call)
                    call.row_log_prob = <double*>cnp.PyArray_DATA(<cnp.ndarray>value)
                run(dense, &call, num_threads)
                if not (call.outside and likelihood._validate):
                    if value is None:
                        value = call.log_prob
                        if is_word(reduction, "mean"):
                            value = call.log_prob / call.batch
                    return (value, gradients) if with_gradient else value
    return likelihood._log_prob(x, outputs, mask, reduction, num_threads, out, with_gradient)


cdef object divergence_by(Dense dense, Call* call, tuple like, void*** slots, object reduction,
                          object num_threads, object out, type kind, bint with_gradient):
    """The KL of a call, and gradients like some arrays, for which there are slots, as a `kind`."""
    cdef tuple gradients = None
    cdef object value = None
    cdef Py_ssize_t i
    if not bind_reduction(call, reduction):
        return None
    call.kl_weight = call.weight
    if with_gradient:
        gradients = gradients_for(out, like, ())
        if gradients is None:
            return None
        for i in range(len(gradients)):
            slots[i][0] = cnp.PyArray_DATA(<cnp.ndarray>gradients[i])
        if len(gradients) < len(kind._fields):                # of what is not there
            gradients += (None,)
    if is_word(reduction, "none"):
        value = new_rows(call)
        call.row_kl = <double*>cnp.PyArray_DATA(<cnp.ndarray>value)
    run(dense, call, num_threads)
    if call.outside:
        return None
    if value is None:
        value = call.kl / call.batch if is_word(reduction, "mean") else call.kl
    return (value, named(kind, gradients)) if with_gradient else value


def divergence(tuple arguments, reduction, num_threads, out, type kind, bint with_gradient):
    """The KL between diagonal Gaussians, or of one from N(0, I), and gradients as a `kind`; None where
    arrays are not as a pass takes them."""
    cdef Call call
    cdef cnp.ndarray first
    cdef void** slots[4]
    memset(&call, 0, sizeof(Call))
    if not bind_latents(&call, arguments[0], arguments[1], 0):
        return None
    if len(arguments) == 4:
        first = arguments[0]
        call.mu_p, call.logvar_p = call.mu, call.logvar
        if not (bind_latents(&call, arguments[2], arguments[3], 0) and begins_like(arguments[2], first)
                and cnp.PyArray_TYPE(<cnp.ndarray>arguments[2]) == cnp.PyArray_TYPE(first)):
            return None
        call.mu, call.mu_p = call.mu_p, call.mu
        call.logvar, call.logvar_p = call.logvar_p, call.logvar
    slots = [&call.d_mu, &call.d_logvar, &call.d_mu_p, &call.d_logvar_p]
    return divergence_by(KL, &call, arguments, slots, reduction, num_threads, out, kind, with_gradient)


def full_divergence(tuple arguments, reduction, out, type kind, bint with_gradient):
    """The same between Gaussians by means and Cholesky factors, (mu_q, tril_q, mu_p, tril_p)."""
    cdef Call call
    cdef cnp.ndarray first, tril
    cdef void** slots[4]
    cdef int i, d, axes
    memset(&call, 0, sizeof(Call))
    if not bind_latents(&call, arguments[0], arguments[2], 0) and (call.batch == 0 or call.mu == NULL):
        return None
    call.mu_p, call.logvar = call.logvar, NULL
    first = arguments[0]
    for i in range(2):
        if not is_dense(arguments[2 * i + 1]):
            return None
        tril = arguments[2 * i + 1]
        axes = cnp.PyArray_NDIM(tril)
        if cnp.PyArray_TYPE(tril) != cnp.PyArray_TYPE(first) or axes != 2 and (
                axes != 3 or cnp.PyArray_DIM(tril, 0) != call.batch):
            return None
        for d in range(axes - 2, axes):
            if cnp.PyArray_DIM(tril, d) != call.latent:
                return None
        call.columns |= (axes == 2) << i
        call.outputs[i] = cnp.PyArray_DATA(tril)
    slots = [&call.d_mu, &call.d_outputs[0], &call.d_mu_p, &call.d_outputs[1]]
    return divergence_by(FULL, &call, arguments, slots, reduction, None, out, kind, with_gradient)


def discrete_divergence(logits, prior, bint with_classes, reduction, out, type kind, bint with_gradient):
    """The same of discrete distributions by logits, from a prior with logits for each sample or for
    all, or from the uniform one."""
    cdef Call call
    cdef cnp.ndarray data
    cdef tuple like
    cdef void** slots[2]
    cdef int type_, axes
    memset(&call, 0, sizeof(Call))
    if not is_dense(logits):
        return None
    data = <cnp.ndarray>logits
    type_, axes = cnp.PyArray_TYPE(data), cnp.PyArray_NDIM(data)
    if axes < 1 + with_classes or type_ != cnp.NPY_FLOAT and type_ != cnp.NPY_DOUBLE:
        return None
    call.dtype = FLOAT32 if type_ == cnp.NPY_FLOAT else FLOAT64
    call.batch = cnp.PyArray_DIM(data, 0)
    call.classes = cnp.PyArray_DIM(data, axes - 1) if with_classes else 1
    if call.batch == 0 or call.classes == 0:
        return None
    call.event = call.latent = cnp.PyArray_SIZE(data) // (call.batch * call.classes)
    call.outputs[0] = cnp.PyArray_DATA(data)
    if prior is not None:
        if not is_dense(prior) or cnp.PyArray_TYPE(<cnp.ndarray>prior) != type_:
            return None
        if cnp.PyArray_NDIM(<cnp.ndarray>prior) == with_classes and cnp.PyArray_SIZE(
                <cnp.ndarray>prior) == call.classes:
            call.columns, call.latent = 1 << 1, 1
        elif cnp.PyArray_NDIM(<cnp.ndarray>prior) < axes and not bind_columns(&call, 1, data, prior):
            return None
        elif not call.columns and (
                cnp.PyArray_NDIM(<cnp.ndarray>prior) != axes or not begins_like(prior, data)):
            return None
        call.outputs[1] = cnp.PyArray_DATA(<cnp.ndarray>prior)
    like = (logits,) if prior is None else (logits, prior)
    slots = [&call.d_outputs[0], &call.d_outputs[1]]
    return divergence_by(CLASSES if with_classes else BITS, &call, like, slots, reduction, None, out, kind,
                         with_gradient)
