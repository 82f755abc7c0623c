"""What the checks of ``fastelbo parity`` are made of, and the registry that they enter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np


@dataclass
class Check:
    """One call, and what it should give.

    `desired` and the functions in `others` give what `actual` gives, all in (nested) tuples of
    numbers and arrays; None stands for what is not compared. `scale` gives the size of the terms
    that a result is a sum of, where they may cancel: in a tuple like the results, or one number for
    all of them.
    """

    actual: Callable
    desired: Callable
    scale: Callable = float
    others: dict = field(default_factory=dict)


REGISTRY = {}


def covers(name):
    """Enter a generator function (size, dtype) -> checks under the name of a public function."""

    def enter(function):
        REGISTRY[name] = function
        return function

    return enter


# Inputs and others ------------------------------------------------------------------------------


class Inputs:
    """Arrays of a size and dtype, drawn in a fixed order from a fixed seed."""

    def __init__(self, size, dtype):
        self.rng = np.random.default_rng([2026, *size])
        self.dtype = np.dtype(dtype)
        self.batch, self.event, self.latent = size

    def normal(self, *shape, scale=1.0, shift=0.0):
        return (shift + scale * self.rng.standard_normal(shape)).astype(self.dtype)

    def uniform(self, *shape):
        return self.rng.random(shape).astype(self.dtype)

    def latents(self):
        shape = self.batch, self.latent
        return self.normal(*shape), self.normal(*shape, scale=0.7, shift=-0.3)

    def data(self):
        x = self.uniform(self.batch, self.event)
        return x, (x + self.normal(*x.shape, scale=0.4)).astype(self.dtype)


def both(ours, theirs, *args, scale=None, others=None, **options):
    """The check that a function agrees with the reference, given the same arguments."""
    if callable(scale):
        scale = partial(scale, *args)
    return Check(
        partial(ours, *args, **options),
        partial(theirs, *args, **options),
        scale or float,
        others or {},
    )


def in_torch(function, arrays, gradients=None):
    """Evaluate with PyTorch in float64: the value, and the gradients of the arrays named by index.

    Returns a function that raises ImportError where PyTorch is absent.
    """

    def evaluate():
        import torch

        tensors = [torch.from_numpy(np.asarray(a, np.float64)) for a in arrays]
        if gradients is None:
            return function(torch, *tensors).item()
        wanted = [tensors[i].requires_grad_() for i in gradients]
        value = function(torch, *tensors)
        return value.item(), tuple(g.numpy() for g in torch.autograd.grad(value, wanted))

    return evaluate
