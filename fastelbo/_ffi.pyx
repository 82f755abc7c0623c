"""The handler that XLA calls: buffers become arrays, and a Python function computes on them.

There is one for everything. Its attribute is a text, which says what to compute and is handed to that
function as it is; what the function raises becomes an error of XLA. The function may have a text's
further calls go from XLA to the pass with nothing between, by a `Plan`: they take no lock.
"""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastelbo._arrays cimport LATENT_COST, Layout
from fastelbo._dense cimport KL, Dense, bound
from fastelbo._kernels.call cimport Call, Handle
from fastelbo._kernels.operands cimport FLOAT32, FLOAT64, add_up, storage_of

from fastelbo import _builds
from fastelbo._openmp import runtime
from fastelbo._threads import ELEMENTS_PER_THREAD
from fastelbo.aggregate import PAIR_COST
from fastelbo.importance import ESTIMATORS

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

cdef enum:
    MOST_BUFFERS = 16
    MOST_VALUES = 4
    U32 = 8                # XLA's types; behind half precision lie the floats that kernels compute in
    F16 = 10
    F32 = 11
    TYPES_END = 13

cdef int most_threads = 1
cdef Py_ssize_t elements_per_thread = ELEMENTS_PER_THREAD, pair_cost = PAIR_COST
cdef int[TYPES_END] STORAGES              # kernels' number of each type of XLA's, 0 where they read none
cdef int[TYPES_END] SIZES = [0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8]       # bytes
cdef void (*expect)(Py_ssize_t work) noexcept nogil
cdef Dense IWAE = Dense(_builds.kernels("importance"), "iwae")
cdef Dense NOISE = Dense(_builds.kernels("latent"), "noise")

expect = <void (*)(Py_ssize_t) noexcept nogil>PyCapsule_GetPointer(runtime.expecting(), NULL)
for _type in range(TYPES_END):
    STORAGES[_type] = 0
    if TYPES[_type] >= 0 and TYPES[_type] != cnp.NPY_BOOL:
        STORAGES[_type] = storage_of(cnp.PyArray_EMPTY(0, NULL, TYPES[_type], 0), False)
STORAGES[F32], STORAGES[F32 + 1] = FLOAT32, FLOAT64


def allow(int threads):
    """So many threads for a call by a plan, where its work pays for them."""
    global most_threads
    most_threads = threads


cdef enum Kind:            # of a buffer, and by it its axes
    DATA                   # (B, ...)
    OUTPUT                 # those of x; before them K, behind them classes; or those of the event alone
    GRADIENT               # of an output
    LATENTS                # (..., L), B being all that is before L
    SAMPLES                # (B, L) or (K, B, L)
    KEY                    # two words
    WEIGHT                 # a number
    VALUE                  # a number, or a number for each of B

cdef struct Slot:
    Kind kind
    int axes               # those before them are of vmap
    size_t field           # where a Call has the address

cdef struct Work:          # what is known of one call
    Call call
    int dtype              # XLA's, of all but x
    const int64_t* x_dims
    int x_axes, outputs, gradients, weights, values
    bint of_event          # whether the output that may be is of the event alone
    double[3] weight
    char* value[MOST_VALUES]
    double* rows           # (values, B); NULL: totals are wanted
    double[MOST_VALUES] totals

# Buffers are, in this order, arguments, values, and further results.
cdef struct Plan:
    bint (*run)(const Plan*, Work*) noexcept nogil
    const Handle* handle
    int kept               # the output that may be of the event alone; -1: none
    bint validate, mean, by_row
    int estimator
    int64_t batch          # 0: any
    double log_weight      # of each point of a minibatch
    double[3] weights      # of what is made of its parts
    int arguments, values, buffers
    Slot[MOST_BUFFERS] slots

cdef Call _call


cdef size_t at(const void* field) noexcept:
    return <size_t>(<const char*>field - <const char*>&_call)


#: What a plan may call a buffer.
cdef dict KINDS = {
    "x": (DATA, 0), "outputs": (OUTPUT, 0), "d_outputs": (GRADIENT, 0),
    "mu": (LATENTS, at(&_call.mu)), "d_mu": (LATENTS, at(&_call.d_mu)),
    "logvar": (LATENTS, at(&_call.logvar)), "d_logvar": (LATENTS, at(&_call.d_logvar)),
    "mu_p": (LATENTS, at(&_call.mu_p)), "d_mu_p": (LATENTS, at(&_call.d_mu_p)),
    "logvar_p": (LATENTS, at(&_call.logvar_p)), "d_logvar_p": (LATENTS, at(&_call.d_logvar_p)),
    "z": (SAMPLES, at(&_call.z)), "d_z": (SAMPLES, at(&_call.d_z)), "noise": (LATENTS, at(&_call.z)),
    "key": (KEY, 0), "weight": (WEIGHT, 0), "value": (VALUE, 0),
}


