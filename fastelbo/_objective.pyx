# The body of `elbo` and `elbo_and_grad`: compiled, since on a small problem its steps are the cost.

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.string cimport memset

import numpy as np

from fastelbo._arrays cimport empty_like, problem
from fastelbo._dense cimport (
    KL, Dense, bind_event, bind_gradients, bind_latents, bind_reduction, dense_of, is_word,
    may_write, named, new_arrays, new_like, new_rows, run,
)
from fastelbo._kernels.call cimport Call
from fastelbo._kernels.operands cimport FLOAT16, FLOAT32
from fastelbo._arrays import as_mask, checked_outs, hand_over, in_single
from fastelbo._threads import threads_for
from fastelbo.divergences import as_free_bits, kl_pass
from fastelbo._arguments import as_number, weighed
from fastelbo._named import as_likelihood
from fastelbo.likelihoods import Likelihood, check_reduction, own_shapes
from fastelbo.posterior import noise_key as key_of, noise_source
from fastelbo.priors import arrays_of, as_prior, kl_estimate

cdef type LIKELIHOOD = Likelihood


cdef bint bind_noise(Call* call, rng, noise) except -1:
    """Whether it is fit: an array of the dtype of the pass, or a seed, of which nothing is used up."""
    cdef cnp.ndarray a
    if noise is None:
        if type(rng) is not int:
            return False
        call.draws, call.key = True, key_of(rng)
        return True
    if rng is not None or type(noise) is not cnp.ndarray:
        return False
    a = <cnp.ndarray>noise
    call.noise = cnp.PyArray_DATA(a)
    return (cnp.PyArray_ISCARRAY_RO(a)
            and cnp.PyArray_TYPE(a) == (cnp.NPY_FLOAT if call.dtype == FLOAT32 else cnp.NPY_DOUBLE)
            and cnp.PyArray_NDIM(a) == 2 and cnp.PyArray_DIM(a, 0) == call.batch
            and cnp.PyArray_DIM(a, 1) == call.latent)


cdef object short_way(kind, grad_kind, x, mu, logvar, x_recon, likelihood, beta, rng, noise, reduction,
                      out, num_threads):
    """What `value` returns, or `value_and_grad`, where arrays are as a pass takes them; else None."""
    cdef Call call
    cdef Dense dense = dense_of(likelihood, x)
    cdef tuple outputs = x_recon if type(x_recon) is tuple else (x_recon,), d_outputs
    cdef cnp.ndarray d_mu, d_logvar, z = None
    cdef object rows = None, row_kl = None, gradients
    cdef double b = beta, reconstruction, kl
    memset(&call, 0, sizeof(Call))
    if not (bind_event(&call, dense, x, outputs, FLOAT16) and bind_reduction(&call, reduction)):
        return None
    if not bind_latents(&call, mu, logvar, FLOAT16):
        return None
    if rng is not None or noise is not None:
        if not bind_noise(&call, rng, noise):
            return None
        z = empty_like(mu, call.dtype == FLOAT32)
        call.z = cnp.PyArray_DATA(z)
    call.kl_weight = -b * call.weight
    if is_word(reduction, "none"):
        rows, row_kl = new_rows(&call), new_rows(&call)
        call.row_log_prob = <double*>cnp.PyArray_DATA(<cnp.ndarray>rows)
        call.row_kl = <double*>cnp.PyArray_DATA(<cnp.ndarray>row_kl)
    if grad_kind is not None:
        if out is None:
            d_mu, d_logvar, d_outputs = new_like(mu), new_like(logvar), new_arrays(outputs)
        elif not isinstance(out, tuple) or len(<tuple>out) != 3:
            return None
        else:
            out = (*out[:2], *(out[2] if isinstance(out[2], tuple) else out[2:]))
            if not may_write(out, (mu, logvar, *outputs), (x,) if noise is None else (x, noise)):
                return None
            d_mu, d_logvar, d_outputs = out[0], out[1], out[2:]
        call.d_mu = cnp.PyArray_DATA(d_mu)
        call.d_logvar = cnp.PyArray_DATA(d_logvar)
        bind_gradients(&call, d_outputs)
    run(dense, &call, num_threads)
    if call.outside and likelihood._validate:
        return None
    if not dense.handle.follows:
        run(KL, &call, num_threads)
    if rows is not None:
        result = named(kind, (rows - b * row_kl, rows, row_kl, z))
    else:
        reconstruction = call.log_prob
        kl = call.kl
        if is_word(reduction, "mean"):
            reconstruction /= call.batch
            kl /= call.batch
        result = named(kind, (reconstruction - b * kl, reconstruction, kl, z))
    if grad_kind is None:
        return result
    gradients = d_outputs if type(x_recon) is tuple else d_outputs[0]
    return result, named(grad_kind, (d_mu, d_logvar, gradients))


