"""The handler that XLA calls: buffers become arrays, and a Python function computes on them.

There is one for everything. Its attribute is a text, which says what to compute and is handed to that
function as it is; what the function raises becomes an error of XLA. The function may have a text's
further calls go from XLA to the pass with nothing between, by a `Plan`: they take no lock.
"""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastelbo._arrays cimport LATENT_COST
from fastelbo._dense cimport KL, Dense, bound
from fastelbo._kernels.call cimport Call, Handle
from fastelbo._kernels.operands cimport FLOAT32, FLOAT64, storage_of

from fastelbo._threads import ELEMENTS_PER_THREAD

cnp.import_array()

cdef extern from "<fenv.h>" nogil:
    ctypedef struct fenv_t:
        pass

cdef extern from "_xla_ffi.h" nogil:
    ctypedef struct fe_buffer:
        int dtype
        void* data
        int64_t rank
        int64_t* dims

    ctypedef struct fe_string:
        const char* text
        size_t length

    ctypedef struct fe_buffers:
        int64_t size
        void** items

    ctypedef struct fe_attributes:
        int64_t size
        int* types
        void** items

    ctypedef struct fe_frame:
        int stage
        fe_buffers arguments
        fe_buffers results
        fe_attributes attributes

    enum:
        FE_EXECUTE
        FE_STRING

    bint fe_same_shape(const fe_buffer* a, const fe_buffer* b)
    void* fe_find(const char* text, size_t length)
    bint fe_keep(const char* text, size_t length, void* plan)
    bint fe_is_introduction(fe_frame* frame)
    void* fe_error(fe_frame* frame, const char* message)
    void fe_enter(fenv_t* kept)
    void fe_leave(const fenv_t* kept)

# NumPy's number of each type of XLA's, from PRED = 1 to F64 = 12; half precision has none.
cdef int[13] TYPES = [
    -1, cnp.NPY_BOOL, cnp.NPY_INT8, cnp.NPY_INT16, cnp.NPY_INT32, cnp.NPY_INT64,
    cnp.NPY_UINT8, cnp.NPY_UINT16, cnp.NPY_UINT32, cnp.NPY_UINT64, -1, cnp.NPY_FLOAT32, cnp.NPY_FLOAT64,
]

cdef enum:
    MOST_AXES = 32

cdef object compute = None


def serve(function):
    """Have `function(text, arguments, results)` compute: arrays that it reads, and that it fills."""
    global compute
    compute = function


def handler():
    """The handler's address, as `register_ffi_target` takes it."""
    return PyCapsule_New(<void*>handle, NULL, NULL)


cdef cnp.ndarray as_array(fe_buffer* buffer, bint writeable):
    """The buffer's memory."""
    cdef cnp.npy_intp[MOST_AXES] dims
    cdef int64_t axis
    if buffer.rank > MOST_AXES:
        raise ValueError(f"an array has {buffer.rank} axes, expected at most {MOST_AXES}")
    if not 0 < buffer.dtype < 13 or TYPES[buffer.dtype] < 0:
        raise TypeError(f"an array has XLA's type {buffer.dtype}, which kernels do not read")
    for axis in range(buffer.rank):
        dims[axis] = buffer.dims[axis]
    cdef int axes = <int> buffer.rank
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(axes, dims, TYPES[buffer.dtype], buffer.data)
    if not writeable:
        cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
    return array


cdef list as_arrays(fe_buffers* buffers, bint writeable):
    return [as_array(<fe_buffer*> buffers.items[i], writeable) for i in range(buffers.size)]


# Plans --------------------------------------------------------------------------------------------

cdef int most_threads = 1
cdef Py_ssize_t elements_per_thread = ELEMENTS_PER_THREAD
cdef int[13] STORAGES                     # kernels' number of each type of XLA's, 0 where they read none

for _type in range(13):
    STORAGES[_type] = 0
    if TYPES[_type] >= 0 and TYPES[_type] != cnp.NPY_BOOL:
        STORAGES[_type] = storage_of(cnp.PyArray_EMPTY(0, NULL, TYPES[_type], 0), False)
STORAGES[11], STORAGES[12] = FLOAT32, FLOAT64


def allow(int threads):
    """So many threads for a call by a plan, where its work pays for them."""
    global most_threads
    most_threads = threads


# A log-likelihood of dense arrays, (x, *outputs), or one beside the KL, (x, mu, logvar, *outputs);
# gradients come after the values, in the order of the arguments. That of the KL is negative.
cdef struct Plan:
    const Handle* likelihood
    const Handle* kl
    Py_ssize_t classes                    # as Dense has it
    bint validate, latents, gradients, mean, by_row


def plan(bytes text, likelihood, bint latents, bint gradients, str reduction):
    """Have calls of a text go by a plan from now on, where there is a pass."""
    cdef Dense dense = bound(likelihood, (1,))
    cdef Plan* made
    if dense.handle.run == NULL or dense.handle.owns:
        return
    KL.load()
    made = <Plan*>malloc(sizeof(Plan))
    made.likelihood, made.kl = &dense.handle, &KL.handle
    made.classes, made.validate = dense.classes, likelihood._validate
    made.latents, made.gradients = latents, gradients
    made.mean, made.by_row = reduction == "mean", reduction == "none"
    if fe_keep(<const char*>text, len(text), made):
        Py_INCREF(text)
        Py_INCREF(dense)
    else:
        free(made)


