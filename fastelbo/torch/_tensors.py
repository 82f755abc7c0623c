"""What PyTorch functions share: promotion of dtypes, the choice of kernels or composite, noise."""

import functools

import torch

from fastelbo._arguments import as_number
from fastelbo.likelihoods import check_reduction as check_reduction
from fastelbo.posterior import noise_key

_SERVED = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)

#: True: no kernels, even for what lies in this machine's memory. For tests.
always_composite = False


def has_kernels(*tensors, constants=()):
    """Whether kernels serve these tensors: all on the CPU, no gradient wanted by the constants, and
    no transform that would have to see what they do."""
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
    if not (constants and torch.is_grad_enabled()):
        return True
    return not any([t is not None and t.requires_grad for t in constants])


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


def can_read(tensor):
    """Whether to look at the tensor's numbers costs nothing but that, and is allowed."""
    return tensor.is_cpu and not torch.compiler.is_compiling() and not is_wrapped(tensor)


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


def half_of(*tensors):
    """The dtype of results where all floats have half precision; None where arithmetic and results
    have the same, as under autocast, where PyTorch's own losses are float32, too.

    The usual case is told by the last tensor alone.
    """
    if tensors[-1].dtype not in _HALF:
        return None
    dtypes = [t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, dtypes)
    if dtype not in _HALF or torch.is_autocast_enabled(tensors[-1].device.type):
        return None
    return dtype


def by_float32(dtype, call, *arguments):
    """call(*arguments) in float32, its results in `dtype`."""
    return narrowed(call(*[widened(a) for a in arguments]), dtype)


def widened(value):
    """What has half precision in float32; in a tuple, too."""
    if type(value) is tuple:
        return tuple([widened(v) for v in value])
    is_half = isinstance(value, torch.Tensor) and value.dtype in _HALF
    return value.float() if is_half else value


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
    check_tensors(**tensors)
    tensors = tensors.values()
    return half_of(*tensors), promoted(*tensors)


def check_tensors(**tensors):
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")


def check_constant(value, name):
    """That no gradient is wanted of an argument that has none: a number or several."""
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, torch.Tensor) and item.requires_grad:
            raise TypeError(f"{name} cannot be differentiated: give numbers, or detach it")


def as_weight(value, name):
    """A number of at least 0, or a tensor, whose numbers are not looked at."""
    return value if isinstance(value, torch.Tensor) else as_number(value, name, 0)


def check_prior(prior):
    """fastelbo's own are told by their gradients, which they give as arrays."""
    if prior is None or (hasattr(prior, "log_prob") and not hasattr(prior, "log_prob_and_grad")):
        return
    raise TypeError(
        "prior must have a method log_prob that PyTorch can differentiate, as a "
        f"torch.distributions.Distribution has, got {prior!r}"
    )


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
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()
