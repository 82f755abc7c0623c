"""The checks of arguments that kernels make, for tensors that no kernel sees: `fastelbo._checks`.

Where it is free to look at the numbers, on the CPU, domains are checked, too: on another device
that would make the processor wait. Under torch.compile nothing is checked.
"""

import numpy as np
import torch

from fastelbo import _arrays, _checks, discrete_divergences, full_normal, relaxations
from fastelbo.posterior import shape_of_samples
from fastelbo.torch._tensors import as_array, beside, can_read, check_tensors


def stand_in(tensor):
    """An array of the shape of a tensor, and of a dtype that reads like its."""
    name = str(tensor.dtype).removeprefix("torch.")
    dtype = "float32" if name in ("bfloat16", "float16") else name
    shape = tuple(tensor.shape)
    if tensor.layout is torch.sparse_csr:
        ends = np.zeros(len(tensor) + 1, int)
        return _arrays.csr(shape, ends, ends[:0], np.zeros(0, dtype))
    return _checks.stand_in(shape, dtype)


def numbers_of(tensor):
    """The tensor as an array."""
    return as_array(tensor.detach())


def array_of(tensor):
    """Its numbers where to look at them is free, or what stands in."""
    return numbers_of(tensor) if can_read(tensor) else stand_in(tensor)


def flags_of(mask):
    """A mask as an array: all True where its numbers are not to be looked at; None without one."""
    if mask is None:
        return None
    check_tensors(mask=mask)
    return numbers_of(mask) if can_read(mask) else np.ones(mask.shape, stand_in(mask).dtype)


def event(likelihood, x, parameters, mask):
    """Of a likelihood, data, decoder outputs and a mask."""
    if torch.compiler.is_compiling():
        return
    tensors = (x, *parameters) if mask is None else (x, *parameters, mask)
    readable = likelihood.kernels.validate and all([can_read(t) for t in tensors])
    as_array = numbers_of if readable else stand_in
    likelihood.kernels._check_event(
        as_array(x),
        tuple([as_array(p) for p in parameters]),
        None if mask is None else as_array(mask),
        readable,
    )


def elbo(likelihood, x, mu, logvar, outputs, mask):
    if torch.compiler.is_compiling():
        return
    outputs = tuple([stand_in(beside(p, mu)) for p in outputs])
    latents = [stand_in(t) for t in (mu, logvar)]
    mask = None if mask is None else stand_in(mask)
    _checks.elbo(likelihood.kernels, stand_in(x), *latents, outputs, mask)


def samples(mu, logvar, rng, noise, count):
    """Of what is to be drawn, `count` times."""
    if torch.compiler.is_compiling():
        return
    if noise is not None:
        check_tensors(noise=noise)
        noise = stand_in(noise)
    _checks.samples(stand_in(mu), stand_in(logvar), rng, noise, count)


def relaxed(logits, rng, noise, count):
    """Of categorical samples to be drawn, `count` times."""
    if torch.compiler.is_compiling():
        return
    logits = discrete_divergences.as_logits(stand_in(logits))
    shape = shape_of_samples(logits, count)
    if noise is not None:
        relaxations.noise_of(rng, stand_in(noise), shape, logits.dtype)


def iwae(likelihood, x, z, mu, logvar, outputs, mask):
    if torch.compiler.is_compiling():
        return
    latents = [stand_in(t) for t in (z, mu, logvar)]
    outputs = tuple([stand_in(p) for p in outputs])
    mask = None if mask is None else stand_in(mask)
    _checks.iwae(likelihood.kernels, stand_in(x), *latents, outputs, mask)


def factors(**trils):
    """Of Cholesky factors, where their numbers may be looked at."""
    for name, tril in trils.items():
        if can_read(tril):
            full_normal.check_diagonal(numbers_of(tril), name)


def of(name, *tensors, **options):
    """Of the function of this name, as fastelbo's has them."""
    if not torch.compiler.is_compiling():
        _checks.CHECKS[name](*[stand_in(t) for t in tensors], **options)