cdef bint runs_by(const Plan* made, fe_frame* frame) noexcept nogil:
    """Whether a plan did all that was asked for: arrays are as it needs them, and so are numbers."""
    cdef Call call
    cdef fe_buffer** given = <fe_buffer**>frame.arguments.items
    cdef fe_buffer** wanted = <fe_buffer**>frame.results.items
    cdef fe_buffer* x = given[0]
    cdef int first = 3 if made.latents else 1, outputs = made.likelihood.outputs
    cdef int values = 2 if made.latents else 1, gradients = made.likelihood.gradients
    cdef int more = made.classes != 0
    cdef int64_t i, d, work
    cdef double* rows = NULL
    cdef bint failed
    memset(&call, 0, sizeof(Call))
    if (frame.arguments.size != first + outputs or x.rank < 1
            or frame.results.size != values + (first - 1 + gradients if made.gradients else 0)):
        return False
    call.batch, call.event = x.dims[0], 1
    for d in range(1, x.rank):
        call.event *= x.dims[d]
    call.dtype = STORAGES[given[first].dtype] if 10 < given[first].dtype < 13 else 0
    call.x_dtype = STORAGES[x.dtype] if 0 < x.dtype < 13 else 0
    if (call.batch * call.event == 0 or call.dtype == 0 or call.x_dtype == 0
            or 10 < x.dtype and x.dtype != given[first].dtype):
        return False
    for i in range(first - 1 + outputs):
        if given[1 + i].dtype != given[first].dtype:
            return False
        if made.gradients and i < first - 1 + gradients and not (
                fe_same_shape(given[1 + i], wanted[values + i])
                and wanted[values + i].dtype == given[first].dtype):
            return False
    for i in range(values):
        if wanted[i].dtype != given[first].dtype or wanted[i].rank != made.by_row:
            return False
        if made.by_row and wanted[i].dims[0] != call.batch:
            return False
    for i in range(outputs):
        if given[first + i].rank != x.rank + more:
            return False
        for d in range(x.rank):
            if given[first + i].dims[d] != x.dims[d]:
                return False
        call.outputs[i] = given[first + i].data
        if made.gradients and i < gradients:
            call.d_outputs[i] = wanted[values + first - 1 + i].data
    if more:
        call.classes = given[first].dims[x.rank]
        if call.classes == 0 or made.classes > 0 and call.classes != made.classes:
            return False
    call.x = x.data
    call.weight = 1.0 / call.batch if made.mean else 1.0
    if made.latents:
        if given[1].rank != 2 or given[1].dims[0] != call.batch or not fe_same_shape(given[1], given[2]):
            return False
        call.mu, call.logvar, call.latent = given[1].data, given[2].data, given[1].dims[1]
        if call.latent == 0:
            return False
        call.kl_weight = -call.weight
        if made.gradients:
            call.d_mu, call.d_logvar = wanted[2].data, wanted[3].data
    work = call.batch * (call.event + LATENT_COST * call.latent)
    call.threads = <int>max(<int64_t>1, min(<int64_t>most_threads, work // elements_per_thread))
    if made.by_row:
        rows = <double*>malloc(2 * call.batch * sizeof(double))
        if rows == NULL:
            return False
        call.row_log_prob = rows
        call.row_kl = rows + call.batch
    failed = made.likelihood.run(made.likelihood, &call)
    if not failed and made.latents and not made.likelihood.follows:
        failed = made.kl.run(made.kl, &call)
    failed = failed or call.outside and made.validate
    if not failed:
        for i in range(values):
            if made.by_row:
                write(wanted[i], rows + i * call.batch, call.batch, 1.0)
            else:
                write(wanted[i], &call.kl if i else &call.log_prob, 1, call.weight)
    free(rows)
    return not failed


cdef void write(fe_buffer* result, const double* values, int64_t count, double factor) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        if result.dtype == 11:
            (<float*>result.data)[i] = <float>(values[i] * factor)
        else:
            (<double*>result.data)[i] = values[i] * factor


# The handler --------------------------------------------------------------------------------------

cdef void* run(fe_frame* frame) noexcept with gil:
    cdef fe_string* text
    try:
        if not is_call(frame):
            raise TypeError("a call of fastelbo has one attribute, a text")
        text = <fe_string*> frame.attributes.items[0]
        compute(text.text[:text.length], as_arrays(&frame.arguments, False), as_arrays(&frame.results, True))
        return NULL
    except BaseException as error:
        return fe_error(frame, f"{type(error).__name__}: {error}".encode(errors="replace"))


cdef bint is_call(fe_frame* frame) noexcept nogil:
    return frame.attributes.size == 1 and frame.attributes.types[0] == FE_STRING


cdef void* handle(fe_frame* frame) noexcept nogil:
    cdef fenv_t kept
    cdef void* error = NULL
    cdef void* known = NULL
    cdef fe_string* text
    if fe_is_introduction(frame) or frame.stage != FE_EXECUTE:
        return NULL
    fe_enter(&kept)
    if is_call(frame) and frame.arguments.size:
        text = <fe_string*> frame.attributes.items[0]
        known = fe_find(text.text, text.length)
    if known == NULL or not runs_by(<const Plan*>known, frame):
        error = run(frame)
    fe_leave(&kept)
    return error
