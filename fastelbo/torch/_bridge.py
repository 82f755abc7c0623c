"""How a NumPy function becomes differentiable: operations, and the two ways to run one.

An operation gives values and, in the same pass, their gradients. In eager mode it runs inside one
``autograd.Function``; where torch.compile traces, it becomes a node of the graph, the operator
``fastelbo::differentiable``, to which it is described by a string. That is taken apart when the
graph is compiled, which then runs ``fastelbo::evaluate``, of which PyTorch has nothing more to ask.
(Either would do in eager mode, too, but costs microseconds more.)
"""

import ast
import functools
from dataclasses import dataclass

import torch

import fastelbo
from fastelbo import _torch_bridge
from fastelbo.torch import _checks, composites
from fastelbo.torch._tensors import has_kernels

#: By name, as the strings of the operator name them.
OPERATIONS = {}


class Operation:
    """A function of some tensors; its options are the fields of a dataclass.

    Tensors that have a gradient come first. All results have the dtype of the first of floats. Of
    its methods, those that see arrays run NumPy code; the others may be traced. A class gives at
    least ``forward(arrays, with_gradient, threads)``: (values, gradients), and there may be none of
    the latter.
    """

    #: How many values it has; they come first among the operator's results, before gradients.
    values = 1
    #: Whether gradients come with the values, one for each tensor that has one.
    gives_gradients = True
    #: How many of its tensors, the last ones, have none.
    constants = 0
    #: A method that evaluates usual tensors by a shorter way; it gives None for others.
    short = None
    #: Whether `kept` and `backward` are those of this class.
    keeps_nothing = only_scales = True

    def __init_subclass__(cls):
        OPERATIONS[cls.__name__] = cls
        cls.keeps_nothing = cls.kept is Operation.kept
        cls.only_scales = cls.keeps_nothing and cls.backward is Operation.backward

    def call(self, with_gradient):
        """This call as a string: literals only."""
        options = [_spec(getattr(self, name)) for name in self.__dataclass_fields__]
        return f"{(type(self).__name__, with_gradient, options)!r}"

    def shapes(self, tensors):
        """The shapes of the values."""
        return [()]

    def kept(self, tensors):
        """What `backward` needs besides gradients."""
        return ()

    def backward(self, upstream, gradients, kept, run):
        """What flows to each tensor that has a gradient. An upstream gradient is a tensor, a float
        or None; `run` runs another operation."""
        return [scaled(gradient, upstream[0]) for gradient in gradients]


def _spec(option):
    """An option as literals: (class, arguments) where it is an object."""
    if isinstance(option, float):  # of which torch.compile knows no repr where it may change
        return "float", option.hex()
    if isinstance(option, slice):
        return "slice", [option.start, option.stop, option.step]
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
    if torch.compiler.is_compiling():
        with_gradient = torch.is_grad_enabled() and any([t.requires_grad for t in tensors])
        return tuple(differentiable(list(tensors), operation.call(with_gradient)))
    return _torch_bridge.differentiable(operation, *tensors)


@dataclass(eq=False)
class Function(Operation):
    """fastelbo's function of this name, which has a twin ``..._and_grad`` for every argument."""

    name: str
    options: dict
    takes_threads: bool = True
    batch_axes: int = -1

    def forward(self, arrays, with_gradient, threads):
        options = self.options
        if self.takes_threads:
            options = {**options, "num_threads": threads}
        if not with_gradient:
            return (getattr(fastelbo, self.name)(*arrays, **options),), ()
        value, gradients = getattr(fastelbo, f"{self.name}_and_grad")(*arrays, **options)
        return (value,), gradients

    def shapes(self, tensors):
        by_row = self.options.get("reduction") == "none"
        return [tensors[0].shape[: self.batch_axes] if by_row else ()]


def function(name, *tensors, takes_threads=True, batch_axes=-1, **options):
    """The value of fastelbo's function of this name, or of its composite, differentiable."""
    if not has_kernels(*tensors):
        _checks.of(name, *tensors, **options)
        return getattr(composites, name)(*tensors, **options)
    return run(Function(name, options, takes_threads, batch_axes), *tensors)[0]


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
        if kind == "float":
            return float.fromhex(arguments)
        return slice(*arguments) if kind == "slice" else getattr(fastelbo, kind)(**_made(arguments))
    return option


_SIGNATURE = "(Tensor[] tensors, str call) -> Tensor[]"
torch.library.define("fastelbo::evaluate", _SIGNATURE)
torch.library.define("fastelbo::differentiable", _SIGNATURE)
evaluate = torch.ops.fastelbo.evaluate.default
differentiable = torch.ops.fastelbo.differentiable.default


@torch.library.impl("fastelbo::evaluate", "CPU")
def _(tensors, call):
    operation, with_gradient = _parsed(call)
    values, gradients = _torch_bridge.evaluate(operation, tuple(tensors), with_gradient)
    return [*values, *gradients]


@torch.library.register_fake("fastelbo::evaluate")
def _(tensors, call):
    operation, with_gradient = _parsed(call)
    first = tensors[0] if tensors[0].is_floating_point() else tensors[1]
    results = [first.new_empty(shape) for shape in operation.shapes(tensors)]
    if with_gradient and operation.gives_gradients:
        for tensor in tensors[: len(tensors) - operation.constants]:
            results.append(tensor.new_empty(tensor.shape))
    return results


@torch.library.impl("fastelbo::differentiable", "CompositeImplicitAutograd")
def _(tensors, call):
    operation, with_gradient = _parsed(call)
    if with_gradient and torch.is_grad_enabled():
        return list(_Differentiable.apply(call, *tensors))
    return evaluate(tensors, call)[: operation.values]


class _Differentiable(torch.autograd.Function):
    """The values of a call as they are differentiated in a graph."""

    @staticmethod
    def forward(ctx, call, *tensors):
        operation, _ = _parsed(call)
        results = evaluate(list(tensors), call)
        values, gradients = results[: operation.values], results[operation.values :]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*gradients, *operation.kept(tensors))
        ctx.operation, ctx.gradients = operation, len(gradients)
        return tuple(values)

    @staticmethod
    def backward(ctx, *upstream):
        operation, saved = ctx.operation, ctx.saved_tensors
        gradients, kept = saved[: ctx.gradients], saved[ctx.gradients :]
        flows = operation.backward(upstream, gradients, kept, _run_in_graph)
        return None, *flows, *[None] * operation.constants


def _run_in_graph(operation, *tensors):
    return tuple(evaluate(list(tensors), operation.call(False)))
