"""Whatever compares every sample with every other: total correlation, beta-TCVAE, MMD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import numpy as np

from fastelbo._arguments import check_choice
from fastelbo.aggregate import Sampling
from fastelbo.discrepancies import ESTIMATORS, KERNELS
from fastelbo.jax._bridge import Operation, evaluate, is_plain, options_of, pulled
from fastelbo.jax._inputs import as_arrays, as_weight, axes_from, check, function, narrowed
from fastelbo.jax.elbo import SQUARED_ERROR
from fastelbo.jax.likelihoods import as_likelihood
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Numbers, Reduction
    from fastelbo.jax._typing import AnyLikelihood, Outputs


class TotalCorrelation(NamedTuple):
    """Three parts of the KL, in nats; (B,) each for ``reduction="none"``."""

    mutual_information: jax.Array
    total_correlation: jax.Array
    dimension_wise_kl: jax.Array


class BetaTcvaeResult(NamedTuple):
    """The parts of a beta-TCVAE's objective, in nats; (B,) each for ``reduction="none"``."""

    elbo: jax.Array
    reconstruction: jax.Array
    mutual_information: jax.Array
    total_correlation: jax.Array
    dimension_wise_kl: jax.Array


def total_correlation(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    dataset_size: int,
    method: Literal["mws", "mss"] = "mws",
    normalize: bool = True,
    mss: Literal["paper", "reference"] = "paper",
    reduction: Reduction = "mean",
) -> TotalCorrelation:
    """Decomposition of the aggregate KL; see :func:`fastelbo.total_correlation`.

    Parameters
    ----------
    z : array_like, shape (B, L)
        One sample of q(z|x) for each x.
    mu, logvar : array_like, shape (B, L)
    dataset_size : int
        How many data points the minibatch was drawn from.
    method : {"mws", "mss"}
        Minibatch-weighted or minibatch-stratified sampling.
    normalize : bool, optional
        False leaves out 1 / (B N). For ``method="mws"`` only.
    mss : {"paper", "reference"}
        Whose weights ``method="mss"`` takes.
    reduction : {"mean", "sum", "none"}
        Over the batch. With "none" gradients take JAX's operations, and O(B^2 L) memory.

    Returns
    -------
    TotalCorrelation
        ``mutual_information``, ``total_correlation``, ``dimension_wise_kl``, in nats. Gradients
        flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape or option does not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> z = mu = jnp.array([[-3.0, 0.0], [3.0, 0.0]])
    >>> parts = fastelbo.jax.total_correlation(z, mu, 0 * mu, dataset_size=2)
    >>> parts.total_correlation.round(4)
    Array(0.6931, dtype=float32)
    """
    check_reduction(reduction)
    sampling = {"dataset_size": dataset_size, "method": method, "normalize": normalize, "mss": mss}
    half, arrays = as_arrays(z=z, mu=mu, logvar=logvar)
    operation = _decomposition(arrays, sampling, reduction)
    if reduction == "none" or is_plain():
        return narrowed(TotalCorrelation(*evaluate(operation, *arrays)), half)
    return narrowed(TotalCorrelation(*pulled(operation, *arrays)), half)


