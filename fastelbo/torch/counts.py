"""Likelihoods of overdispersed counts: negative binomial, with an excess of zeros or without."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from fastelbo.torch import stirling
from fastelbo.torch.likelihoods import Likelihood, like

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Numbers


@dataclass(eq=False, repr=False)
class NegativeBinomial(Likelihood):
    """Negative binomial by mean and theta; see :class:`fastelbo.NegativeBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import NegativeBinomial
    >>> x, mean = torch.tensor([[2]]), torch.ones(1, 1)
    >>> NegativeBinomial(theta=1.0).log_prob(x, mean)
    tensor(-2.0794)
    """

    theta: Numbers | Tensor | None = None
    _: KW_ONLY
    validate: bool = True

    def elements(self, x, mean, *rest):
        theta, rest = (rest[0], rest[1:]) if self.theta is None else (like(self.theta, mean), rest)
        return self._inflated(x, stirling.negative_binomial(x, mean, theta), *rest)

    def _inflated(self, x, values):
        return values


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """With an excess of zeros; see :class:`fastelbo.ZeroInflatedNegativeBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ZeroInflatedNegativeBinomial
    >>> x, one = torch.tensor([[0]]), torch.ones(1, 1)
    >>> ZeroInflatedNegativeBinomial().log_prob(x, one, one, one - 1)
    tensor(-0.2877)
    """

    def _inflated(self, x, values, zero_logits):
        log_rest = functional.logsigmoid(-zero_logits)
        some = values + log_rest
        near = values > -1
        likely = torch.log1p(log_rest.exp() * torch.expm1(torch.where(near, values, 0.0)))
        unlikely = torch.logaddexp(functional.logsigmoid(zero_logits), some)
        return torch.where(x == 0, torch.where(near, likely, unlikely), some)
