"""Discrepancies of two sets of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastelbo._arguments import check_choice
from fastelbo.discrepancies import ESTIMATORS, KERNELS
from fastelbo.torch._bridge import function
from fastelbo.torch._tensors import check_constant, checked, narrowed

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Numbers


def mmd(
    z: Tensor,
    y: Tensor,
    *,
    kernel: Literal["rbf", "imq"] = "rbf",
    bandwidth: Numbers | Tensor | None = None,
    estimator: Literal["unbiased", "biased"] = "unbiased",
) -> Tensor:
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
    check_choice(kernel, "kernel", KERNELS)
    check_choice(estimator, "estimator", ESTIMATORS)
    half, (z, y) = checked(z=z, y=y)
    if bandwidth is not None:
        check_constant(bandwidth, "bandwidth")
        bandwidth = bandwidth.tolist() if hasattr(bandwidth, "tolist") else bandwidth
        several = isinstance(bandwidth, list | tuple)
        bandwidth = (list(bandwidth) if several else [bandwidth]) or None
    options = {"kernel": kernel, "bandwidth": bandwidth, "estimator": estimator}
    return narrowed(function("mmd", z, y, **options), half)
