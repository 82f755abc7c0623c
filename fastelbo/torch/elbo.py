"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from fastelbo import _arrays, _torch_bridge
from fastelbo._objective import objective
from fastelbo.divergences import as_free_bits
from fastelbo.torch import _checks
from fastelbo.torch._bridge import Operation, kernels_of, run, scaled
from fastelbo.torch._tensors import (
    as_weight,
    by_float32,
    check_reduction,
    check_tensors,
    half_of,
    has_kernels,
    may_be_usual,
    promoted,
    reads_halves,
    reduce,
    to_differentiate,
    unrounded,
    usual,
)
from fastelbo.torch.divergences import counted, kl_standard_normal
from fastelbo.torch.likelihoods import Likelihood, as_likelihood
from fastelbo.torch.locations import SquaredError
from fastelbo.torch.posterior import (
    ReparameterizeBackward,
    log_prob_of_own,
    noise_or_key,
    posterior_log_prob,
    reparameterize,
    source_of,
)
from fastelbo.torch.priors import as_prior, log_density

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.torch._typing import AnyLikelihood, AnyPrior, Outputs, Weight


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
    prior: AnyPrior | None = None,
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
        p(z); None is N(0, I). Else one of this module's or of fastelbo's, or anything with a
        differentiable method ``log_prob(z)`` that gives (B,), as distributions of PyTorch have.
        With it the KL is estimated by the one z that rng or noise gives:
        log q(z|x) - log p(z).
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


#: Of gradients that are only scaled.
_SCALED = Operation()


def negative_elbo(
    x, mu, logvar, x_recon, likelihood, beta, free_bits, mask, reduction, prior=None, z=None
):
    """Minus the ELBO, whose gradient is known without a further product; z is the decoder's."""
    if may_be_usual() and prior is None and z is None and mask is None and not free_bits:
        loss = _torch_bridge.loss(_SCALED, x, mu, logvar, x_recon, likelihood, beta, reduction)
        if loss is not None:
            return loss
    options = likelihood, beta, free_bits, mask, reduction, prior
    return _bound(x, mu, logvar, x_recon, *options, z=z, sign=-1.0)[0]


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
    z=None,
    sign=1.0,
):
    """An ElboResult, or minus the ELBO in a tuple for a sign of -1."""
    likelihood = as_likelihood(likelihood)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    if len(outputs) > 1:
        outputs = (outputs[0], *likelihood._unexpanded(outputs[1:], reduction))
    plain = prior is None and rng is None and noise is None and mask is None and z is None
    if (
        plain
        and likelihood.held is None
        and type(reduction) is str
        and reduction in ("mean", "sum")
        and type(beta) is float
        and beta != 0
        and usual(x, mu, logvar, *outputs)
        and not x.requires_grad
    ):
        return _fused(likelihood, x, mu, logvar, outputs, beta, free_bits, reduction, sign)
    options = likelihood, beta, free_bits, mask, reduction, as_prior(prior), rng, noise, z, sign
    return _bound_of_any(x, mu, logvar, tuple(outputs), *options)


def _fuses(likelihood, outputs, beta, reduction):
    """Whether one pass gives all: else from its parts, as where a row of the minibatch has no
    gradient of its own to scale."""
    if not isinstance(beta, int | float) or beta == 0:
        return False
    return reduction != "none" or (len(outputs) == 1 and not likelihood.couples_rows(reduction))


def _fuses_in_graph(likelihood, beta, free_bits, reduction):
    """Whether one operator of torch.compile's graph gives minus the ELBO."""
    return (
        reduction != "none"
        and isinstance(beta, int | float)
        and isinstance(free_bits, int | float)
        and free_bits == 0
        and not likelihood.couples_rows(reduction)
    )


def _fused(likelihood, x, mu, logvar, outputs, beta, free_bits, reduction, sign, eps=(), masks=()):
    """`_bound` in one pass."""
    kind = Elbo if sign > 0 else NegativeElbo
    operation = kind(likelihood, beta, free_bits, reduction, len(eps), len(masks))
    values = run(operation, mu, logvar, *outputs, x, *eps, *masks)
    if sign < 0:
        return values
    return ElboResult(*values) if eps else ElboResult(*values, None)


