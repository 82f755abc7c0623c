"""Multimodal VAEs: one posterior of several modalities, and the bound of all of them.

Modalities go by name, in dicts. A training step is four calls: :func:`joint_posterior` of what the
encoders give, :func:`multimodal_elbo_and_grad` of what the decoders make of its z, and, on the way
back, :func:`joint_posterior_backward`. What a sample lacks, ``present`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_number, shown, weighed
from fastelbo._modalities import by_name, names_of, naming
from fastelbo._named import as_likelihood
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import kl_standard_normal, kl_standard_normal_and_grad, weigh
from fastelbo.likelihoods import check_reduction, own_shapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import ByRow, Float64Array, FloatArray, Number, Reduced, Threads


class MultimodalResult(NamedTuple):
    """The parts of a multimodal ELBO, in nats; ``reconstruction`` by modality."""

    elbo: float | Float64Array
    reconstruction: dict[str, float | Float64Array]
    kl: float | Float64Array


class MultimodalGrad(NamedTuple):
    """Gradients of a multimodal ELBO; ``x_recon`` by modality, tuples where it has several."""

    mu: FloatArray
    logvar: FloatArray
    x_recon: dict[str, FloatArray | tuple[FloatArray, ...]]


@overload
def multimodal_elbo(
    modalities: Mapping[str, tuple[Any, ...]],
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    present: Mapping[str, ArrayLike] | None = ...,
    weights: Mapping[str, Number] | None = ...,
    beta: Number = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> MultimodalResult: ...
@overload
def multimodal_elbo(
    modalities: Mapping[str, tuple[Any, ...]],
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    present: Mapping[str, ArrayLike] | None = ...,
    weights: Mapping[str, Number] | None = ...,
    beta: Number = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> MultimodalResult: ...
def multimodal_elbo(
    modalities,
    mu,
    logvar,
    mask=None,
    *,
    present=None,
    weights=None,
    beta=1.0,
    reduction="mean",
    num_threads=None,
):
    """Evidence lower bound of several modalities with one latent code [1]_ [2]_.

    ELBO = sum over modalities of w_m E_q[log p(x_m|z)] - beta KL(q(z|x_1..M) || N(0, I)), one pass
    over each modality.

    Parameters
    ----------
    modalities : dict of str to tuple (x, likelihood, ...)
        Of each its data, (B, ...), its likelihood or the name of one, and what its decoder makes of
        z: one array for each of the likelihood's parameters.
    mu, logvar : array_like, shape (B, L) or (S, B, L)
        The posterior, or the components of a mixture: of :func:`joint_posterior` or of your own.
        The KL of a mixture is bounded by the mean of its components' [2]_, which it is where there
        is but one, and so the ELBO from below.
    mask : array_like of bool, shape (S, B), optional
        Which components count; ``multimodal_elbo(modalities, *posterior[:3])`` is the call.
    present : dict of str to array_like of bool, optional
        What of each modality was observed: (B,) for whole samples, else what broadcasts to x. A
        modality that is not named is always there. What is missing adds nothing, has no gradient
        and is not read. A sample that has nothing counts with its KL alone.
    weights : dict of str to float, optional
        w_m, 1 unless given; not negative. Modalities of many numbers drown those of few [1]_.
    beta : float, optional
        Weight of the KL. With 0 an infinite KL counts nothing, either.
    reduction : {"mean", "sum", "none"}
        Over the batch: the mean is over all samples, whatever they lack.
    num_threads : int, optional

    Returns
    -------
    MultimodalResult
        ``elbo``, ``reconstruction`` by modality, without weights, and ``kl``.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, a modality has no data or no such name, a weight
        is negative, or x lies outside its likelihood's domain. The message names the modality.

    References
    ----------
    .. [1] Wu, Goodman. Multimodal generative models for scalable weakly-supervised learning.
       NeurIPS 2018.
    .. [2] Sutter, Daunhawer, Vogt. Generalized multimodal ELBO. ICLR 2021.

    Examples
    --------
    >>> import fastelbo
    >>> modalities = {
    ...     "image": ([[1.0, 2.0]], "squared_error", [[1.0, 0.0]]),
    ...     "label": ([1], fastelbo.Categorical(), [[0.0, 0.0]]),
    ... }
    >>> result = fastelbo.multimodal_elbo(modalities, [[1.0]], [[0.0]])
    >>> result.reconstruction["image"], round(result.elbo, 6)
    (-4.0, -5.193147)
    """
    return _objective(modalities, mu, logvar, mask, present, weights, beta, reduction, num_threads)


@overload
def multimodal_elbo_and_grad(
    modalities: Mapping[str, tuple[Any, ...]],
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    present: Mapping[str, ArrayLike] | None = ...,
    weights: Mapping[str, Number] | None = ...,
    beta: Number = ...,
    reduction: Reduced = ...,
    out: tuple[Any, Any, Mapping[str, Any]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[MultimodalResult, MultimodalGrad]: ...
@overload
def multimodal_elbo_and_grad(
    modalities: Mapping[str, tuple[Any, ...]],
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    present: Mapping[str, ArrayLike] | None = ...,
    weights: Mapping[str, Number] | None = ...,
    beta: Number = ...,
    reduction: ByRow,
    out: tuple[Any, Any, Mapping[str, Any]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[MultimodalResult, MultimodalGrad]: ...
def multimodal_elbo_and_grad(
    modalities,
    mu,
    logvar,
    mask=None,
    *,
    present=None,
    weights=None,
    beta=1.0,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`multimodal_elbo` and its gradients, to ascend.

    Those of mu and logvar are the KL's, for :func:`joint_posterior_backward`.

    Parameters
    ----------
    modalities, mu, logvar, mask, present, weights, beta, reduction, num_threads
        As in :func:`multimodal_elbo`.
    out : tuple (mu, logvar, dict of str to x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, tuples of them for
        likelihoods of several parameters, or None for a new one.

    Returns
    -------
    result : MultimodalResult
    gradients : MultimodalGrad
        ``mu``, ``logvar`` in the shape of those, and ``x_recon``, by modality an array, or a tuple
        for a likelihood of several parameters. With ``reduction="none"``, of the sum over the
        batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`multimodal_elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> modalities = {"image": ([[1.0, 2.0]], "squared_error", [[1.0, 0.0]])}
    >>> result, grad = fastelbo.multimodal_elbo_and_grad(modalities, [[1.0]], [[0.0]])
    >>> grad.x_recon["image"], grad.mu
    (array([[0., 4.]]), array([[-1.]]))
    """
    return _objective(
        modalities,
        mu,
        logvar,
        mask,
        present,
        weights,
        beta,
        reduction,
        num_threads,
        out,
        True,
    )


