"""Functions of which every sample meets every point: aggregate posterior, mixtures, MMD."""

from typing import NamedTuple

import torch

import fastelbo
from fastelbo.aggregate import Sampling
from fastelbo.discrepancies import BANDWIDTHS, ESTIMATORS, KERNELS
from fastelbo.mixtures import weighted_gradients
from fastelbo.torch import composites
from fastelbo.torch._bridge import Operation, run, scaled
from fastelbo.torch._tensors import check_reduction, check_tensors, has_kernels, promoted
from fastelbo.torch.likelihoods import Likelihood, SquaredError


def _stacked(upstream, like):
    """Upstream gradients, numbers, tensors () or None, as one tensor."""
    return torch.stack(
        [torch.as_tensor(0.0 if g is None else g, dtype=like.dtype) for g in upstream]
    )


# The aggregate posterior ------------------------------------------------------------------------


class TotalCorrelation(NamedTuple):
    """The parts of log q(z|x) - log p(z), in nats: shape (), or (B,) for ``reduction="none"``."""

    mutual_information: torch.Tensor
    total_correlation: torch.Tensor
    dimension_wise_kl: torch.Tensor


class BetaTcvaeResult(NamedTuple):
    """The parts of a beta-TCVAE objective: shape (), or (B,) for ``reduction="none"``."""

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    mutual_information: torch.Tensor
    total_correlation: torch.Tensor
    dimension_wise_kl: torch.Tensor


class AggregateParts(Operation):
    """The parts of tensors (z, mu, logvar); before them, given three weights, their weighted sum.

    Gradients are those of the sum; those of the parts are computed when they are known to be
    wanted.
    """

    def __init__(self, *options):
        super().__init__(*options)
        self.sampling, self.reduction, self.weights = options[:4], options[4], options[5:]
        self.values = 4 if self.weights else 3
        self.gives_gradients = bool(self.weights)

    def forward(self, arrays, with_gradient, threads):
        dataset_size, method, normalize, mss = self.sampling
        options = {
            "dataset_size": dataset_size,
            "method": method,
            "normalize": normalize,
            "mss": mss,
            "reduction": self.reduction,
            "num_threads": threads,
        }
        gradients = ()
        if with_gradient and self.weights:
            parts, gradients = fastelbo.total_correlation_and_grad(
                *arrays, weights=self.weights, **options
            )
        else:
            parts = fastelbo.total_correlation(*arrays, **options)
        if not self.weights:
            return parts, ()
        return (
            sum(w * part for w, part in zip(self.weights, parts, strict=True)),
            *parts,
        ), gradients

    def shapes(self, tensors):
        return [tensors[0].shape[:1] if self.reduction == "none" else ()] * self.values

    def slots(self, count):
        return range(3)

    def kept(self, tensors):
        return tensors

    def backward(self, upstream, gradients, kept, run):
        flows = [None] * 3
        if self.weights and upstream[0] is not None:
            flows = [scaled(gradient, upstream[0]) for gradient in gradients]
        of_parts = upstream[-3:]
        if any([g is not None for g in of_parts]):
            operation = AggregatePartsBackward(*self.sampling, self.reduction)
            more = run(operation, *kept, _stacked(of_parts, kept[0]))
            flows = [m if f is None else f + m for f, m in zip(flows, more, strict=True)]
        return flows


class AggregatePartsBackward(Operation):
    """What flows to z, mu and logvar, of tensors (z, mu, logvar, upstream gradients of parts)."""

    values = 3
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        *latent, weights = arrays
        dataset_size, method, normalize, mss, reduction = self.options
        _, gradients = fastelbo.total_correlation_and_grad(
            *latent,
            dataset_size=dataset_size,
            weights=weights.tolist(),
            method=method,
            normalize=normalize,
            mss=mss,
            reduction=reduction,
            num_threads=threads,
        )
        return gradients, ()

    def shapes(self, tensors):
        return [t.shape for t in tensors[:3]]


