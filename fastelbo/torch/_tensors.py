"""What PyTorch functions share: promotion of dtypes, the choice of kernels or composite, noise."""

import functools

import torch
from torch import nn

from fastelbo import _torch_bridge
from fastelbo._arguments import as_number
from fastelbo._torch_bridge import as_array as as_array
from fastelbo.likelihoods import check_reduction as check_reduction
from fastelbo.posterior import noise_key

_SERVED = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)

#: True: no kernels, even for what lies in this machine's memory. For tests.
always_composite = False


def usual(*tensors):
    """Whether kernels serve these tensors, and read them as they are: of floats in one dtype, or of
    integers where they are data, the first. What is told of others is then known.
    """
    return may_be_usual() and _torch_bridge.usual(tensors)


def may_be_usual():
    """Whether `usual` looks at tensors at all."""
    return not (always_composite or torch.compiler.is_compiling())


def has_kernels(*tensors, constants=()):
    """Whether kernels serve these tensors: all on the CPU, no gradient wanted by the constants, and
    no transform that would have to see what they do."""
    if usual(*tensors):
        return not _wanted(constants)
    if not torch.compiler.is_compiling():
        if torch.jit.is_tracing():
            raise NotImplementedError(
                "torch.jit.trace would record numbers, or lose gradients: use torch.compile or "
                "torch.export instead"
            )
        if is_transforming():
            return False
    if always_composite or not all([t.is_cpu for t in tensors]):
        return False
    return not _wanted(constants)


def _wanted(constants):
    """Whether a gradient is wanted of any of these tensors, or None."""
    wanted = [t is not None and t.requires_grad for t in constants]
    return any(wanted) and torch.is_grad_enabled()


