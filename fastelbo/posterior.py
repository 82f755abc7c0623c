"""The posterior q(z|x) = N(mu, diag(e^logvar)): samples of it, and their log density."""

from __future__ import annotations

import os
import sys
from operator import index
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex, overload

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_numbers, as_whole, shown
from fastelbo._arrays import LATENT_COST
from fastelbo._threads import threads_for
from fastelbo.divergences import FreeBits, GaussianGrad, as_free_bits, kl_pass
from fastelbo.likelihoods import check_reduction
from fastelbo.locations import Gaussian

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import (
        ByRow,
        Float64Array,
        FloatArray,
        Number,
        Out,
        Reduced,
        Rng,
        Threads,
    )

_kernels = _builds.kernels("latent")
_MASK = (1 << 64) - 1
_GAUSSIAN = Gaussian("learned")


class PosteriorGrad(NamedTuple):
    """Gradients of a posterior's log density, each in the shape of the argument named so."""

    z: FloatArray
    mu: FloatArray
    logvar: FloatArray


class NoiseFrom(NamedTuple):
    """The normals of a key from one of them on, in the place of a key: those of some rows."""

    key: int
    first: int


def generator_of(rng):
    """A Generator as it is, or one that the key begins for which `rng` stands."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(noise_key(rng))


def noise_key(rng):
    """The 64-bit Philox key that `rng` stands for.

    An int is the key, a Generator gives 64 bits of its stream, None is fresh entropy.
    """
    if rng is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(rng, np.random.Generator):
        bits = rng.bit_generator.random_raw
        key = bits()
        return key if key >> 32 else key | bits() << 32 & _MASK  # MT19937 gives 32 bits at a time
    try:
        if isinstance(rng, bool):
            raise TypeError
        key = index(rng)
    except TypeError:
        if isinstance(rng, NoiseFrom):
            return rng
        raise TypeError(
            f"rng must be an int, a numpy.random.Generator or None, got {shown(rng)}"
        ) from None
    if not 0 <= key <= _MASK:
        raise ValueError(f"rng must lie in [0, 2**64), got {shown(key)}")
    return key


def noise_source(rng, noise, shape, single):
    """(noise, key) for a pass: what the caller drew, or the key to draw it by."""
    if noise is None:
        return None, noise_key(rng)
    if rng is not None:
        raise ValueError("give rng or noise, not both")
    return _arrays.as_noise(noise, shape, single), None


def shape_of_samples(mu, samples):
    """Of z: (B, L), or (K, B, L) for K `samples`."""
    if samples is None:
        return mu.shape
    samples = as_whole(samples, "samples", 1)
    if samples * mu.nbytes > sys.maxsize:
        raise ValueError(f"samples = {samples} of {mu.shape} are more than any array holds")
    return (samples, *mu.shape)


def _sample(mu, logvar, rng, noise, samples, out, num_threads, kl_arguments=None):
    """z, and the KL where kl_arguments = (free_bits, by_row) asks for it."""
    given = (mu, logvar, noise)
    mu, logvar = _arrays.latents(mu, logvar)
    shape = shape_of_samples(mu, samples)
    single = mu.dtype.itemsize == 4
    noise, key = noise_source(rng, noise, shape, single)
    z = _arrays.checked_out(out, shape, single, given, "out")
    threads = threads_for(z.size * LATENT_COST, num_threads)
    wanted = kl_arguments is not None
    free_bits, by_row = kl_arguments or (None, False)
    return z, kl_pass(
        mu, logvar, noise, key, z, None, 0.0, free_bits, by_row, threads, wanted=wanted
    )


def reparameterize(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = None,
    noise: ArrayLike | None = None,
    samples: SupportsIndex | None = None,
    out: Out = None,
    num_threads: Threads = None,
) -> FloatArray:
    """Samples z = mu + e^(logvar/2) eps of the posterior, drawing eps on the way.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
    rng : int, numpy.random.Generator or None, optional
        Where eps comes from: an int in [0, 2**64) is the key of a counter-based generator
        (Philox4x32-10 [1]_), a Generator gives such a key, None takes fresh entropy. For one key
        the numbers do not depend on the number of threads.
    noise : array_like, optional
        eps itself, in the shape of z.
    samples : int, optional
        K: draw K samples, z being (K, B, L). Without it z is (B, L).
    out : ndarray, optional
        Where to write z.
    num_threads : int, optional

    Returns
    -------
    ndarray, shape (B, L) or (K, B, L)

    Raises
    ------
    ValueError
        If shapes do not match, or both rng and noise are given.

    References
    ----------
    .. [1] Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.reparameterize([[1.0, 2.0]], [[0.0, 0.0]], noise=[[0.5, -1.0]])
    array([[1.5, 1. ]])
    >>> fastelbo.reparameterize([[0.0]], [[0.0]], rng=7, samples=3).shape
    (3, 1, 1)
    """
    return _sample(mu, logvar, rng, noise, samples, out, num_threads)[0]


@overload
def reparameterize_kl(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    samples: SupportsIndex | None = ...,
    free_bits: Number | FreeBits = ...,
    reduction: Reduced = ...,
    out: Out = ...,
    num_threads: Threads = ...,
) -> tuple[FloatArray, float]: ...
@overload
def reparameterize_kl(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    samples: SupportsIndex | None = ...,
    free_bits: Number | FreeBits = ...,
    reduction: ByRow,
    out: Out = ...,
    num_threads: Threads = ...,
) -> tuple[FloatArray, Float64Array]: ...
def reparameterize_kl(
    mu,
    logvar,
    *,
    rng=None,
    noise=None,
    samples=None,
    free_bits=0.0,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`reparameterize` and :func:`~fastelbo.kl_standard_normal` in one pass.

    Parameters
    ----------
    mu, logvar, rng, noise, samples, out, num_threads
        As in :func:`reparameterize`.
    free_bits, reduction
        As in :func:`~fastelbo.kl_standard_normal`.

    Returns
    -------
    z : ndarray, shape (B, L) or (K, B, L)
    kl : float, or ndarray of shape (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`reparameterize`.

    Examples
    --------
    >>> import fastelbo
    >>> z, kl = fastelbo.reparameterize_kl([[1.0]], [[0.0]], noise=[[2.0]])
    >>> z, kl
    (array([[3.]]), 0.5)
    """
    check_reduction(reduction)
    free_bits = as_free_bits(free_bits)
    z, kl = _sample(
        mu, logvar, rng, noise, samples, out, num_threads, (free_bits, reduction == "none")
    )
    if reduction == "mean":
        kl /= z.shape[-2]
    return z, kl


