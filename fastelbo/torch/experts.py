"""Posteriors of several modalities from Gaussian experts, (M, B, L), in PyTorch's operations.

They are few beside those of the networks that give the experts; densities go through the kernels.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from fastelbo import experts, joint
from fastelbo._modalities import by_name, names_of, naming
from fastelbo.torch import densities
from fastelbo.torch._checks import flags_of, numbers_of, stand_in
from fastelbo.torch._tensors import (
    check_reduction,
    check_tensors,
    checked,
    key_of,
    narrowed,
    reduce,
)
from fastelbo.torch.posterior import posterior_log_prob, reparameterize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fastelbo._typing import Reduction


class GaussianExpert(NamedTuple):
    """A diagonal Gaussian for each sample, (B, L)."""

    mu: torch.Tensor
    logvar: torch.Tensor


class Experts(NamedTuple):
    """Gaussian experts, (S, B, L), and which of them count, (S, B)."""

    mu: torch.Tensor
    logvar: torch.Tensor
    mask: torch.Tensor


class JointPosterior(NamedTuple):
    """A mixture of S Gaussians for each sample, and a draw z of one of them."""

    mu: torch.Tensor
    logvar: torch.Tensor
    mask: torch.Tensor
    component: torch.Tensor
    z: torch.Tensor


def product_of_experts(
    mu: Tensor, logvar: Tensor, *, mask: Tensor | None = None, prior: bool = True
) -> GaussianExpert:
    """The product of Gaussian experts; see :func:`fastelbo.product_of_experts`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (M, B, L)
    mask : Tensor of bool, shape (M, B), optional
        Which experts have seen something of a sample; the others are never read.
    prior : bool, optional
        N(0, I) is one more expert.

    Returns
    -------
    GaussianExpert
        ``mu`` and ``logvar``, (B, L).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[[3.0]], [[0.0]]], requires_grad=True)
    >>> fastelbo.torch.product_of_experts(mu, torch.zeros(2, 1, 1)).mu.backward()
    >>> mu.grad.ravel()
    tensor([0.3333, 0.3333])
    """
    half, mu, logvar, mask = _checked(mu, logvar, mask, prior, False)
    return narrowed(GaussianExpert(*_product(mu, logvar, mask, prior)), half)


def mopoe(
    mu: Tensor,
    logvar: Tensor,
    *,
    mask: Tensor | None = None,
    prior: bool | Literal["full"] = True,
) -> Experts:
    """Products of all subsets of experts, the components of a MoPoE; see :func:`fastelbo.mopoe`.

    Parameters
    ----------
    mu, logvar : Tensor, shape (M, B, L)
        Of at most 12 experts.
    mask : Tensor of bool, shape (M, B), optional
        Which experts have seen something of a sample; the others are never read.
    prior : bool or "full", optional
        N(0, I) is one more expert of every product, of none, or only of that of all experts.

    Returns
    -------
    Experts
        ``mu`` and ``logvar``, (2^M - 1, B, L): at index s, the product of the experts whose
        bits are set in s + 1. ``mask`` (2^M - 1, B): whether the sample has all of them.
        Products that do not count are N(0, I).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[[4.0]], [[0.0]]])
    >>> fastelbo.torch.mopoe(mu, torch.zeros(2, 1, 1), prior=False).mu.ravel()
    tensor([4., 0., 2.])
    """
    half, mu, logvar, mask = _checked(mu, logvar, mask, prior, True)
    mu, logvar = _seen(mu, mask), _seen(logvar, mask)
    products, counts = [], []
    for subset in range(1, 1 << len(mu)):
        members = [m for m in range(len(mu)) if subset >> m & 1]
        stands = len(members) == len(mu) if prior == "full" else prior
        there = mask[members].all(0)
        whole = torch.ones_like(mask[members])
        product = _product(mu[members], logvar[members], whole, stands)
        products.append([torch.where(there[:, None], part, 0.0) for part in product])
        counts.append(there)
    mu, logvar = (torch.stack(parts) for parts in zip(*products, strict=True))
    return Experts(narrowed(mu, half), narrowed(logvar, half), torch.stack(counts))


def mixture_of_experts(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Log density under the mixture of the experts; see :func:`fastelbo.mixture_of_experts`.

    Parameters
    ----------
    z : Tensor, shape (B, L) or (K, B, L)
    mu, logvar : Tensor, shape (M, B, L)
        The experts of each sample, or the products of :func:`mopoe`.
    mask : Tensor of bool, shape (M, B), optional
        Which of them count.
    reduction : {"mean", "sum", "none"}
        Over samples and batch.

    Returns
    -------
    Tensor, shape (), or (B,) or (K, B) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu, zero = torch.tensor([[[-1.0]], [[1.0]]]), torch.zeros(1, 1)
    >>> fastelbo.torch.mixture_of_experts(zero, mu, torch.zeros(2, 1, 1))
    tensor(-1.4189)
    """
    check_reduction(reduction)
    half, (z, mu, logvar) = checked(z=z, mu=mu, logvar=logvar)
    if not torch.compiler.is_compiling():
        arrays = [stand_in(t) for t in (z, mu, logvar)]
        experts.checked_mixture(*arrays, flags_of(mask))
    mask = _all_of(mu) if mask is None else mask
    mu, logvar = _seen(mu, mask), _seen(logvar, mask)
    log_p = [
        posterior_log_prob(z, *expert, reduction="none") for expert in zip(mu, logvar, strict=True)
    ]
    seen = mask if z.ndim == 2 else mask[:, None]
    log_p = torch.where(seen, torch.stack(log_p), -torch.inf)
    rows = densities.logsumexp(log_p, 0) - mask.sum(0).to(log_p.dtype).log()
    return narrowed(reduce(rows.reshape(-1), reduction) if reduction != "none" else rows, half)


