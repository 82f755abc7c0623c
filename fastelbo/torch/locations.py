"""Likelihoods around a location: squared error, Gaussian, Laplace, Student's t."""

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
class SquaredError(Likelihood):
    """-||x - x_recon||^2; see :class:`fastelbo.SquaredError`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import SquaredError
    >>> x, x_recon = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> SquaredError().log_prob(x, x_recon)
    tensor(-4.)
    """

    _: KW_ONLY
    x_scale: float = 1.0

    def elements(self, x, x_recon):
        return -((x - x_recon) ** 2)


@dataclass(eq=False, repr=False)
class Gaussian(Likelihood):
    """Normal density by its mean; see :class:`fastelbo.Gaussian`.

    ``scale`` is a number, one for each feature, ``"learned"`` or ``"optimal"``.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Gaussian
    >>> zero = torch.zeros(1, 1)
    >>> Gaussian(scale=2.0).log_prob(zero, zero)
    tensor(-1.6121)
    """

    scale: Numbers | Tensor | Literal["learned", "optimal"] = 1.0
    _: KW_ONLY
    x_scale: float = 1.0

    def couples_rows(self, reduction):
        return self.scale == "optimal" and reduction not in ("mean", "sum")

    def _values(self, x, parameters, observed):
        if self.scale != "optimal":
            return self.elements(x, *parameters)
        (x_recon,) = parameters
        squares = (x - x_recon) ** 2
        squares = squares if observed is None else torch.where(observed, squares, 0.0)
        size = squares.numel() if observed is None else observed.expand_as(squares).sum()
        return densities.normal(x, x_recon, 0.5 * torch.log(squares.sum() / size))

    def elements(self, x, x_recon, log_scale=None):
        return densities.normal(x, x_recon, log_of_scale(self.scale, x_recon, log_scale))


@dataclass(eq=False, repr=False)
class Laplace(Likelihood):
    """Laplace density by its median; see :class:`fastelbo.Laplace`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Laplace
    >>> zero = torch.zeros(1, 1)
    >>> Laplace(scale=0.5).log_prob(zero + 1, zero)
    tensor(-2.)
    """

    scale: Numbers | Tensor | Literal["learned"] = 1.0
    _: KW_ONLY
    x_scale: float = 1.0

    def elements(self, x, x_recon, log_scale=None):
        return densities.laplace(x, x_recon, log_of_scale(self.scale, x_recon, log_scale))


@dataclass(eq=False, repr=False)
class StudentT(Likelihood):
    """Student's t density by its location; see :class:`fastelbo.StudentT`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import StudentT
    >>> zero = torch.zeros(1, 1)
    >>> StudentT(1.0).log_prob(zero, zero)
    tensor(-1.1447)
    """

    df: Numbers | Tensor | Literal["learned"]
    scale: Numbers | Tensor | Literal["learned"] = 1.0
    _: KW_ONLY
    x_scale: float = 1.0

    def elements(self, x, x_recon, *learned):
        log_scale = log_of_scale(self.scale, x_recon, *learned[:1])
        by_log = self.df == "learned"
        df = learned[-1] if by_log else like(self.df, x_recon)
        return stirling.student_t(x, x_recon, log_scale, df, by_log)