def _bound_of_any(
    x, mu, logvar, outputs, likelihood, beta, free_bits, mask, reduction, prior, rng, noise, z, sign
):
    """`_bound` of whatever there is; in torch.compile from its parts, between which it fuses what
    is left."""
    check_reduction(reduction)
    drawn = rng is not None or noise is not None
    check_tensors(x=x, mu=mu, logvar=logvar, x_recon=outputs[0])
    if mask is not None:
        check_tensors(mask=mask)
    if noise is not None:
        check_tensors(noise=noise)
    if z is not None and z.shape != mu.shape:
        raise _arrays.shape_error("z", z.shape, f"that of mu, {tuple(mu.shape)}")
    if (
        reads_halves(*outputs)
        and not (drawn or free_bits)
        and prior is mask is z is likelihood.held is None
        and _fuses(likelihood, outputs, beta, reduction)
    ):
        kind = Elbo if sign > 0 else NegativeElbo
        operation = kind(likelihood, beta, 0.0, reduction, 0, 0)
        if (values := _torch_bridge.by_halves(operation, mu, logvar, *outputs, x)) is not None:
            return values if sign < 0 else ElboResult(*values, None)
    if (half := half_of(x, mu, *outputs, *likelihood._held_tensors, logvar)) is not None:
        options = likelihood, beta, free_bits, mask, reduction, prior, rng, noise, z, sign
        return by_float32(half, _bound_of_any, x, mu, logvar, outputs, *options)
    likelihood, outputs = likelihood._joined(outputs)
    if (
        not torch.compiler.is_compiling()
        and prior is None
        and _fuses(likelihood, outputs, beta, reduction)
        and all([isinstance(t, torch.Tensor) for t in outputs])
        and has_kernels(x, mu, logvar, *outputs, constants=(x, noise))
    ):
        x, mu, logvar, *outputs = promoted(x, mu, logvar, *outputs)
        eps = (noise_or_key(rng, noise, mu.dtype),) if drawn else ()
        masks = () if mask is None else (mask,)
        options = beta, free_bits, reduction, sign, eps, masks
        return _fused(likelihood, x, mu, logvar, outputs, *options)
    if not torch.compiler.is_compiling():
        as_weight(beta, "beta")
    elif (
        sign < 0
        and prior is None
        and z is None
        and _fuses_in_graph(likelihood, beta, free_bits, reduction)
        and has_kernels(x, mu, logvar, *outputs, constants=(x,))
    ):
        x, mu, logvar, *outputs = promoted(x, mu, logvar, *outputs)
        weight = torch.ones((), dtype=torch.float64) * beta  # no constant of the graph
        masks = () if mask is None else (mask,)
        operation = WeightedElbo(likelihood, reduction, len(masks))
        return run(operation, mu, logvar, *outputs, x, weight, *masks)
    mu, logvar, z, outputs = unrounded(mu, logvar, z, tuple(outputs))
    _checks.elbo(likelihood, x, mu, logvar, outputs, mask)
    reconstruction = likelihood.log_prob(x, *outputs, mask=mask, reduction=reduction)
    if drawn:
        z = reparameterize(mu, logvar, rng=rng, noise=noise)
    if prior is None:
        options = {"free_bits": free_bits, "reduction": reduction}
        cost = kl = kl_standard_normal(mu, logvar, **options)
        if (latents := counted(beta, mu, logvar))[0] is not mu:
            cost = kl_standard_normal(*latents, **options)
    else:
        kl = reduce(_kl_estimate(prior, mu, logvar, z, free_bits, drawn, noise), reduction)
        cost = kl
    if sign < 0:
        return (beta * cost - reconstruction,)
    return ElboResult(reconstruction - beta * cost, reconstruction, kl, z)


