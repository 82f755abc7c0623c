"""Bounds of the evidence from log importance weights (K, B), and what these weights are like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

import fastelbo
from fastelbo import _arrays
from fastelbo._arguments import check_choice
from fastelbo.bounds import BASELINES, _as_order, _checked_n
from fastelbo.torch import _checks, composites
from fastelbo.torch._bridge import Function, Operation, run, scaled
from fastelbo.torch._tensors import check_reduction, checked, has_kernels, narrowed

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction


def importance_bound(log_w: Tensor, *, alpha: float = 0.0, reduction: Reduction = "mean") -> Tensor:
    """Rényi bound L_alpha of log p(x); see :func:`fastelbo.importance_bound`.

    Parameters
    ----------
    log_w : Tensor, shape (K, B)
        From :func:`log_weights`.
    alpha : float, optional
        0 is the importance-weighted bound, 1 the ELBO.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If log_w is not (K, B) or empty, or an option is unknown.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> log_w = torch.tensor([[1.0], [3.0]]).log().requires_grad_()
    >>> bound = fastelbo.torch.importance_bound(log_w)
    >>> bound.backward()
    >>> bound.exp().detach(), log_w.grad.ravel()
    (tensor(2.), tensor([0.2500, 0.7500]))
    """
    return _bound("importance_bound", (log_w,), reduction, alpha=_as_order(alpha, "alpha"))


def cubo(log_w: Tensor, *, n: float = 2.0, reduction: Reduction = "mean") -> Tensor:
    """CUBO_n, the chi upper bound of log p(x); see :func:`fastelbo.cubo`.

    Parameters
    ----------
    log_w, reduction
        As in :func:`importance_bound`.
    n : float, optional
        At least 1.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> bound = fastelbo.torch.cubo(torch.tensor([[1.0], [7.0]]).log())
    >>> print(f"{bound.exp():.4f}")
    5.0000
    """
    return _bound("importance_bound", (log_w,), reduction, alpha=1 - _checked_n(n))


def vimco(log_w: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """The bound L_K, whose gradient is VIMCO's estimate; see :func:`fastelbo.vimco_and_grad`.

    For latents that have no reparameterization, discrete ones say. Its derivative by log_w is that
    of the bound, and its derivative by log_q the learning signal of each sample: where both come
    from the encoder, ``backward`` gives the estimate.

    Parameters
    ----------
    log_w : Tensor, shape (K, B)
        Log weights log p(x, z_k) - log q(z_k|x); K > 1.
    log_q : Tensor, shape (K, B)
        log q(z_k|x) by itself, of the same samples. Its numbers are not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`importance_bound`; and if log_q has another shape than log_w.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> log_w = torch.tensor([[1.0], [3.0]]).log()
    >>> log_q = torch.zeros(2, 1, requires_grad=True)
    >>> fastelbo.torch.vimco(log_w, log_q).backward()
    >>> log_q.grad.exp().ravel()
    tensor([0.6667, 2.0000])
    """
    return _bound("vimco", (log_w, log_q), reduction)


def reinforce(
    log_w: Tensor,
    log_q: Tensor,
    *,
    baseline: Literal["leave-one-out", "none"] = "leave-one-out",
    reduction: Reduction = "mean",
) -> Tensor:
    """The ELBO, whose gradient is that of REINFORCE; see :func:`fastelbo.reinforce_and_grad`.

    Parameters
    ----------
    log_w, log_q, reduction
        As in :func:`vimco`; K > 1 for a baseline from the others.
    baseline : {"leave-one-out", "none"}
        What a sample's learning signal is compared with: the mean of the others, or nothing.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> log_q = torch.zeros(2, 1, requires_grad=True)
    >>> bound = fastelbo.torch.reinforce(torch.tensor([[1.0], [3.0]]), log_q)
    >>> bound.backward()
    >>> bound.item(), log_q.grad.ravel()
    (2.0, tensor([-1.,  1.]))
    """
    check_choice(baseline, "baseline", BASELINES)
    return _bound("reinforce", (log_w, log_q), reduction, baseline=baseline)


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum_k w_k)^2 / sum_k w_k^2 of each column; see :func:`fastelbo.effective_sample_size`.

    Parameters
    ----------
    log_w : Tensor, shape (K, B)

    Returns
    -------
    Tensor, shape (B,)
        From 1 to K. NaN where no weight is positive, or one is infinite.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> fastelbo.torch.effective_sample_size(torch.tensor([[0.0, 0.0], [0.0, -1000.0]]))
    tensor([2., 1.])
    """
    return _of_weights("effective_sample_size", EffectiveSampleSize, log_w)


