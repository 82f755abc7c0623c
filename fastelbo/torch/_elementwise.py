"""Functions of elements whose derivatives are given in closed form, in PyTorch operations."""

import torch

from fastelbo.torch._tensors import is_transforming


def elementwise(value, slopes, *tensors):
    """value(*tensors), whose derivatives are slopes(*tensors); the tensors broadcast to each other.

    These are a tuple of functions without arguments, so that what no gradient is wanted of costs
    nothing. What autograd would make of the formula of a value instead cancels, or multiplies 0 by
    infinity, at limits.
    """
    if torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
        kind = _Elementwise
        if not torch.compiler.is_compiling() and is_transforming():
            kind = _ElementwiseForward
        return kind.apply(value, slopes, *tensors)
    return value(*tensors)


class _Elementwise(torch.autograd.Function):
    """Such a function where a gradient is wanted."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value, slopes, *tensors):
        return value(*tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.slopes, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, upstream):
        tensors = ctx.saved_tensors
        slopes = ctx.slopes(*tensors)
        flows = [None, None]
        for i, tensor in enumerate(tensors):
            wanted = ctx.needs_input_grad[2 + i]
            flow = product(upstream, slopes[i]()).sum_to_size(tensor.shape) if wanted else None
            flows.append(flow)
        return tuple(flows)


class _ElementwiseForward(_Elementwise):
    """What torch.compile does not trace: one that is differentiated forward, too."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        _Elementwise.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def jvp(ctx, _value, _slopes, *tangents):
        slopes = ctx.slopes(*ctx.saved_tensors)
        flows = zip(tangents, slopes, strict=True)
        return sum([product(tangent, slope()) for tangent, slope in flows if tangent is not None])


def product(a, b):
    """a b, and 0 where a is 0, whatever b is."""
    return torch.where(a == 0, a, a * b)


def scaled(error, log_scale):
    """error e^-log_scale, in halves: e^-log_scale alone overflows before the product does."""
    half = torch.exp(-0.5 * log_scale)
    return product(product(error, half), half)


def exp_minus_one_minus(v):
    """e^v - 1 - v without cancellation near 0."""

    def value(v):
        series = torch.zeros_like(v)
        for k in range(14, 2, -1):
            series = (1 + series) * (v / k)
        near = 0.5 * v * v * (1 + series)
        far = torch.where(v == torch.inf, v, torch.expm1(v) - v)
        return torch.where(v.abs() < 0.3, near, far)

    return elementwise(value, lambda v: (lambda: torch.expm1(v),), v)
