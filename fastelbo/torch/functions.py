"""fastelbo's functions on tensors, differentiable."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

import fastelbo
from fastelbo._objective import objective
from fastelbo.divergences import as_free_bits
from fastelbo.importance import ESTIMATORS, _bound_and_grad
from fastelbo.torch import composites
from fastelbo.torch._bridge import Operation, kernels_of, run, scaled
from fastelbo.torch._tensors import (
    check_prior,
    check_reduction,
    check_tensors,
    has_kernels,
    key_of,
    promoted,
    reduce,
)
from fastelbo.torch.likelihoods import Likelihood, SquaredError

_KEY = (1 << 64) - 1


def _source(array):
    """The keyword of fastelbo's functions that stands for eps: itself, or the key to draw it by."""
    if array.dtype == np.int64:
        return {"rng": int(array) & _KEY}
    return {"noise": array}


# Divergences ------------------------------------------------------------------------------------


class KlStandardNormal(Operation):
    """Of tensors (mu, logvar)."""

    def forward(self, arrays, with_gradient, threads):
        free_bits, reduction = self.options
        options = {"free_bits": free_bits, "reduction": reduction, "num_threads": threads}
        if not with_gradient:
            return (fastelbo.kl_standard_normal(*arrays, **options),), ()
        value, gradients = fastelbo.kl_standard_normal_and_grad(*arrays, **options)
        return (value,), gradients

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.options[1] == "none" else ()]


class KlAboveThreshold(Operation):
    """Of tensors (mu, logvar, threshold of free bits).

    For torch.compile, which would take an option for a constant and compile again for every other
    threshold.
    """

    def forward(self, arrays, with_gradient, threads):
        *latents, threshold = arrays
        granularity, below, reduction = self.options
        floor = fastelbo.FreeBits(threshold.item(), granularity=granularity, below=below)
        return KlStandardNormal(floor, reduction).forward(latents, with_gradient, threads)

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.options[2] == "none" else ()]

    def slots(self, count):
        return range(2)


class KlNormal(Operation):
    """Of tensors (mu_q, logvar_q, mu_p, logvar_p)."""

    def forward(self, arrays, with_gradient, threads):
        options = {"reduction": self.options[0], "num_threads": threads}
        if not with_gradient:
            return (fastelbo.kl_normal(*arrays, **options),), ()
        value, gradients = fastelbo.kl_normal_and_grad(*arrays, **options)
        return (value,), gradients

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.options[0] == "none" else ()]


class KlFullNormal(KlNormal):
    """Of tensors (mu_q, tril_q, mu_p, tril_p)."""

    def forward(self, arrays, with_gradient, threads):
        (reduction,) = self.options
        if not with_gradient:
            return (fastelbo.kl_full_normal(*arrays, reduction=reduction),), ()
        value, gradients = fastelbo.kl_full_normal_and_grad(*arrays, reduction=reduction)
        return (value,), gradients


def kl_standard_normal(mu, logvar, *, free_bits=0.0, reduction="mean"):
    """KL(N(mu, diag(e^logvar)) || N(0, I)); see :func:`fastelbo.kl_standard_normal`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (B, L)
    free_bits : float or FreeBits, optional
        A floor under the KL, by latent dimension if a number.
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
    >>> mu = torch.tensor([[1.0, 1.0]], requires_grad=True)
    >>> kl = fastelbo.torch.kl_standard_normal(mu, torch.zeros(1, 2))
    >>> kl.backward()
    >>> kl.item(), mu.grad
    (1.0, tensor([[1., 1.]]))
    """
    check_reduction(reduction)
    check_tensors(mu=mu, logvar=logvar)
    mu, logvar = promoted(mu, logvar)
    if not has_kernels(mu, logvar):
        return composites.kl_standard_normal(mu, logvar, free_bits, reduction)
    if torch.compiler.is_compiling():
        threshold, how = free_bits, ("dimension", "floor")
        if isinstance(free_bits, fastelbo.FreeBits):
            threshold, how = free_bits.threshold, (free_bits.granularity, free_bits.below)
        threshold = torch.ones((), dtype=torch.float64) * threshold  # no constant of the graph
        return run(KlAboveThreshold(*how, reduction), mu, logvar, threshold)[0]
    return run(KlStandardNormal(free_bits, reduction), mu, logvar)[0]


