"""The checks of arguments that kernels make, for tensors that no kernel sees: the same code.

What is checked is shapes, by arrays that stand in for tensors and have memory for a single row.
Where it is free to look at the numbers, on the CPU, domains are checked, too: on another device
that would make the processor wait. Under torch.compile nothing is checked.
"""

import numpy as np
import torch

from fastelbo import _arrays, aggregate, discrepancies, divergences, full_normal, importance
from fastelbo.mixtures import Components
from fastelbo.posterior import noise_source, shape_of_samples
from fastelbo.torch._tensors import can_read, check_tensors


def stand_in(tensor):
    """An array of the shape of a tensor, and of a dtype that reads like its."""
    name = str(tensor.dtype).removeprefix("torch.")
    dtype = "float32" if name in ("bfloat16", "float16") else name
    shape = tuple(tensor.shape)
    return np.broadcast_to(np.zeros(shape[-1:], dtype), shape)


def numbers_of(tensor):
    """The tensor as an array."""
    return tensor.detach().numpy()


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
    kernels = likelihood.kernels
    if len(outputs) != len(kernels.parameters):
        kernels._miscounted(outputs)
    outputs = tuple([stand_in(torch.as_tensor(p)) for p in outputs])
    data, *_ = _arrays.problem(
        stand_in(x), outputs, kernels.parameters, stand_in(mu), stand_in(logvar), kernels._layout
    )
    if mask is not None:
        _arrays.as_mask(stand_in(mask), data)


def samples(mu, logvar, rng, noise, count):
    """Of what is to be drawn, `count` times."""
    if torch.compiler.is_compiling():
        return
    mu, _ = _arrays.latents(stand_in(mu), stand_in(logvar))
    shape = shape_of_samples(mu, count)
    if noise is not None:
        check_tensors(noise=noise)
        noise_source(rng, stand_in(noise), shape, mu.dtype.itemsize == 4)


def iwae(likelihood, x, z, mu, logvar, outputs, mask):
    if torch.compiler.is_compiling():
        return
    latents = [stand_in(t) for t in (z, mu, logvar)]
    outputs = tuple([stand_in(p) for p in outputs])
    mask = None if mask is None else stand_in(mask)
    importance._Problem(stand_in(x), *latents, outputs, likelihood.kernels, None, mask, None)


#: By the name of a function: the check of its arrays and options.
CHECKS = {
    "kl_standard_normal": lambda mu, logvar, **options: _arrays.latents(mu, logvar),
    "kl_normal": lambda *arrays, **options: divergences.pairs(arrays),
    "kl_full_normal": lambda *arrays, **options: full_normal.checked_shapes(arrays),
    "mmd": lambda z, y, kernel, bandwidth, estimator: discrepancies._Problem(
        z, y, kernel, bandwidth, estimator, None
    ),
    "mixture_log_prob": lambda z, *arrays, **options: Components(*arrays).points(z),
    "total_correlation": lambda *arrays, **options: aggregate._decompose(
        arrays, **options, num_threads=None
    ),
}


def of(name, *tensors, **options):
    """Of the function of this name, as fastelbo's has them."""
    if not torch.compiler.is_compiling():
        CHECKS[name](*[stand_in(t) for t in tensors], **options)