def _kl_estimate(prior, mu, logvar, z, free_bits, drawn, noise):
    """log q(z|x) - log p(z), (B,)."""
    if z is None:
        raise ValueError("prior: its KL is estimated by z, so give rng or noise, or a loss its z")
    if as_free_bits(free_bits) is not None:
        raise ValueError("free_bits needs a KL in closed form, which only prior=None has")
    if not drawn or (noise is not None and to_differentiate(noise)):
        log_q = posterior_log_prob(z, mu, logvar, reduction="none")
    else:
        log_q = log_prob_of_own(z, mu, logvar)
    return log_q - log_density(prior, z)


@dataclass(eq=False)
class Elbo(Operation):
    """The ELBO, the log-likelihood, the KL, and z if it is drawn, in one pass.

    Of tensors (mu, logvar, *outputs, x, *noise or its key, *mask). beta is not zero: the KL's
    gradient is kept as that of the ELBO, times -beta.
    """

    likelihood: Likelihood
    beta: float
    free_bits: float | FreeBits
    reduction: str
    drawn: int
    masked: int

    #: Gradients are those of this times the ELBO.
    sign = 1.0

    @property
    def values(self):
        return 3 + self.drawn

    @property
    def constants(self):
        return 1 + self.drawn + self.masked

    def combined(self, log_prob, kl):
        """The values of these."""
        return log_prob - self.beta * kl, log_prob, kl

    def short(self, tensors, with_gradient):
        if self.drawn or self.masked or self.free_bits:
            return None
        how = self.likelihood, self.beta, self.reduction, self.sign, self.combined
        return _torch_bridge.short_way(*how, tensors, with_gradient)

    def forward(self, arrays, with_gradient, threads):
        parts, gradients = self._signed(arrays, with_gradient, threads)
        return parts if self.drawn else parts[:3], gradients

    def _signed(self, arrays, with_gradient, threads):
        """The parts, and the gradients of `sign` times the ELBO."""
        mask = arrays.pop() if self.masked else None
        source = source_of(arrays.pop()) if self.drawn else {}
        mu, logvar, *outputs, x = arrays
        parts, gradients = objective(
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
        return parts, (*gradients[:2], *gradients[2]) if with_gradient else ()

    def shapes(self, tensors):
        mu = tensors[0].shape
        of_rows = mu[:1] if self.reduction == "none" else ()
        return [of_rows] * 3 + [mu] * self.drawn

    def kept(self, tensors):
        return (*tensors[:2], tensors[-1 - self.masked]) if self.drawn else ()

    def backward(self, upstream, gradients, kept, run):
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


class NegativeElbo(Elbo):
    """Minus the ELBO, alone, of the same tensors but noise."""

    values, sign = 1, -1.0
    kept, backward = Operation.kept, Operation.backward

    def combined(self, log_prob, kl):
        return (self.beta * kl - log_prob,)

    def forward(self, arrays, with_gradient, threads):
        (value, *_), gradients = self._signed(arrays, with_gradient, threads)
        return (-value,), gradients

    def shapes(self, tensors):
        return super().shapes(tensors)[:1]


@dataclass(eq=False)
class WeightedElbo(Operation):
    """Minus the ELBO, of tensors (mu, logvar, *outputs, x, beta, *mask).

    For torch.compile, which would take an option for a constant and compile again for every other
    beta; and to which each operator of the graph costs as much as a small problem.
    """

    likelihood: Likelihood
    reduction: str
    masked: int

    @property
    def constants(self):
        return 2 + self.masked

    def _at(self, beta):
        return NegativeElbo(self.likelihood, beta, 0.0, self.reduction, 0, self.masked)

    def short(self, tensors, with_gradient):
        *rest, beta = tensors[: len(tensors) - self.masked]
        return self._at(beta.item()).short(tuple(rest), with_gradient)

    def forward(self, arrays, with_gradient, threads):
        beta = arrays.pop(-1 - self.masked)
        return self._at(beta.item()).forward(arrays, with_gradient, threads)


def _total(by_sum, weight, by_part):
    """by_sum + weight by_part, where None is nothing."""
    if by_part is None:
        return by_sum
    return weight * by_part if by_sum is None else by_sum + weight * by_part