def plan(bytes text, tuple names, tuple axes, int arguments, reduction="", likelihood=None,
         sampling=None, batch=0, weights=(), estimator="standard"):
    """Have calls of a text go by a plan from now on, where there is a pass.

    `names` are those of all buffers, keys of KINDS, and `axes` how many each has. There is a
    likelihood; or how a minibatch stands for its data, with the weights of what is made of its parts.
    """
    cdef Plan* made
    cdef Dense dense = KL
    cdef object kept
    cdef int i
    if len(names) > MOST_BUFFERS:
        return
    if likelihood is not None:
        dense = bound(likelihood, (1,))
        if (dense.handle.run == NULL or not is_of_numbers(&dense.handle) or likelihood._couples_rows()
                or dense.handle.classes != 0 and dense.axis != -1):
            return
    elif sampling is not None:
        dense = Dense(_builds.kernels("aggregate"), sampling.weighting)
        dense.handle.factor, dense.handle.constant = sampling.first, sampling.second
    elif "key" in names:
        dense = NOISE
    for loaded in (KL, IWAE, dense):
        if (<Dense>loaded).handle.run == NULL:
            (<Dense>loaded).load()
    made = <Plan*>calloc(1, sizeof(Plan))
    if made == NULL:
        raise MemoryError()
    made.handle = &dense.handle
    made.kept = -1
    if likelihood is not None:
        made.run = run_bound if "z" in names else run_likelihood
        made.validate = likelihood._validate
        kept = (<Layout>likelihood._layout).kept
        if kept in likelihood.parameters:
            made.kept = likelihood.parameters.index(kept)
    elif sampling is not None:
        made.run = run_parts
        made.log_weight, made.batch = sampling.log_weight, batch
        for i in range(3):
            made.weights[i] = weights[i] if weights else 0.0
    elif "key" in names:
        made.run = run_noise
    else:
        made.run = run_kl
    made.mean, made.by_row = reduction == "mean", reduction == "none"
    made.estimator = ESTIMATORS.index(estimator)
    made.arguments, made.values, made.buffers = arguments, names.count("value"), <int>len(names)
    for i in range(made.buffers):
        made.slots[i].kind, made.slots[i].field = KINDS[names[i]]
        made.slots[i].axes = axes[i]
    if fe_keep(<const char*>text, len(text), made):
        Py_INCREF(text)
        Py_INCREF(dense)
    else:
        free(made)


cdef bint is_of_numbers(const Handle* handle) noexcept:
    """Whether all that a likelihood adds is one for all elements."""
    cdef int i
    for i in range(handle.owns):
        if not handle.own[i].spread:
            return False
    return True


# Passes of plans ----------------------------------------------------------------------------------

cdef bint run_likelihood(const Plan* plan, Work* work) noexcept nogil:
    """log p, and the KL where there are latents; gradients are those of their difference."""
    cdef Call* call = &work.call
    cdef const Handle* handle = plan.handle
    call.row_log_prob = work.rows
    call.row_kl = work.rows + call.batch if work.rows != NULL else NULL
    call.kl_weight = -call.weight
    call.columns = call.summed = 1 << plan.kept if work.of_event else 0
    if handle.run(handle, call):
        return False
    if call.mu != NULL and not handle.follows and KL.handle.run(&KL.handle, call):
        return False
    work.totals[0] = call.log_prob
    work.totals[1] = call.kl
    return True


cdef bint run_kl(const Plan* plan, Work* work) noexcept nogil:
    work.call.row_kl = work.rows
    work.call.kl_weight = work.call.weight
    if plan.handle.run(plan.handle, &work.call):
        return False
    work.totals[0] = work.call.kl
    return True


cdef bint run_noise(const Plan* plan, Work* work) noexcept nogil:
    return plan.handle.run(plan.handle, &work.call) == 0


cdef bint run_bound(const Plan* plan, Work* work) noexcept nogil:
    """The importance-weighted bound."""
    cdef Call* call = &work.call
    cdef bint done
    cdef double* weights = NULL
    if call.samples > 0:
        weights = <double*>malloc((call.samples + 1) * call.batch * sizeof(double))
    if weights == NULL:
        return False
    call.estimator = plan.estimator
    call.weights = weights
    call.bound = work.rows if work.rows != NULL else weights + call.samples * call.batch
    done = IWAE.handle.run(plan.handle, call) == 0
    work.totals[0] = call.log_prob
    free(weights)
    return done