def kl_normal(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean"):
    """KL(N(mu_q, diag(e^logvar_q)) || N(mu_p, diag(e^logvar_p))); see :func:`fastelbo.kl_normal`.

    Parameters
    ----------
    mu_q, logvar_q, mu_p, logvar_p : Tensor, shape (B, L)
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
    >>> zero = torch.zeros(1, 1)
    >>> fastelbo.torch.kl_normal(zero + 3, zero, zero + 1, zero)
    tensor(2.)
    """
    check_reduction(reduction)
    check_tensors(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    tensors = promoted(mu_q, logvar_q, mu_p, logvar_p)
    if not has_kernels(*tensors):
        return composites.kl_normal(*tensors, reduction)
    return run(KlNormal(reduction), *tensors)[0]


def kl_full_normal(mu_q, tril_q, mu_p, tril_p, *, reduction="mean"):
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), covariances by Cholesky factors.

    See :func:`fastelbo.kl_full_normal`.

    Parameters
    ----------
    mu_q, mu_p : Tensor, shape (B, L)
    tril_q, tril_p : Tensor, shape (B, L, L) or (L, L)
        Lower-triangular Cholesky factors with a positive diagonal, of each sample or of all. What
        lies above the diagonal is not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes do not fit or, on the CPU, a diagonal is not positive.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> one = torch.ones(1, 1)
    >>> tril_q = torch.ones(1, 1, 1, requires_grad=True)
    >>> kl = fastelbo.torch.kl_full_normal(3 * one, tril_q, one, 2 * one)
    >>> kl.backward()
    >>> kl.detach(), tril_q.grad
    (tensor(0.8181), tensor([[[-0.7500]]]))
    """
    check_reduction(reduction)
    check_tensors(mu_q=mu_q, tril_q=tril_q, mu_p=mu_p, tril_p=tril_p)
    mu_q, tril_q, mu_p, tril_p = promoted(mu_q, tril_q, mu_p, tril_p)
    if not has_kernels(mu_q, tril_q, mu_p, tril_p):
        return composites.kl_full_normal(mu_q, tril_q, mu_p, tril_p, reduction)
    if reduction == "none":
        # A row's gradient must be its own to be scaled: PyTorch adds up what is shared.
        tril_q, tril_p = (
            tril.expand(len(mu_q), *tril.shape) if tril.ndim == 2 else tril
            for tril in (tril_q, tril_p)
        )
    return run(KlFullNormal(reduction), mu_q, tril_q, mu_p, tril_p)[0]


# Samples of the posterior -----------------------------------------------------------------------


class Reparameterize(Operation):
    """z, of tensors (mu, logvar, noise or its key)."""

    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        mu, logvar, noise = arrays
        options = {"samples": self.options[0], "num_threads": threads, **_source(noise)}
        return (fastelbo.reparameterize(mu, logvar, **options),), ()

    def shapes(self, tensors):
        (samples,) = self.options
        return [tensors[0].shape if samples is None else (samples, *tensors[0].shape)]

    def slots(self, count):
        return range(2)

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        return run(ReparameterizeBackward(), upstream[0], *kept)


class ReparameterizeBackward(Operation):
    """What flows to mu and logvar, of tensors (grad_z, mu, logvar, noise or its key)."""

    values = 2
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        *rest, noise = arrays
        options = {"num_threads": threads, **_source(noise)}
        return fastelbo.reparameterize_backward(*rest, None, **options), ()

    def shapes(self, tensors):
        return [tensors[1].shape, tensors[2].shape]


def reparameterize(mu, logvar, *, rng=None, noise=None, samples=None):
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
    check_tensors(mu=mu, logvar=logvar)
    mu, logvar = promoted(mu, logvar)
    if not has_kernels(mu, logvar, constants=(noise,)):
        return composites.reparameterize(mu, logvar, rng, noise, samples)
    return run(Reparameterize(samples), mu, logvar, _noise_or_key(rng, noise, mu.dtype))[0]


def _noise_or_key(rng, noise, dtype):
    if noise is None:
        return key_of(rng)
    if rng is not None:
        raise ValueError("give rng or noise, not both")
    check_tensors(noise=noise)
    return noise.to(dtype)


def reparameterize_kl(
    mu, logvar, *, rng=None, noise=None, samples=None, free_bits=0.0, reduction="mean"
):
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


# Bounds -----------------------------------------------------------------------------------------


class ElboResult(NamedTuple):
    """The parts of an ELBO, in nats: shape (), or (B,) for ``reduction="none"``."""

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor
    z: torch.Tensor | None


class Elbo(Operation):
    """The ELBO, the log-likelihood, the KL, and z if it is drawn, in one pass; or minus the ELBO.

    The latter, alone, for a sign of -1. Of tensors (mu, logvar, *noise or its key, x, *outputs,
    *mask). beta is not zero: the KL's gradient is kept as that of the ELBO, times -beta.
    """

    def __init__(self, *options):
        super().__init__(*options)
        self.values = 1 if options[-1] < 0 else 3 + options[-3]

    def forward(self, arrays, with_gradient, threads):
        likelihood, beta, free_bits, reduction, drawn, masked, sign = self.options
        mu, logvar, *rest = arrays
        source = _source(rest.pop(0)) if drawn else {}
        mask = rest.pop() if masked else None
        x, *outputs = rest
        (elbo_value, reconstruction, kl, z), gradients = objective(
            x,
            mu,
            logvar,
            tuple(outputs),
            kernels_of(likelihood),
            None,
            beta,
            free_bits,
            source.get("rng"),
            source.get("noise"),
            mask,
            reduction,
            threads,
            None,
            with_gradient,
            sign,
        )
        if with_gradient:
            gradients = (*gradients[:2], *gradients[2])
        values = (elbo_value, reconstruction, kl) if sign > 0 else (-elbo_value,)
        return values + ((z,) if drawn else ()), gradients or ()

    def shapes(self, tensors):
        mu = tensors[0].shape
        *_, reduction, drawn, _, _ = self.options
        of_rows = mu[:1] if reduction == "none" else ()
        return [of_rows] * (self.values - drawn) + [mu] * drawn

    def slots(self, count):
        *_, drawn, masked, _ = self.options
        return (0, 1, *range(3 + drawn, count - masked))

    def kept(self, tensors):
        return tensors[:3] if self.options[-3] else ()

    def backward(self, upstream, gradients, kept, run):
        if self.values == 1:
            return super().backward(upstream, gradients, kept, run)
        by_elbo, by_reconstruction, by_kl, *by_z = upstream
        of_outputs = _total(by_elbo, 1.0, by_reconstruction)
        of_latents = _total(by_elbo, -1.0 / self.options[1], by_kl)
        flows = [None if of_latents is None else scaled(g, of_latents) for g in gradients[:2]]
        if by_z and by_z[0] is not None:
            through_z = run(ReparameterizeBackward(), by_z[0], *kept)
            flows = [z if f is None else f + z for f, z in zip(flows, through_z, strict=True)]
        return [
            *flows,
            *(None if of_outputs is None else scaled(g, of_outputs) for g in gradients[2:]),
        ]


def _total(by_sum, weight, by_part):
    """by_sum + weight by_part, where None is nothing."""
    if by_part is None:
        return by_sum
    return weight * by_part if by_sum is None else by_sum + weight * by_part


def elbo(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=SquaredError(),  # noqa: B008
    prior=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    mask=None,
    reduction="mean",
):
    """Evidence lower bound of a VAE with a diagonal Gaussian posterior; see :func:`fastelbo.elbo`.

    The gradient is computed with the value, in one pass over memory, and only scaled later.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Data; uint8 and other integers are read as they are.
    mu, logvar : Tensor, shape (B, L)
        Parameters of q(z|x) = N(mu, diag(e^logvar)).
    x_recon : Tensor or tuple of Tensor
        What the decoder gives, as the likelihood reads it.
    likelihood : Likelihood, optional
        One of this module's.
    prior : object, optional
        p(z), with a differentiable method ``log_prob(z)`` that gives (B,), as distributions of
        PyTorch have; None is N(0, I). With it the KL is estimated by the one z that rng or noise
        gives, in PyTorch operations.
    beta : float, optional
        Weight of the KL.
    free_bits : float or FreeBits, optional
    rng : torch.Generator or int, optional
        Draw z, too, as :func:`reparameterize` does.
    noise : Tensor, shape (B, L), optional
        eps itself, instead of `rng`.
    mask : Tensor of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    ElboResult
        ``elbo``, ``reconstruction`` (the log-likelihood), ``kl`` and ``z``, which is None unless
        rng or noise is given. Gradients flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> x, one, zero = torch.tensor([[1.0, 2.0]]), torch.ones(1, 1), torch.zeros(1, 1)
    >>> x_recon = torch.tensor([[1.0, 0.0]], requires_grad=True)
    >>> loss = -fastelbo.torch.elbo(x, one, zero, x_recon).elbo
    >>> loss.backward()
    >>> loss.item(), x_recon.grad
    (4.5, tensor([[-0., -4.]]))
    """
    return _bound(
        x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask, reduction
    )


def negative_elbo(x, mu, logvar, x_recon, likelihood, beta, free_bits, mask, reduction):
    """Minus the ELBO, whose gradient is known without a further product."""
    result = _bound(
        x, mu, logvar, x_recon, likelihood, None, beta, free_bits, None, None, mask, reduction, -1.0
    )
    return result[0]


def _bound(
    x,
    mu,
    logvar,
    x_recon,
    likelihood,
    prior,
    beta,
    free_bits,
    rng,
    noise,
    mask,
    reduction,
    sign=1.0,
):
    """An ElboResult, or minus the ELBO in a tuple for a sign of -1.

    In one pass; but from its parts where torch.compile fuses what is left between them, or where
    a row of the minibatch has no gradient of its own to scale.
    """
    if not isinstance(likelihood, Likelihood):
        raise TypeError(f"likelihood must be one of fastelbo.torch, got {likelihood!r}")
    check_prior(prior)
    check_reduction(reduction)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    drawn = rng is not None or noise is not None
    check_tensors(x=x, mu=mu, logvar=logvar, x_recon=outputs[0])
    fused = (
        not torch.compiler.is_compiling()
        and prior is None
        and isinstance(beta, int | float)
        and beta != 0
        and (reduction != "none" or (len(outputs) == 1 and not likelihood.couples_rows(reduction)))
        and all([isinstance(t, torch.Tensor) for t in outputs])
        and has_kernels(x, mu, logvar, *outputs, constants=(x, noise))
    )
    if not fused:
        reconstruction = likelihood.log_prob(x, *outputs, mask=mask, reduction=reduction)
        z = reparameterize(mu, logvar, rng=rng, noise=noise) if drawn else None
        if prior is None:
            kl = kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)
        else:
            kl = reduce(_kl_estimate(prior, mu, logvar, z, free_bits), reduction)
        if sign < 0:
            return (beta * kl - reconstruction,)
        return ElboResult(reconstruction - beta * kl, reconstruction, kl, z)
    x, mu, logvar, *outputs = promoted(x, mu, logvar, *outputs)
    eps = (_noise_or_key(rng, noise, mu.dtype),) if drawn else ()
    masks = () if mask is None else (mask,)
    operation = Elbo(likelihood, beta, free_bits, reduction, len(eps), len(masks), sign)
    values = run(operation, mu, logvar, *eps, x, *outputs, *masks)
    if sign < 0:
        return values
    return ElboResult(*values) if drawn else ElboResult(*values, None)


def _kl_estimate(prior, mu, logvar, z, free_bits):
    """log q(z|x) - log p(z), (B,)."""
    if z is None:
        raise ValueError("prior: its KL is estimated by z, so give rng or noise")
    if as_free_bits(free_bits) is not None:
        raise ValueError("free_bits needs a KL in closed form, which only prior=None has")
    return composites.log_posterior(z, mu, logvar) - composites.log_prior(prior, z)


class Iwae(Operation):
    """`sign` times the bound, and perhaps the normalised weights, (K, B).

    Of tensors (x, z, mu, logvar, *outputs, *mask).
    """

    def __init__(self, *options):
        super().__init__(*options)
        self.values = 1 + options[-2]

    def forward(self, arrays, with_gradient, threads):
        likelihood, estimator, reduction, masked, weighted, sign = self.options
        mask = arrays.pop() if masked else None
        x, z, mu, logvar, *outputs = arrays
        given = (x, z, mu, logvar, tuple(outputs))
        likelihood = kernels_of(likelihood)
        if not with_gradient and not weighted:
            options = {"mask": mask, "reduction": reduction, "num_threads": threads}
            return (sign * fastelbo.iwae(*given, likelihood=likelihood, **options),), ()
        bound, gradients = _bound_and_grad(
            *given, likelihood, None, mask, estimator, reduction, None, threads, sign
        )
        weights = (gradients.weights,) if weighted else ()
        slopes = (*gradients[:3], *gradients.x_recon) if with_gradient else ()
        return (sign * bound, *weights), slopes

    def shapes(self, tensors):
        bound = tensors[2].shape[:1] if self.options[2] == "none" else ()
        return [bound, tensors[1].shape[:2]][: self.values]

    def slots(self, count):
        return range(1, count - self.options[3])

    def backward(self, upstream, gradients, kept, run):
        factor = upstream[0]
        over_samples = factor
        if isinstance(factor, torch.Tensor) and factor.ndim:
            over_samples = factor.expand(gradients[0].shape[:2])
        return [
            scaled(gradients[0], over_samples),
            *(scaled(g, factor) for g in gradients[1:3]),
            *(scaled(g, over_samples) for g in gradients[3:]),
        ]


def iwae(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=SquaredError(),  # noqa: B008
    prior=None,
    mask=None,
    estimator="standard",
    reduction="mean",
):
    """Importance-weighted bound of K samples z of each x; see :func:`fastelbo.iwae`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
    z : Tensor, shape (K, B, L)
        Samples of q(z|x), from ``reparameterize(mu, logvar, samples=K)`` for example.
    mu, logvar : Tensor, shape (B, L)
    x_recon : Tensor, shape (K, B, ...), or a tuple of them
        What the decoder makes of z.
    likelihood : Likelihood, optional
        One of this module's.
    prior : object, optional
        p(z), with a differentiable method ``log_prob(z)`` that gives (K, B), as distributions of
        PyTorch have; None is N(0, I). With it the weights are PyTorch operations.
    mask : Tensor of bool, optional
        True where x was observed; broadcasts to x.
    estimator : {"standard", "stl", "dreg"}
        Of the gradient; ``"stl"`` (sticking the landing) leaves out what reaches mu and logvar
        through log q(z|x) for given z. ``"dreg"`` (doubly reparameterized) does, too, and a hook
        multiplies the whole gradient of z by the normalised weights when a backward pass goes
        through the bound: z must be the tensor that the decoder was given, and serve nothing
        else in that pass. It breaks the graph of torch.compile.
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
    >>> x, mu, logvar = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1), torch.zeros(1, 1)
    >>> z = torch.tensor([[[0.0]], [[1.0]]])
    >>> fastelbo.torch.iwae(x, z, mu, logvar, z * x)
    tensor(-0.6864)
    """
    return signed_iwae(
        x, z, mu, logvar, x_recon, likelihood, prior, mask, estimator, reduction, 1.0
    )


def signed_iwae(x, z, mu, logvar, x_recon, likelihood, prior, mask, estimator, reduction, sign):
    """`sign` times the bound; its gradient is known without a further product."""
    if not isinstance(likelihood, Likelihood):
        raise TypeError(f"likelihood must be one of fastelbo.torch, got {likelihood!r}")
    check_prior(prior)
    check_reduction(reduction)
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    check_tensors(x=x, z=z, mu=mu, logvar=logvar, x_recon=outputs[0])
    sampled = z
    weighted = estimator == "dreg" and z.requires_grad and torch.is_grad_enabled()
    if weighted and torch.compiler.is_compiling():
        raise NotImplementedError('estimator="dreg" needs a hook that torch.compile cannot trace')
    estimator = "stl" if estimator == "dreg" else estimator
    outputs = [torch.as_tensor(p, dtype=z.dtype, device=z.device) for p in outputs]
    x, z, mu, logvar, *outputs = promoted(x, z, mu, logvar, *outputs)
    if prior is None and has_kernels(x, z, mu, logvar, *outputs, constants=(x,)):
        outputs = torch.broadcast_tensors(*outputs) if len(outputs) > 1 else outputs
        masks = () if mask is None else (mask,)
        operation = Iwae(likelihood, estimator, reduction, len(masks), weighted, sign)
        value, *weights = run(operation, x, z, mu, logvar, *outputs, *masks)
    else:
        log_p = likelihood.log_prob(x, *outputs, mask=mask, reduction="none")
        if estimator == "stl":
            mu, logvar = mu.detach(), logvar.detach()
        log_q = composites.log_posterior(z, mu, logvar)
        log_w = log_p + composites.log_prior(prior, z) - log_q
        value = sign * composites.iwae(log_w, reduction)
        weights = [torch.softmax(log_w, 0)] if weighted else []
    if weights:
        _weigh_gradient(sampled, value, weights[0].detach().unsqueeze(-1))
    return value


def _weigh_gradient(z, value, factor):
    """Multiply the gradient of z by a factor in the backward passes that go through `value`."""
    if not hasattr(z, "_dreg_factors"):
        z._dreg_factors = []
        z.register_hook(partial(_weighed, z._dreg_factors))
    factors = z._dreg_factors
    value.register_hook(lambda _: factors.append((_pass_id(), factor)))


def _weighed(factors, gradient):
    """The gradient times the factor of this pass, if there is one."""
    active = [factor for of_pass, factor in factors if of_pass == _pass_id()]
    factors.clear()
    if len(active) > 1:
        raise RuntimeError(
            'z serves two bounds with estimator="dreg" in one backward pass, which would weigh '
            "each other's gradient: draw samples for each, or go backward one after the other"
        )
    return gradient * active[0].to(gradient.dtype) if active else gradient


def _pass_id():
    return torch._C._current_graph_task_id()
