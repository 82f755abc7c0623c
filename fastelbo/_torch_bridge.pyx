# From tensors to passes and back, for fastelbo.torch: compiled, since on a small problem the way is the cost.
# Through PyTorch's Python API alone: its headers would tie a wheel to one of its versions.

cimport numpy as cnp
from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t, uintptr_t
from libc.string cimport memset

import torch
from torch.nn import Parameter

from fastelbo._arrays import csr
from fastelbo._dense cimport (
    KL, Dense, bind_event, bind_latents, bind_reduction, dense_of, is_word, new_rows, run,
)
from fastelbo._kernels.call cimport Call
from fastelbo._kernels.operands cimport BFLOAT16, FLOAT16, NPY_HALF

cnp.import_array()

cdef extern from *:
    """
    /* Of DLPack 1, what PyTorch 2.10 and newer answer in a hundredth of the time of an attribute. */
    typedef struct {
        void *data;
        int32_t device_type, device_id, ndim;
        uint8_t code, bits;
        uint16_t lanes;
        int64_t *shape, *strides;
        uint64_t byte_offset;
    } fe_dl_tensor;
    typedef struct {
        uint32_t major, minor;
        void *older, *allocate, *from_object, *to_object;
        int (*look)(void *object, fe_dl_tensor *out);
    } fe_dl_api;
    """
    ctypedef struct DLTensor "fe_dl_tensor":
        void* data
        int32_t device_type, ndim
        uint8_t code, bits
        int64_t* shape
        int64_t* strides
        uint64_t byte_offset
    ctypedef struct DLApi "fe_dl_api":
        uint32_t major
        int (*look)(void* tensor, DLTensor* out)

cdef enum:
    MAX_AXES = 32          # of a NumPy array, at least
    MAX_TENSORS = 8        # of an ELBO's, at least

cdef enum:                 # of DLPack
    CPU = 1
    INT = 0
    UINT = 1
    FLOAT = 2
    BOOL = 6

cdef object Tensor = torch.Tensor, STRIDED = torch.strided, SINGLE = torch.float32, DOUBLE = torch.float64
cdef object HALF = torch.float16, BRAIN = torch.bfloat16
cdef object from_numpy = torch.from_numpy, empty_like = torch.empty_like
cdef object grad_enabled = torch.is_grad_enabled, enable_grad = torch._C._set_grad_enabled
cdef object num_threads = torch.get_num_threads, alive = torch._C._functorch.unwrap_if_dead
cdef object tracing = torch._C._is_tracing, transforming = torch._C._are_functorch_transforms_active
cdef object autocasts = torch.is_autocast_enabled
cdef object forward_ad = torch.autograd.forward_ad
cdef int[4] FLOATS = [-1, NPY_HALF, cnp.NPY_FLOAT, cnp.NPY_DOUBLE]
cdef int[4] SIGNED = [cnp.NPY_INT8, cnp.NPY_INT16, cnp.NPY_INT32, cnp.NPY_INT64]
cdef int[4] UNSIGNED = [cnp.NPY_UINT8, cnp.NPY_UINT16, cnp.NPY_UINT32, cnp.NPY_UINT64]
cdef frozenset INTEGERS = frozenset(
    dtype for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point and not dtype.is_complex)

#: Of tensors beside half precision, and of that.
cdef frozenset READ = INTEGERS | {HALF, BRAIN, SINGLE}

cdef object capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
cdef DLApi* api = NULL
if capsule is not None:
    api = <DLApi*>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
    if api.major != 1:
        api = NULL


cdef inline int type_of(const DLTensor* t) noexcept:
    """NumPy's number of a dtype that passes read; -1 of another."""
    cdef int size = 0
    while 8 << size < t.bits:
        size += 1
    if t.code == FLOAT:
        return FLOATS[size] if size < 4 else -1
    if t.code == INT:
        return SIGNED[size]
    if t.code == UINT:
        return UNSIGNED[size]
    return cnp.NPY_BOOL if t.code == BOOL else -1


cdef bint look(object tensor, DLTensor* t) except -1:
    """Whether it is a plain tensor, dense and in this machine's memory; then t tells its parts."""
    if api == NULL or type(tensor) is not Tensor and type(tensor) is not Parameter:
        return False
    if api.look(<void*>tensor, t) != 0:
        PyErr_Clear()
        return False
    return t.device_type == CPU and not tensor.is_neg()


cdef bint is_plain(t) except -1:
    """As `look`, by the tensor's attributes."""
    return ((type(t) is Tensor or type(t) is Parameter) and t.layout is STRIDED and t.is_cpu
            and not t.is_neg())


