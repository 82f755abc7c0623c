"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from fastelbo._objective import objective
from fastelbo.divergences import as_free_bits
from fastelbo.torch import _checks, composites
from fastelbo.torch._bridge import Operation, kernels_of, run, scaled
from fastelbo.torch._tensors import (
    as_weight,
    by_float32,
    check_prior,
    check_reduction,
    check_tensors,
    half_of,
    has_kernels,
    promoted,
    reduce,
)
from fastelbo.torch.divergences import kl_standard_normal
from fastelbo.torch.likelihoods import Likelihood, as_likelihood
from fastelbo.torch.locations import SquaredError
from fastelbo.torch.posterior import (
    ReparameterizeBackward,
    noise_or_key,
    reparameterize,
    source_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.torch._typing import AnyLikelihood, Outputs, Prior, Weight


class ElboResult(NamedTuple):
    """The parts of an ELBO, in nats: shape (), or (B,) for ``reduction="none"``."""

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor
    z: torch.Tensor | None


def elbo(
    x: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    prior: Prior | None = None,
    beta: Weight = 1.0,
    free_bits: float | FreeBits = 0.0,
    rng: torch.Generator | int | None = None,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> ElboResult:
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
    likelihood : Likelihood or str, optional
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
        x, mu, logvar, x_recon, likelihood, beta, free_bits, mask, reduction, prior, rng, noise
    )


def negative_elbo(x, mu, logvar, x_recon, likelihood, beta, free_bits, mask, reduction):
    """Minus the ELBO, whose gradient is known without a further product."""
    options = likelihood, beta, free_bits, mask, reduction
    return _bound(x, mu, logvar, x_recon, *options, sign=-1.0)[0]


def _bound(
    x,
    mu,
    logvar,
    x_recon,
    likelihood,
    beta,
    free_bits,
    mask,
    reduction,
    prior=None,
    rng=None,
    noise=None,
    sign=1.0,
):
    """An ElboResult, or minus the ELBO in a tuple for a sign of -1.

    In one pass; but from its parts where torch.compile fuses what is left between them, or where
    a row of the minibatch has no gradient of its own to scale.
    """
    likelihood = as_likelihood(likelihood)
    check_prior(prior)
    check_reduction(reduction)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    drawn = rng is not None or noise is not None
    check_tensors(x=x, mu=mu, logvar=logvar, x_recon=outputs[0])
    if mask is not None:
        check_tensors(mask=mask)
    if noise is not None:
        check_tensors(noise=noise)
    if (half := half_of(x, mu, *outputs, *likelihood._held_tensors, logvar)) is not None:
        options = likelihood, beta, free_bits, mask, reduction, prior, rng, noise, sign
        return by_float32(half, _bound, x, mu, logvar, tuple(outputs), *options)
    likelihood, outputs = likelihood._joined(outputs)
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
        if not torch.compiler.is_compiling():
            as_weight(beta, "beta")
        _checks.elbo(likelihood, x, mu, logvar, outputs, mask)
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
    eps = (noise_or_key(rng, noise, mu.dtype),) if drawn else ()
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


@dataclass(eq=False)
class Elbo(Operation):
    """The ELBO, the log-likelihood, the KL, and z if it is drawn, in one pass; or minus the ELBO.

    The latter, alone, for a sign of -1. Of tensors (mu, logvar, *noise or its key, x, *outputs,
    *mask). beta is not zero: the KL's gradient is kept as that of the ELBO, times -beta.
    """

    likelihood: Likelihood
    beta: float
    free_bits: float | FreeBits
    reduction: str
    drawn: int
    masked: int
    sign: float

    @property
    def values(self):
        return 1 if self.sign < 0 else 3 + self.drawn

    def forward(self, arrays, with_gradient, threads):
        mu, logvar, *rest = arrays
        source = source_of(rest.pop(0)) if self.drawn else {}
        mask = rest.pop() if self.masked else None
        x, *outputs = rest
        (elbo_value, reconstruction, kl, z), gradients = objective(
            x,
            mu,
            logvar,
            tuple(outputs),
            kernels_of(self.likelihood),
            None,
            self.beta,
            self.free_bits,
            source.get("rng"),
            source.get("noise"),
            mask,
            self.reduction,
            threads,
            None,
            with_gradient,
            self.sign,
        )
        if with_gradient:
            gradients = (*gradients[:2], *gradients[2])
        values = (elbo_value, reconstruction, kl) if self.sign > 0 else (-elbo_value,)
        return values + ((z,) if self.drawn else ()), gradients or ()

    def shapes(self, tensors):
        mu = tensors[0].shape
        of_rows = mu[:1] if self.reduction == "none" else ()
        return [of_rows] * (self.values - self.drawn) + [mu] * self.drawn

    def slots(self, count):
        return (0, 1, *range(3 + self.drawn, count - self.masked))

    def kept(self, tensors):
        return tensors[:3] if self.drawn else ()

    def backward(self, upstream, gradients, kept, run):
        if self.sign < 0:
            return super().backward(upstream, gradients, kept, run)
        by_elbo, by_reconstruction, by_kl, *by_z = upstream
        of_outputs = _total(by_elbo, 1.0, by_reconstruction)
        of_latents = _total(by_elbo, -1.0 / self.beta, by_kl)
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
