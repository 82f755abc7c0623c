"""How a NumPy function becomes differentiable: operations, and the two ways to run one.

An operation gives values and, in the same pass, their gradients. In eager mode it runs inside one
``autograd.Function``; where torch.compile traces, it becomes a node of the graph, the custom
operator ``fastelbo::evaluate``, to which it is described by a string. (The operator would do in
eager mode, too, but costs tens of microseconds more.)
"""

import ast
import functools
from dataclasses import dataclass

import torch

import fastelbo
from fastelbo.torch import _checks, composites
from fastelbo.torch._tensors import has_kernels

#: By name, as the strings of the operator name them.
OPERATIONS = {}


class Operation:
    """A function of some tensors; its options are the fields of a dataclass.

    Of its methods, those that see arrays run NumPy code; the others may be traced.
    """

    #: How many values it has; they come first among the operator's results, before gradients.
    values = 1
    #: Whether gradients come with the values, one for each slot.
    gives_gradients = True

    def __init_subclass__(cls):
        OPERATIONS[cls.__name__] = cls

    def call(self, with_gradient):
        """This call as a string: literals only."""
        options = [_spec(getattr(self, name)) for name in self.__dataclass_fields__]
        return f"{(type(self).__name__, with_gradient, options)!r}"

    def forward(self, arrays, with_gradient, threads):
        """(values, gradients); there may be none of the latter."""
        raise NotImplementedError

    def shapes(self, tensors):
        """The shapes of the values."""
        return [()]

    def slots(self, count):
        """Which of `count` tensors have gradients."""
        return range(count)

    def kept(self, tensors):
        """What `backward` needs besides gradients."""
        return ()

    def backward(self, upstream, gradients, kept, run):
        """What flows to each slot. An upstream gradient is a tensor, a float or None; `run` runs
        another operation."""
        factor = upstream[0]
        if type(factor) is float and factor == 1.0:
            return gradients
        return [scaled(gradient, factor) for gradient in gradients]


def _spec(option):
    """An option as literals: (class, arguments) where it is an object."""
    if isinstance(option, float):  # of which torch.compile knows no repr where it may change
        return "float", option.hex()
    if isinstance(option, list | tuple):
        return [_spec(value) for value in option]
    if isinstance(option, dict):
        return {name: _spec(value) for name, value in option.items()}
    if isinstance(option, fastelbo.FreeBits):
        names = ("threshold", "granularity", "below")
        return "FreeBits", {name: _spec(getattr(option, name)) for name in names}
    if hasattr(option, "spec"):
        kind, arguments = option.spec
        return kind, _spec(arguments)
    return option


def kernels_of(option):
    """fastelbo's object of an option that stands for one."""
    return getattr(option, "kernels", option)


def scaled(gradient, factor):
    """gradient times a factor, or one for each row: the gradient itself where the factor is one.

    The axes of the factor are the gradient's first ones.
    """
    if isinstance(factor, float):
        return gradient if factor == 1.0 else gradient * factor
    return gradient * factor.reshape(factor.shape + (1,) * (gradient.ndim - factor.ndim))


def run(operation, *tensors):
    """The values of an operation as a tuple of tensors, differentiable."""
    with_gradient = torch.is_grad_enabled() and any([t.requires_grad for t in tensors])
    if torch.compiler.is_compiling():
        return tuple(evaluate(list(tensors), operation.call(with_gradient))[: operation.values])
    if with_gradient:
        return _Evaluate.apply(operation, *tensors)
    return _forward(operation, tensors, False)[0]


def _forward(operation, tensors, with_gradient):
    """Values and gradients as tensors. The second tensor is never data: it has the dtype of all.

    Gradients must be off where a tensor requires one: then PyTorch gives arrays without detaching.
    """
    arrays = [t.numpy() for t in tensors]
    values, gradients = operation.forward(arrays, with_gradient, torch.get_num_threads())
    dtype = tensors[1].dtype
    return tuple([_as_tensor(v, dtype) for v in values]), [torch.from_numpy(g) for g in gradients]


def _as_tensor(value, dtype):
    if isinstance(value, float):
        return torch.scalar_tensor(value, dtype=dtype)
    return torch.from_numpy(value).to(dtype)