def normalized_weights(log_w: Tensor) -> Tensor:
    """w_k / sum_j w_j of each column; see :func:`fastelbo.normalized_weights`.

    Parameters
    ----------
    log_w : Tensor, shape (K, B)

    Returns
    -------
    Tensor, shape (K, B)
        NaN where no weight is positive, and for infinite weights; those beside one are zero.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> fastelbo.torch.normalized_weights(torch.tensor([[1.0], [3.0]]).log()).ravel()
    tensor([0.2500, 0.7500])
    """
    return _of_weights("normalized_weights", NormalizedWeights, log_w)


def _floats(tensors):
    """Log weights, and what goes with them, in one dtype of floats, and that of the results."""
    names = ("log_w", "log_q")
    half, tensors = checked(**dict(zip(names, tensors, strict=False)))
    return half, [t if t.is_floating_point() else t.to(torch.get_default_dtype()) for t in tensors]


def _bound(name, tensors, reduction, **options):
    """The bound of fastelbo's function of this name, of (log_w,) or of (log_w, log_q)."""
    check_reduction(reduction)
    half, tensors = _floats(tensors)
    served = has_kernels(*tensors)
    if not served or len(tensors) > 1:
        _checks.of(name, tensors[0], **options)
    if tensors[-1].shape != tensors[0].shape:
        wanted = f"that of log_w, {tuple(tensors[0].shape)}"
        raise _arrays.shape_error("log_q", tensors[-1].shape, wanted)
    options["reduction"] = reduction
    if served:
        return narrowed(run(Bound(name, options), *tensors)[0], half)
    return narrowed(getattr(composites, name)(*tensors, **options), half)


def _of_weights(name, operation, log_w):
    half, tensors = _floats((log_w,))
    if has_kernels(*tensors):
        return narrowed(run(operation(), *tensors)[0], half)
    _checks.of(name, *tensors)
    return narrowed(getattr(composites, name)(*tensors), half)


class Bound(Function):
    """fastelbo's function of this name, of tensors (log_w,), or (log_w, log_q): of the latter only
    the gradient counts."""

    def forward(self, arrays, with_gradient, threads):
        return super().forward(arrays[:1], with_gradient, threads)

    def shapes(self, tensors):
        return [tensors[0].shape[1:] if self.options["reduction"] == "none" else ()]

    def backward(self, upstream, gradients, kept, run):
        factor = upstream[0]
        if isinstance(factor, torch.Tensor) and factor.ndim:  # of the columns
            factor = factor.expand(gradients[0].shape)
        return [scaled(gradient, factor) for gradient in gradients]


@dataclass(eq=False)
class NormalizedWeights(Operation):
    """Of the tensor (log_w,)."""

    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        return (fastelbo.normalized_weights(*arrays, num_threads=threads),), ()

    def shapes(self, tensors):
        return [tensors[0].shape]

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        (weights,) = run(NormalizedWeights(), *kept)
        flow = upstream[0] * weights
        return [flow - weights * flow.sum(0)]


@dataclass(eq=False)
class EffectiveSampleSize(Operation):
    """Of the tensor (log_w,)."""

    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        return (fastelbo.effective_sample_size(*arrays, num_threads=threads),), ()

    def shapes(self, tensors):
        return [tensors[0].shape[1:]]

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        """Its logarithm is 2 log sum w - log sum w^2."""
        (log_w,) = kept
        (size,), (weights,) = run(EffectiveSampleSize(), log_w), run(NormalizedWeights(), log_w)
        (squares,) = run(NormalizedWeights(), 2 * log_w)
        return [2 * upstream[0] * size * (weights - squares)]
