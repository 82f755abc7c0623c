"""The Gumbel-softmax relaxation of categorical samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fastelbo._arguments import as_flag, positive_number
from fastelbo.posterior import shape_of_samples
from fastelbo.relaxations import gumbel_noise
from fastelbo.torch import _checks
from fastelbo.torch._bridge import Operation, run
from fastelbo.torch._tensors import (
    check_constant,
    check_tensors,
    checked,
    generator_of,
    is_mapped,
    key_of,
    narrowed,
)
from fastelbo.torch.composites import log_softmax

if TYPE_CHECKING:
    from torch import Tensor

_KEY = (1 << 64) - 1


def gumbel_softmax(
    logits: Tensor,
    *,
    tau: float = 1.0,
    hard: bool = False,
    rng: torch.Generator | int | None = None,
    noise: Tensor | None = None,
    samples: int | None = None,
) -> Tensor:
    """Samples y = softmax((logits + Gumbel noise) / tau); see :func:`fastelbo.gumbel_softmax`.

    Parameters
    ----------
    logits : Tensor, shape (B, ..., C)
    tau : float, optional
        The temperature, positive.
    hard : bool, optional
        Straight through: the one-hot vector of the largest element, with the gradient of the soft
        sample.
    rng : torch.Generator or int, optional
        Where the noise comes from, as in :func:`reparameterize`.
    noise : Tensor, optional
        The Gumbel noise itself, in the shape of y.
    samples : int, optional
        K: draw K samples, y being (K, B, ..., C).

    Returns
    -------
    Tensor, shape (B, ..., C) or (K, B, ..., C)

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> logits = torch.zeros(1, 2, requires_grad=True)
    >>> noise = torch.tensor([[1.0, 0.0]])
    >>> y = fastelbo.torch.gumbel_softmax(logits, hard=True, noise=noise)
    >>> y[0, 0].backward()
    >>> y.detach(), logits.grad
    (tensor([[1., 0.]]), tensor([[ 0.1966, -0.1966]]))
    """
    check_constant(tau, "tau")
    tau, hard = positive_number(tau, "tau"), as_flag(hard, "hard")
    half, (logits,) = checked(logits=logits)
    if noise is not None:
        check_tensors(noise=noise)
    _checks.relaxed(logits, rng, noise, samples)
    if noise is None:
        noise = _drawn(logits, rng, samples)
    elif rng is not None:
        raise ValueError("give rng or noise, not both")
    noise = noise.to(logits.dtype)
    perturbed = torch.where(logits.isinf() & noise.isinf(), logits, logits + noise)
    top = perturbed.amax(-1, keepdim=True).detach()
    y = log_softmax(torch.where(top == torch.inf, perturbed, (perturbed - top) / tau)).exp()
    if hard:
        sure = torch.zeros_like(y).scatter(-1, y.argmax(-1, keepdim=True), 1.0)
        y = sure + (y - y.detach())
    return narrowed(y, half)


def _drawn(logits, rng, samples):
    """Noise: on the CPU that of fastelbo, unless torch.func.vmap draws another key a sample."""
    if logits.is_cpu:
        key = key_of(rng)
        if torch.compiler.is_compiling() or not is_mapped(key):
            like = torch.empty(logits.shape, dtype=logits.dtype)  # what no transform has wrapped
            return run(GumbelNoise(samples), key, like)[0]
    shape = logits.shape if samples is None else (samples, *logits.shape)
    generator = generator_of(rng, logits.device)
    uniform = torch.rand(shape, dtype=logits.dtype, device=logits.device, generator=generator)
    return -torch.log(-torch.log1p(-uniform))


@dataclass(eq=False)
class GumbelNoise(Operation):
    """What is added to logits, of tensors (key, logits), where torch.compile traces."""

    samples: int | None

    gives_gradients = False
    constants = 2

    def forward(self, arrays, with_gradient, threads):
        key, logits = arrays
        shape = shape_of_samples(logits, self.samples)
        return (gumbel_noise(int(key) & _KEY, shape, logits.dtype),), ()

    def shapes(self, tensors):
        shape = tensors[1].shape
        return [shape if self.samples is None else (self.samples, *shape)]
