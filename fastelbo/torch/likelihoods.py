"""Likelihoods with a differentiable ``log_prob``: classes and arguments are those of fastelbo.

A class is its constructor's arguments, as fields, and a formula: ``elements`` gives the log-density
of an element in PyTorch operations. Tensors on the CPU go to fastelbo's class of the same name
instead. An argument that is to be differentiated joins the decoder's outputs (`Held`). Likelihoods
around a location are in ``locations.py``, those over counts, pixels and classes in ``discrete.py``
and ``counts.py``.
"""

from __future__ import annotations

import functools
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

import fastelbo
from fastelbo import _named, _torch_bridge
from fastelbo.likelihoods import OF_ELEMENTS, broadcasts
from fastelbo.torch import _checks, densities
from fastelbo.torch._bridge import Operation, kernels_of, run
from fastelbo.torch._tensors import (
    beside,
    by_float32,
    can_read,
    check_constant,
    check_reduction,
    check_tensors,
    half_of,
    has_kernels,
    promoted,
    reads_halves,
    reduce,
    to_differentiate,
    unexpanded,
    widened,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import ByElement, Missing, Reduction

#: Arguments that a likelihood shows only where they are not as usual.
_UNSAID = {"x_scale": 1.0, "probs": False, "clamp": False}
#: The classes that derive from Likelihood, by name.
_TWINS = {}


@dataclass(eq=False, repr=False)
class Likelihood:
    """What every likelihood shares.

    Numbers among the arguments of a constructor, arrays and tensors of them, are constants. Where
    the decoder could give them instead (a ``scale``, ``df``, ``theta`` or ``concentration``), a
    tensor that requires a gradient, or a ``torch.nn.Parameter``, gets its gradient, whatever its
    shape, as long as it broadcasts to the decoder's output. Losses register such parameters as
    their own.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ElboLoss, NegativeBinomial
    >>> theta = torch.nn.Parameter(torch.ones(3))  # one a gene
    >>> loss = ElboLoss(likelihood=NegativeBinomial(theta=theta))
    >>> [name for name, _ in loss.named_parameters()]
    ['likelihood_parameters.theta']
    """

    _: KW_ONLY
    missing: Missing = None

    #: Of fastelbo's likelihood of this name.
    _learnable = fastelbo.Likelihood._learnable
    _by_sample = None
    #: What of them was handed over as tensors to differentiate.
    held = None

    def __init_subclass__(cls):
        if _TWINS.setdefault(cls.__name__, cls) is cls and hasattr(fastelbo, cls.__name__):
            own = getattr(fastelbo, cls.__name__)
            cls._learnable, cls._by_sample = own._learnable, own._by_sample

    def __post_init__(self):
        """Keep arguments as Python numbers, so that torch.compile takes them for constants; but
        those to differentiate as they are.

        fastelbo's likelihood is made when it is first used: a constructor that torch.compile
        traces must not do more than this.
        """
        tensors = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == self._by_sample and len(getattr(value, "shape", ())) > 1:
                check_constant(value, f"{name} of {type(self).__name__}")
                continue
            if not hasattr(value, "tolist"):
                setattr(self, name, _tuples(value))
                continue
            if isinstance(value, torch.Tensor) and to_differentiate(value):
                if name not in self._learnable:
                    raise TypeError(
                        f"{name} of {type(self).__name__} cannot be differentiated: give numbers, "
                        "or a tensor that requires no gradient"
                    )
                tensors[name] = value
                continue
            setattr(self, name, _tuples(value.tolist()))
        if tensors:
            self.held = Held(self, tensors)

    @property
    def spec(self):
        """fastelbo's likelihood: its name, and the arguments of its constructor."""
        arguments = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return type(self).__name__, arguments

    @functools.cached_property
    def kernels(self):
        """fastelbo's likelihood of this name."""
        return self._make_kernels()

    def _make_kernels(self):
        """A new one: what is cached has a lock, which torch.compile cannot trace."""
        kind, arguments = self.spec
        if isinstance(given := arguments.get(self._by_sample), torch.Tensor):
            arguments[self._by_sample] = given.cpu().numpy()
        return getattr(fastelbo, kind)(**arguments)

    def _unexpanded(self, others, reduction):
        """The outputs after the first, as what they were expanded from where they may broadcast."""
        whole = getattr(fastelbo, type(self).__name__)._layout.more_axes
        if whole or reduction not in ("mean", "sum"):
            return others
        return [unexpanded(p) for p in others]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the decoder outputs, the arguments of ``log_prob`` after x."""
        return self.kernels.parameters if self.held is None else self.held.parameters

    def log_prob(
        self,
        x: Tensor,
        *parameters: Tensor | float,
        mask: Tensor | None = None,
        reduction: Reduction | ByElement = "mean",
    ) -> Tensor:
        """Log-density of x, summed over the event.

        Parameters
        ----------
        x : Tensor, shape (B, ...)
            Data of any real dtype; integers are read as they are. Of the Poisson and the negative
            binomials also a sparse CSR tensor: read as it is on the CPU, made dense elsewhere.
            ``torch.compile`` breaks its graph there, and refuses to with ``fullgraph=True``.
        *parameters : Tensor
            The decoder outputs named in ``parameters``: the first has the shape of x, or
            (K, B, ...) for K samples of each x; others broadcast to it. One that was expanded over
            the batch, as scvi-tools expands theta, costs what one for all samples costs: its
            gradient goes to what it was expanded from, unless ``retain_grad()`` or a hook asks for
            its own.
        mask : Tensor of bool, optional
            True where x was observed; broadcasts to x.
        reduction : {"mean", "sum", "none", "elementwise"}
            Over the batch, and over the samples. ``"elementwise"``: no sum over the event, either.

        Returns
        -------
        Tensor, shape (), or (B,) or (K, B) for ``reduction="none"``, and (B, ...) or
            (K, B, ...) for ``"elementwise"``
            In nats, in the dtype of the tensors. Half precision is computed in float32, which is
            also what comes back under autocast.

        Raises
        ------
        ValueError
            If shapes do not match or, on the CPU, something lies outside the domain.
        """
        return self._signed(x, parameters, mask, reduction, 1.0)

    def _signed(self, x, parameters, mask, reduction, sign):
        """`sign` times the log-density; its gradient is known without a further product."""
        check_reduction(reduction, OF_ELEMENTS)
        if not parameters:
            raise TypeError(f"{type(self).__name__}.log_prob takes x and decoder outputs")
        first, *others = parameters
        check_tensors(x=x, parameters=first)
        if (
            mask is self.held is None
            and reads_halves(first, *others)
            and not self.couples_rows(reduction)
        ):
            operation = LogProb(self, reduction, 0, sign, x.ndim)
            if (values := _torch_bridge.by_halves(operation, *parameters, x)) is not None:
                return values[0]
        if (half := half_of(x, *self._held_tensors, *others, first)) is not None:
            return by_float32(half, self._signed, x, parameters, mask, reduction, sign)
        if self.held is not None:
            opened, parameters = self._joined(parameters)
            return opened._signed(x, parameters, mask, reduction, sign)
        others = [beside(p, first) for p in others]
        others = self._unexpanded(others, reduction)
        x, *parameters = promoted(x, first, *others)
        apart = reduction in ("none", "elementwise")
        if mask is not None:
            check_tensors(mask=mask)
        if not has_kernels(x, *parameters, constants=(x,)) or self.couples_rows(reduction):
            _checks.event(self, x, parameters, mask)
            x = x.to_dense() if x.layout is torch.sparse_csr else x
            return sign * reduce(self._rows(x, parameters, mask, reduction), reduction)
        if apart and others:
            if any([p.shape != first.shape for p in others]):
                _checks.event(self, x, parameters, mask)
            # A value's gradient must be its own to be scaled: PyTorch adds up what is shared.
            parameters = torch.broadcast_tensors(*parameters)
        extra = () if mask is None else (mask,)
        operation = LogProb(self, reduction, len(extra), sign, x.ndim)
        return run(operation, *parameters, x, *extra)[0]

    #: The error of so many decoder outputs: fastelbo's.
    _miscounted = fastelbo.Likelihood._miscounted

    @property
    def _held_tensors(self):
        return () if self.held is None else self.held.values()

    def _joined(self, outputs):
        """The likelihood, and the outputs, that all which is to be differentiated is part of."""
        if self.held is None:
            return self, outputs
        if len(outputs) != len(self.parameters):
            self._miscounted(outputs)
        return self.held.opened, self.held.join(outputs)

    def couples_rows(self, reduction):
        """Whether values are wanted that depend on other rows: then no value's gradient is its
        own. Or on an array by sample, which is no constant of torch.compile: the formula takes it.
        """
        given = getattr(self, self._by_sample) if self._by_sample else None
        return len(getattr(given, "shape", ())) > 1 and torch.compiler.is_compiling()

    def _rows(self, x, parameters, mask, reduction):
        """Log-densities (B,) or (K, B), or of elements, in PyTorch operations."""
        first = parameters[0]
        batch_axes = _batch_axes(type(self), x, first)
        x = x.to(first.dtype) * getattr(self, "x_scale", 1.0)
        observed = ~x.isnan() if self.missing == "nan" else None
        if mask is not None:
            observed = mask if observed is None else observed & mask
        if observed is None:
            values = self._values(x, parameters, None)
        else:  # elsewhere numbers that lie in every domain, whose gradient is then zero
            observed = observed.expand(x.shape)
            x = torch.where(observed, x, 0.0)
            wide = self._like_parameters(observed, x.ndim)
            parameters = [torch.where(wide, p, 1.0) for p in parameters]
            values = torch.where(observed, self._values(x, parameters, observed), 0.0)
        if reduction == "elementwise" or values.ndim == batch_axes:
            return values
        return values.flatten(batch_axes).sum(-1)

    @staticmethod
    def _like_parameters(a, axes, likelihood=None):
        """What is by element, with the axes that parameters have and x, of so many, has not."""
        return a

    def _values(self, x, parameters, observed):
        """The elements; for a formula that must know which were observed, None being all."""
        return self.elements(x, *parameters)

    def __repr__(self):
        kind, shown = self.spec
        del shown["missing"]
        for name, usual in _UNSAID.items():
            if name in shown and (value := shown.pop(name)) != usual:
                shown[name] = value
        named = [f"{name}={_shown(value)}" for name, value in shown.items()]
        return f"{kind}({', '.join(named)})"


class Held:
    """The arguments of a likelihood that are to be differentiated.

    They join the decoder's outputs, for the likelihood that takes them from there, `opened`: its
    kernels know their derivatives, and add them up where they were broadcast.
    """

    def __init__(self, likelihood, tensors):
        learned = {name: likelihood._learnable[name] for name in tensors}
        self.opened = replace(likelihood, **learned)
        self.outputs = outputs = self.opened._make_kernels().parameters
        self.names = {name if name in outputs else f"log_{name}": name for name in tensors}
        self.parameters = tuple([name for name in outputs if name not in self.names])
        if not self.parameters:
            given = " and ".join(tensors)
            raise ValueError(f"{given} are both given: the decoder must give one")
        self.tensors = {n: t for n, t in tensors.items() if not isinstance(t, nn.Parameter)}
        kept = {n: t for n, t in tensors.items() if isinstance(t, nn.Parameter)}
        #: Those that a module registers as its own, and may exchange.
        self.registered = nn.ParameterDict(kept) if kept else {}

    def values(self):
        return [*self.registered.values(), *self.tensors.values()]

    def join(self, outputs):
        """These outputs and the arguments, in the order in which `opened` takes them."""
        check_tensors(**{self.parameters[0]: outputs[0]})
        given = iter(outputs)
        joined = [
            self._of(self.names[name], name, outputs[0].shape)
            if name in self.names
            else next(given)
            for name in self.outputs
        ]
        if self.outputs[0] in self.names:  # the first has the shape of the whole
            joined[0] = joined[0].to(outputs[0]).expand_as(outputs[0])
        return tuple(joined)

    def _of(self, name, output, whole):
        value = self.registered[name] if name in self.registered else self.tensors[name]
        if not broadcasts(value.shape, whole):
            shape, wanted = tuple(value.shape), tuple(whole)
            raise ValueError(f"{name} has shape {shape}, expected one that broadcasts to {wanted}")
        if name == output:
            return value
        if can_read(value) and not ((value > 0) & value.isfinite()).all():
            raise ValueError(f"{name} must be positive and finite, got {value.detach()}")
        return widened(value).log()


def _shown(value):
    """A tensor by its shape: losses print their parameters in a line of their own."""
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__}{tuple(value.shape)}"
    return repr(value)


def as_likelihood(likelihood):
    """One of fastelbo.torch: itself, or the twin of one of fastelbo, which may go by name."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, nn.Module):
        raise TypeError(f"likelihood must be a Likelihood, got the module {likelihood!r}")
    own = _named.as_likelihood(likelihood)
    if (twin := _TWINS.get(type(own).__name__)) is None:
        raise TypeError(f"likelihood: fastelbo.torch has no {type(own).__name__}")
    return twin(**own.get_params(deep=False))


def _tuples(value):
    return tuple([_tuples(v) for v in value]) if isinstance(value, list | tuple) else value


def like(value, tensor):
    """A fixed argument as a tensor that goes with another one."""
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


def log_of_scale(scale, x_recon, learned=None):
    """The decoder's output, or the logarithm of what was given to the constructor."""
    if isinstance(scale, str):
        return learned
    exact = torch.as_tensor(scale, dtype=torch.float64)  # which float32 may not even hold
    return exact.log().to(x_recon)


def _batch_axes(kind, x, first):
    """Of the first parameter: 2 if it has an axis of samples before the batch's, else 1."""
    return 1 + first.ndim - getattr(fastelbo, kind.__name__)._layout.more_axes - x.ndim


@dataclass(eq=False)
class LogProb(Operation):
    """`sign` times log p(x | parameters), of tensors (*parameters, x) and perhaps a mask."""

    likelihood: Likelihood
    reduction: str
    masked: int
    sign: float
    axes: int  # of x

    def combined(self, log_prob, kl):
        return (self.sign * log_prob,)

    def short(self, tensors, with_gradient):
        if self.masked or self.reduction == "elementwise":
            return None
        how = self.likelihood, None, self.reduction, self.sign, self.combined
        return _torch_bridge.short_way(*how, tensors, with_gradient)

    def forward(self, arrays, with_gradient, threads):
        mask = arrays.pop() if self.masked else None
        *parameters, x = arrays
        result = kernels_of(self.likelihood)._log_prob(
            x, tuple(parameters), mask, self.reduction, threads, None, with_gradient, self.sign
        )
        value, gradients = result if with_gradient else (result, ())
        return (self.sign * value,), gradients

    @property
    def constants(self):
        return 1 + self.masked

    def shapes(self, tensors):
        if self.reduction not in ("none", "elementwise"):
            return [()]
        first, x = tensors[0], tensors[-self.constants]
        batch = first.shape[: _batch_axes(type(self.likelihood), x, first)]
        return [batch if self.reduction == "none" else batch + x.shape[1:]]

    def backward(self, upstream, gradients, kept, run):
        if self.reduction == "elementwise":
            twin = _TWINS[type(self.likelihood).__name__]
            upstream = [twin._like_parameters(upstream[0], self.axes, self.likelihood)]
        return super().backward(upstream, gradients, kept, run)


@dataclass(eq=False, repr=False)
class Bernoulli(Likelihood):
    """Bernoulli by logits or probabilities, x in [0, 1]; see :class:`fastelbo.Bernoulli`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli
    >>> x, logits = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    >>> Bernoulli().log_prob(x, logits)
    tensor(-1.3863)
    >>> Bernoulli(probs=True).log_prob(x, torch.sigmoid(logits))
    tensor(-1.3863)
    """

    _: KW_ONLY
    probs: bool = False
    clamp: bool = False
    x_scale: float = 1.0
    validate: bool = True

    def elements(self, x, given):
        if self.clamp:
            return densities.clamped_bernoulli(x, given)
        return (densities.bernoulli_of_probs if self.probs else densities.bernoulli)(x, given)


@dataclass(eq=False, repr=False)
class ContinuousBernoulli(Likelihood):
    """Continuous Bernoulli by logits; see :class:`fastelbo.ContinuousBernoulli`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ContinuousBernoulli
    >>> x, logits = torch.tensor([[0.25]]), torch.ones(1, 1)
    >>> ContinuousBernoulli().log_prob(x, logits)
    tensor(-0.2913)
    """

    _: KW_ONLY
    x_scale: float = 1.0
    validate: bool = True

    def elements(self, x, logits):
        return densities.continuous_bernoulli(x, logits)
