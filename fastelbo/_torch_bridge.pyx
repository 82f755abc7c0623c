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
    KL, Dense, bind_event, bind_latents, bind_reduction, dense_of, is_word, run,
)
from fastelbo._kernels.call cimport Call

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

cdef enum:                 # of DLPack
    CPU = 1
    INT = 0
    UINT = 1
    FLOAT = 2
    BOOL = 6

cdef object Tensor = torch.Tensor, STRIDED = torch.strided, SINGLE = torch.float32, DOUBLE = torch.float64
cdef object from_numpy = torch.from_numpy, empty_like = torch.empty_like
cdef object grad_enabled = torch.is_grad_enabled, num_threads = torch.get_num_threads
cdef object tracing = torch._C._is_tracing, transforming = torch._C._are_functorch_transforms_active
cdef object forward_ad = torch.autograd.forward_ad
cdef int[4] SIGNED = [cnp.NPY_INT8, cnp.NPY_INT16, cnp.NPY_INT32, cnp.NPY_INT64]
cdef int[4] UNSIGNED = [cnp.NPY_UINT8, cnp.NPY_UINT16, cnp.NPY_UINT32, cnp.NPY_UINT64]
cdef frozenset INTEGERS = frozenset(
    dtype for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point and not dtype.is_complex)

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
        return cnp.NPY_FLOAT if t.bits == 32 else cnp.NPY_DOUBLE if t.bits == 64 else -1
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


def usual(tuple tensors):
    """Whether kernels serve these tensors as they are: all dense, in this machine's memory and in one
    dtype that passes compute in (but integers in the first, data), and nothing is at work that would
    have to see what they do."""
    cdef DLTensor t
    cdef int wanted = -1, own
    cdef Py_ssize_t i
    if transforming() or forward_ad._current_level >= 0 or tracing():
        return False
    for i in range(len(tensors) - 1, -1, -1):
        if not look(tensors[i], &t):
            return False if api != NULL else _usual_by_attributes(tensors)
        own = type_of(&t)
        if wanted == -1:
            wanted = own
        if own == -1 or own != wanted and (i > 0 or t.code == FLOAT):
            return False
    return wanted == cnp.NPY_FLOAT or wanted == cnp.NPY_DOUBLE


cdef bint _usual_by_attributes(tuple tensors) except -1:
    cdef object dtype = getattr(tensors[len(tensors) - 1], "dtype", None), t
    cdef Py_ssize_t i
    for i in range(len(tensors)):
        t = tensors[i]
        if type(t) is not Tensor and type(t) is not Parameter:
            return False
        if t.dtype is not dtype and (i > 0 or t.dtype not in INTEGERS):
            return False
        if t.layout is not STRIDED or not t.is_cpu:
            return False
    return dtype is SINGLE or dtype is DOUBLE


def wants_gradient(tuple tensors):
    """Whether a gradient is wanted of any of these tensors."""
    for t in tensors:
        if t.requires_grad:
            return grad_enabled()
    return False


cpdef object as_array(object tensor):
    """The tensor's memory as fastelbo reads it."""
    cdef DLTensor t
    cdef cnp.npy_intp[MAX_AXES] shape
    cdef cnp.npy_intp[MAX_AXES] strides
    cdef cnp.ndarray a
    cdef int d, of_numpy = -1
    if look(tensor, &t) and t.ndim <= MAX_AXES and t.data != NULL:
        of_numpy = type_of(&t)
    if of_numpy != -1:
        for d in range(t.ndim):
            shape[d] = t.shape[d]
            strides[d] = t.strides[d] * (t.bits // 8)
        a = cnp.PyArray_New(cnp.ndarray, t.ndim, shape, of_numpy, strides, <char*>t.data + t.byte_offset, 0,
                            0, None)
        cnp.set_array_base(a, tensor)
        cnp.PyArray_UpdateFlags(a, cnp.NPY_ARRAY_UPDATE_ALL)
        return a
    if tensor.layout is STRIDED:
        return tensor.resolve_neg().numpy()
    parts = tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return csr(tuple(tensor.shape), *[part.numpy() for part in parts])


cdef object as_tensor(object value, bint single):
    """A value of a pass, a number or an array, as a tensor in its dtype."""
    cdef cnp.ndarray number
    if type(value) is not float:
        return from_numpy(value).to(SINGLE if single else DOUBLE)
    number = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE, 0)
    if single:
        (<float*>cnp.PyArray_DATA(number))[0] = value
    else:
        (<double*>cnp.PyArray_DATA(number))[0] = value
    return from_numpy(number)