cdef bint is_observed() except -1:
    """Whether something is at work that would have to see what kernels do."""
    return transforming() or forward_ad._current_level >= 0 or tracing()


cdef bint are_usual(tuple tensors, DLTensor* parts) except -1:
    """As `usual`; then the parts are those of the tensors, or where none are asked for, are not kept."""
    cdef DLTensor one
    cdef DLTensor* t = &one
    cdef int wanted = -1, own
    cdef Py_ssize_t i
    if is_observed():
        return False
    for i in range(len(tensors) - 1, -1, -1):
        if parts != NULL:
            t = &parts[i]
        if not look(tensors[i], t):
            return False if api != NULL else _usual_by_attributes(tensors)
        own = type_of(t)
        if wanted == -1:
            wanted = own
        if own == -1 or own != wanted and (i > 0 or t.code == FLOAT):
            return False
    return wanted == cnp.NPY_FLOAT or wanted == cnp.NPY_DOUBLE


def usual(tuple tensors):
    """Whether kernels serve these tensors as they are: all dense, in this machine's memory and in one
    dtype that passes compute in (but integers in the first, data), and nothing is at work that would
    have to see what they do."""
    return are_usual(tensors, NULL)


cdef bint _usual_by_attributes(tuple tensors) except -1:
    cdef object dtype = getattr(tensors[len(tensors) - 1], "dtype", None), t
    cdef Py_ssize_t i
    for i in range(len(tensors)):
        t = tensors[i]
        if not is_plain(t) or t.dtype is not dtype and (i > 0 or t.dtype not in INTEGERS):
            return False
    return dtype is SINGLE or dtype is DOUBLE


def wants_gradient(tuple tensors):
    """Whether a gradient is wanted of any of these tensors."""
    for t in tensors:
        if t.requires_grad:
            return grad_enabled()
    return False


cdef object array_of(object tensor, const DLTensor* t):
    """The memory of a tensor that was looked at as an array; None where NumPy has no such dtype."""
    cdef cnp.npy_intp[MAX_AXES] shape
    cdef cnp.npy_intp[MAX_AXES] strides
    cdef cnp.ndarray a
    cdef int d, of_numpy = type_of(t)
    if of_numpy == -1 or t.ndim > MAX_AXES or t.data == NULL:
        return None
    for d in range(t.ndim):
        shape[d] = t.shape[d]
        strides[d] = t.strides[d] * (t.bits // 8)
    a = cnp.PyArray_New(cnp.ndarray, t.ndim, shape, of_numpy, strides, <char*>t.data + t.byte_offset, 0,
                        0, None)
    cnp.set_array_base(a, tensor)
    cnp.PyArray_UpdateFlags(a, cnp.NPY_ARRAY_UPDATE_ALL)
    return a


cpdef object as_array(object tensor):
    """The tensor's memory as fastelbo reads it."""
    cdef DLTensor t
    cdef object a = array_of(tensor, &t) if look(tensor, &t) else None
    if a is not None:
        return a
    if tensor.layout is STRIDED:
        return tensor.resolve_neg().numpy()
    parts = tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return csr(tuple(tensor.shape), *[part.numpy() for part in parts])


cdef object as_tensor(object value, object dtype):
    """A value of a pass, a number or an array, as a tensor."""
    cdef cnp.ndarray number
    cdef object made
    cdef bint single = dtype is SINGLE
    if type(value) is not float:
        return from_numpy(value).to(dtype)
    number = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE, 0)
    if single:
        (<float*>cnp.PyArray_DATA(number))[0] = value
    else:
        (<double*>cnp.PyArray_DATA(number))[0] = value
    made = from_numpy(number)
    return made if single or dtype is DOUBLE else made.to(dtype)


cdef inline void* new_like(tensor, list made) except NULL:
    """The memory of a new tensor, one more of those made, where one of its shape is contiguous."""
    cdef object new = empty_like(tensor)
    made.append(new)
    return <void*><uintptr_t>new.data_ptr()


cdef inline int half_of(tensor):
    """What its array holds, if that is of float16."""
    return BFLOAT16 if tensor.dtype is BRAIN else FLOAT16