def total_correlation(
    z,
    mu,
    logvar,
    *,
    dataset_size,
    method="mws",
    normalize=True,
    mss="paper",
    reduction="mean",
):
    """Mutual information, total correlation and dimension-wise KL, from one minibatch.

    See :func:`fastelbo.total_correlation`.

    Parameters
    ----------
    z : Tensor, shape (B, L)
        One sample of q(z|x) for each x.
    mu, logvar : Tensor, shape (B, L)
    dataset_size : int
        How many data points the minibatch was drawn from.
    method : {"mws", "mss"}
        Minibatch-weighted or minibatch-stratified sampling.
    normalize : bool, optional
        False leaves out 1 / (B N). For ``method="mws"`` only.
    mss : {"paper", "reference"}
        Whose weights ``method="mss"`` takes.
    reduction : {"mean", "sum", "none"}
        Over the batch. With "none" gradients take PyTorch operations, and O(B^2 L) memory.

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
    >>> import torch
    >>> import fastelbo.torch
    >>> z = mu = torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
    >>> parts = fastelbo.torch.total_correlation(z, mu, torch.zeros(2, 2), dataset_size=2)
    >>> parts.total_correlation
    tensor(0.6931)
    """
    sampling = dataset_size, method, normalize, mss
    return TotalCorrelation(*_parts(z, mu, logvar, sampling, reduction))


def _parts(z, mu, logvar, sampling, reduction, weights=()):
    """The parts; before them, given weights, their weighted sum."""
    check_reduction(reduction)
    check_tensors(z=z, mu=mu, logvar=logvar)
    z, mu, logvar = promoted(z, mu, logvar)
    Sampling(len(z), *sampling)
    wanted = torch.is_grad_enabled() and any([t.requires_grad for t in (z, mu, logvar)])
    served = has_kernels(z, mu, logvar)
    if served and not (wanted and reduction == "none"):
        return run(AggregateParts(*sampling, reduction, *weights), z, mu, logvar)
    dtype = mu.dtype
    if served:  # as exact as the kernels
        z, mu, logvar = z.double(), mu.double(), logvar.double()
    parts = composites.total_correlation(z, mu, logvar, *sampling, reduction)
    parts = tuple([part.to(dtype) for part in parts])
    return (_weighted(weights, parts), *parts) if weights else parts


def _weighted(weights, parts):
    return sum([weight * part for weight, part in zip(weights, parts, strict=True)])


def beta_tcvae_elbo(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    dataset_size,
    likelihood=SquaredError(),  # noqa: B008
    alpha=1.0,
    beta=6.0,
    gamma=1.0,
    method="mws",
    normalize=True,
    mss="paper",
    mask=None,
    reduction="mean",
):
    """The beta-TCVAE objective: reconstruction - alpha MI - beta TC - gamma KL_dims.

    See :func:`fastelbo.beta_tcvae_elbo`.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Data; uint8 and other integers are read as they are.
    z, mu, logvar, dataset_size, method, normalize, mss
        As in :func:`total_correlation`.
    x_recon : Tensor or tuple of Tensor
        What the decoder makes of z, as the likelihood reads it.
    likelihood : Likelihood, optional
        One of this module's.
    alpha, beta, gamma : float, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL.
    mask : Tensor of bool, optional
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
    >>> import torch
    >>> import fastelbo.torch
    >>> x = x_recon = torch.tensor([[0.0], [1.0]])
    >>> z = mu = torch.tensor([[-3.0], [3.0]])
    >>> fastelbo.torch.beta_tcvae_elbo(x, z, mu, 0 * mu, x_recon, dataset_size=2).elbo
    tensor(-4.5000)
    """
    value, parts = signed_beta_tcvae(
        x,
        z,
        mu,
        logvar,
        x_recon,
        likelihood,
        (alpha, beta, gamma),
        (dataset_size, method, normalize, mss),
        mask,
        reduction,
        1.0,
    )
    return BetaTcvaeResult(value, *parts)


def signed_beta_tcvae(
    x, z, mu, logvar, x_recon, likelihood, weights, sampling, mask, reduction, sign
):
    """`sign` times the objective, and (`sign` times the log-likelihood, *parts).

    The weighted sum of the parts comes with its gradient but where torch.compile would take the
    weights for constants.
    """
    if not isinstance(likelihood, Likelihood):
        raise TypeError(f"likelihood must be one of fastelbo.torch, got {likelihood!r}")
    check_tensors(x=x, mu=mu)
    if x.shape[:1] != mu.shape[:1]:
        raise ValueError(f"mu has shape {tuple(mu.shape)}, expected ({len(x)}, latent dimensions)")
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    reconstruction = likelihood._signed(x, outputs, mask, reduction, sign)
    numbers = all([isinstance(weight, int | float) for weight in weights])
    if numbers and not torch.compiler.is_compiling():
        cost, *parts = _parts(z, mu, logvar, sampling, reduction, tuple(map(float, weights)))
    else:
        parts = _parts(z, mu, logvar, sampling, reduction)
        cost = _weighted(weights, parts)
    return reconstruction - cost if sign > 0 else reconstruction + cost, (reconstruction, *parts)


# Mixtures and samples ---------------------------------------------------------------------------