cdef inline void* new_like(tensor, list made) except NULL:
    """The memory of a new tensor, one more of those made, where one of its shape is contiguous."""
    cdef object new = empty_like(tensor)
    made.append(new)
    return <void*><uintptr_t>new.data_ptr()


def short_elbo(operation, tuple tensors, bint with_gradient):
    """The short way of `evaluate` for minus the ELBO; None where tensors are not as a pass takes them."""
    cdef Call call
    cdef Py_ssize_t i, outputs = len(tensors) - 3
    cdef object likelihood, beta = operation.beta, reduction = operation.reduction, x, mu, logvar
    cdef Dense dense
    cdef list gradients = []
    cdef double b, value
    if (operation.drawn or operation.masked or is_word(reduction, "none") or type(beta) is not float
            or operation.free_bits or tensors[outputs + 2].layout is not STRIDED):
        return None
    b = beta
    likelihood = getattr(operation.likelihood, "kernels", operation.likelihood)
    memset(&call, 0, sizeof(Call))
    x = as_array(tensors[outputs + 2])
    dense = dense_of(likelihood, x)
    given = tuple([as_array(tensors[i]) for i in range(2, outputs + 2)])
    mu, logvar = as_array(tensors[0]), as_array(tensors[1])
    if not (0 < b < INFINITY and bind_event(&call, dense, x, given)
            and bind_latents(&call, mu, logvar) and bind_reduction(&call, reduction)):
        return None
    call.weight = -call.weight
    call.kl_weight = -b * call.weight
    if with_gradient:
        call.d_mu, call.d_logvar = new_like(tensors[0], gradients), new_like(tensors[1], gradients)
        for i in range(outputs):
            call.d_outputs[i] = new_like(tensors[i + 2], gradients)
    run(dense, &call, num_threads())
    if call.outside and likelihood._validate:
        return None
    if not dense.handle.follows:
        run(KL, &call, num_threads())
    value = b * call.kl - call.log_prob
    value = value / call.batch if is_word(reduction, "mean") else value
    return (as_tensor(value, tensors[0].dtype is SINGLE),), gradients


cpdef tuple evaluate(operation, tuple tensors, bint with_gradient):
    """Values and gradients of an operation, as tuples of tensors.

    Gradients must be off where a tensor requires one: then PyTorch gives arrays without detaching.
    """
    cdef object dtype, made
    if operation.short is not None:
        made = operation.short(tensors, with_gradient)
        if made is not None:
            return made[0], tuple(made[1])
    dtype = tensors[0].dtype
    if dtype is not SINGLE and dtype is not DOUBLE:
        dtype = tensors[1].dtype
    compute = operation.forward
    for t in tensors:
        if t.layout is not STRIDED:     # where a graph broke, of which torch.compile would trace parts
            compute = torch.compiler.disable(compute)
    values, gradients = compute([as_array(t) for t in tensors], with_gradient, num_threads())
    return (tuple([as_tensor(v, dtype is SINGLE) for v in values]),
            tuple([from_numpy(g) for g in gradients]))


def values_of(operation, *tensors):
    return evaluate(operation, tensors, False)[0]


def forward(ctx, operation, *tensors):
    """The forward of an autograd.Function: gradients are made with the values, and saved."""
    values, gradients = evaluate(operation, tensors, True)
    ctx.set_materialize_grads(False)
    if operation.keeps_nothing:
        ctx.save_for_backward(*gradients)
    else:
        ctx.save_for_backward(*gradients, *operation.kept(tensors))
    ctx.operation, ctx.gradients = operation, len(gradients)
    return values


def backward(ctx, *upstream):
    """Its backward: gradients times what flows to the values; nothing where none is one."""
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
        flows = saved
    else:
        flows = operation.backward(known, saved[:gradients], saved[gradients:], values_of)
    return (None, *flows, *(None,) * operation.constants)
