"""Losses to minimise: modules, and drop-ins for the lines that they replace.

One order everywhere: a loss is made of its likelihood, all else by name, and takes ``x``, ``z``
where there are samples, ``mu``, ``logvar``, and what the decoder gives. A drop-in takes its
arguments in the order of what it replaces, and its errors say so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from fastelbo._arguments import as_flag, as_whole, check_choice
from fastelbo.aggregate import METHODS, VARIANTS
from fastelbo.divergences import as_free_bits
from fastelbo.importance import ESTIMATORS
from fastelbo.torch._tensors import as_weight, check_reduction, check_tensors
from fastelbo.torch.aggregate import signed_beta_tcvae
from fastelbo.torch.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.torch.elbo import negative_elbo
from fastelbo.torch.importance import signed_iwae
from fastelbo.torch.likelihoods import Bernoulli, Likelihood, as_likelihood
from fastelbo.torch.locations import SquaredError
from fastelbo.torch.priors import as_prior

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.torch._typing import AnyLikelihood, AnyPrior, Outputs, Weight

#: Those of the drop-ins, by whether they validate.
_BERNOULLI, _NEGATIVE_BINOMIAL, _ZERO_INFLATED = (
    {validate: kind(validate=validate) for validate in (False, True)}
    for kind in (Bernoulli, NegativeBinomial, ZeroInflatedNegativeBinomial)
)

#: What is found by an attribute that is set, now or later.
_STANDS_FOR = {"likelihood": as_likelihood, "prior": as_prior}

#: scvi-tools' names of what likelihoods read.
_SCVI = {"mean": "mu", "zero_logits": "pi"}


class _Loss(nn.Module):
    """What the losses share."""

    def __init__(self, likelihood: AnyLikelihood | None, reduction: Reduction) -> None:
        super().__init__()
        check_reduction(reduction)
        self.likelihood = SquaredError() if likelihood is None else likelihood
        self.reduction = reduction

    @property
    def likelihood(self) -> Likelihood:
        """log p(x | x_recon). The module registers what of its arguments are parameters."""
        return self._likelihood

    @likelihood.setter
    def likelihood(self, likelihood: AnyLikelihood) -> None:
        self._likelihood = likelihood
        held = likelihood.held
        self.likelihood_parameters = held.registered if held and held.registered else None

    def __setattr__(self, name: str, value: Any) -> None:
        # Before PyTorch sees it, which registers any module, whether or not there is a setter.
        super().__setattr__(name, _STANDS_FOR[name](value) if name in _STANDS_FOR else value)


class ElboLoss(_Loss):
    """Minus the ELBO, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood or str, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`. Parameters among its arguments become
        parameters of the loss.
    prior : object, optional
        p(z), as in :func:`~fastelbo.torch.elbo`; one that is a module is registered. The loss then
        needs the z that the decoder was given.
    beta : float, optional
        Weight of the KL. An attribute that may change between steps.
    free_bits : float or FreeBits, optional
        A floor under the KL.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli, ElboLoss
    >>> loss = ElboLoss(likelihood=Bernoulli())
    >>> mu = logvar = torch.zeros(1, 2)
    >>> loss(torch.tensor([[1.0, 0.0]]), mu, logvar, torch.zeros(1, 2))
    tensor(1.3863)
    """

    def __init__(
        self,
        likelihood: AnyLikelihood | None = None,
        *,
        prior: AnyPrior | None = None,
        beta: Weight = 1.0,
        free_bits: float | FreeBits = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(likelihood, reduction)
        self.prior = prior
        if as_free_bits(free_bits) is not None and self.prior is not None:
            raise ValueError("free_bits needs a KL in closed form, which only prior=None has")
        self.beta = as_weight(beta, "beta")
        self.free_bits = free_bits

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        z: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of data x (B, ...), posterior (B, L) and decoder output(s); with a prior also of
        the sample z (B, L) of the posterior that the decoder was given."""
        if z is not None:
            check_tensors(z=z)
        options = self._likelihood, self.beta, self.free_bits, mask, self.reduction
        return negative_elbo(x, mu, logvar, x_recon, *options, self.prior, z)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"likelihood={self.likelihood!r}, beta={self.beta}, free_bits={self.free_bits}"


class IwaeLoss(_Loss):
    """Minus the importance-weighted bound, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood or str, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`. Parameters among its arguments become
        parameters of the loss.
    prior : object, optional
        p(z), as in :func:`~fastelbo.torch.iwae`; one that is a module is registered.
    estimator, reduction
        As in :func:`~fastelbo.torch.iwae`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli, IwaeLoss
    >>> mu = logvar = torch.zeros(1, 2)
    >>> z = torch.zeros(3, 1, 2)
    >>> IwaeLoss(likelihood=Bernoulli())(torch.tensor([[1.0, 0.0]]), z, mu, logvar, z)
    tensor(1.3863)
    """

    def __init__(
        self,
        likelihood: AnyLikelihood | None = None,
        *,
        prior: AnyPrior | None = None,
        estimator: Literal["standard", "stl", "dreg"] = "standard",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(likelihood, reduction)
        check_choice(estimator, "estimator", ESTIMATORS)
        self.prior = prior
        self.estimator = estimator

    def forward(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of data x (B, ...), samples z (K, B, L) of the posterior (B, L), and what the
        decoder makes of them, (K, B, ...)."""
        options = self.likelihood, self.prior, mask, self.estimator, self.reduction
        return signed_iwae(x, z, mu, logvar, x_recon, *options, sign=-1.0)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"likelihood={self.likelihood!r}, estimator={self.estimator!r}"