def _objective(
    modalities,
    mu,
    logvar,
    mask,
    present,
    weights,
    beta,
    reduction,
    num_threads,
    out=None,
    with_gradient=False,
):
    """The result; with the gradients, (the result, those)."""
    check_reduction(reduction)
    beta = as_number(beta, "beta", 0)
    components = _Components(mu, logvar, mask)
    parts = _parts(modalities, present, weights, components.batch)
    together = (components, *parts.values())
    if not all([part.single for part in together]):  # float64 anywhere makes it float64
        for part in together:
            part.widen()
    share = beta / components.batch if reduction == "mean" else beta
    options = {"reduction": reduction, "num_threads": num_threads}
    if not with_gradient:
        kl = components.kl(num_threads)
        values = {name: part.value(options) for name, part in parts.items()}
        return _result(values, kl, parts, beta, reduction)
    inputs = [mu, logvar, mask, *(a for part in parts.values() for a in part.given)]
    for_kl, slopes = _outs(out, components, parts, inputs)
    values = {name: part.value(options, slopes[name]) for name, part in parts.items()}
    kl = components.kl(num_threads, for_kl, share)
    return (
        _result(values, kl, parts, beta, reduction),
        MultimodalGrad(*for_kl, {name: g if len(g) > 1 else g[0] for name, g in slopes.items()}),
    )


def _result(values, kl, parts, beta, reduction):
    kl = reduce_rows(kl, reduction)
    total = sum(parts[name].weight * value for name, value in values.items())
    return MultimodalResult(total - weighed(beta, kl), values, kl)


class _Components:
    """The checked posterior: components (S, B, L), and what each counts for a sample, (S, B)."""

    def __init__(self, mu, logvar, mask):
        several = np.ndim(_arrays.as_any_array(mu, "mu")) == 3
        axes = ("components", "batch") if several else ("batch",)
        self.mu, self.logvar = _arrays.gaussians(mu, logvar, axes)
        self.single = _arrays.computes_in_float32((self.mu, self.logvar))
        self.shape = self.mu.shape
        self.batch = self.shape[-2]
        self.rows = self.shape[0] if several else 1, self.batch
        self.counts = np.ones(self.rows, bool)
        if mask is not None:
            self.counts = _arrays.as_flags(mask, "mask")
            if self.counts.shape != self.rows:
                raise _arrays.shape_error("mask", self.counts.shape, f"{self.rows} like mu")
        number = self.counts.sum(axis=0)
        if not number.all():
            raise ValueError(f"mask leaves no component for sample {np.argmin(number)}")
        self.shares = self.counts / number

    def widen(self):
        self.single = False
        self.mu, self.logvar = (_arrays.in_dtype(a, False) for a in (self.mu, self.logvar))

    def kl(self, num_threads, gradients=None, share=1.0):
        """(B,), in float64; minus `share` times its gradients is written to those given."""
        options = {"reduction": "none", "num_threads": num_threads}
        if gradients is None:
            rows = kl_standard_normal(self.mu, self.logvar, **options)
        else:
            out = tuple(gradients)
            rows, _ = kl_standard_normal_and_grad(self.mu, self.logvar, out=out, **options)
            for gradient in out:
                gradient[~self.counts.reshape(rows.shape)] = 0
            with np.errstate(all="ignore"):
                weigh(out, -share, self.shares.reshape(*rows.shape, 1))
        with np.errstate(all="ignore"):
            return np.where(self.counts, self.shares * rows.reshape(self.rows), 0).sum(axis=0)


