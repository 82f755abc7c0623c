"""Posteriors of several modalities, q(z|x_1..M), from one Gaussian expert for each.

Experts are on axis 0: ``mu`` and ``logvar`` (M, B, L); ``mask`` (M, B) says who has seen something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_flag
from fastelbo._threads import threads_for
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import GaussianGrad
from fastelbo.likelihoods import check_reduction
from fastelbo.locations import Gaussian

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced, Threads

_kernels = _builds.kernels("experts")
_LOG_DENSITY = Gaussian("learned")

#: Experts that mopoe takes at most: it makes 2^M - 1 products of them.
MOST_EXPERTS = 12
#: An element of a product costs about this many of a squared error, for each expert.
EXPERT_COST = 4


class GaussianExpert(NamedTuple):
    """A diagonal Gaussian for each sample, (B, L)."""

    mu: FloatArray
    logvar: FloatArray


class Experts(NamedTuple):
    """Gaussian experts, (S, B, L), and which of them count, (S, B)."""

    mu: FloatArray
    logvar: FloatArray
    mask: NDArray[np.bool_]


class ExpertsGrad(NamedTuple):
    """Gradients of the log density of a mixture of experts."""

    z: FloatArray
    mu: FloatArray
    logvar: FloatArray


def checked_experts(mu, logvar, mask):
    """(mu, logvar, mask) as float arrays (M, B, L) and booleans (M, B)."""
    mu, logvar = _arrays.gaussians(mu, logvar, ("experts", "batch"))
    if len(mu) > 64:
        raise ValueError(f"mu has {len(mu)} experts, expected at most 64")
    if mask is None:
        return mu, logvar, np.ones(mu.shape[:2], bool)
    mask = _arrays.as_flags(mask)
    if mask.shape != mu.shape[:2]:
        raise _arrays.shape_error("mask", mask.shape, f"{mu.shape[:2]} like mu")
    return mu, logvar, mask


def _nonempty(mask, prior):
    """Complain about a sample that no expert speaks for."""
    seen = mask.any(axis=0)
    if prior is not True and not seen.all():
        raise ValueError(
            f"mask leaves no expert for sample {np.argmin(seen)}, and prior is {prior!r}"
        )


def checked_product(mu, logvar, mask, prior, every_subset):
    """(mu, logvar, mask, prior) of a product, or of those of every subset."""
    is_full = every_subset and isinstance(prior, str)
    if is_full and prior != "full":
        raise ValueError(f'prior must be True, False or "full", got {prior!r}')
    if not is_full:
        prior = as_flag(prior, "prior")
    mu, logvar, mask = checked_experts(mu, logvar, mask)
    _nonempty(mask, prior)
    if every_subset and len(mu) > MOST_EXPERTS:
        raise ValueError(f"mu has {len(mu)} experts, expected at most {MOST_EXPERTS}")
    return mu, logvar, mask, prior


class _Product:
    """The checked arguments of a call: what is multiplied, in which subsets."""

    def __init__(self, mu, logvar, mask, prior, every_subset, num_threads):
        mu, logvar, mask, prior = checked_product(mu, logvar, mask, prior, every_subset)
        self.single = _arrays.computes_in_float32((mu, logvar))
        self.mu, self.logvar = (_arrays.as_rows(a, "mu", self.single) for a in (mu, logvar))
        experts = len(mu)
        bits = np.uint64(1) << np.arange(experts, dtype=np.uint64)
        present = (bits[:, None] * mask).sum(axis=0, dtype=np.uint64)
        members = np.array([bits.sum(dtype=np.uint64)])
        if every_subset:
            members = np.arange(1, 1 << experts, dtype=np.uint64)
        self.counts = (members[:, None] & present) == members[:, None]
        with_prior = {True: 0, False: len(members), "full": len(members) - 1}[prior]
        self.subsets = (members, present, every_subset, with_prior)
        self.shape = (len(members), *mu.shape[1:])
        work = len(members) * experts * mu[0].size * EXPERT_COST
        self.threads = threads_for(work, num_threads)

    def forward(self, out):
        _kernels.product(self.mu, self.logvar, *self.subsets, *out, self.threads)

    def backward(self, grad_mu, grad_logvar, shape, given, out):
        grads = []
        for name, grad in (("grad_mu", grad_mu), ("grad_logvar", grad_logvar)):
            grad = _arrays.in_dtype(_arrays.as_floats(grad, name), self.single)
            if grad.shape != shape:
                raise _arrays.shape_error(name, grad.shape, str(shape))
            grads.append(np.ascontiguousarray(grad))
        shapes = (self.mu.shape,) * 2
        given = (grad_mu, grad_logvar, *given)
        out = _arrays.checked_outs(out, shapes, self.single, given, GaussianGrad._fields)
        _kernels.backward(*grads, self.mu, self.logvar, *self.subsets, *out, self.threads)
        return GaussianGrad(*out)


def product_of_experts(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    prior: bool = True,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> GaussianExpert:
    """The Gaussian in proportion to the product of Gaussian experts [1]_.

    Precisions add up, and means are weighed by them: log-domain sums, which no variance overflows.

    Parameters
    ----------
    mu, logvar : array_like, shape (M, B, L)
        One expert q(z|x_m) for each of M modalities.
    mask : array_like of bool, shape (M, B), optional
        True where a sample has that modality. What is False is never read.
    prior : bool, optional
        N(0, I) is one more expert, so that a sample without any modality has the prior.
    out : tuple (mu, logvar), optional
        Where to write the result.
    num_threads : int, optional

    Returns
    -------
    GaussianExpert
        ``mu`` and ``logvar``, (B, L), as the posterior of an ELBO.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit, or there is neither an expert nor the prior for a sample.

    References
    ----------
    .. [1] Wu, Goodman. Multimodal generative models for scalable weakly-supervised learning.
       NeurIPS 2018.

    Examples
    --------
    >>> import fastelbo
    >>> q = fastelbo.product_of_experts([[[3.0]], [[0.0]]], [[[0.0]], [[0.0]]])
    >>> q.mu, q.logvar.round(4)
    (array([[1.]]), array([[-1.0986]]))
    """
    product = _Product(mu, logvar, mask, prior, False, num_threads)
    shapes = (product.shape[1:],) * 2
    given = (mu, logvar, mask)
    out = _arrays.checked_outs(out, shapes, product.single, given, GaussianExpert._fields)
    product.forward(out)
    return GaussianExpert(*out)


def product_of_experts_backward(
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    prior: bool = True,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> GaussianGrad:
    """Gradients of the experts from those of their product: the way back.

    Parameters
    ----------
    grad_mu, grad_logvar : array_like, shape (B, L)
        Of an objective by what :func:`product_of_experts` returned.
    mu, logvar, mask, prior, num_threads
        As there.
    out : tuple (mu, logvar), optional
        Where to write the gradients.

    Returns
    -------
    GaussianGrad
        ``mu`` and ``logvar``, (M, B, L); zero where the mask is False.

    Raises
    ------
    ValueError, TypeError
        As :func:`product_of_experts`.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = [[[3.0]], [[0.0]]], [[[0.0]], [[0.0]]]
    >>> grad = fastelbo.product_of_experts_backward([[3.0]], [[0.0]], mu, logvar)
    >>> grad.mu.ravel(), grad.logvar.ravel()
    (array([1., 1.]), array([-2.,  1.]))
    """
    product = _Product(mu, logvar, mask, prior, False, num_threads)
    return product.backward(grad_mu, grad_logvar, product.shape[1:], (mu, logvar, mask), out)


def mopoe(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    prior: bool | Literal["full"] = True,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> Experts:
    """Products of all 2^M - 1 subsets of experts: the components of a MoPoE [1]_.

    The posterior is their mixture with equal weights: ``mixture_of_experts(z, *mopoe(mu, logvar))``
    is its density, given the mask as well.

    Parameters
    ----------
    mu, logvar, mask, num_threads
        As in :func:`product_of_experts`, for at most 12 experts.
    prior : bool or "full", optional
        N(0, I) is one more expert of every product, of none, or, as in MultiVae [2]_, only of that
        of all M experts.
    out : tuple (mu, logvar), optional
        Where to write the products.

    Returns
    -------
    Experts
        ``mu`` and ``logvar``, (2^M - 1, B, L): at index s, the product of the experts whose
        bits are set in s + 1. ``mask`` (2^M - 1, B): whether the sample has all of them.
        Products that do not count are N(0, I).

    Raises
    ------
    ValueError, TypeError
        As :func:`product_of_experts`.

    References
    ----------
    .. [1] Sutter, Daunhawer, Vogt. Generalized multimodal ELBO. ICLR 2021.
    .. [2] Senellart, Chadebec, Allassonnière. MultiVae: a Python library for multimodal generative
       autoencoders. 2023.

    Examples
    --------
    >>> import fastelbo
    >>> parts = fastelbo.mopoe([[[4.0]], [[0.0]]], [[[0.0]], [[0.0]]], prior=False)
    >>> parts.mu.ravel()
    array([4., 0., 2.])
    >>> fastelbo.mopoe([[[6.0]], [[0.0]]], [[[0.0]], [[0.0]]], prior="full").mu.ravel()
    array([6., 0., 2.])
    """
    product = _Product(mu, logvar, mask, prior, True, num_threads)
    shapes = (product.shape,) * 2
    given = (mu, logvar, mask)
    out = _arrays.checked_outs(out, shapes, product.single, given, GaussianExpert._fields)
    product.forward(out)
    return Experts(*out, product.counts)


def mopoe_backward(
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    prior: bool | Literal["full"] = True,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> GaussianGrad:
    """Gradients of the experts from those of all their products.

    Parameters
    ----------
    grad_mu, grad_logvar : array_like, shape (2^M - 1, B, L)
        Of an objective by what :func:`mopoe` returned; those of products that do not count are
        taken for zero.
    mu, logvar, mask, prior, num_threads
        As there.
    out : tuple (mu, logvar), optional
        Where to write the gradients.

    Returns
    -------
    GaussianGrad
        ``mu`` and ``logvar``, (M, B, L).

    Raises
    ------
    ValueError, TypeError
        As :func:`mopoe`.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = [[[4.0]], [[0.0]]], [[[0.0]], [[0.0]]]
    >>> ones = [[[1.0]]] * 3
    >>> fastelbo.mopoe_backward(ones, ones, mu, logvar, prior=False).mu.ravel()
    array([1.5, 1.5])
    """
    product = _Product(mu, logvar, mask, prior, True, num_threads)
    return product.backward(grad_mu, grad_logvar, product.shape, (mu, logvar, mask), out)


def checked_mixture(z, mu, logvar, mask):
    """The arrays of a mixture's density, whose shapes fit."""
    mu, logvar, mask = checked_experts(mu, logvar, mask)
    _nonempty(mask, False)
    z = _arrays.as_floats(z, "z")
    if z.shape[-2:] != mu.shape[1:] or z.ndim not in (2, 3) or 0 in z.shape[:1]:
        wanted = f"{mu.shape[1:]} or (samples, {mu.shape[1]}, {mu.shape[2]}) like mu"
        raise _arrays.shape_error("z", z.shape, wanted)
    return z, mu, logvar, mask