class BetaTCVAELoss(_Loss):
    """Minus the beta-TCVAE objective, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood or str, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`. Parameters among its arguments become
        parameters of the loss.
    dataset_size : int
        How many data points the minibatches are drawn from.
    alpha, beta, gamma : float, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL.
        Attributes that may change between steps.
    method, normalize, mss, reduction
        As in :func:`~fastelbo.torch.beta_tcvae_elbo`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli, BetaTCVAELoss
    >>> loss = BetaTCVAELoss(Bernoulli(), dataset_size=1)
    >>> z = mu = logvar = torch.zeros(1, 2)
    >>> loss(torch.tensor([[1.0, 0.0]]), z, mu, logvar, torch.zeros(1, 2))
    tensor(1.3863)
    """

    def __init__(
        self,
        likelihood: AnyLikelihood | None = None,
        *,
        dataset_size: int,
        alpha: Weight = 1.0,
        beta: Weight = 6.0,
        gamma: Weight = 1.0,
        method: Literal["mws", "mss"] = "mws",
        normalize: bool = True,
        mss: Literal["paper", "reference"] = "paper",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(likelihood, reduction)
        self.dataset_size = as_whole(dataset_size, "dataset_size", 1)
        self.alpha, self.beta, self.gamma = map(
            as_weight, (alpha, beta, gamma), ("alpha", "beta", "gamma")
        )
        check_choice(method, "method", METHODS)
        check_choice(mss, "mss", VARIANTS)
        self.method, self.normalize, self.mss = method, normalize, mss

    def forward(
        self,
        x: Tensor,
        z: Tensor,
        mu: Tensor,
        logvar: Tensor,
        x_recon: Outputs,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of data x (B, ...), one sample z of each posterior (B, L) and what the decoder
        makes of it."""
        weights = self.alpha, self.beta, self.gamma
        sampling = {
            "dataset_size": self.dataset_size,
            "method": self.method,
            "normalize": self.normalize,
            "mss": self.mss,
        }
        options = self.likelihood, weights, sampling, mask, self.reduction
        loss, _ = signed_beta_tcvae(x, z, mu, logvar, x_recon, *options, sign=-1.0)
        return loss

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        weights = f"alpha={self.alpha}, beta={self.beta}, gamma={self.gamma}"
        return f"likelihood={self.likelihood!r}, dataset_size={self.dataset_size}, {weights}"


def _of_drop_in(error, order, names=None):
    """An error of what a drop-in calls, with the drop-in's names of arguments, and their order."""
    name, rest = re.match(r"(\w*)(.*)", str(error), re.DOTALL).groups()
    return ValueError(f"{(names or {}).get(name, name)}{rest}; the order is {order}")


def vae_loss(
    logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, *, validate: bool = True
) -> Tensor:
    """The loss of PyTorch's VAE example, summed over the batch.

    In place of::

        binary_cross_entropy_with_logits(logits, x, reduction="sum")
        - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    Parameters
    ----------
    logits, x : Tensor, shape (B, ...)
        In the order of the example's ``recon_x, x``.
    mu, logvar : Tensor, shape (B, L)
    validate : bool, optional
        Raise ValueError where x lies outside [0, 1], as logits in its place do; on the CPU.

    Returns
    -------
    Tensor, shape ()

    Raises
    ------
    ValueError
        If shapes do not match, or x lies outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import vae_loss
    >>> zeros = torch.zeros(1, 2)
    >>> vae_loss(zeros, zeros, zeros, zeros)
    tensor(1.3863)
    """
    check_tensors(logits=logits, x=x, mu=mu, logvar=logvar)
    likelihood = _BERNOULLI[as_flag(validate, "validate")]
    try:
        return negative_elbo(x, mu, logvar, logits, likelihood, 1.0, 0.0, None, "sum")
    except ValueError as error:
        raise _of_drop_in(error, "logits, x, mu, logvar") from None


def negative_binomial_loss(
    x: Tensor,
    mu: Tensor,
    theta: Tensor,
    *,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    """Minus the negative binomial log-likelihood, summed over genes.

    In place of scvi-tools' ``-log_nb_positive(x, mu, theta).sum(-1)``, and its mean over cells.
    There a small number is added to the parameters; here none is. So a mean of 0 with a positive
    count, which it makes impossible, is an infinite loss here and a finite one there.

    Parameters
    ----------
    x : Tensor, shape (B, G)
        Counts, of any real dtype.
    mu : Tensor, shape (B, G)
        Means.
    theta : Tensor, shape (G,) or one that broadcasts to (B, G)
        Inverse dispersion.
    reduction : {"mean", "sum", "none"}
        Over the cells.
    validate : bool, optional
        Raise ValueError where x is no count, a mean is negative or a theta not positive, on the
        CPU. Without, fractional x are continued by the gamma function, and the rest gives NaN.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes do not match or something lies outside the domain.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import negative_binomial_loss
    >>> negative_binomial_loss(torch.tensor([[0, 2]]), torch.ones(1, 2), torch.ones(2))
    tensor(2.7726)
    """
    check_reduction(reduction)
    check_tensors(x=x, mu=mu)
    likelihood = _NEGATIVE_BINOMIAL[as_flag(validate, "validate")]
    try:
        return likelihood._signed(x, (mu, theta), None, reduction, -1.0)
    except ValueError as error:
        raise _of_drop_in(error, "x, mu, theta", _SCVI) from None


def zero_inflated_negative_binomial_loss(
    x: Tensor,
    mu: Tensor,
    theta: Tensor,
    pi: Tensor,
    *,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    """Minus the zero-inflated negative binomial log-likelihood, summed over genes.

    In place of scvi-tools' ``-log_zinb_positive(x, mu, theta, pi).sum(-1)``, and its mean over
    cells.

    Parameters
    ----------
    x, mu, theta, reduction, validate
        As in :func:`negative_binomial_loss`.
    pi : Tensor, shape (B, G)
        Logits of the excess of zeros.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        As :func:`negative_binomial_loss`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import zero_inflated_negative_binomial_loss
    >>> one = torch.ones(1, 1)
    >>> zero_inflated_negative_binomial_loss(one - one, one, one, one - one)
    tensor(0.2877)
    """
    check_reduction(reduction)
    check_tensors(x=x, mu=mu)
    likelihood = _ZERO_INFLATED[as_flag(validate, "validate")]
    try:
        return likelihood._signed(x, (mu, theta, pi), None, reduction, -1.0)
    except ValueError as error:
        raise _of_drop_in(error, "x, mu, theta, pi", _SCVI) from None