def is_transforming():
    """Whether torch.func or forward differentiation is at work."""
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def is_wrapped(tensor):
    """Whether a transform of torch.func stands behind the tensor: its numbers are out of reach."""
    compiling = torch.compiler.is_compiling()
    return not compiling and torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_mapped(tensor):
    """Whether torch.func.vmap has several numbers in the place of each."""
    while is_wrapped(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def to_differentiate(tensor):
    """Whether a tensor that is to be kept will have its gradient asked for."""
    return tensor.requires_grad or isinstance(tensor, nn.Parameter) or is_wrapped(tensor)


def beside(value, first):
    """A number or a tensor as one that goes with another."""
    if isinstance(value, torch.Tensor):
        return value if value.device == first.device else value.to(first.device)
    try:
        return torch.as_tensor(value, dtype=first.dtype, device=first.device)
    except OverflowError:
        raise ValueError("a decoder output is larger than a float64 can be") from None


def can_read(tensor):
    """Whether to look at the tensor's numbers costs nothing but that, and is allowed."""
    if torch.compiler.is_compiling() or not tensor.is_cpu:
        return False
    return not is_wrapped(tensor.detach())  # torch.func.grad wraps what any operation gives


def promoted(*tensors):
    """The tensors in one dtype, float32 or float64; data of integers, the first, stays as it is."""
    dtype = tensors[-1].dtype
    if dtype in _SERVED and all([t.dtype is dtype for t in tensors]):
        return tensors
    dtype = torch.float32
    for t in tensors:
        if t.dtype not in _HALF and t.is_floating_point():
            dtype = torch.promote_types(dtype, t.dtype)
    first, *rest = tensors
    first = first.to(dtype) if first.is_floating_point() else first
    return first, *[t.to(dtype) for t in rest]


def unexpanded(tensor):
    """A tensor without the leading axes over which it was expanded, as scvi-tools expands theta
    over the cells: what it was expanded from, then, so that gradients are added up by the kernels.

    Itself where that cannot be told, or where its own gradient is observed.
    """
    if torch.compiler.is_compiling() or type(tensor) is not torch.Tensor or 0 in tensor.shape:
        return tensor
    axes, expanded = 0, False
    for stride, extent in zip(tensor.stride(), tensor.shape, strict=True):
        if stride != 0 and extent != 1:
            break
        axes += 1
        expanded |= extent != 1
    if not expanded or is_transforming():
        return tensor
    if not (tensor.requires_grad and torch.is_grad_enabled()):
        return tensor[(0,) * axes]
    base = tensor._base
    inner = tensor.shape[axes:]
    if (
        base is None
        or not _is_expanded(tensor, base)
        or tensor.retains_grad
        or tensor._backward_hooks
        or base.dtype is not tensor.dtype
        or base.data_ptr() != tensor.data_ptr()
        or base.numel() != inner.numel()
        or not (base.is_contiguous() and tensor[(0,) * axes].is_contiguous())
    ):
        return tensor
    return base.view(inner)


def _is_expanded(tensor, base):
    """Whether only an expand lies between them: nothing that changes a gradient, or sees it."""
    made = tensor.grad_fn
    if made is None or made.name() != "ExpandBackward0":
        return False
    source = made.next_functions[0][0]
    return source is base.grad_fn or getattr(source, "variable", None) is base


def _autocasts(tensor):
    """Whether autocast is on where a tensor is; the meta device has none."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def half_of(*tensors):
    """The dtype of results where all floats have half precision; None where arithmetic and results
    have the same, as under autocast, where PyTorch's own losses are float32, too.

    The usual case is told by the last tensor alone.
    """
    if tensors[-1].dtype not in _HALF:
        return None
    dtypes = [t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, dtypes)
    if dtype not in _HALF or _autocasts(tensors[-1]):
        return None
    return dtype


def reads_halves(*outputs):
    """Whether passes may take decoder outputs as they are: all tensors in one of half precision."""
    dtype = getattr(outputs[0], "dtype", None)
    if dtype not in _HALF or not may_be_usual():
        return False
    return all([isinstance(t, torch.Tensor) and t.dtype is dtype for t in outputs])


def by_float32(dtype, call, *arguments):
    """call(*arguments) in float32, its results in `dtype`."""
    return narrowed(call(*[widened(a) for a in arguments]), dtype)


def widened(value):
    """What has half precision in float32; in a tuple, too."""
    if type(value) is tuple:
        return tuple([widened(v) for v in value])
    is_half = isinstance(value, torch.Tensor) and value.dtype in _HALF
    return value.float() if is_half else value


def unrounded(*values):
    """The values, what is in half precision in float32: a part of a result that is made of it alone
    would be rounded. Under autocast none is."""
    return values if _autocasts(values[0]) else widened(values)


def narrowed(result, dtype):
    """A tensor, or those of a tuple, named or not, in this dtype; None: as they are."""
    if dtype is None:
        return result
    if isinstance(result, tuple):
        parts = [narrowed(part, dtype) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return result if result is None else result.to(dtype)


def checked(**tensors):
    """The tensors, which they must be, in one dtype, and what `half_of` says of their results."""
    if usual(*tensors.values()):
        return None, tuple(tensors.values())
    check_tensors(**tensors)
    tensors = tensors.values()
    return half_of(*tensors), promoted(*tensors)


def check_tensors(**tensors):
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {tensor.dtype}")
        if tensor.layout is not torch.strided and (name, tensor.layout) != ("x", torch.sparse_csr):
            dense = "to_sparse_csr() or to_dense()" if name == "x" else "to_dense()"
            raise TypeError(f"{name} has the layout {tensor.layout}: make it dense by {dense}")


def check_constant(value, name):
    """That no gradient is wanted of an argument that has none: a number or several."""
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, torch.Tensor) and item.requires_grad:
            raise TypeError(f"{name} cannot be differentiated: give numbers, or detach it")


def as_weight(value, name):
    """A number of at least 0, or a tensor, whose numbers are not looked at."""
    return value if isinstance(value, torch.Tensor) else as_number(value, name, 0)


def key_of(rng):
    """The Philox key of an int, a torch.Generator or None (PyTorch's own) as an int64 tensor."""
    if rng is None:
        return torch.randint(2**63 - 1, ())
    if isinstance(rng, torch.Generator):
        if torch.compiler.is_compiling():
            raise NotImplementedError(
                "rng: torch.compile cannot trace a torch.Generator; give noise=torch.randn(..., "
                "generator=rng) drawn outside of the compiled function, or seed PyTorch's own "
                "generator by torch.manual_seed"
            )
        return torch.randint(2**63 - 1, (), generator=rng)
    key = noise_key(rng)
    return torch.tensor(key - (1 << 64) if key >> 63 else key)


def reduce(rows, reduction):
    """The rows as `reduction` says."""
    if reduction in ("none", "elementwise"):
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def generator_of(rng, device):
    """What draws PyTorch's own noise on a device: an int seeds one, None is PyTorch's own."""
    if rng is None or isinstance(rng, torch.Generator):
        return rng
    return torch.Generator(device).manual_seed(noise_key(rng))