class _Part:
    """One checked modality."""

    def __init__(self, name, modality, present, weight, batch):
        self.name = name
        x, likelihood, *outputs = _checked_modality(modality)
        self.likelihood = as_likelihood(likelihood)
        self.x, self.outputs, self.weight = x, tuple(outputs), weight
        if len(outputs) != len(self.likelihood.parameters):
            self.likelihood._miscounted(outputs)
        data, parameters = self.likelihood._event(x, self.outputs)
        if len(data) != batch:
            raise _arrays.shape_error("x", data.shape, f"({batch}, ...) like mu")
        self.single = _arrays.computes_in_float32((data, *parameters))
        self.shapes = own_shapes(self.outputs, parameters)
        self.mask = present
        if present is not None:
            if present.shape == (batch,):
                self.mask = present.reshape((batch,) + (1,) * (data.ndim - 1))
            _arrays.as_mask(self.mask, data)
        self.given = (x, *outputs, present)

    def widen(self):
        self.single = False
        first = _arrays.as_floats(self.outputs[0], self.likelihood.parameters[0])
        self.outputs = (_arrays.in_dtype(first, False), *self.outputs[1:])

    def value(self, options, gradients=None):
        """The log-likelihood; `weight` times its gradients are written to those given."""
        with naming(f"modalities[{self.name!r}]"):
            return self._value({"mask": self.mask, **options}, gradients)

    def _value(self, options, gradients):
        if gradients is None:
            return self.likelihood.log_prob(self.x, *self.outputs, **options)
        value, _ = self.likelihood._log_prob(
            self.x,
            self.outputs,
            options["mask"],
            options["reduction"],
            options["num_threads"],
            gradients,
            True,
            self.weight,
        )
        return value


def _checked_modality(modality):
    """(x, likelihood, *outputs)."""
    if not isinstance(modality, tuple | list) or len(modality) < 3:
        raise TypeError(f"expected a tuple (x, likelihood, *outputs), got {shown(modality)}")
    if modality[0] is None:
        raise ValueError("x is None, so it has no data: leave the modality out of the dict")
    return modality


def _parts(modalities, present, weights, batch):
    """The checked modalities, by name."""
    names = names_of(modalities, "modalities")
    present = by_name(present, "present", names)
    weights = by_name(weights, "weights", names)
    parts = {}
    for name in names:
        seen, weight = present.get(name), weights.get(name, 1.0)
        weight = as_number(weight, f"weights[{name!r}]", 0)
        seen = None if seen is None else _arrays.as_flags(seen, f"present[{name!r}]")
        with naming(f"modalities[{name!r}]"):
            parts[name] = _Part(name, modalities[name], seen, weight, batch)
    return parts


def _outs(out, components, parts, inputs):
    """((mu, logvar), {name: tuple of outputs}): the caller's arrays where given, else new ones."""
    if out is None:
        out = (None, None, {})
    if not isinstance(out, tuple) or len(out) != 3 or not isinstance(out[2], Mapping):
        raise TypeError("out must be None or a tuple (mu, logvar, dict) like MultimodalGrad")
    by_name(out[2], "out", parts)
    taken = [a for a in inputs if a is not None]

    def checked(given, shapes, single, names):
        arrays = _arrays.checked_outs(given, shapes, single, taken, names)
        taken.extend(arrays)
        return arrays

    for_kl = checked(out[:2], [components.shape] * 2, components.single, ("mu", "logvar"))
    slopes = {}
    for name, part in parts.items():
        given = out[2].get(name)
        given = given if given is None or isinstance(given, tuple) else (given,)
        names = tuple(f"{name}.{parameter}" for parameter in part.likelihood.parameters)
        slopes[name] = checked(given, part.shapes, part.single, names)
    return for_kl, slopes
