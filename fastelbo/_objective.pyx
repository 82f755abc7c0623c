# The body of `elbo` and `elbo_and_grad`: compiled, since on a small problem its steps are the cost.

from libc.math cimport INFINITY

import numpy as np

from fastelbo._arrays cimport empty_like, problem
from fastelbo._arrays import as_mask, checked_outs
from fastelbo._threads import threads_for
from fastelbo.divergences import as_free_bits, kl_pass
from fastelbo._arguments import as_number
from fastelbo._named import as_likelihood
from fastelbo.likelihoods import Likelihood, check_reduction, own_shapes
from fastelbo.posterior import noise_source
from fastelbo.priors import arrays_of, as_prior, kl_estimate


def objective(x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction,
              num_threads, out=None, bint with_gradient=False, double sign=1.0):
    """((elbo, reconstruction, kl, z), the gradients of `sign` times the ELBO by mu, logvar, and a
    tuple of those by the decoder's outputs; None without)."""
    cdef tuple given, parameters, outputs, latents = None
    cdef object floor = None, noise_key = None, z = None, rows = None, row_kl = None
    cdef object d_mu = None, d_logvar = None, d_outputs = None, reconstruction, kl
    cdef object mask_given
    cdef bint fused, by_row, mean
    cdef double weight, b
    by_row = isinstance(reduction, str) and reduction == "none"
    mean = isinstance(reduction, str) and reduction == "mean"
    if not mean:
        check_reduction(reduction)
    if not isinstance(likelihood, Likelihood):
        likelihood = as_likelihood(likelihood)
    b = beta if type(beta) is float and 0 <= beta < INFINITY else as_number(beta, "beta", 0)
    if type(free_bits) is not float or free_bits != 0.0:
        floor = as_free_bits(free_bits)
    if prior is not None and (prior := as_prior(prior)) is not None:
        if rng is None and noise is None:
            raise ValueError("prior: its KL is estimated by z, so give rng or noise")
        if floor is not None:
            raise ValueError("free_bits needs a KL in closed form, which only prior=None has")
    parameters = likelihood.parameters
    given = x_recon if type(x_recon) is tuple else (x_recon,)
    if len(given) != len(parameters):
        likelihood._miscounted(given)
    data, outputs, m, v, batch, single, work = problem(
        x, given, parameters, mu, logvar, likelihood._layout)
    mask_given = mask
    if mask is not None:
        mask = as_mask(mask, data)
    drawn = noise
    if rng is not None or noise is not None:
        drawn, noise_key = noise_source(rng, noise, m.shape, single)
        z = empty_like(m, single)
    if with_gradient and out is None and len(given) == 1:
        d_mu, d_logvar = empty_like(m, single), empty_like(m, single)
        d_outputs = (empty_like(outputs[0], single),)
    elif with_gradient:
        d_mu, d_logvar, d_outputs = gradient_arrays(
            out, parameters, own_shapes(given, outputs), m, single,
            (x, mu, logvar, noise, mask_given, *given, *arrays_of(prior)))
    if by_row:
        rows, row_kl = np.empty(batch), np.empty(batch)
    weight = sign / batch if mean else sign
    threads = threads_for(work, num_threads)
    fused = floor is None and prior is None and likelihood._fuses_latents
    if fused:
        latents = (m, v, drawn, noise_key, z, d_mu, d_logvar, -b * weight, row_kl)
    reconstruction, kl, _ = likelihood._pass(
        data, outputs, d_outputs, weight, rows, latents, 1, threads, mask)
    if not fused:
        pair = (d_mu, d_logvar) if with_gradient else None
        kl = kl_pass(m, v, drawn, noise_key, z, pair, -b * weight, floor, by_row, threads)
        if prior is not None:
            kl = kl_estimate(prior, m, v, z, pair, b * weight, drawn, noise_key, threads)
            kl = kl if by_row else float(kl.sum())
    elif by_row:
        kl = row_kl
    if by_row:
        reconstruction = rows
    elif mean:
        reconstruction /= batch
        kl /= batch
    return (
        (reconstruction - b * kl, reconstruction, kl, z),
        (d_mu, d_logvar, d_outputs) if with_gradient else None,
    )


cdef tuple gradient_arrays(out, tuple names, shapes, mu, bint single, tuple given):
    """(mu, logvar, tuple of decoder outputs): the caller's arrays where given, else new ones."""
    if out is not None:
        if not isinstance(out, tuple) or len(out) != 3:
            raise TypeError("out must be None or a tuple (mu, logvar, x_recon) like ElboGrad")
        last = out[2] if isinstance(out[2], tuple) else (out[2],)
        out = (*out[:2], *last)
    d_mu, d_logvar, *rest = checked_outs(
        out, [mu.shape, mu.shape, *shapes], single, given, ("mu", "logvar", *names))
    return d_mu, d_logvar, tuple(rest)
