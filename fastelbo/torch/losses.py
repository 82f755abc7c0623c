"""Losses to minimise: modules, and drop-ins for the lines that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

from fastelbo._arguments import as_whole, check_choice
from fastelbo.aggregate import METHODS, VARIANTS
from fastelbo.divergences import as_free_bits
from fastelbo.importance import ESTIMATORS
from fastelbo.torch._tensors import as_weight, check_prior, check_reduction
from fastelbo.torch.aggregate import signed_beta_tcvae
from fastelbo.torch.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.torch.elbo import negative_elbo
from fastelbo.torch.importance import signed_iwae
from fastelbo.torch.likelihoods import Bernoulli, Likelihood, as_likelihood
from fastelbo.torch.locations import SquaredError

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.torch._typing import AnyLikelihood, Outputs, Prior, Weight

_BERNOULLI = Bernoulli(validate=False)
_NEGATIVE_BINOMIAL = NegativeBinomial(validate=False)
_ZERO_INFLATED = ZeroInflatedNegativeBinomial(validate=False)


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
        likelihood = as_likelihood(likelihood)
        self._likelihood = likelihood
        held = likelihood.held
        self.likelihood_parameters = held.registered if held and held.registered else None


class ElboLoss(_Loss):
    """Minus the ELBO, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood or str, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`. Parameters among its arguments become
        parameters of the loss.
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
        beta: Weight = 1.0,
        free_bits: float | FreeBits = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(likelihood, reduction)
        as_free_bits(free_bits)
        self.beta = as_weight(beta, "beta")
        self.free_bits = free_bits

    def forward(
        self, x: Tensor, mu: Tensor, logvar: Tensor, x_recon: Outputs, *, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of data x (B, ...), posterior (B, L) and decoder output(s)."""
        options = self.likelihood, self.beta, self.free_bits, mask, self.reduction
        return negative_elbo(x, mu, logvar, x_recon, *options)

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
    prior, estimator, reduction
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
        prior: Prior | None = None,
        estimator: Literal["standard", "stl", "dreg"] = "standard",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(likelihood, reduction)
        check_prior(prior)
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
    dataset_size : int
        How many data points the minibatches are drawn from.
    likelihood : Likelihood or str, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`. Parameters among its arguments become
        parameters of the loss.
    alpha, beta, gamma : float, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL.
        Attributes that may change between steps.
    method, normalize, mss, reduction
        As in :func:`~fastelbo.torch.beta_tcvae_elbo`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli, BetaTCVAELoss
    >>> loss = BetaTCVAELoss(1, likelihood=Bernoulli())
    >>> z = mu = logvar = torch.zeros(1, 2)
    >>> loss(torch.tensor([[1.0, 0.0]]), z, mu, logvar, torch.zeros(1, 2))
    tensor(1.3863)
    """

    def __init__(
        self,
        dataset_size: int,
        likelihood: AnyLikelihood | None = None,
        *,
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
        return f"{self.dataset_size}, likelihood={self.likelihood!r}, {weights}"


def vae_loss(logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """The loss of PyTorch's VAE example, summed over the batch.

    In place of::

        binary_cross_entropy_with_logits(logits, x, reduction="sum")
        - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    Parameters
    ----------
    logits, x : Tensor, shape (B, ...)
    mu, logvar : Tensor, shape (B, L)

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import vae_loss
    >>> zeros = torch.zeros(1, 2)
    >>> vae_loss(zeros, zeros, zeros, zeros)
    tensor(1.3863)
    """
    return negative_elbo(x, mu, logvar, logits, _BERNOULLI, 1.0, 0.0, None, "sum")


def negative_binomial_loss(
    x: Tensor, mu: Tensor, theta: Tensor, *, reduction: Reduction = "mean"
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

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import negative_binomial_loss
    >>> negative_binomial_loss(torch.tensor([[0, 2]]), torch.ones(1, 2), torch.ones(2))
    tensor(2.7726)
    """
    return _NEGATIVE_BINOMIAL._signed(x, (mu, theta), None, reduction, -1.0)


def zero_inflated_negative_binomial_loss(
    x: Tensor, mu: Tensor, theta: Tensor, pi: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Minus the zero-inflated negative binomial log-likelihood, summed over genes.

    In place of scvi-tools' ``-log_zinb_positive(x, mu, theta, pi).sum(-1)``, and its mean over
    cells.

    Parameters
    ----------
    x, mu, theta, reduction
        As in :func:`negative_binomial_loss`.
    pi : Tensor, shape (B, G)
        Logits of the excess of zeros.

    Returns
    -------
    Tensor, shape (), or (B,) for ``reduction="none"``
        In nats.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import zero_inflated_negative_binomial_loss
    >>> one = torch.ones(1, 1)
    >>> zero_inflated_negative_binomial_loss(one - one, one, one, one - one)
    tensor(0.2877)
    """
    return _ZERO_INFLATED._signed(x, (mu, theta, pi), None, reduction, -1.0)
