"""Likelihoods of times until an event."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch

from fastelbo.torch import densities
from fastelbo.torch.likelihoods import Likelihood, like

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Numbers


@dataclass(eq=False, repr=False)
class Weibull(Likelihood):
    """Weibull distribution by scale and concentration; see :class:`fastelbo.Weibull`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Weibull
    >>> x, scale = torch.tensor([[3.0]]), torch.ones(1, 1)
    >>> Weibull(concentration=1.0).log_prob(x, scale)
    tensor(-3.)
    """

    scale: Numbers | Tensor | None = None
    concentration: Numbers | Tensor | None = None
    _: KW_ONLY
    observed: Tensor | None = None
    validate: bool = True

    def elements(self, x, *given):
        scale = given[0] if self.scale is None else like(self.scale, given[0])
        k = given[-1] if self.concentration is None else like(self.concentration, given[0])
        observed = True if self.observed is None else self.observed
        observed = torch.as_tensor(observed, device=x.device).to(x.dtype)
        return densities.weibull(x, scale, k, observed)
