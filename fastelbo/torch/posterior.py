"""Samples of the posterior q(z|x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import fastelbo
from fastelbo.torch import _checks, composites
from fastelbo.torch._bridge import Operation, function, run
from fastelbo.torch._elementwise import elementwise
from fastelbo.torch._tensors import (
    check_reduction,
    check_tensors,
    checked,
    has_kernels,
    key_of,
    narrowed,
)
from fastelbo.torch.divergences import kl_standard_normal

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits

_KEY = (1 << 64) - 1


def reparameterize(
    mu: Tensor,
    logvar: Tensor,
    *,
    rng: torch.Generator | int | None = None,
    noise: Tensor | None = None,
    samples: int | None = None,
) -> Tensor:
    """Samples z = mu + e^(logvar/2) eps of the posterior; see :func:`fastelbo.reparameterize`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (B, L)
    rng : torch.Generator or int, optional
        Where eps comes from: a generator, an int that is the key of one of fastelbo's, or, by
        default, PyTorch's own generator, the one of ``torch.manual_seed``. One key is drawn from a
        generator, and eps from that key: the numbers are not those of ``torch.randn``. Under
        torch.compile, which cannot trace a ``torch.Generator``, give one of the others, or `noise`.
    noise : Tensor, optional
        eps itself, in the shape of z.
    samples : int, optional
        K: draw K samples, z being (K, B, L).

    Returns
    -------
    Tensor, shape (B, L) or (K, B, L)

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu, logvar = torch.ones(1, 2), torch.zeros(1, 2, requires_grad=True)
    >>> z = fastelbo.torch.reparameterize(mu, logvar, noise=torch.tensor([[0.5, -1.0]]))
    >>> z.sum().backward()
    >>> z.detach(), logvar.grad
    (tensor([[1.5000, 0.0000]]), tensor([[ 0.2500, -0.5000]]))
    """
    half, (mu, logvar) = checked(mu=mu, logvar=logvar)
    if noise is not None:
        check_tensors(noise=noise)
    if not has_kernels(mu, logvar, constants=(noise,)):
        _checks.samples(mu, logvar, rng, noise, samples)
        return narrowed(composites.reparameterize(mu, logvar, rng, noise, samples), half)
    z = run(Reparameterize(samples), mu, logvar, noise_or_key(rng, noise, mu.dtype))[0]
    return narrowed(z, half)


def noise_or_key(rng, noise, dtype):
    if noise is None:
        return key_of(rng)
    if rng is not None:
        raise ValueError("give rng or noise, not both")
    return noise.to(dtype)


def source_of(array):
    """The keyword of fastelbo's functions that stands for eps: itself, or the key to draw it by."""
    if array.dtype == np.int64:
        return {"rng": int(array) & _KEY}
    return {"noise": array}


@dataclass(eq=False)
class Reparameterize(Operation):
    """z, of tensors (mu, logvar, noise or its key)."""

    samples: int | None

    gives_gradients = False
    constants = 1

    def forward(self, arrays, with_gradient, threads):
        mu, logvar, noise = arrays
        options = {"samples": self.samples, "num_threads": threads, **source_of(noise)}
        return (fastelbo.reparameterize(mu, logvar, **options),), ()

    def shapes(self, tensors):
        shape = tensors[0].shape
        return [shape if self.samples is None else (self.samples, *shape)]

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        return run(ReparameterizeBackward(), upstream[0], *kept)


@dataclass(eq=False)
class ReparameterizeBackward(Operation):
    """What flows to mu and logvar, of tensors (grad_z, mu, logvar, noise or its key)."""

    values = 2
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        *rest, noise = arrays
        options = {"num_threads": threads, **source_of(noise)}
        return fastelbo.reparameterize_backward(*rest, None, **options), ()

    def shapes(self, tensors):
        return [tensors[1].shape, tensors[2].shape]


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    rng: torch.Generator | int | None = None,
    noise: Tensor | None = None,
    samples: int | None = None,
    free_bits: float | FreeBits = 0.0,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    """:func:`reparameterize` and :func:`kl_standard_normal`.

    Parameters
    ----------
    mu, logvar, rng, noise, samples
        As in :func:`reparameterize`.
    free_bits, reduction
        As in :func:`kl_standard_normal`.

    Returns
    -------
    z : Tensor, shape (B, L) or (K, B, L)
    kl : Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    >>> fastelbo.torch.reparameterize_kl(one, zero, noise=one + one)
    (tensor([[3.]]), tensor(0.5000))
    """
    kl = kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)
    return reparameterize(mu, logvar, rng=rng, noise=noise, samples=samples), kl


def posterior_log_prob(
    z: Tensor, mu: Tensor, logvar: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Log density log q(z|x), summed over latents; see :func:`fastelbo.posterior_log_prob`.

    Parameters
    ----------
    z : Tensor, shape (B, L) or (K, B, L)
        A point for each x, or K of them.
    mu, logvar : Tensor, shape (B, L)
    reduction : {"mean", "sum", "none"}
        Over the batch, and over the samples.

    Returns
    -------
    Tensor, shape (), or (B,) or (K, B) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> z, zero = torch.full((1, 1), 2.0, requires_grad=True), torch.zeros(1, 1)
    >>> log_q = fastelbo.torch.posterior_log_prob(z, zero, zero)
    >>> log_q.backward()
    >>> log_q.detach(), z.grad
    (tensor(-2.9189), tensor([[-2.]]))
    """
    check_reduction(reduction)
    half, tensors = checked(z=z, mu=mu, logvar=logvar)
    if reduction == "none" and z.ndim == 3:
        _checks.of("posterior_log_prob", *tensors)
        # A row's gradient must be its own to be scaled: PyTorch adds up what samples share.
        rows = [t.expand(z.shape).flatten(0, 1) for t in tensors]
        value = function("posterior_log_prob", *rows, reduction=reduction).unflatten(0, z.shape[:2])
    else:
        value = function("posterior_log_prob", *tensors, reduction=reduction)
    return narrowed(value, half)


def log_prob_of_own(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z|x), (B,), of the z = mu + e^(logvar/2) eps that moves with it.

    Its derivative by logvar is -1/2, and that by mu zero; by both ways they would be differences,
    which lose digits.
    """
    value = posterior_log_prob(z.detach(), mu.detach(), logvar.detach(), reduction="none")

    def slopes(logvar):
        return (lambda: torch.full_like(logvar, -0.5),)

    return value + elementwise(torch.zeros_like, slopes, logvar).sum(-1)
