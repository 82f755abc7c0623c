"""The importance-weighted bound, and its doubly reparameterized gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch

import fastelbo
from fastelbo._arguments import check_choice
from fastelbo.importance import ESTIMATORS, _bound_and_grad
from fastelbo.torch import _checks
from fastelbo.torch._bridge import Operation, kernels_of, run, scaled
from fastelbo.torch._tensors import (
    beside,
    check_reduction,
    check_tensors,
    half_of,
    has_kernels,
    is_transforming,
    narrowed,
    promoted,
)
from fastelbo.torch.bounds import importance_bound, normalized_weights
from fastelbo.torch.likelihoods import Likelihood, as_likelihood
from fastelbo.torch.locations import SquaredError
from fastelbo.torch.posterior import posterior_log_prob
from fastelbo.torch.priors import as_prior, log_density

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.torch._typing import AnyLikelihood, AnyPrior, Outputs


def iwae(
    x: Tensor,
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    prior: AnyPrior | None = None,
    mask: Tensor | None = None,
    estimator: Literal["standard", "stl", "dreg"] = "standard",
    reduction: Reduction = "mean",
) -> Tensor:
    """Importance-weighted bound of K samples z of each x; see :func:`fastelbo.iwae`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
    z : Tensor, shape (K, B, L)
        Samples of q(z|x), from ``reparameterize(mu, logvar, samples=K)`` for example.
    mu, logvar : Tensor, shape (B, L)
    x_recon : Tensor, shape (K, B, ...), or a tuple of them
        What the decoder makes of z.
    likelihood : Likelihood or str, optional
        One of this module's.
    prior : object, optional
        p(z); None is N(0, I). Else one of this module's or of fastelbo's, or anything with a
        differentiable method ``log_prob(z)`` that gives (K, B), as distributions of PyTorch have.
        With it the bound is that of :func:`log_weights`.
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
    options = likelihood, prior, mask, estimator, reduction
    return signed_iwae(x, z, mu, logvar, x_recon, *options)


def signed_iwae(x, z, mu, logvar, x_recon, likelihood, prior, mask, estimator, reduction, sign=1.0):
    """`sign` times the bound; its gradient is known without a further product."""
    likelihood = as_likelihood(likelihood)
    prior = as_prior(prior)
    check_reduction(reduction)
    check_choice(estimator, "estimator", ESTIMATORS)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    check_tensors(x=x, z=z, mu=mu, logvar=logvar, x_recon=outputs[0])
    sampled = z
    weighted = estimator == "dreg" and z.requires_grad and torch.is_grad_enabled()
    if weighted and torch.compiler.is_compiling():
        raise NotImplementedError('estimator="dreg" needs a hook that torch.compile cannot trace')
    if weighted and is_transforming():
        raise NotImplementedError(
            'estimator="dreg" needs a hook, which torch.func has none of: use "stl", or backward()'
        )
    estimator = "stl" if estimator == "dreg" else estimator
    half = half_of(x, z, mu, *outputs, *likelihood._held_tensors, logvar)
    likelihood, outputs = likelihood._joined(outputs)
    outputs = [beside(p, z) for p in outputs]
    x, z, mu, logvar, *outputs = promoted(x, z, mu, logvar, *outputs)
    if mask is not None:
        check_tensors(mask=mask)
    served = has_kernels(x, z, mu, logvar, *outputs, constants=(x,))
    if not served or prior is not None or any([p.shape != outputs[0].shape for p in outputs]):
        _checks.iwae(likelihood, x, z, mu, logvar, outputs, mask)
    if prior is None and served:
        outputs = torch.broadcast_tensors(*outputs) if len(outputs) > 1 else outputs
        masks = () if mask is None else (mask,)
        operation = Iwae(likelihood, estimator, reduction, len(masks), weighted, sign)
        value, *weights = run(operation, z, mu, logvar, *outputs, x, *masks)
    else:
        if estimator == "stl":
            mu, logvar = mu.detach(), logvar.detach()
        log_w = _log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask)
        value = sign * importance_bound(log_w, reduction=reduction)
        weights = [normalized_weights(log_w)] if weighted else []
    if weights:
        _weigh_gradient(sampled, value, weights[0].detach().unsqueeze(-1))
    return narrowed(value, half)


def log_weights(
    x: Tensor,
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SquaredError(),  # noqa: B008
    prior: AnyPrior | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Log importance weights of K samples z of each x; see :func:`fastelbo.log_weights`.

    Parameters
    ----------
    x, z, mu, logvar, x_recon, likelihood, prior, mask
        As in :func:`iwae`.

    Returns
    -------
    Tensor, shape (K, B)
        log p(x|z) + log p(z) - log q(z|x), in nats: for :func:`importance_bound`, :func:`vimco` and
        :class:`StreamingBound`, say.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> x, mu, logvar = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1), torch.zeros(1, 1)
    >>> z = torch.tensor([[[0.0]], [[1.0]]])
    >>> fastelbo.torch.log_weights(x, z, mu, logvar, z * x).ravel()
    tensor([-5.,  0.])
    """
    likelihood, prior = as_likelihood(likelihood), as_prior(prior)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    check_tensors(x=x, z=z, mu=mu, logvar=logvar, x_recon=outputs[0])
    if mask is not None:
        check_tensors(mask=mask)
    half = half_of(x, z, mu, *outputs, *likelihood._held_tensors, logvar)
    likelihood, outputs = likelihood._joined(outputs)
    outputs = [beside(p, z) for p in outputs]
    x, z, mu, logvar, *outputs = promoted(x, z, mu, logvar, *outputs)
    _checks.iwae(likelihood, x, z, mu, logvar, outputs, mask)
    return narrowed(_log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask), half)


def _log_weights(likelihood, x, z, mu, logvar, outputs, prior, mask):
    """Of checked tensors in one dtype: each term a pass that has its gradient."""
    log_p = likelihood.log_prob(x, *outputs, mask=mask, reduction="none")
    log_q = posterior_log_prob(z, mu, logvar, reduction="none")
    return log_p + log_density(prior, z) - log_q


@dataclass(eq=False)
class Iwae(Operation):
    """`sign` times the bound, and perhaps the normalised weights, (K, B).

    Of tensors (z, mu, logvar, *outputs, x, *mask).
    """

    likelihood: Likelihood
    estimator: str
    reduction: str
    masked: int
    weighted: bool
    sign: float

    @property
    def values(self):
        return 1 + self.weighted

    @property
    def constants(self):
        return 1 + self.masked

    def forward(self, arrays, with_gradient, threads):
        sign, reduction = self.sign, self.reduction
        mask = arrays.pop() if self.masked else None
        z, mu, logvar, *outputs, x = arrays
        given = (x, z, mu, logvar, tuple(outputs))
        likelihood = kernels_of(self.likelihood)
        if not with_gradient and not self.weighted:
            options = {"mask": mask, "reduction": reduction, "num_threads": threads}
            return (sign * fastelbo.iwae(*given, likelihood=likelihood, **options),), ()
        bound, gradients = _bound_and_grad(
            *given, likelihood, None, mask, self.estimator, reduction, None, threads, sign
        )
        weights = (gradients.weights,) if self.weighted else ()
        slopes = (*gradients[:3], *gradients.x_recon) if with_gradient else ()
        return (sign * bound, *weights), slopes

    def shapes(self, tensors):
        bound = tensors[1].shape[:1] if self.reduction == "none" else ()
        return [bound, tensors[0].shape[:2]][: self.values]

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