def _mixture(z, mu, logvar, mask, reduction, out, with_gradient, num_threads):
    check_reduction(reduction)
    given = (z, mu, logvar, mask)
    z, mu, logvar, mask = checked_mixture(z, mu, logvar, mask)
    single = _arrays.computes_in_float32((z, mu, logvar))
    z, mu, logvar = (_arrays.as_rows(a, "z", single) for a in (z, mu, logvar))
    samples = z if z.ndim == 3 else z[None]
    log_scale = 0.5 * logvar
    options = {"reduction": "none", "num_threads": num_threads}
    log_p = np.full((len(mu), *samples.shape[:2]), -np.inf)
    for m, seen in enumerate(mask):
        for k, sample in enumerate(samples):
            of_expert = _LOG_DENSITY.log_prob(sample, mu[m], log_scale[m], **options)
            log_p[m, k] = np.where(seen, of_expert, -np.inf)
    with np.errstate(all="ignore"):
        top = np.clip(log_p.max(axis=0), -1e308, 1e308)
        values = top + np.log(np.exp(log_p - top).sum(axis=0)) - np.log(mask.sum(axis=0))
        value = reduce_rows(values if z.ndim == 3 else values[0], reduction)
        if not with_gradient:
            return value
        shapes = (z.shape, mu.shape, logvar.shape)
        dz, dmu, dlogvar = _arrays.checked_outs(out, shapes, single, given, ExpertsGrad._fields)
        for a in (dz, dmu, dlogvar):
            a.fill(0)
        weight = 1.0 / values.size if reduction == "mean" else 1.0
        shares = weight * np.exp(log_p - values - np.log(mask.sum(axis=0)))
        for m, seen in enumerate(mask):
            for k, sample in enumerate(samples):
                _, (by_mu, by_scale) = _LOG_DENSITY.log_prob_and_grad(
                    sample, mu[m], log_scale[m], **options
                )
                share = shares[m, k, :, None].astype(dz.dtype)
                by_mu, by_scale = (np.where(seen[:, None], share * g, 0) for g in (by_mu, by_scale))
                of_sample = dz[k] if z.ndim == 3 else dz
                of_sample -= by_mu
                dmu[m] += by_mu
                dlogvar[m] += dlogvar.dtype.type(0.5) * by_scale
    return value, ExpertsGrad(dz, dmu, dlogvar)


