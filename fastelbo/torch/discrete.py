"""Likelihoods over counts, pixels and classes."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from fastelbo.torch import densities, stirling
from fastelbo.torch.likelihoods import Likelihood, like, log_of_scale

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Numbers


@dataclass(eq=False, repr=False)
class Poisson(Likelihood):
    """Poisson by the logarithm of the rate, or the rate; see :class:`fastelbo.Poisson`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Poisson
    >>> x, log_rate = torch.tensor([[1]]), torch.zeros(1, 1)
    >>> Poisson().log_prob(x, log_rate)
    tensor(-1.)
    """

    _: KW_ONLY
    log_input: bool = True
    validate: bool = True

    def elements(self, x, rate):
        return (stirling.poisson if self.log_input else stirling.poisson_of_rate)(x, rate)


@dataclass(eq=False, repr=False)
class Binomial(Likelihood):
    """Binomial by logits; see :class:`fastelbo.Binomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Binomial
    >>> x, logits = torch.tensor([[1]]), torch.zeros(1, 1)
    >>> Binomial(2).log_prob(x, logits)
    tensor(-0.6931)
    """

    total_count: Numbers | Tensor
    _: KW_ONLY
    validate: bool = True

    def elements(self, x, logits):
        return stirling.binomial(x, logits, like(self.total_count, logits))


class BetaBinomial(Binomial):
    """Beta-binomial by alpha and beta; see :class:`fastelbo.BetaBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import BetaBinomial
    >>> x, one = torch.tensor([[1]]), torch.ones(1, 1)
    >>> BetaBinomial(4).log_prob(x, one, one)
    tensor(-1.6094)
    """

    def elements(self, x, alpha, beta):
        return stirling.beta_binomial(x, alpha, beta, like(self.total_count, alpha))


@dataclass(eq=False, repr=False)
class DiscretizedLogistic(Likelihood):
    """The mass of a logistic in pixels' bins; see :class:`fastelbo.DiscretizedLogistic`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import DiscretizedLogistic
    >>> x, zero = torch.tensor([[1]], dtype=torch.uint8), torch.zeros(1, 1)
    >>> DiscretizedLogistic(bins=2).log_prob(x, zero, zero)
    tensor(-0.6931)
    """

    scale: Numbers | Tensor | Literal["learned"] = "learned"
    _: KW_ONLY
    bins: int = 256
    validate: bool = True

    def elements(self, x, x_recon, log_scale=None):
        log_scale = log_of_scale(self.scale, x_recon, log_scale)
        return densities.logistic_bin(x, x_recon, log_scale, self.bins - 1)


@dataclass(eq=False, repr=False)
class DiscretizedLogisticMixture(Likelihood):
    """A mixture of them; see :class:`fastelbo.DiscretizedLogisticMixture`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import DiscretizedLogisticMixture
    >>> x, zero = torch.tensor([[1]], dtype=torch.uint8), torch.zeros(1, 3, 1)
    >>> DiscretizedLogisticMixture(bins=2).log_prob(x, zero, zero, zero)
    tensor(-0.6931)
    """

    _: KW_ONLY
    bins: int = 256
    validate: bool = True

    @staticmethod
    def _like_parameters(a, axes, likelihood=None):
        return a.unsqueeze(-axes)

    def elements(self, x, logits, means, log_scales):
        at, top = -x.ndim, self.bins - 1
        masses = densities.logistic_bin(x.unsqueeze(1), means, log_scales, top)
        joint = torch.log_softmax(logits, at) + masses
        distance = densities.log_distance(x.unsqueeze(1), means, log_scales, top)
        return densities.logsumexp_or_nearest(joint, distance, logits, at)


@dataclass(eq=False, repr=False)
class Categorical(Likelihood):
    """Categorical by logits; see :class:`fastelbo.Categorical`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Categorical
    >>> x, logits = torch.tensor([[1]]), torch.zeros(1, 1, 4)
    >>> Categorical().log_prob(x, logits)
    tensor(-1.3863)
    """

    classes: int | None = None
    _: KW_ONLY
    validate: bool = True

    @staticmethod
    def _like_parameters(a, axes, likelihood=None):
        return a.unsqueeze(-1)

    def elements(self, x, logits):
        labels = x.long().expand(logits.shape[:-1]).unsqueeze(-1)
        return torch.log_softmax(logits, -1).gather(-1, labels).squeeze(-1)