def joint_posterior(
    experts: Mapping[str, tuple[Tensor, Tensor]],
    *,
    method: Literal["poe", "moe", "mopoe"] = "poe",
    present: Mapping[str, Tensor] | None = None,
    prior: bool | Literal["full"] = True,
    component: Tensor | None = None,
    rng: torch.Generator | int | None = None,
    noise: Tensor | None = None,
) -> JointPosterior:
    """The posterior of several modalities, and a draw of it; see :func:`fastelbo.joint_posterior`.

    Parameters
    ----------
    experts : dict of str to (mu, logvar), (B, L) each
        What each modality's encoder gives.
    method : {"poe", "moe", "mopoe"}
        The product of the experts, their mixture, or that of the products of all subsets.
    present : dict of str to Tensor of bool, shape (B,), optional
        True where a sample has the modality; one that is not named is always there.
    prior : bool or "full", optional
        N(0, I) is one more factor of each product, or of that of all.
    component : Tensor of int, shape (B,), optional
        The component of each sample, instead of a draw, for which the masks are read.
    rng : int or torch.Generator, optional
        For the component and for z.
    noise : Tensor, shape (B, L), optional
        eps itself; then `component` must be given, too, unless there is but one.

    Returns
    -------
    JointPosterior
        ``mu`` and ``logvar`` (S, B, L), and ``mask`` (S, B), which of them count for a sample: the
        components that :func:`multimodal_elbo` takes. ``component`` (B,), and ``z`` (B, L).

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> zero, three = torch.zeros(1, 1), torch.full((1, 1), 3.0)
    >>> experts = {"image": (three, zero), "text": (zero, zero)}
    >>> fastelbo.torch.joint_posterior(experts, noise=zero).z
    tensor([[1.]])
    """
    names = names_of(experts, "experts")
    present = by_name(present, "present", names)
    stood = {name: experts[name] for name in names}
    for name, pair in stood.items():
        if isinstance(pair, tuple | list) and len(pair) == 2:
            with naming(f"experts[{name!r}]"):
                check_tensors(mu=pair[0], logvar=pair[1])
            stood[name] = stand_in(pair[0]), stand_in(pair[1])
    flags = {name: flags_of(flag) for name, flag in present.items()}
    joint.stacked(stood, method, flags, prior)
    half, flat = checked(**{str(i): t for i, t in enumerate(itertools.chain(*experts.values()))})
    mu, logvar = torch.stack(flat[::2]), torch.stack(flat[1::2])
    rows = [present.get(name, _all_of(mu)[m]) for m, name in enumerate(names)]
    mask = torch.stack([row.to(mu.device) for row in rows])
    if method == "poe":
        mu, logvar = (part[None] for part in product_of_experts(mu, logvar, mask=mask, prior=prior))
        mask = _all_of(mu)
    elif method == "mopoe":
        mu, logvar, mask = mopoe(mu, logvar, mask=mask, prior=prior)
    else:
        mu, logvar = _seen(mu, mask), _seen(logvar, mask)
    key = None if noise is not None else key_of(rng).item() & (1 << 64) - 1
    given = component if component is None else numbers_of(component.cpu())
    chosen = joint.chosen(given, numbers_of(mask.cpu()), key)
    component = torch.as_tensor(chosen, device=mu.device)
    at = component, torch.arange(mu.shape[1], device=mu.device)
    z = reparameterize(mu[at], logvar[at], rng=key, noise=noise)
    return narrowed_posterior(JointPosterior(mu, logvar, mask, component, z), half)


def narrowed_posterior(posterior, half):
    """Its floats in the dtype of halves, if they were such."""
    floats = {name: narrowed(getattr(posterior, name), half) for name in ("mu", "logvar", "z")}
    return posterior._replace(**floats)


def _checked(mu, logvar, mask, prior, every_subset):
    """(dtype of half precision or None, mu, logvar, mask), as fastelbo checks them."""
    half, (mu, logvar) = checked(mu=mu, logvar=logvar)
    if not torch.compiler.is_compiling():
        arrays = stand_in(mu), stand_in(logvar)
        experts.checked_product(*arrays, flags_of(mask), prior, every_subset)
    return half, mu, logvar, _all_of(mu) if mask is None else mask


def _all_of(mu):
    return mu.new_ones(mu.shape[:2], dtype=torch.bool)


def _seen(value, mask):
    """With 0 where nothing was seen, which may be NaN."""
    return torch.where(mask[..., None], value, 0.0)


def _product(mu, logvar, mask, prior):
    """(mu, logvar) of the product, by logarithms of the precisions."""
    log_precision = torch.where(mask[..., None], -logvar, -torch.inf)
    if prior:
        log_precision = torch.cat([log_precision, torch.zeros_like(mu[:1])])
    shares = torch.softmax(log_precision, 0)[: len(mu)]
    return (shares * _seen(mu, mask)).sum(0), -torch.logsumexp(log_precision, 0)
