# The short way: calls whose arrays are dense and of one dtype go from Python to the pass with nothing
# between. There are no checks here: what is not plainly fit is left to the ordinary way, which has
# them, and raises all errors.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.string cimport memset

from fastelbo._arrays cimport LATENT_COST
from fastelbo._kernels.call cimport HANDLE, Call, Handle
from fastelbo._kernels.operands cimport FLOAT32, FLOAT64, storage_of

import math

import numpy as np

from fastelbo import _builds
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


cdef Dense bound(object likelihood, tuple event):
    """Of a likelihood over such events; `handle.run` is NULL where it has no pass over dense arrays.

    Nobody changes it afterwards: a pass may be running by it.
    """
    cdef Dense made = Dense(likelihood._kernels, likelihood._term)
    cdef Handle* handle = &made.handle
    cdef cnp.ndarray a
    cdef int single, i
    made.bound = True
    if made.name is None:
        return made
    made.classes = 0 if not likelihood._layout.more_axes else likelihood._outputs_each or -1
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
    made.load()
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


cdef bint bind_event(Call* call, Dense dense, object x, tuple outputs) except -1:
    """Whether x and the decoder's outputs are fit; then the call, all zero before, has them."""
    cdef cnp.ndarray data, a
    cdef int i, more, type_ = -1
    if not is_dense(x):
        return False
    data = <cnp.ndarray>x
    if cnp.PyArray_NDIM(data) == 0 or cnp.PyArray_SIZE(data) == 0:
        return False
    if dense.handle.run == NULL or len(outputs) != dense.handle.outputs:
        return False
    more = dense.classes != 0
    for i in range(dense.handle.outputs):
        if not is_dense(outputs[i]):
            return False
        a = <cnp.ndarray>outputs[i]
        if type_ == -1:
            type_ = cnp.PyArray_TYPE(a)
        if (cnp.PyArray_TYPE(a) != type_ or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(data) + more
                or not begins_like(a, data)):
            return False
        if more:
            call.classes = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(data))
            if call.classes == 0 or dense.classes > 0 and call.classes != dense.classes:
                return False
        call.outputs[i] = cnp.PyArray_DATA(a)
    if type_ == cnp.NPY_FLOAT and cnp.PyArray_TYPE(data) != cnp.NPY_DOUBLE:
        call.dtype = FLOAT32
    elif type_ == cnp.NPY_DOUBLE:
        call.dtype = FLOAT64
    else:
        return False
    if cnp.PyArray_TYPE(data) > cnp.NPY_DOUBLE:              # before it come integers and float32
        return False
    call.x_dtype = storage_of(data, call.dtype == FLOAT32) or call.dtype
    call.x = cnp.PyArray_DATA(data)
    call.batch = cnp.PyArray_DIM(data, 0)
    call.event = cnp.PyArray_SIZE(data) // call.batch
    return True


cdef bint bind_latents(Call* call, object mu, object logvar) except -1:
    """Whether mu and logvar are fit, beside what the call has."""
    cdef cnp.ndarray m, v
    cdef int type_
    if not is_dense(mu) or not is_dense(logvar):
        return False
    m, v = <cnp.ndarray>mu, <cnp.ndarray>logvar
    type_ = cnp.PyArray_TYPE(m)
    if (cnp.PyArray_NDIM(m) != 2 or cnp.PyArray_NDIM(v) != 2 or type_ != cnp.PyArray_TYPE(v)
            or type_ != cnp.NPY_FLOAT and type_ != cnp.NPY_DOUBLE or not begins_like(m, v)):
        return False
    if call.x == NULL:
        call.dtype = FLOAT32 if type_ == cnp.NPY_FLOAT else FLOAT64
        call.batch = cnp.PyArray_DIM(m, 0)
    elif (type_ == cnp.NPY_FLOAT) != (call.dtype == FLOAT32) or cnp.PyArray_DIM(m, 0) != call.batch:
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
        if bind_event(&call, dense, x, outputs) and bind_reduction(&call, reduction):
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


def divergence(tuple arguments, reduction, num_threads, out, type kind, bint with_gradient):
    """The KL between diagonal Gaussians, or of one from N(0, I), and gradients as a `kind`; None where
    arrays are not as a pass takes them."""
    cdef Call call
    cdef cnp.ndarray first
    cdef tuple gradients = None
    cdef object value = None
    memset(&call, 0, sizeof(Call))
    if not bind_latents(&call, arguments[0], arguments[1]):
        return None
    if len(arguments) == 4:
        first = arguments[0]
        call.mu_p, call.logvar_p = call.mu, call.logvar
        if not (bind_latents(&call, arguments[2], arguments[3]) and begins_like(arguments[2], first)
                and cnp.PyArray_TYPE(<cnp.ndarray>arguments[2]) == cnp.PyArray_TYPE(first)):
            return None
        call.mu, call.mu_p = call.mu_p, call.mu
        call.logvar, call.logvar_p = call.logvar_p, call.logvar
    if not bind_reduction(&call, reduction):
        return None
    call.kl_weight = call.weight
    if with_gradient:
        gradients = gradients_for(out, arguments, ())
        if gradients is None:
            return None
        call.d_mu = cnp.PyArray_DATA(<cnp.ndarray>gradients[0])
        call.d_logvar = cnp.PyArray_DATA(<cnp.ndarray>gradients[1])
        if len(arguments) == 4:
            call.d_mu_p = cnp.PyArray_DATA(<cnp.ndarray>gradients[2])
            call.d_logvar_p = cnp.PyArray_DATA(<cnp.ndarray>gradients[3])
    if is_word(reduction, "none"):
        value = new_rows(&call)
        call.row_kl = <double*>cnp.PyArray_DATA(value)
    run(KL, &call, num_threads)
    if value is None:
        value = call.kl
        if is_word(reduction, "mean"):
            value = call.kl / call.batch if len(arguments) == 2 else call.kl * call.weight
    return (value, named(kind, gradients)) if with_gradient else value