cdef bint run_parts(const Plan* plan, Work* work) noexcept nogil:
    """What is made of the parts of log q(z|x) - log p(z); before it, of four values, the weighted sum."""
    cdef Call* call = &work.call
    cdef int64_t batch = call.batch, i
    cdef int k, first = plan.values - 3
    cdef double[4] of_parts
    cdef double[3] weights
    cdef double* parts = NULL
    cdef double* row
    cdef double joint, marginal, share = call.weight
    if call.samples == 0:
        parts = <double*>malloc(4 * batch * sizeof(double))
    if parts == NULL:
        return False
    for k in range(3):
        weights[k] = work.weight[k] if work.weights else plan.weights[k]
    of_parts = [share * weights[0], share * weights[1] - share * weights[0],
                share * weights[2] - share * weights[1], -(share * weights[2])]
    call.row_log_prob, call.bound = parts, of_parts
    if plan.handle.run(plan.handle, call):
        free(parts)
        return False
    for i in range(batch):
        joint = parts[batch + i] + plan.log_weight
        marginal = parts[2 * batch + i] + call.latent * plan.log_weight
        parts[i] = parts[i] - joint
        parts[batch + i] = joint - marginal
        parts[2 * batch + i] = marginal - parts[3 * batch + i]
    for k in range(3 if plan.values else 0):
        work.totals[first + k] = add_up(parts + k * batch, batch)
        if work.rows != NULL:
            memcpy(work.rows + (first + k) * batch, parts + k * batch, batch * sizeof(double))
    for k in range(3 if first == 1 else 0):
        work.totals[0] += weights[k] * work.totals[1 + k]
    for i in range(batch if first == 1 and work.rows != NULL else 0):
        row = work.rows + i
        row[0] = weights[0] * row[batch] + weights[1] * row[2 * batch] + weights[2] * row[3 * batch]
    free(parts)
    return True


# What buffers are to a plan -----------------------------------------------------------------------

cdef inline bint holds(int64_t* known, int64_t extent) noexcept nogil:
    """Whether an extent is what it was before; the first is found out, and none is 0."""
    if known[0] == 0:
        known[0] = extent
    return extent > 0 and known[0] == extent


cdef bint is_output(const Plan* plan, Work* work, const int64_t* dims, int axes) noexcept nogil:
    """Whether these are the axes of an output."""
    cdef int leading = work.call.samples != 0, more = plan.handle.classes != 0, d
    if axes != leading + work.x_axes + more or leading and dims[0] != work.call.samples:
        return False
    for d in range(work.x_axes):
        if dims[leading + d] != work.x_dims[d]:
            return False
    if more and plan.handle.classes > 0 and dims[axes - 1] != plan.handle.classes:
        return False
    return not more or holds(&work.call.classes, dims[axes - 1])


cdef bint is_of_event(const Work* work, const int64_t* dims, int axes) noexcept nogil:
    cdef int d
    if axes != work.x_axes - 1 or work.call.samples != 0:
        return False
    for d in range(axes):
        if dims[d] != work.x_dims[1 + d]:
            return False
    return True


cdef bint bind_data(Work* work, int dtype, const int64_t* dims, int axes, char* address) noexcept nogil:
    cdef Call* call = &work.call
    cdef int d
    if axes < 1:
        return False
    call.event = 1
    for d in range(1, axes):
        call.event *= dims[d]
    call.x, call.x_dtype = address, STORAGES[dtype]
    work.x_dims, work.x_axes = dims, axes
    work.dtype = dtype if dtype > F16 else 0
    return call.x_dtype != 0 and call.event > 0 and holds(&call.batch, dims[0])


cdef bint bind(const Plan* plan, const Slot* slot, const fe_buffer* buffer, char* address,
               Work* work) noexcept nogil:
    """Whether a buffer is fit, beside what the work has; then it has that, too."""
    cdef Call* call = &work.call
    cdef const int64_t* dims = buffer.dims + buffer.rank - slot.axes
    cdef int64_t rows = 1
    cdef int d, axes = slot.axes
    if slot.kind == KEY:
        if buffer.dtype != U32 or axes != 1 or dims[0] != 2:
            return False
        call.key = (<uint64_t>(<uint32_t*>address)[0] << 32) | (<uint32_t*>address)[1]
        return True
    if slot.kind == DATA:
        return bind_data(work, buffer.dtype, dims, axes, address)
    if buffer.dtype <= F16 or work.dtype != 0 and work.dtype != buffer.dtype:
        return False
    work.dtype = buffer.dtype
    for d in range(axes - 1):
        rows *= dims[d]
    if slot.kind == OUTPUT:
        d = work.outputs
        work.outputs += 1
        if d >= plan.handle.outputs:
            return False
        call.outputs[d] = address
        if d == plan.kept and is_of_event(work, dims, axes):
            work.of_event = True
            return True
        return is_output(plan, work, dims, axes)
    if slot.kind == GRADIENT:
        d = work.gradients
        work.gradients += 1
        if d >= work.outputs:
            return False
        call.d_outputs[d] = address
        if d == plan.kept and work.of_event:
            return is_of_event(work, dims, axes)
        return is_output(plan, work, dims, axes)
    if slot.kind == WEIGHT:
        if axes != 0 or work.weights == 3:
            return False
        work.weight[work.weights] = (<float*>address)[0] if buffer.dtype == F32 else (<double*>address)[0]
        work.weights += 1
        return True
    if slot.kind == VALUE:
        if work.values == MOST_VALUES:
            return False
        work.value[work.values] = address
        work.values += 1
        if axes > 0:
            rows *= dims[axes - 1]
        return (axes > 0) == plan.by_row and (axes == 0 or rows == call.batch)
    (<void**>(<char*>call + slot.field))[0] = address
    if axes < 1:
        return False
    if slot.kind == SAMPLES and axes == 3:
        return (holds(&call.samples, dims[0]) and holds(&call.batch, dims[1])
                and holds(&call.latent, dims[2]))
    return holds(&call.batch, rows) and holds(&call.latent, dims[axes - 1])