class _Evaluate(torch.autograd.Function):
    """An operation in eager mode."""

    @staticmethod
    def forward(ctx, operation, *tensors):
        values, gradients = _forward(operation, tensors, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*gradients, *operation.kept(tensors))
        ctx.call = operation, len(tensors), len(gradients)
        return values

    @staticmethod
    def backward(ctx, *upstream):
        if torch.is_grad_enabled():  # create_graph=True: the result would lack what passes here
            raise RuntimeError(
                "fastelbo.torch computes gradients with values and cannot differentiate twice: "
                "no create_graph=True"
            )
        operation, count, slots = ctx.call
        flows = [None] * (1 + count)
        upstream = [g if g is None or g.ndim else g.item() for g in upstream]
        if any([g is not None for g in upstream]):
            saved = ctx.saved_tensors
            of_slots = operation.backward(upstream, saved[:slots], saved[slots:], run)
            for slot, flow in zip(operation.slots(count), of_slots, strict=True):
                flows[1 + slot] = flow
        return tuple(flows)


@dataclass(eq=False)
class Function(Operation):
    """fastelbo's function of this name, which has a twin ``..._and_grad`` for every argument."""

    name: str
    options: dict
    takes_threads: bool = True

    def forward(self, arrays, with_gradient, threads):
        options = self.options
        if self.takes_threads:
            options = {**options, "num_threads": threads}
        if not with_gradient:
            return (getattr(fastelbo, self.name)(*arrays, **options),), ()
        value, gradients = getattr(fastelbo, f"{self.name}_and_grad")(*arrays, **options)
        return (value,), gradients

    def shapes(self, tensors):
        return [tensors[0].shape[:-1] if self.options.get("reduction") == "none" else ()]


def function(name, *tensors, takes_threads=True, **options):
    """The value of fastelbo's function of this name, or of its composite, differentiable."""
    if not has_kernels(*tensors):
        _checks.of(name, *tensors, **options)
        return getattr(composites, name)(*tensors, **options)
    return run(Function(name, options, takes_threads), *tensors)[0]


# The operator -----------------------------------------------------------------------------------


@functools.lru_cache(256)
def _parsed(call):
    """(operation, with_gradient) of a string that `Operation.call` made."""
    name, with_gradient, options = ast.literal_eval(call)
    return OPERATIONS[name](*map(_made, options)), with_gradient


def _made(option):
    """What `_spec` described."""
    if isinstance(option, list):
        return [_made(value) for value in option]
    if isinstance(option, dict):
        return {name: _made(value) for name, value in option.items()}
    if isinstance(option, tuple):
        kind, arguments = option
        is_number = kind == "float"
        return (
            float.fromhex(arguments) if is_number else getattr(fastelbo, kind)(**_made(arguments))
        )
    return option


@torch.library.custom_op("fastelbo::evaluate", mutates_args=(), device_types="cpu")
def evaluate(tensors: list[torch.Tensor], call: str) -> list[torch.Tensor]:
    values, gradients = _forward(_parsed(call)[0], tensors, _parsed(call)[1])
    return [*values, *gradients]


@evaluate.register_fake
def _(tensors, call):
    operation, with_gradient = _parsed(call)
    results = [tensors[1].new_empty(shape) for shape in operation.shapes(tensors)]
    if with_gradient and operation.gives_gradients:
        results += [tensors[i].new_empty(tensors[i].shape) for i in operation.slots(len(tensors))]
    return results


def _setup_context(ctx, inputs, output):
    tensors, ctx.call = inputs
    operation, _ = _parsed(ctx.call)
    kept = operation.kept(tensors)
    ctx.save_for_backward(*output[operation.values :], *kept)
    ctx.counts = len(tensors), len(output) - operation.values


def _backward(ctx, upstream):
    operation, _ = _parsed(ctx.call)
    count, slots = ctx.counts
    saved = ctx.saved_tensors
    of_values = upstream[: operation.values]
    of_slots = operation.backward(of_values, saved[:slots], saved[slots:], _run_in_graph)
    flows = [None] * count
    for slot, flow in zip(operation.slots(count), of_slots, strict=True):
        flows[slot] = flow
    return flows, None


def _run_in_graph(operation, *tensors):
    return tuple(evaluate(list(tensors), operation.call(False)))


evaluate.register_autograd(_backward, setup_context=_setup_context)
