"""Losses to minimise: modules, and drop-ins for the lines that they replace."""

from torch import nn

from fastelbo.torch.functions import negative_elbo, signed_iwae
from fastelbo.torch.likelihoods import (
    Bernoulli,
    NegativeBinomial,
    SquaredError,
    ZeroInflatedNegativeBinomial,
)
from fastelbo.torch.pairwise import signed_beta_tcvae

_BERNOULLI = Bernoulli(validate=False)
_NEGATIVE_BINOMIAL = NegativeBinomial(validate=False)
_ZERO_INFLATED = ZeroInflatedNegativeBinomial(validate=False)


class ElboLoss(nn.Module):
    """Minus the ELBO, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`.
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

    def __init__(self, likelihood=None, *, beta=1.0, free_bits=0.0, reduction="mean"):
        super().__init__()
        self.likelihood = SquaredError() if likelihood is None else likelihood
        self.beta = beta
        self.free_bits = free_bits
        self.reduction = reduction

    def forward(self, x, mu, logvar, x_recon, *, mask=None):
        """The loss of data x (B, ...), posterior (B, L) and decoder output(s)."""
        return negative_elbo(
            x,
            mu,
            logvar,
            x_recon,
            self.likelihood,
            self.beta,
            self.free_bits,
            mask,
            self.reduction,
        )

    def extra_repr(self):
        return f"likelihood={self.likelihood!r}, beta={self.beta}, free_bits={self.free_bits}"


class IwaeLoss(nn.Module):
    """Minus the importance-weighted bound, averaged over the batch.

    Parameters
    ----------
    likelihood : Likelihood, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`.
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

    def __init__(self, likelihood=None, *, prior=None, estimator="standard", reduction="mean"):
        super().__init__()
        self.likelihood = SquaredError() if likelihood is None else likelihood
        self.prior = prior
        self.estimator = estimator
        self.reduction = reduction

    def forward(self, x, z, mu, logvar, x_recon, *, mask=None):
        """The loss of data x (B, ...), samples z (K, B, L) of the posterior (B, L), and what the
        decoder makes of them, (K, B, ...)."""
        return signed_iwae(
            x,
            z,
            mu,
            logvar,
            x_recon,
            self.likelihood,
            self.prior,
            mask,
            self.estimator,
            self.reduction,
            -1.0,
        )

    def extra_repr(self):
        return f"likelihood={self.likelihood!r}, estimator={self.estimator!r}"


class BetaTCVAELoss(nn.Module):
    """Minus the beta-TCVAE objective, averaged over the batch.

    Parameters
    ----------
    dataset_size : int
        How many data points the minibatches are drawn from.
    likelihood : Likelihood, optional
        log p(x | x_recon), one of :mod:`fastelbo.torch`.
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
        dataset_size,
        likelihood=None,
        *,
        alpha=1.0,
        beta=6.0,
        gamma=1.0,
        method="mws",
        normalize=True,
        mss="paper",
        reduction="mean",
    ):
        super().__init__()
        self.dataset_size = dataset_size
        self.likelihood = SquaredError() if likelihood is None else likelihood
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.method, self.normalize, self.mss = method, normalize, mss
        self.reduction = reduction

    def forward(self, x, z, mu, logvar, x_recon, *, mask=None):
        """The loss of data x (B, ...), one sample z of each posterior (B, L) and what the decoder
        makes of it."""
        loss, _ = signed_beta_tcvae(
            x,
            z,
            mu,
            logvar,
            x_recon,
            self.likelihood,
            (self.alpha, self.beta, self.gamma),
            (self.dataset_size, self.method, self.normalize, self.mss),
            mask,
            self.reduction,
            -1.0,
        )
        return loss

    def extra_repr(self):
        weights = f"alpha={self.alpha}, beta={self.beta}, gamma={self.gamma}"
        return f"{self.dataset_size}, likelihood={self.likelihood!r}, {weights}"


def vae_loss(logits, x, mu, logvar):
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


def negative_binomial_loss(x, mu, theta, *, reduction="mean"):
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


def zero_inflated_negative_binomial_loss(x, mu, theta, pi, *, reduction="mean"):
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