class MixtureLogProb(Operation):
    """Of tensors (z, log_weights, mu, logvar)."""

    def __init__(self, *options):
        super().__init__(*options)
        self.by_row = options[0] == "none"
        self.gives_gradients = not self.by_row

    def forward(self, arrays, with_gradient, threads):
        options = {"reduction": self.options[0], "num_threads": threads}
        if with_gradient and not self.by_row:
            value, gradients = fastelbo.mixture_log_prob_and_grad(*arrays, **options)
            return (value,), gradients
        return (fastelbo.mixture_log_prob(*arrays, **options),), ()

    def shapes(self, tensors):
        return [tensors[0].shape[:-1] if self.by_row else ()]

    def kept(self, tensors):
        return tensors if self.by_row else ()

    def slots(self, count):
        return range(4)

    def backward(self, upstream, gradients, kept, run):
        if not self.by_row:
            return super().backward(upstream, gradients, kept, run)
        return run(MixtureLogProbBackward(), *kept, upstream[0])


class MixtureLogProbBackward(Operation):
    """What flows to each, of tensors (z, log_weights, mu, logvar, upstream gradients)."""

    values = 4
    gives_gradients = False

    def forward(self, arrays, with_gradient, threads):
        return weighted_gradients(*arrays, num_threads=threads), ()

    def shapes(self, tensors):
        return [t.shape for t in tensors[:4]]


def mixture_log_prob(z, log_weights, mu, logvar, *, reduction="mean"):
    """Log density of points under a mixture of Gaussians; see :func:`fastelbo.mixture_log_prob`.

    Parameters
    ----------
    z : Tensor, shape (..., L)
    log_weights : Tensor, shape (K,)
        Logarithms of the components' weights, taken as they are:
        ``torch.log_softmax(logits, 0)`` gives those of logits.
    mu, logvar : Tensor, shape (K, L)
        Means and log variances of the components.
    reduction : {"mean", "sum", "none"}
        Over all points.

    Returns
    -------
    Tensor, shape (), or (...) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> mu = torch.tensor([[-1.0], [1.0]])
    >>> weights = torch.tensor([0.5, 0.5])
    >>> fastelbo.torch.mixture_log_prob(torch.zeros(1, 1), weights.log(), mu, torch.zeros(2, 1))
    tensor(-1.4189)
    """
    check_reduction(reduction)
    check_tensors(z=z, log_weights=log_weights, mu=mu, logvar=logvar)
    tensors = promoted(z, log_weights, mu, logvar)
    if not has_kernels(*tensors):
        return composites.mixture_log_prob(*tensors, reduction)
    return run(MixtureLogProb(reduction), *tensors)[0]


class Mmd(Operation):
    """Of tensors (z, y)."""

    def forward(self, arrays, with_gradient, threads):
        kernel, estimator, *bandwidth = self.options
        options = {
            "kernel": kernel,
            "estimator": estimator,
            "bandwidth": bandwidth or None,
            "num_threads": threads,
        }
        if not with_gradient:
            return (fastelbo.mmd(*arrays, **options),), ()
        value, gradients = fastelbo.mmd_and_grad(*arrays, **options)
        return (value,), gradients


def mmd(z, y, *, kernel="rbf", bandwidth=None, estimator="unbiased"):
    """Squared maximum mean discrepancy of two sets of samples; see :func:`fastelbo.mmd`.

    Parameters
    ----------
    z : Tensor, shape (N, L)
    y : Tensor, shape (M, L)
    kernel : {"rbf", "imq"}
    bandwidth : float or sequence of float, optional
        The kernel is the sum over several. By default :func:`fastelbo.mmd`'s.
    estimator : {"unbiased", "biased"}
        Without the pairs of a sample with itself, or with them.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> import torch
    >>> import fastelbo.torch
    >>> z, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    >>> fastelbo.torch.mmd(z, y, bandwidth=1.0)
    tensor(-0.2588)
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {KERNELS}, got {kernel!r}")
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    check_tensors(z=z, y=y)
    z, y = promoted(z, y)
    if bandwidth is None:
        bandwidth = ()
    else:
        bandwidth = bandwidth.tolist() if hasattr(bandwidth, "tolist") else bandwidth
        bandwidth = bandwidth if isinstance(bandwidth, list | tuple) else (bandwidth,)
    if has_kernels(z, y):
        return run(Mmd(kernel, estimator, *bandwidth), z, y)[0]
    if not bandwidth:
        bandwidth = [s * max(z.shape[1], 1) ** 0.5 for s in BANDWIDTHS[kernel]]
    return composites.mmd(z, y, kernel, estimator, bandwidth)