def beta_tcvae_elbo(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    dataset_size: int,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 6.0,
    gamma: ArrayLike = 1.0,
    method: Literal["mws", "mss"] = "mws",
    normalize: bool = True,
    mss: Literal["paper", "reference"] = "paper",
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> BetaTcvaeResult:
    """ELBO of a beta-TCVAE; see :func:`fastelbo.beta_tcvae_elbo`.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data; uint8 and other integers are read as they are.
    z, mu, logvar, dataset_size, method, normalize, mss
        As in :func:`total_correlation`.
    x_recon : array_like, or a tuple of them
        What the decoder makes of z, as the likelihood reads it.
    likelihood : Likelihood or str, optional
        One of this module's, or of fastelbo's.
    alpha, beta, gamma : float or Array, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL. Numbers
        are fastest: then gradients come with the values.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the batch, as in :func:`total_correlation`.

    Returns
    -------
    BetaTcvaeResult
        ``elbo``, ``reconstruction``, ``mutual_information``, ``total_correlation``,
        ``dimension_wise_kl``, in nats. Gradients flow through all of them.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> x = x_recon = jnp.array([[0.0], [1.0]])
    >>> z = mu = jnp.array([[-3.0], [3.0]])
    >>> fastelbo.jax.beta_tcvae_elbo(x, z, mu, 0 * mu, x_recon, dataset_size=2).elbo.round(4)
    Array(-4.5, dtype=float32)
    """
    check_reduction(reduction)
    likelihood = as_likelihood(likelihood)
    sampling = {"dataset_size": dataset_size, "method": method, "normalize": normalize, "mss": mss}
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    latents = {"z": z, "mu": mu, "logvar": logvar}
    half, x, z, mu, logvar, outputs, mask = likelihood._as_arrays(x, outputs, mask, **latents)
    if x.shape[:1] != mu.shape[:1]:
        raise ValueError(f"mu has shape {mu.shape}, expected ({len(x)}, latent dimensions)")
    reconstruction = likelihood.log_prob(x, *outputs, mask=mask, reduction=reduction)
    arrays = z, mu, logvar
    names = {"alpha": alpha, "beta": beta, "gamma": gamma}
    weights = tuple([as_weight(weight, name) for name, weight in names.items()])
    numbers = all(isinstance(weight, float) for weight in weights)
    if numbers and reduction != "none" and not is_plain():
        cost, *parts = evaluate(_decomposition(arrays, sampling, reduction, weights), *arrays)
        parts = pulled(_decomposition(arrays, sampling, reduction), *arrays, values=parts)
    else:
        parts = total_correlation(*arrays, **sampling, reduction=reduction)
        cost = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return narrowed(BetaTcvaeResult(reconstruction - cost, reconstruction, *parts), half)


def _decomposition(arrays, sampling, reduction, weights=()):
    Sampling(len(arrays[0]), **sampling)
    options = {**sampling, "reduction": reduction}
    check("total_correlation", *arrays, **options)
    return Decomposition(tuple(options.items()), weights, len(arrays[0]))


@dataclass(frozen=True)
class Decomposition(Operation):
    """The three parts, of arrays (z, mu, logvar); with weights, their weighted sum before them.

    Gradients are those of the sum; those of the parts are computed on the way back.
    """

    options: tuple
    weights: tuple
    batch: int

    def planned(self):
        options = dict(self.options)
        reduction = options.pop("reduction")
        sampling = Sampling(self.batch, **options)
        return ("z", "mu", "logvar"), {
            "sampling": sampling,
            "batch": self.batch,
            "weights": self.weights,
            "reduction": reduction,
        }

    def values(self, module, arrays):
        return self._with_sum(module.total_correlation(*arrays, **dict(self.options)))

    def _with_sum(self, parts):
        if not self.weights:
            return tuple(parts)
        return sum(w * p for w, p in zip(self.weights, parts, strict=True)), *parts

    def gradients(self, module, arrays, out):
        options = {**dict(self.options), "weights": self.weights}
        parts, gradients = module.total_correlation_and_grad(*arrays, **options_of(out, **options))
        return self._with_sum(parts), tuple(gradients)

    def slots(self, arrays):
        if not self.weights:
            return None
        return {slot: (0, axes_from(0, 0)) for slot in range(3)}

    def pull(self, module, arrays, cotangents):
        weights = [c.item() if isinstance(c, np.ndarray) else c for c in cotangents]
        options = {**dict(self.options), "weights": tuple(weights)}
        return tuple(module.total_correlation_and_grad(*arrays, **options)[1])


def mmd(
    z: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["rbf", "imq"] = "rbf",
    bandwidth: Numbers | None = None,
    estimator: Literal["unbiased", "biased"] = "unbiased",
) -> Array:
    """Squared maximum mean discrepancy of two sets of samples; see :func:`fastelbo.mmd`.

    Parameters
    ----------
    z : array_like, shape (N, L)
    y : array_like, shape (M, L)
    kernel : {"rbf", "imq"}
    bandwidth : float or sequence of float, optional
        The kernel is the sum over several. By default :func:`fastelbo.mmd`'s.
    estimator : {"unbiased", "biased"}
        Without the pairs of a sample with itself, or with them.

    Returns
    -------
    Array, shape ()

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import fastelbo.jax
    >>> z, y = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [3.0]])
    >>> fastelbo.jax.mmd(z, y, bandwidth=1.0).round(4)
    Array(-0.2588, dtype=float32)
    """
    check_choice(kernel, "kernel", KERNELS)
    check_choice(estimator, "estimator", ESTIMATORS)
    half, arrays = as_arrays(z=z, y=y)
    if bandwidth is not None:
        bandwidth = tuple(np.atleast_1d(bandwidth).tolist())
    options = {"kernel": kernel, "bandwidth": bandwidth, "estimator": estimator}
    check("mmd", *arrays, **options)
    return narrowed(function("mmd", *arrays, **options), half)