cdef tuple densities_of(likelihood, tuple leaves, list arrays, object beta, double sign, object reduction,
                        list gradients):
    """The log-density and, unless beta is None, the KL of arrays (mu, logvar, *outputs, x) or (*outputs,
    x), reduced; the list takes the gradients, by the leaves, of `sign` times the ELBO or the log-density.
    None where arrays are not as a pass takes them."""
    cdef Call call
    cdef Dense dense
    cdef Py_ssize_t i, latents = 0 if beta is None else 2
    cdef cnp.ndarray rows, row_kl = None
    cdef bint mean, apart
    cdef object data = arrays[len(leaves)], kernels = getattr(likelihood, "kernels", likelihood)
    cdef tuple outputs = tuple(arrays[latents:len(leaves)])
    memset(&call, 0, sizeof(Call))
    dense = dense_of(kernels, data)
    if not (bind_event(&call, dense, data, outputs, half_of(leaves[latents]))
            and bind_reduction(&call, reduction)):
        return None
    mean, apart = is_word(reduction, "mean"), is_word(reduction, "none")
    call.weight *= sign
    if latents:
        if not 0 < <double>beta < INFINITY:
            return None
        if not bind_latents(&call, arrays[0], arrays[1], half_of(leaves[0])):
            return None
        call.kl_weight = -<double>beta * call.weight
    if gradients is not None:
        if latents:
            call.d_mu, call.d_logvar = new_like(leaves[0], gradients), new_like(leaves[1], gradients)
        for i in range(len(outputs)):
            call.d_outputs[i] = new_like(leaves[latents + i], gradients)
    if apart:
        rows = new_rows(&call)
        call.row_log_prob = <double*>cnp.PyArray_DATA(rows)
    if apart and latents:
        row_kl = new_rows(&call)
        call.row_kl = <double*>cnp.PyArray_DATA(row_kl)
    run(dense, &call, num_threads())
    if call.outside and kernels._validate:
        return None
    if latents and not dense.handle.follows:
        run(KL, &call, num_threads())
    if apart:
        return rows, row_kl
    if mean:
        return call.log_prob / call.batch, call.kl / call.batch
    return call.log_prob, call.kl


cdef object numbers_of(tensor):
    """The tensor's memory; that of bfloat16, of which NumPy knows nothing, as if of float16."""
    return as_array(tensor.view(HALF) if tensor.dtype is BRAIN else tensor)


def short_way(likelihood, beta, str reduction, double sign, combine, tuple tensors, bint with_gradient):
    """Values that `combine` makes of the log-density and the KL of tensors (mu, logvar, *outputs, x), or
    of (*outputs, x) where beta is None, and gradients, of `sign` times the ELBO or the log-density; None
    where tensors are not as a pass takes them.

    What has half precision is read as it is, and its gradient is written so."""
    cdef Py_ssize_t last = len(tensors) - 1, latents = 0 if beta is None else 2
    cdef list gradients = [] if with_gradient else None
    cdef tuple leaves = tensors[:last], parts
    cdef list dtypes
    cdef object output = tensors[latents].dtype, result = output, other
    if latents and (type(beta) is not float or tensors[0].dtype is not tensors[1].dtype):
        return None
    if tensors[last].layout is not STRIDED:
        return None
    if output is HALF or output is BRAIN:
        dtypes, other = [t.dtype for t in tensors], BRAIN if output is HALF else HALF
        if dtypes[last] is other:
            return None
        if autocasts("cpu") or SINGLE in dtypes or other in dtypes:
            result = SINGLE
    elif latents and output is not leaves[0].dtype:
        return None
    parts = densities_of(
        likelihood, leaves, [numbers_of(t) for t in leaves] + [numbers_of(tensors[last])], beta, sign,
        reduction, gradients)
    if parts is None:
        return None
    return (tuple([as_tensor(v, result) for v in combine(*parts)]),
            tuple(gradients) if with_gradient else ())


cpdef tuple evaluate(operation, tuple tensors, bint with_gradient):
    """Values and gradients of an operation, as tuples of tensors.

    Gradients must be off where a tensor requires one: then PyTorch gives arrays without detaching.
    """
    cdef object dtype, made
    if operation.short is not None:
        made = operation.short(tensors, with_gradient)
        if made is not None:
            return made
    dtype = tensors[0].dtype
    if dtype is not SINGLE and dtype is not DOUBLE:
        dtype = tensors[1].dtype
    compute = operation.forward
    for t in tensors:
        if t.layout is not STRIDED:     # where a graph broke, of which torch.compile would trace parts
            compute = torch.compiler.disable(compute)
    values, gradients = compute([as_array(t) for t in tensors], with_gradient, num_threads())
    return (tuple([as_tensor(v, dtype) for v in values]), tuple([from_numpy(g) for g in gradients]))


def values_of(operation, *tensors):
    return evaluate(operation, tensors, False)[0]