cdef char* part(const fe_buffer* buffer, int leading, const int64_t* mapped, int64_t place) noexcept nogil:
    """Where the part of a place begins; what is the same in all has axes of one there. NULL: unfit."""
    cdef int64_t size = SIZES[buffer.dtype] if 0 < buffer.dtype < TYPES_END else 0
    cdef int d
    cdef char* address = <char*>buffer.data
    for d in range(leading, buffer.rank):
        size *= buffer.dims[d]
    for d in range(leading - 1, -1, -1):
        if buffer.dims[d] == mapped[d]:
            address += place % mapped[d] * size
        elif buffer.dims[d] != 1:
            return NULL
        size *= buffer.dims[d]
        place //= mapped[d]
    return address if size > 0 else NULL


cdef bint runs_at(const Plan* plan, fe_buffer** buffers, int leading, int64_t place) noexcept nogil:
    cdef const int64_t* mapped = buffers[plan.arguments].dims
    cdef Work work
    cdef Call* call = &work.call
    cdef char* address
    cdef int64_t size
    cdef int i
    cdef bint done
    memset(&work, 0, sizeof(Work))
    for i in range(plan.buffers):
        address = part(buffers[i], leading, mapped, place)
        if address == NULL or not bind(plan, &plan.slots[i], buffers[i], address, &work):
            return False
    if (call.batch == 0 or plan.batch and plan.batch != call.batch
            or call.x != NULL and work.outputs != plan.handle.outputs):
        return False
    call.dtype = STORAGES[work.dtype]
    call.weight = 1.0 / call.batch if plan.mean else 1.0
    size = max(<int64_t>1, call.samples) * call.batch * (call.event + LATENT_COST * call.latent)
    if plan.batch:
        size = call.batch * call.batch * (call.latent + 1) * pair_cost
    expect(size)
    call.threads = <int>max(<int64_t>1, min(<int64_t>most_threads, size // elements_per_thread))
    if plan.by_row and plan.values:
        work.rows = <double*>malloc(plan.values * call.batch * sizeof(double))
        if work.rows == NULL:
            return False
    done = plan.run(plan, &work) and not (call.outside and plan.validate)
    for i in range(plan.values if done else 0):
        if work.rows != NULL:
            write(work.value[i], work.dtype, work.rows + i * call.batch, call.batch, 1)
        else:
            write(work.value[i], work.dtype, &work.totals[i], 1, call.batch if plan.mean else 1)
    free(work.rows)
    return done


cdef void write(char* result, int dtype, const double* values, int64_t count, int64_t over) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        if dtype == F32:
            (<float*>result)[i] = <float>(values[i] / over)
        else:
            (<double*>result)[i] = values[i] / over


cdef bint runs_by(const Plan* plan, fe_frame* frame) noexcept nogil:
    """Whether a plan did all that was asked for: arrays are as it needs them, and so are numbers."""
    cdef fe_buffer* buffers[MOST_BUFFERS]
    cdef int64_t leading, places = 1, i
    if (frame.arguments.size != plan.arguments
            or frame.arguments.size + frame.results.size != plan.buffers):
        return False
    for i in range(plan.buffers):
        buffers[i] = <fe_buffer*>(frame.arguments.items[i] if i < plan.arguments
                                  else frame.results.items[i - plan.arguments])
    leading = buffers[plan.arguments].rank - plan.slots[plan.arguments].axes
    for i in range(plan.buffers):
        if leading < 0 or buffers[i].rank - plan.slots[i].axes != leading:
            return False
    for i in range(leading):
        places *= buffers[plan.arguments].dims[i]
    for i in range(places):
        if not runs_at(plan, buffers, <int>leading, i):
            return False
    return places > 0


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
