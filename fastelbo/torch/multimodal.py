"""Multimodal VAEs: the bound of several modalities with one latent code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fastelbo import _arrays, multimodal
from fastelbo._modalities import by_name, names_of, naming
from fastelbo.torch._checks import flags_of, stand_in
from fastelbo.torch._tensors import (
    as_weight,
    check_reduction,
    check_tensors,
    half_of,
    narrowed,
    reduce,
    unrounded,
)
from fastelbo.torch.divergences import counted, kl_standard_normal
from fastelbo.torch.likelihoods import as_likelihood

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.torch._typing import Weight


class MultimodalResult(NamedTuple):
    """The parts of a multimodal ELBO, in nats; ``reconstruction`` by modality."""

    elbo: torch.Tensor
    reconstruction: dict[str, torch.Tensor]
    kl: torch.Tensor


def multimodal_elbo(
    modalities: Mapping[str, tuple[Any, ...]],
    mu: Tensor,
    logvar: Tensor,
    mask: Tensor | None = None,
    *,
    present: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Weight] | None = None,
    beta: Weight = 1.0,
    reduction: Reduction = "mean",
) -> MultimodalResult:
    """Evidence lower bound of several modalities; see :func:`fastelbo.multimodal_elbo`.

    Parameters
    ----------
    modalities : dict of str to tuple (x, likelihood, ...)
        Of each its data, its likelihood, and what its decoder makes of z.
    mu, logvar : Tensor, shape (B, L) or (S, B, L)
        The posterior, or the components of a mixture.
    mask : Tensor of bool, shape (S, B), optional
        Which components count.
    present : dict of str to Tensor of bool, optional
        What of each modality was observed: (B,), else what broadcasts to x.
    weights : dict of str to float, optional
        Of the modalities.
    beta : float, optional
        Weight of the KL.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    MultimodalResult
        ``elbo``, ``reconstruction`` by modality, and ``kl``. Gradients flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit; the message names the modality.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> one = torch.ones(1, 1)
    >>> modalities = {"image": (torch.tensor([[1.0, 2.0]]), "squared_error", torch.zeros(1, 2))}
    >>> fastelbo.torch.multimodal_elbo(modalities, one, 0 * one).elbo
    tensor(-5.5000)
    """
    check_reduction(reduction)
    check_tensors(mu=mu, logvar=logvar)
    names = names_of(modalities, "modalities")
    present = by_name(present, "present", names)
    weights = dict(by_name(weights, "weights", names))
    if not torch.compiler.is_compiling():
        as_weight(beta, "beta")
        weights = {name: as_weight(w, f"weights[{name!r}]") for name, w in weights.items()}
    given = {}
    for name in names:
        with naming(f"modalities[{name!r}]"):
            given[name] = tuple(multimodal._checked_modality(modalities[name]))
    floats = [t for modality in given.values() for t in modality if isinstance(t, torch.Tensor)]
    half = half_of(mu, *floats, logvar)
    mu, logvar, *modalities = unrounded(mu, logvar, *given.values())
    given = dict(zip(given, modalities, strict=True))
    elbo, values, kl = _parts(given, mu, logvar, mask, present, weights, beta, reduction)
    values = {name: narrowed(value, half) for name, value in values.items()}
    return MultimodalResult(narrowed(elbo, half), values, narrowed(kl, half))


def _parts(modalities, mu, logvar, mask, present, weights, beta, reduction):
    """(elbo, reconstruction by modality, kl)."""
    batch = mu.shape[-2] if mu.ndim > 1 else 0
    kl = reduce(_kl(mu, logvar, mask), reduction)
    values, total = {}, 0.0
    for name, (x, likelihood, *outputs) in modalities.items():
        seen = present.get(name)
        with naming(f"modalities[{name!r}]"):
            check_tensors(x=x)
            if x.ndim and len(x) != batch:
                wanted = f"({batch}, ...) like mu"
                raise _arrays.shape_error("x", x.shape, wanted)
            if seen is not None and tuple(seen.shape) == (batch,):
                seen = seen.reshape((batch,) + (1,) * (x.ndim - 1))
            values[name] = as_likelihood(likelihood).log_prob(
                x, *outputs, mask=seen, reduction=reduction
            )
        total = total + weights.get(name, 1.0) * values[name]
    counts = counted(beta, mu, logvar)
    cost = kl if counts[0] is mu else reduce(_kl(*counts, mask), reduction)
    return total - beta * cost, values, kl


def _kl(mu, logvar, mask):
    """The mean over the components that count, (B,)."""
    if not torch.compiler.is_compiling():
        multimodal._Components(stand_in(mu), stand_in(logvar), flags_of(mask))
    if mu.ndim == 2:
        return kl_standard_normal(mu, logvar, reduction="none")
    if mask is None:
        mask = mu.new_ones(mu.shape[:2], dtype=torch.bool)
    mu, logvar = (torch.where(mask[..., None], a, 0.0) for a in (mu, logvar))
    rows = kl_standard_normal(mu, logvar, reduction="none")
    return (torch.where(mask, rows, 0.0) / mask.sum(0)).sum(0)