# The graph of PyTorch: gradients are made with the values, and saved. Passes have run before there is
# a node, which knows of nothing but what is differentiated: each argument of one costs.

def differentiable(operation, *tensors):
    """The values of an operation, as PyTorch differentiates them."""
    return as_node(operation, evaluate, tensors)


cdef object as_node(operation, compute, tuple tensors):
    """Values by `compute`, which is given what `evaluate` is, in the graph; None where it gives None."""
    cdef tuple kept = ()
    cdef bint with_gradient = wants_gradient(tensors)
    if not with_gradient:
        made = compute(operation, tensors, False)
        return None if made is None else made[0]
    enable_grad(False)
    try:
        made = compute(operation, tensors, True)
        if made is not None and not operation.keeps_nothing:
            kept = tuple(operation.kept(tensors))
    finally:
        enable_grad(True)
    if made is None:
        return None
    values, gradients = made
    return attached(operation, values, gradients, kept, tensors[:len(tensors) - <int>operation.constants])


def by_halves(operation, *tensors):
    """As `differentiable`, of decoder outputs in half precision; None where no pass reads them, or x, as
    they are."""
    if is_observed() or wants_gradient(tensors[len(tensors) - 1:]):
        return None
    for t in tensors:
        if not is_plain(t) or t.dtype not in READ:
            return None
    return as_node(operation, shortly, tensors)


def shortly(operation, tuple tensors, bint with_gradient):
    """As `evaluate`, by the short way alone."""
    return operation.short(tensors, with_gradient)


def loss(operation, x, mu, logvar, x_recon, likelihood, beta, reduction):
    """Minus the ELBO, as PyTorch differentiates it by an operation that scales its gradients; None where
    tensors or options are not the usual ones."""
    cdef tuple leaves = (mu, logvar, *x_recon) if type(x_recon) is tuple else (mu, logvar, x_recon)
    cdef tuple tensors = (x, *leaves)
    cdef list arrays = [], gradients = None
    cdef DLTensor[MAX_TENSORS] parts
    cdef Py_ssize_t i
    if (api == NULL or type(beta) is not float or likelihood.held is not None or is_word(reduction, "none")
            or len(tensors) > MAX_TENSORS or not are_usual(tensors, parts) or x.requires_grad):
        return None
    for i in range(1, len(tensors) + 1):
        arrays.append(array_of(tensors[i % len(tensors)], &parts[i % len(tensors)]))
    if wants_gradient(leaves):
        gradients = []
    densities = densities_of(likelihood, leaves, arrays, beta, -1.0, reduction, gradients)
    if densities is None:
        return None
    value = as_tensor(<double>beta * <double>densities[1] - <double>densities[0], mu.dtype)
    if gradients is None:
        return value
    return node((operation, (value,), tuple(gradients), ()), *leaves)[0]


cdef object attached(operation, tuple values, tuple gradients, tuple kept, tuple leaves):
    """The values as results of a node of the graph, behind those that they are differentiated by."""
    made = operation, values, gradients, kept
    if transforming():
        return Node.apply(made, *leaves)
    return node(made, *[alive(t) for t in leaves])


class Node(torch.autograd.Function):
    """Known values and gradients."""

    @staticmethod
    def forward(ctx, made, *leaves):
        cdef tuple values, gradients, kept
        operation, values, gradients, kept = made
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*gradients, *kept)
        ctx.operation, ctx.gradients = operation, len(gradients)
        return values

    @staticmethod
    def backward(ctx, *upstream):
        """Gradients times what flows to the values; nothing where none is one."""
        cdef tuple saved
        cdef Py_ssize_t gradients
        cdef list known = []
        cdef bint flows_in = False
        if grad_enabled():                  # create_graph=True: the result would lack what passes here
            raise RuntimeError(
                "fastelbo.torch computes gradients with values and cannot differentiate twice: "
                "no create_graph=True")
        operation = ctx.operation
        for g in upstream:
            known.append(g if g is None or g.ndim else g.item())
            flows_in = flows_in or g is not None
        if not flows_in:
            return (None,) * len(ctx.needs_input_grad)
        saved, gradients = ctx.saved_tensors, ctx.gradients
        if operation.only_scales and type(known[0]) is float and <double>known[0] == 1.0:
            return (None, *saved)
        return (None, *operation.backward(known, saved[:gradients], saved[gradients:], values_of))


#: `Node.apply` without what it does where transforms are at work, which takes as long as the rest.
cdef object node = super(torch.autograd.Function, Node).apply