def reparameterize_backward(
    grad_z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    z: ArrayLike | None,
    *,
    kl_weight: ArrayLike = 0.0,
    noise: ArrayLike | None = None,
    rng: SupportsIndex | None = None,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> GaussianGrad:
    """Gradients of mu and logvar from the gradient of z, minus kl_weight times those of the KL.

    The way back of :func:`reparameterize_kl`: with ``grad_z`` the gradient of an objective to
    ascend with respect to z, and ``kl_weight`` beta (divided by B if the objective is a mean),

    - mu: sum over samples of grad_z, minus kl_weight * mu
    - logvar: sum of grad_z * (z - mu) / 2, minus kl_weight * (e^logvar - 1) / 2

    Parameters
    ----------
    grad_z : array_like, shape (B, L) or (K, B, L)
    mu, logvar : array_like, shape (B, L)
    z : array_like, in the shape of grad_z, or None
        What :func:`reparameterize` returned. May be None with `noise` or `rng`.
    kl_weight : float or array_like of shape (L,), optional
    noise : array_like, in the shape of grad_z, optional
        eps, if it is at hand: then sigma eps stands for z - mu, which loses digits where sigma is
        far smaller than mu.
    rng : int, optional
        The key that z was drawn with: eps is drawn again instead of read.
    out : tuple of two ndarray, optional
        Where to write the gradients of mu and logvar.
    num_threads : int, optional

    Returns
    -------
    GaussianGrad
        ``mu`` and ``logvar``, each (B, L).

    Raises
    ------
    ValueError
        If shapes do not match.

    Examples
    --------
    >>> import fastelbo
    >>> grad = fastelbo.reparameterize_backward([[1.0]], [[0.0]], [[0.0]], [[0.5]], kl_weight=1.0)
    >>> grad.mu, grad.logvar
    (array([[1.]]), array([[0.25]]))
    """
    given = (grad_z, mu, logvar, z, noise, kl_weight)
    mu, logvar = _arrays.latents(mu, logvar)
    single = mu.dtype.itemsize == 4
    grad_z = _arrays.as_rows(grad_z, "grad_z", single)
    if grad_z.shape[-2:] != mu.shape or grad_z.ndim not in (2, 3) or 0 in grad_z.shape[:-2]:
        expected = f"{mu.shape} or (samples, {mu.shape[0]}, {mu.shape[1]})"
        raise _arrays.shape_error("grad_z", grad_z.shape, expected)
    key = None
    if noise is not None or rng is not None:
        if isinstance(rng, np.random.Generator):
            raise TypeError("rng must be the int that z was drawn with: a Generator has moved on")
        noise, key = noise_source(rng, noise, grad_z.shape, single)
        z = None
    elif z is None:
        raise TypeError("z is None, which needs noise or rng")
    else:
        z = _arrays.as_rows(z, "z", single)
        if z.shape != grad_z.shape:
            raise _arrays.shape_error("z", z.shape, f"that of grad_z, {grad_z.shape}")
    col_weight = None
    if type(kl_weight) is not float:
        weights = as_numbers(kl_weight, "kl_weight")
        kl_weight = 0.0
        if weights.ndim == 0:
            kl_weight = float(weights)
        elif weights.shape == mu.shape[1:]:
            col_weight = np.ascontiguousarray(weights)
        else:
            raise _arrays.shape_error("kl_weight", weights.shape, f"() or {mu.shape[1:]}")
    grads = _arrays.checked_outs(out, (mu.shape, mu.shape), single, given, ("mu", "logvar"))
    threads = threads_for(grad_z.size * LATENT_COST, num_threads)
    _kernels.backward(grad_z, mu, logvar, z, noise, key, *grads, kl_weight, col_weight, threads)
    return GaussianGrad(*grads)


@overload
def posterior_log_prob(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def posterior_log_prob(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
def posterior_log_prob(z, mu, logvar, *, reduction="mean", num_threads=None):
    """Log density log q(z|x) = log N(z; mu, diag(e^logvar)), summed over the latent dimensions.

    Parameters
    ----------
    z : array_like, shape (B, L) or (K, B, L)
        A point for each x, or K of them.
    mu, logvar : array_like, shape (B, L)
    reduction : {"mean", "sum", "none"}
        Over the batch, and over the samples.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (B,) or (K, B) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit; the message names the argument.

    See Also
    --------
    log_weights : log p(x|z) + log p(z) - log q(z|x).
    mixture_log_prob : Points under all components of a mixture.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.posterior_log_prob([[1.0]], [[0.0]], [[0.0]]), 6)
    -1.418939
    >>> fastelbo.posterior_log_prob(
    ...     [[[1.0]], [[0.0]]], [[0.0]], [[0.0]], reduction="none"
    ... ).round(6)
    array([[-1.418939],
           [-0.918939]])
    """
    return _log_prob(z, mu, logvar, reduction, num_threads)[0]


@overload
def posterior_log_prob_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, PosteriorGrad]: ...
@overload
def posterior_log_prob_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, PosteriorGrad]: ...
def posterior_log_prob_and_grad(z, mu, logvar, *, reduction="mean", out=None, num_threads=None):
    """:func:`posterior_log_prob` and its gradients.

    Parameters
    ----------
    z, mu, logvar, reduction, num_threads
        As in :func:`posterior_log_prob`.
    out : tuple (z, mu, logvar), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    value : float or ndarray of shape (B,) or (K, B)
    gradients : PosteriorGrad
        ``z``, ``mu`` and ``logvar``, z being held apart from the others; with
        ``reduction="none"`` those of the sum.

    Raises
    ------
    ValueError, TypeError
        As :func:`posterior_log_prob`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.posterior_log_prob_and_grad([[2.0]], [[0.0]], [[0.0]])
    >>> grad.z, grad.mu, grad.logvar
    (array([[-2.]]), array([[2.]]), array([[1.5]]))
    """
    return _log_prob(z, mu, logvar, reduction, num_threads, out, True)


def check_points(z, mu, logvar):
    """z, mu and logvar as float arrays whose shapes fit."""
    mu, logvar = _arrays.latents(mu, logvar)
    z = _arrays.as_floats(z, "z")
    if z.ndim not in (2, 3) or z.shape[-2:] != mu.shape or 0 in z.shape[:-2]:
        expected = f"{mu.shape} or (samples, {mu.shape[0]}, {mu.shape[1]})"
        raise _arrays.shape_error("z", z.shape, expected)
    return z, mu, logvar


def _log_prob(z, mu, logvar, reduction, num_threads, out=None, with_gradient=False):
    """(value, PosteriorGrad or None). A Gaussian is that of the distance: z is what it is around,
    so that all of its samples meet one mu."""
    check_reduction(reduction)
    given = (z, mu, logvar)
    z, mu, logvar = check_points(*given)
    log_scale = 0.5 * logvar
    options = (None, reduction, num_threads)
    if not with_gradient:
        return _GAUSSIAN._log_prob(mu, (z, log_scale), *options, None, False), None
    single = _arrays.computes_in_float32((z, mu, logvar))
    shapes = (z.shape, mu.shape, logvar.shape)
    by_z, by_mu, by_logvar = _arrays.checked_outs(out, shapes, single, given, PosteriorGrad._fields)
    value, _ = _GAUSSIAN._log_prob(mu, (z, log_scale), *options, (by_z, by_logvar), True)
    by_logvar *= 0.5
    if z.ndim == 2:
        np.negative(by_z, out=by_mu)
    else:
        by_mu[...] = -by_z.sum(axis=0, dtype=np.float64)
    return value, PosteriorGrad(by_z, by_mu, by_logvar)
