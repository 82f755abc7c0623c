"""M2: samples of which some have labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import fastelbo
from fastelbo._arguments import as_number
from fastelbo.semi_supervised import checked_classes
from fastelbo.torch._bridge import Operation, run
from fastelbo.torch._checks import array_of, stand_in
from fastelbo.torch._elementwise import elementwise
from fastelbo.torch._tensors import (
    check_constant,
    check_reduction,
    check_tensors,
    checked,
    has_kernels,
    narrowed,
    reduce,
    widened,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction


def m2_elbo(
    log_joint: Tensor,
    logits: Tensor,
    y: Tensor,
    *,
    alpha: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The objective of the semi-supervised model M2; see :func:`fastelbo.m2_elbo`.

    Parameters
    ----------
    log_joint : Tensor, shape (B, C)
        E log p(x|y, z) - KL(q(z|x, y) || p(z)) + log p(y) of every class.
    logits : Tensor, shape (B, C)
        Of q(y|x), normalised or not.
    y : Tensor, shape (B,)
        Labels 0, 1, ..., C - 1, and -1 for a sample without one.
    alpha : float, optional
        Weight of the classification, not negative.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> logits = torch.zeros(2, 2, requires_grad=True)
    >>> log_joint, y = torch.tensor([[-1.0, -3.0], [-1.0, -3.0]]), torch.tensor([-1, 0])
    >>> fastelbo.torch.m2_elbo(log_joint, logits, y, reduction="sum").backward()
    >>> logits.grad
    tensor([[ 0.5000, -0.5000],
            [ 0.5000, -0.5000]])
    """
    check_reduction(reduction)
    alpha = as_number(alpha, "alpha", 0)
    check_tensors(y=y)
    check_constant(y, "y")
    y = widened(y)
    half, tensors = checked(log_joint=log_joint, logits=logits)
    if has_kernels(*tensors, y):
        return narrowed(run(M2(alpha, reduction), *tensors, y)[0], half)
    if not torch.compiler.is_compiling():
        checked_classes(*map(stand_in, tensors), array_of(y))
    return narrowed(_composite(*tensors, y, alpha, reduction), half)


@dataclass(eq=False)
class M2(Operation):
    """Of tensors (log_joint, logits, y), of which the last has no gradient."""

    alpha: float
    reduction: str

    constants = 1

    def forward(self, arrays, with_gradient, threads):
        options = {"alpha": self.alpha, "reduction": self.reduction, "num_threads": threads}
        if not with_gradient:
            return (fastelbo.m2_elbo(*arrays, **options),), ()
        value, gradients = fastelbo.m2_elbo_and_grad(*arrays, **options)
        return (value,), gradients

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.reduction == "none" else ()]


def _composite(log_joint, logits, y, alpha, reduction):
    """By class the terms of a row, whose derivatives are those of the row."""

    def is_class(which, logits):
        return torch.arange(logits.shape[1], device=logits.device) == which

    def shares(logits, label):
        """(log q, q, what all but the label have of the total)."""
        top, largest = logits.max(1, keepdim=True)
        level = torch.where(logits == top, 0.0, logits - top)  # equal infinities are level
        e = level.exp()
        others = torch.where(is_class(largest, logits), 0.0, e).sum(1, keepdim=True)
        log_q = level - others.log1p()
        rest = torch.where(label, 0.0, e).sum(1, keepdim=True) / e.sum(1, keepdim=True)
        return log_q, log_q.exp(), rest

    def expected(log_joint, log_q, q):
        return torch.where(q == 0, 0.0, q * torch.where(q == 0, 0.0, log_joint - log_q))

    def terms(log_joint, logits, y):
        label = is_class(y, logits)
        log_q, q, _ = shares(logits, label)
        known = log_joint + alpha * log_q if alpha else log_joint
        return torch.where(y >= 0, torch.where(label, known, 0.0), expected(log_joint, log_q, q))

    def slopes(log_joint, logits, y):
        label = is_class(y, logits)
        log_q, q, rest = shares(logits, label)

        def by_joint():
            return torch.where(y >= 0, label.to(q.dtype), q)

        def by_logits():
            parts = expected(log_joint, log_q, q)
            pulled = torch.where(q == 0, 0.0, parts - q * parts.sum(1, keepdim=True))
            return torch.where(y >= 0, alpha * torch.where(label, rest, -q), pulled)

        return by_joint, by_logits, None

    return reduce(elementwise(terms, slopes, log_joint, logits, y[:, None]).sum(1), reduction)