@overload
def mixture_of_experts(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def mixture_of_experts(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
def mixture_of_experts(z, mu, logvar, mask=None, *, reduction="mean", num_threads=None):
    """Log density of z under the mixture of a sample's experts, each of the same weight [1]_.

    Parameters
    ----------
    z : array_like, shape (B, L) or (K, B, L)
        From ``reparameterize(mu[m], logvar[m])`` for each expert m in turn, for example: stratified
        samples.
    mu, logvar : array_like, shape (M, B, L)
        The experts of each sample, or the products of :func:`mopoe`.
    mask : array_like of bool, shape (M, B), optional
        Which of them count.
    reduction : {"mean", "sum", "none"}
        Over samples and batch.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (B,) or (K, B) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit, or no expert counts for a sample.

    References
    ----------
    .. [1] Shi, Siddharth, Paige, Torr. Variational mixture-of-experts autoencoders for multi-modal
       deep generative models. NeurIPS 2019.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = [[[-1.0]], [[1.0]]], [[[0.0]], [[0.0]]]
    >>> round(fastelbo.mixture_of_experts([[0.0]], mu, logvar), 6)
    -1.418939
    """
    return _mixture(z, mu, logvar, mask, reduction, None, False, num_threads)


@overload
def mixture_of_experts_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, ExpertsGrad]: ...
@overload
def mixture_of_experts_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, ExpertsGrad]: ...
def mixture_of_experts_and_grad(
    z, mu, logvar, mask=None, *, reduction="mean", out=None, num_threads=None
):
    """:func:`mixture_of_experts` and its gradients.

    Parameters
    ----------
    z, mu, logvar, mask, reduction, num_threads
        As in :func:`mixture_of_experts`.
    out : tuple (z, mu, logvar), optional
        Where to write the gradients.

    Returns
    -------
    value : float or ndarray
    gradients : ExpertsGrad
        ``z``, ``mu`` and ``logvar`` in the shapes of those; with ``reduction="none"`` of the sum.

    Raises
    ------
    ValueError, TypeError
        As :func:`mixture_of_experts`.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = [[[-1.0]], [[1.0]]], [[[0.0]], [[0.0]]]
    >>> fastelbo.mixture_of_experts_and_grad([[0.0]], mu, logvar)[1].mu.ravel()
    array([ 0.5, -0.5])
    """
    return _mixture(z, mu, logvar, mask, reduction, out, True, num_threads)