cdef inline bint is_usual(likelihood, prior, beta, free_bits, mask):
    return (prior is None and mask is None
            and type(beta) is float and 0 < <double>beta < INFINITY
            and type(free_bits) is float and <double>free_bits == 0
            and isinstance(likelihood, LIKELIHOOD))


def value(kind, x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction,
          num_threads):
    """What `elbo` returns, as a `kind` of named tuple."""
    if is_usual(likelihood, prior, beta, free_bits, mask):
        result = short_way(
            kind, None, x, mu, logvar, x_recon, likelihood, beta, rng, noise, reduction, None,
            num_threads)
        if result is not None:
            return result
    parts, _ = objective(
        x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction,
        num_threads)
    return named(kind, parts)


def value_and_grad(kind, grad_kind, x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng,
                   noise, mask, reduction, out, num_threads):
    """What `elbo_and_grad` returns."""
    if is_usual(likelihood, prior, beta, free_bits, mask):
        result = short_way(
            kind, grad_kind, x, mu, logvar, x_recon, likelihood, beta, rng, noise, reduction, out,
            num_threads)
        if result is not None:
            return result
    parts, (d_mu, d_logvar, d_outputs) = objective(
        x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction,
        num_threads, out, True)
    d_x_recon = d_outputs if type(x_recon) is tuple else d_outputs[0]
    return named(kind, parts), named(grad_kind, (d_mu, d_logvar, d_x_recon))


def objective(x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction,
              num_threads, out=None, bint with_gradient=False, double sign=1.0):
    """((elbo, reconstruction, kl, z), the gradients of `sign` times the ELBO by mu, logvar, and a
    tuple of those by the decoder's outputs; None without)."""
    cdef tuple given, parameters, outputs, latents = None, gradients = None
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
        x, given, parameters, mu, logvar, likelihood._layout, likelihood._reads_halves)
    mask_given = mask
    if mask is not None:
        mask = as_mask(mask, data)
    drawn = noise
    if rng is not None or noise is not None:
        drawn, noise_key = noise_source(rng, noise, m.shape, single)
        z = empty_like(m, single)
    if with_gradient:
        gradients = gradient_arrays(
            out, parameters, own_shapes(given, outputs), m, single, (mu, logvar, *given),
            (x, noise, mask_given, *arrays_of(prior)))
        d_mu, d_logvar = in_single(gradients[:2])
        d_outputs = gradients[2:] if likelihood._reads_halves else in_single(gradients[2:])
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
    if with_gradient:
        hand_over((d_mu, d_logvar, *d_outputs), gradients)
    return (
        (reconstruction - (b * kl if b != 0 else weighed(b, kl)), reconstruction, kl, z),
        (gradients[0], gradients[1], gradients[2:]) if with_gradient else None,
    )


cdef tuple gradient_arrays(out, tuple names, shapes, mu, bint single, tuple given, tuple others):
    """Of mu, logvar and the decoder's outputs, `given`: the caller's arrays where there are any, else
    new ones. `others` are inputs, too."""
    if out is not None:
        if not isinstance(out, tuple) or len(out) != 3:
            raise TypeError("out must be None or a tuple (mu, logvar, x_recon) like ElboGrad")
        last = out[2] if isinstance(out[2], tuple) else (out[2],)
        out = (*out[:2], *last)
    return checked_outs(out, [mu.shape, mu.shape, *shapes], single, given + others,
                        ("mu", "logvar", *names), given)
